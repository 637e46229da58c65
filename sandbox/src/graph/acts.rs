//! What people and applications do to events: create, change, delete, cancel, import.
//!
//! The one implementation behind REST and behind people. Decides what follows from an act (mails, copies, discarded
//! exceptions); the single change of a single item is in `changes.rs`.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::content::{Content, Person, Response};
use super::error::GraphError;
use super::ids::{self, IdForm, ItemKey};
use super::input;
use super::mailbox::Item;
use super::series;
use super::tenant::{State, Tenant, plain};
use super::view::{self, Style};
use crate::actor::Actor;
use crate::mails::{Mail, MailKind};

impl Tenant {
    /// Creates an event and returns it (ids in the immutable form, times in UTC).
    ///
    /// # Errors
    /// As Graph answers them: unknown mailbox, invalid property.
    pub fn create_event(&self, actor: &Actor, mailbox: &str, body: &Value) -> Result<Value, GraphError> {
        self.create_styled(actor, mailbox, body, &plain())
    }

    /// Changes an event, or one occurrence of a series, and returns it.
    ///
    /// # Errors
    /// As Graph answers them; 412 if `if_match` is not the present entity tag.
    pub fn update_event(
        &self,
        actor: &Actor,
        mailbox: &str,
        id: &str,
        patch: &Value,
        if_match: Option<&str>,
    ) -> Result<Value, GraphError> {
        self.update_styled(actor, mailbox, id, patch, if_match, &plain())
    }

    /// Deletes an event; on the organiser's copy this sends cancellations, on an attendee's it declines.
    ///
    /// # Errors
    /// As Graph answers them; 412 if `if_match` is not the present entity tag.
    pub fn delete_event(
        &self,
        actor: &Actor,
        mailbox: &str,
        id: &str,
        if_match: Option<&str>,
    ) -> Result<(), GraphError> {
        let mut state = self.lock();
        let (home, key) = self.checked(&state, mailbox, id, if_match)?;
        self.delete(&mut state, actor, home, key)
    }

    /// Cancels a meeting from the organiser's copy; the event leaves the calendar (it moves to Deleted Items).
    ///
    /// # Errors
    /// 400 from an attendee's copy.
    pub fn cancel_event(
        &self,
        actor: &Actor,
        mailbox: &str,
        id: &str,
        _comment: Option<&str>,
    ) -> Result<(), GraphError> {
        let mut state = self.lock();
        let (found, item) = state.locate(mailbox, id)?;
        let (home, key, is_organizer) = (found.id, item.key, item.is_organizer);
        if !is_organizer {
            return Err(GraphError::new(
                400,
                "ErrorCalendarIsNotOrganizer",
                "Your request can't be completed. You need to be an organizer to cancel a meeting.",
            ));
        }
        self.delete(&mut state, actor, home, key)
    }

    /// Puts an event into a mailbox as it stands in a calendar file, and returns it.
    ///
    /// Unlike a create this keeps `organizer` and `iCalUId` of the body, mails nobody and makes no copies: the file shows
    /// what one mailbox held.
    ///
    /// # Errors
    /// As for a create.
    pub fn import_event(&self, actor: &Actor, mailbox: &str, body: &Value) -> Result<Value, GraphError> {
        let body = input::object(body)?;
        let mut state = self.lock();
        let home = state.mailbox_id(mailbox)?;
        let owner = state.mailbox(home)?.person.clone();
        let mut item = self.new_item(input::create(body)?, owner);
        let key = item.key;
        if let Some(uid) = body.get("iCalUId").and_then(Value::as_str).filter(|uid| !uid.is_empty()) {
            uid.clone_into(&mut item.ical_uid);
        }
        let organizer = body.get("organizer").and_then(|organizer| organizer.get("emailAddress"));
        let text = |name: &str| organizer.and_then(|mail| mail.get(name)).and_then(Value::as_str);
        if let Some(address) = text("address").filter(|address| !item.organizer.is(address)) {
            let name = text("name").unwrap_or(address).to_owned();
            item.organizer = Person { name, address: address.to_owned() };
            item.is_organizer = false;
            item.response = Response::of("notResponded");
        }
        self.insert(&mut state, actor, home, item)?;
        let mailbox = state.mailbox(home)?;
        let item = mailbox.find(key).ok_or_else(GraphError::item_not_found)?;
        Ok(view::event(mailbox, &item, &plain()))
    }

