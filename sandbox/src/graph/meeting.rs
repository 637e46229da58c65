//! Meetings: how the organiser's copy reaches the attendees' mailboxes, and how their answers come back.
//!
//! Every mailbox has a copy of its own with its own id and change key and the same iCalUId. What the mail transport does
//! here is the work of [`Actor::Automation`], follows at once under the quiet profile and 1 to 30 s later under the office one.

use serde_json::Value;
use uuid::Uuid;

use super::content::{Content, Response};
use super::due::Due;
use super::error::GraphError;
use super::ids::ItemKey;
use super::mailbox::Item;
use super::tenant::{EXCHANGE, State, Tenant};
use super::zones::graph_instant;
use crate::actor::Actor;
use crate::mails::MailKind;

fn transport() -> Actor {
    Actor::Automation(EXCHANGE.to_owned())
}

impl Tenant {
    /// Accepts, tentatively accepts or declines a meeting from an attendee's copy.
    ///
    /// `answer` is `accepted`, `tentativelyAccepted` or `declined`.
    ///
    /// # Errors
    /// 400 on the organiser's own copy.
    pub fn respond(
        &self,
        actor: &Actor,
        mailbox: &str,
        id: &str,
        answer: &'static str,
        body: &Value,
    ) -> Result<(), GraphError> {
        let mut state = self.lock();
        let (found, item) = state.locate(mailbox, id)?;
        let (home, owner, item) = (found.id, found.person.address.clone(), item.into_owned());
        if item.is_organizer {
            return Err(GraphError::invalid_request(
                "Your request can't be completed. You can't respond to this meeting because you're the meeting organizer.",
            ));
        }
        let time = graph_instant(self.world.clock.now());
        if answer != "declined" {
            self.edit(&mut state, actor, home, item.key, |copy| {
                copy.response = Response { answer, time: Some(time) };
                copy.content.show_as = if answer == "accepted" { "busy" } else { "tentative" };
            })?;
        } else if item.key.original.is_some() {
            self.cancel_occurrence(&mut state, actor, home, item.key)?;
        } else {
            // A declined meeting leaves the calendar.
            self.remove(&mut state, actor, home, item.key)?;
        }
        let sends = ["sendResponse", "SendResponse"].iter().find_map(|name| body.get(*name)).and_then(Value::as_bool);
        if sends.unwrap_or(true) {
            let to = [item.organizer.address.to_lowercase()];
            self.mail(actor, home, &item, MailKind::Answer, &to);
            if let (None, Some(meeting)) = (item.key.original, item.meeting) {
                self.send_answer(&mut state, &item.organizer.address, meeting, &owner, answer);
            }
        }
        Ok(())
    }

    /// Lets the organiser's present state follow into the mailboxes of these addresses.
    ///
    /// `renew` says that the time changed, which brings a copy back that its owner had deleted.
    pub(crate) fn send_to_copies(&self, state: &mut State, home: Uuid, item: Uuid, addresses: &[String], renew: bool) {
        let mut reached: Vec<Uuid> = addresses.iter().filter_map(|address| state.mailbox_of(address)).collect();
        reached.sort_unstable();
        reached.dedup();
        for attendee in reached.into_iter().filter(|attendee| *attendee != home) {
            self.later(state, 1_000..30_000, Due::Copy { organizer: home, item, attendee, renew });
        }
    }

    /// Lets an attendee's answer reach the organiser's copy.
    pub(crate) fn send_answer(
        &self,
        state: &mut State,
        organizer: &str,
        meeting: Uuid,
        address: &str,
        answer: &'static str,
    ) {
        if let Some(organizer) = state.mailbox_of(organizer) {
            let due = Due::Answer { organizer, item: meeting, address: address.to_owned(), answer };
            self.later(state, 1_000..30_000, due);
        }
    }

    /// Brings an answer into the organiser's copy.
    pub(crate) fn take_answer(
        &self,
        state: &mut State,
        organizer: Uuid,
        item: Uuid,
        address: &str,
        answer: &'static str,
    ) -> Result<(), GraphError> {
        let key = ItemKey::whole(item);
        let time = graph_instant(self.world.clock.now());
        let invited = state.mailbox(organizer)?.items.get(&key);
        if !invited.is_some_and(|item| item.content.attendees.iter().any(|attendee| attendee.person.is(address))) {
            return Ok(());
        }
        self.edit(state, &transport(), organizer, key, |item| {
            if let Some(attendee) = item.content.attendee_mut(address) {
                attendee.response = Response { answer, time: Some(time) };
            }
        })
    }

