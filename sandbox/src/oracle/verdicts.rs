//! The verdicts themselves, one meeting at a time.

use serde_json::Value;

use super::links::Group;
use super::shown::{Field, Shown};
use super::timeline::{Record, State};
use super::{Divergence, Duplicate, Evidence, Loop, LostEdit, Meeting, MeetingState, Report, Tally, Terms};
use crate::actor::Actor;
use crate::history::{Cloud, EffectKind};

/// Judges every group of records.
pub(super) fn reach(evidence: &Evidence, terms: &Terms, records: &[Record], groups: Vec<Group>) -> Report {
    let mut report = Report {
        judged_at: evidence.now,
        settle_secs: terms.settle.num_seconds(),
        lost: Vec::new(),
        duplicated: Vec::new(),
        looped: Vec::new(),
        diverged: Vec::new(),
        mailed: Vec::new(),
        overridden: Vec::new(),
        held_back: Vec::new(),
        meetings: Vec::new(),
        unlinked_outlook: 0,
        unlinked_salesforce: 0,
    };
    for group in groups {
        let members: Vec<&Record> = group.iter().map(|index| &records[*index]).collect();
        Case { evidence, terms, members }.judge(&mut report);
    }
    report
}

/// One meeting before the judge.
struct Case<'a> {
    evidence: &'a Evidence,
    terms: &'a Terms,
    members: Vec<&'a Record>,
}

/// What became of an edit.
enum Fate {
    /// Shown on the other side, or replaced by people.
    Fine,
    /// Lost against a simultaneous edit.
    Overridden,
    /// Neither shown nor replaced.
    Missing,
}

impl<'a> Case<'a> {
    fn judge(&self, report: &mut Report) {
        let outlook = self.on(Cloud::Outlook);
        let salesforce = self.on(Cloud::Salesforce);
        if outlook.is_empty() || salesforce.is_empty() {
            let meetings = live_meetings(&outlook).len();
            let rows = salesforce.iter().filter(|record| record.live).count();
            report.unlinked_outlook += meetings;
            report.unlinked_salesforce += rows;
            // Two live records with one link id are a duplicate even where the other side bears no stamp.
            if rows < 2 && meetings < 2 {
                return;
            }
        }
        let mut meeting = self.meeting(&outlook, &salesforce);
        let two_sided = !outlook.is_empty() && !salesforce.is_empty();
        let duplicated = self.duplicates(&outlook, &salesforce, report);
        let looped = two_sided && Self::loops(&meeting, report);
        // With several records on a side there is no pair to compare.
        let compared = if duplicated { MeetingState::Faulty } else { self.compare(&outlook, &salesforce, report) };
        meeting.state = if looped { MeetingState::Faulty } else { compared };
        report.meetings.push(meeting);
    }