    /// Makes an item that its owner organises, not yet in any mailbox.
    pub(crate) fn new_item(&self, content: Content, organizer: Person) -> Item {
        let uuid = self.draw_uuid();
        let now = self.world.clock.now();
        Item {
            key: ItemKey::whole(uuid),
            ical_uid: ids::ical_uid(uuid, now),
            change_key: String::new(),
            created: now,
            modified: now,
            modseq: 0,
            content,
            organizer,
            is_organizer: true,
            response: Response::of("organizer"),
            transaction_id: None,
            meeting: None,
            cancelled: BTreeSet::new(),
            is_exception: false,
        }
    }

    pub(crate) fn create_styled(
        &self,
        actor: &Actor,
        mailbox: &str,
        body: &Value,
        style: &Style,
    ) -> Result<Value, GraphError> {
        let body = input::object(body)?;
        let mut state = self.lock();
        let home = state.mailbox_id(mailbox)?;
        let transaction = body.get("transactionId").and_then(Value::as_str).map(str::to_owned);
        if let Some(transaction) = transaction.as_ref().filter(|_| self.world.faults.read().outlook_transaction_id) {
            // A repeated create answers the first event; after that event was deleted a new one is made (unconfirmed).
            let found = state.mailbox(home)?;
            if let Some(item) = found.transactions.get(transaction).and_then(|key| found.items.get(key)) {
                return Ok(view::event(found, item, style));
            }
        }
        let owner = state.mailbox(home)?.person.clone();
        let content = input::create(body)?;
        let mails = invited(&content, &owner.address);
        let mut item = self.new_item(content, owner);
        item.transaction_id.clone_from(&transaction);
        let key = item.key;
        let told = item.clone();
        self.insert(&mut state, actor, home, item)?;
        if let Some(transaction) = transaction {
            state.mailbox_mut(home)?.transactions.insert(transaction, key);
        }
        self.mail(actor, home, &told, MailKind::Invitation, &mails);
        self.send_to_copies(&mut state, home, key.item, &mails, true);
        let mailbox = state.mailbox(home)?;
        let item = mailbox.find(key).ok_or_else(GraphError::item_not_found)?;
        Ok(view::event(mailbox, &item, style))
    }

    pub(crate) fn update_styled(
        &self,
        actor: &Actor,
        mailbox: &str,
        id: &str,
        patch: &Value,
        if_match: Option<&str>,
        style: &Style,
    ) -> Result<Value, GraphError> {
        let patch = input::object(patch)?;
        let mut state = self.lock();
        let (home, key) = self.checked(&state, mailbox, id, if_match)?;
        let owner = state.mailbox(home)?.person.address.clone();
        let item = state.mailbox(home)?.find(key).ok_or_else(GraphError::item_not_found)?.into_owned();
        let mut content = item.content.clone();
        input::apply(&mut content, patch)?;
        if let Some(original) = key.original {
            content.recurrence = None;
            if let Some(master) = state.mailbox(home)?.items.get(&key.master()) {
                series::check_boundary(master, original, &content.start)?;
            }
        }
        let before = item.content.clone();
        let now = self.world.clock.now();
        self.edit(&mut state, actor, home, key, |item| item.content = content)?;
        let after = state.mailbox(home)?.find(key).ok_or_else(GraphError::item_not_found)?.content.clone();
        let moved = after.recurrence != before.recurrence
            || (after.recurrence.is_some() && (after.start != before.start || after.end != before.end));
        if key.original.is_none() && moved {
            // A new pattern or time of a series discards its exceptions (unconfirmed).
            let home = state.mailbox_mut(home)?;
            home.discard_exceptions(key, now);
            if let Some(master) = home.items.get_mut(&key) {
                master.cancelled.clear();
            }
        }
        if item.is_organizer {
            let (old, new) = (invited(&before, &owner), invited(&after, &owner));
            let everybody = after.mails_everybody(&before);
            let (kept, added): (Vec<String>, Vec<String>) =
                new.iter().cloned().partition(|address| old.contains(address));
            let removed: Vec<String> = old.iter().filter(|address| !new.contains(address)).cloned().collect();
            if everybody {
                self.mail(actor, home, &item, MailKind::Update, &kept);
            }
            self.mail(actor, home, &item, MailKind::Invitation, &added);
            self.mail(actor, home, &item, MailKind::Cancellation, &removed);
            if everybody || after.attendees != before.attendees {
                let mut all = old;
                all.extend(new);
                let retimed = after.start != before.start || after.end != before.end || moved;
                self.send_to_copies(&mut state, home, key.item, &all, retimed);
            }
        }
        let mailbox = state.mailbox(home)?;
        let item = mailbox.find(key).ok_or_else(GraphError::item_not_found)?;
        Ok(view::event(mailbox, &item, style))
    }