    /// Makes an attendee's copy equal to the organiser's: created, changed or taken away.
    pub(crate) fn follow(
        &self,
        state: &mut State,
        organizer: Uuid,
        item: Uuid,
        attendee: Uuid,
        renew: bool,
    ) -> Result<(), GraphError> {
        let address = state.mailbox(attendee)?.person.address.clone();
        let original = state.mailbox(organizer)?.items.get(&ItemKey::whole(item)).cloned();
        let original = original.filter(|o| o.content.attendees.iter().any(|a| a.person.is(&address)));
        let known = state.mailbox(attendee)?.meetings.get(&item).copied();
        let copy = known
            .map(ItemKey::whole)
            .filter(|key| state.mailboxes.get(&attendee).is_some_and(|mailbox| mailbox.items.contains_key(key)));
        match (original, copy) {
            (None, None) => Ok(()),
            (None, Some(copy)) => self.remove(state, &transport(), attendee, copy),
            // The owner deleted the copy: only a new time, which is a new request, brings it back.
            (Some(_), None) if known.is_some() && !renew => Ok(()),
            (Some(original), None) => {
                let local = self.deliver_invitation(state, &original, attendee)?;
                self.follow_occurrences(state, organizer, &original, attendee, local)
            }
            (Some(original), Some(copy)) => {
                self.bring_up_to_date(state, &original, attendee, copy)?;
                self.follow_occurrences(state, organizer, &original, attendee, copy.item)
            }
        }
    }

    fn deliver_invitation(&self, state: &mut State, original: &Item, attendee: Uuid) -> Result<Uuid, GraphError> {
        let mut content = Content::new(original.content.start.clone(), original.content.end.clone());
        content.take_invitation(&without_answers(&original.content));
        content.show_as = "tentative";
        let mut copy = self.new_item(content, original.organizer.clone());
        copy.ical_uid.clone_from(&original.ical_uid);
        copy.is_organizer = false;
        copy.response = Response::of("notResponded");
        copy.meeting = Some(original.key.item);
        let uuid = copy.key.item;
        state.mailbox_mut(attendee)?.meetings.insert(original.key.item, uuid);
        self.insert(state, &transport(), attendee, copy)?;
        Ok(uuid)
    }

    fn bring_up_to_date(
        &self,
        state: &mut State,
        original: &Item,
        attendee: Uuid,
        copy: ItemKey,
    ) -> Result<(), GraphError> {
        let wanted = without_answers(&original.content);
        let Some(present) = state.mailbox(attendee)?.find(copy).map(|item| item.content.clone()) else {
            return Ok(());
        };
        let mut content = present.clone();
        content.take_invitation(&wanted);
        if content == present {
            return Ok(());
        }
        let new_time = content.start != present.start || content.end != present.end;
        if content.recurrence != present.recurrence {
            state.mailbox_mut(attendee)?.discard_exceptions(copy, self.world.clock.now());
        }
        self.edit(state, &transport(), attendee, copy, |item| {
            item.content = content;
            if new_time {
                item.response = Response::of("notResponded");
            }
        })
    }

    /// Carries edited and deleted occurrences of a series over.
    fn follow_occurrences(
        &self,
        state: &mut State,
        organizer: Uuid,
        original: &Item,
        attendee: Uuid,
        local: Uuid,
    ) -> Result<(), GraphError> {
        let known = state.mailbox(attendee)?.items.get(&ItemKey::whole(local)).map(|item| item.cancelled.clone());
        let known = known.unwrap_or_default();
        for start in original.cancelled.difference(&known) {
            let key = ItemKey::occurrence(local, *start);
            if state.mailbox(attendee)?.find(key).is_some() {
                self.cancel_occurrence(state, &transport(), attendee, key)?;
            }
        }
        let exceptions: Vec<Item> = state.mailbox(organizer)?.exceptions(original.key).cloned().collect();
        for exception in exceptions {
            if let Some(start) = exception.key.original {
                self.bring_up_to_date(state, &exception, attendee, ItemKey::occurrence(local, start))?;
            }
        }
        Ok(())
    }
}

/// An attendee's copy does not track the others' answers.
fn without_answers(content: &Content) -> Content {
    let mut content = content.clone();
    for attendee in &mut content.attendees {
        attendee.response = Response::of("none");
    }
    content
}