    fn on(&self, cloud: Cloud) -> Vec<&'a Record> {
        self.members.iter().copied().filter(|record| record.key.0 == cloud).collect()
    }

    fn meeting(&self, outlook: &[&Record], salesforce: &[&Record]) -> Meeting {
        let mut ical_uids: Vec<String> = outlook.iter().map(|record| record.ical_uid.clone()).collect();
        ical_uids.dedup();
        let ids = |records: &[&Record]| records.iter().map(|record| record.key.1.clone()).collect();
        Meeting {
            links: self.links(),
            ical_uids,
            outlook: ids(outlook),
            salesforce: ids(salesforce),
            on_outlook: self.tally(outlook),
            on_salesforce: self.tally(salesforce),
            state: MeetingState::InStep,
        }
    }

    fn links(&self) -> Vec<String> {
        let mut links: Vec<String> = self.members.iter().flat_map(|record| record.links.iter().cloned()).collect();
        links.sort();
        links.dedup();
        links
    }

    fn tally(&self, records: &[&Record]) -> Tally {
        let mut tally = Tally::default();
        for record in records {
            for state in &record.states {
                if state.kind == EffectKind::Touch {
                    tally.touches += 1;
                } else if self.terms.is_bridge(&state.actor) {
                    tally.writes += 1;
                } else if !matches!(state.actor, Actor::Automation(_)) {
                    tally.edits += 1;
                } else if record.authority {
                    // Copies in other mailboxes only follow the organiser's: that is not an edit of its own.
                    tally.automation += 1;
                }
            }
        }
        tally
    }

    fn duplicates(&self, outlook: &[&Record], salesforce: &[&Record], report: &mut Report) -> bool {
        let rows: Vec<String> =
            salesforce.iter().filter(|record| record.live).map(|record| record.key.1.clone()).collect();
        let mut found = false;
        for (cloud, records) in [(Cloud::Salesforce, rows), (Cloud::Outlook, live_meetings(outlook))] {
            if records.len() > 1 {
                report.duplicated.push(Duplicate { cloud, records, links: self.links() });
                found = true;
            }
        }
        found
    }

    fn loops(meeting: &Meeting, report: &mut Report) -> bool {
        let sides = [
            (Cloud::Salesforce, &meeting.salesforce, meeting.on_salesforce, meeting.on_outlook),
            (Cloud::Outlook, &meeting.outlook, meeting.on_outlook, meeting.on_salesforce),
        ];
        let mut found = false;
        for (cloud, records, written, edited) in sides {
            let edits = edited.edits + edited.automation;
            if written.writes > edits {
                report.looped.push(Loop { cloud, records: records.clone(), writes: written.writes, edits });
                found = true;
            }
        }
        found
    }

    /// Compares the two records that speak for the meeting; reached only where there is no duplicate.
    fn compare(&self, outlook: &[&Record], salesforce: &[&Record], report: &mut Report) -> MeetingState {
        let (Some(one), Some(two)) = (speaker(outlook), speaker(salesforce)) else {
            return MeetingState::InStep;
        };
        if self.is_pending() {
            return MeetingState::Pending;
        }
        let mut state = if one.live || two.live { MeetingState::InStep } else { MeetingState::Deleted };
        if one.private || two.private {
            return if state == MeetingState::InStep { MeetingState::HeldBack } else { state };
        }
        let one_way = one.has_attendees && (self.terms.attendees_one_way || !one.organizer);
        for (from, to) in [(one, two), (two, one)] {
            state = worse(state, self.missing_edits(from, to, one_way, report));
        }
        worse(state, self.differences(one, two, one_way, report))
    }

    fn is_pending(&self) -> bool {
        let last = self
            .members
            .iter()
            .flat_map(|record| &record.states)
            .filter(|state| state.kind != EffectKind::Touch)
            .map(|state| state.at)
            .max();
        last.is_some_and(|last| self.evidence.now - last < self.terms.settle)
    }

    fn differences(&self, one: &Record, two: &Record, one_way: bool, report: &mut Report) -> MeetingState {
        let mut found = Vec::new();
        if one.live != two.live {
            found.push((None, Value::from(one.live), Value::from(two.live)));
        } else if one.live {
            for field in Field::ALL {
                if !Shown::agrees(&one.shown, &two.shown, field) {
                    found.push((Some(field), one.shown.value(field), two.shown.value(field)));
                }
            }
        }
        if found.is_empty() {
            return MeetingState::InStep;
        }
        let last_word_of_salesforce = self.last_edit(two) > self.last_edit(one);
        if one_way && last_word_of_salesforce {
            return MeetingState::HeldBack;
        }
        for (field, in_outlook, in_salesforce) in found {
            report.diverged.push(Divergence {
                outlook: one.key.1.clone(),
                salesforce: two.key.1.clone(),
                field,
                in_outlook: if one.live { in_outlook } else { Value::Null },
                in_salesforce: if two.live { in_salesforce } else { Value::Null },
            });
        }
        MeetingState::Faulty
    }

    fn last_edit(&self, record: &Record) -> Option<u64> {
        record.states.iter().rev().find(|state| self.is_edit(state)).map(|state| state.sequence)
    }

    fn is_edit(&self, state: &State) -> bool {
        state.kind != EffectKind::Touch && !self.terms.is_bridge(&state.actor)
    }

    /// Looks for edits of people on `from` that `to` never showed.
    fn missing_edits(&self, from: &Record, to: &Record, one_way: bool, report: &mut Report) -> MeetingState {
        let mut worst = MeetingState::InStep;
        for (index, state) in from.states.iter().enumerate() {
            if !state.actor.is_person() || !state.live || state.kind == EffectKind::Touch {
                continue;
            }
            let before = index.checked_sub(1).and_then(|before| from.states.get(before));
            for field in Field::ALL {
                if before.is_some_and(|before| before.shown.same(&state.shown, field)) {
                    continue;
                }
                let list = match self.fate(from, to, index, field) {
                    Fate::Fine => continue,
                    Fate::Overridden => &mut report.overridden,
                    Fate::Missing if one_way && from.key.0 == Cloud::Salesforce => {
                        worst = worse(worst, MeetingState::HeldBack);
                        &mut report.held_back
                    }
                    Fate::Missing => {
                        worst = MeetingState::Faulty;
                        &mut report.lost
                    }
                };
                list.push(LostEdit {
                    cloud: from.key.0,
                    record: from.key.1.clone(),
                    sequence: state.sequence,
                    at: state.at,
                    field,
                    value: state.shown.value(field),
                });
            }
        }
        worst
    }

    fn fate(&self, from: &Record, to: &Record, index: usize, field: Field) -> Fate {
        let edit = &from.states[index];
        let agrees = |mine: &Shown, theirs: &Shown| match from.key.0 {
            Cloud::Outlook => Shown::agrees(mine, theirs, field),
            Cloud::Salesforce => Shown::agrees(theirs, mine, field),
        };
        let now_there = to.states.iter().rev().find(|state| state.sequence < edit.sequence);
        let later_there = to.states.iter().filter(|state| state.sequence > edit.sequence);
        if now_there.into_iter().chain(later_there.clone()).any(|there| there.live && agrees(&edit.shown, &there.shown))
        {
            return Fate::Fine;
        }
        // Replaced or deleted later on by somebody, on either side.
        let replaced = |record: &Record| {
            record.states.windows(2).any(|pair| {
                let [before, after] = pair else { return false };
                after.sequence > edit.sequence
                    && self.is_edit(after)
                    && (!after.live || !before.shown.same(&after.shown, field))
            })
        };
        // The partner may have come into being only later, with other values, by a person.
        let born_later = to.states.first().is_some_and(|first| first.sequence > edit.sequence && self.is_edit(first));
        if replaced(from) || replaced(to) || born_later {
            return Fate::Fine;
        }
        if self.deleted_by_rival(from, to, index) {
            return Fate::Overridden;
        }
        // The bridge replaced it by what somebody had written on the other side without having seen this edit.
        let overwritten = from.states.iter().skip(index + 1).find(|state| !state.shown.same(&edit.shown, field));
        let rival = overwritten.filter(|state| self.terms.is_bridge(&state.actor)).and_then(|written| {
            to.states
                .iter()
                .rev()
                .filter(|state| state.sequence < edit.sequence && self.is_edit(state))
                .find(|state| agrees(&written.shown, &state.shown))
        });
        let unseen = rival.is_some_and(|rival| {
            let seen_before = from
                .states
                .iter()
                .filter(|state| state.sequence > rival.sequence && state.sequence < edit.sequence)
                .any(|state| agrees(&state.shown, &rival.shown));
            !seen_before
        });
        if unseen { Fate::Overridden } else { Fate::Missing }
    }

    /// Tells whether the bridge deleted the edited record because somebody had deleted its partner before the edit.
    fn deleted_by_rival(&self, from: &Record, to: &Record, index: usize) -> bool {
        let edited = from.states[index].sequence;
        let gone = from.states.iter().skip(index + 1).any(|state| !state.live && self.terms.is_bridge(&state.actor));
        let last_there = to.states.iter().rev().find(|state| state.sequence < edited);
        gone && last_there.is_some_and(|state| !state.live && self.is_edit(state))
    }
}

/// iCalUIds of meetings that still have a live copy.
fn live_meetings(outlook: &[&Record]) -> Vec<String> {
    let mut uids: Vec<String> =
        outlook.iter().filter(|record| record.live).map(|record| record.ical_uid.clone()).collect();
    uids.sort();
    uids.dedup();
    uids
}

/// The record that speaks for a side: the live authority, else the newest authority.
fn speaker<'a>(records: &[&'a Record]) -> Option<&'a Record> {
    let authorities = records.iter().copied().filter(|record| record.authority);
    authorities.max_by_key(|record| (record.live, record.states.first().map(|state| state.sequence)))
}

fn worse(one: MeetingState, two: MeetingState) -> MeetingState {
    let rank = |state: MeetingState| match state {
        MeetingState::InStep => 0,
        MeetingState::Deleted => 1,
        MeetingState::Pending => 2,
        MeetingState::HeldBack => 3,
        MeetingState::Faulty => 4,
    };
    if rank(two) > rank(one) { two } else { one }
}