    /// Deletes an item, or one occurrence of a series, with everything that follows from it.
    fn delete(&self, state: &mut State, actor: &Actor, home: Uuid, key: ItemKey) -> Result<(), GraphError> {
        let item = state.mailbox(home)?.find(key).ok_or_else(GraphError::item_not_found)?.into_owned();
        let owner = state.mailbox(home)?.person.address.clone();
        if key.original.is_some() {
            self.cancel_occurrence(state, actor, home, key)?;
        } else {
            self.remove(state, actor, home, key)?;
        }
        if item.is_organizer {
            let mails = invited(&item.content, &owner);
            self.mail(actor, home, &item, MailKind::Cancellation, &mails);
            self.send_to_copies(state, home, key.item, &mails, false);
        } else if let (None, Some(meeting)) = (key.original, item.meeting) {
            // The organiser learns of it by mail and sees the attendee as declined.
            self.mail(actor, home, &item, MailKind::Answer, &[item.organizer.address.to_lowercase()]);
            self.send_answer(state, &item.organizer.address, meeting, &owner, "declined");
        }
        Ok(())
    }

    /// Counts and notes one mail to each recipient about an item that was just written.
    pub(crate) fn mail(&self, actor: &Actor, home: Uuid, item: &Item, kind: MailKind, recipients: &[String]) {
        if recipients.is_empty() {
            return;
        }
        let now = self.world.clock.now();
        self.world.meters.mails(actor, recipients.len() as u64);
        self.world.mails.note(Mail {
            at: now,
            sequence: self.world.history.len() as u64,
            actor: actor.clone(),
            kind,
            mailbox: home.to_string(),
            record: ids::encode(IdForm::Immutable, home, item.key),
            ical_uid: item.ical_uid.clone(),
            recipients: recipients.to_vec(),
            past: item.content.end.instant() < now,
        });
    }

    /// Finds an event and holds a client to its `If-Match`.
    fn checked(
        &self,
        state: &State,
        mailbox: &str,
        id: &str,
        if_match: Option<&str>,
    ) -> Result<(Uuid, ItemKey), GraphError> {
        let (mailbox, item) = state.locate(mailbox, id)?;
        if let Some(wanted) = if_match.filter(|_| self.world.faults.read().outlook_if_match) {
            let present = ids::etag(&item.change_key);
            let strong = present.trim_start_matches("W/");
            let fits = wanted.split(',').map(str::trim).any(|tag| tag == "*" || tag == present || tag == strong);
            if !fits {
                return Err(GraphError::conflict());
            }
        }
        Ok((mailbox.id, item.key))
    }
}

/// Returns whom Exchange mails about the event: all attendees but the organiser.
fn invited(content: &Content, owner: &str) -> Vec<String> {
    let others = content.attendees.iter().filter(|attendee| !attendee.person.is(owner));
    others.map(|attendee| attendee.person.address.to_lowercase()).collect()
}
