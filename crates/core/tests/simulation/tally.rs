//! Who did what about a meeting, and what the engine may do because of it.

use calbridge_core::link::{Action, Intent};
use calbridge_core::policy::{DeleteConflict, MailPolicy};
use calbridge_core::reason::Reason;
use calbridge_core::side::{BothSides, Side};
use calbridge_core::value::Value;
use chrono::{DateTime, TimeDelta, Utc};

use crate::swarm::Kind;
use crate::world::{Author, FIELDS, LAG, Row, World, field_of};

/// How long a mail waits for quiet after an earlier one, and a deletion that mails always.
const MAIL_QUIET: TimeDelta = TimeDelta::seconds(60);

/// How long a deletion waits in case it is one of many.
const DELETE_WAIT: TimeDelta = TimeDelta::seconds(10);

/// Who changed what about one meeting, for the judgement.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) kind: Kind,
    pub(crate) edits: BothSides<u32>,
    pub(crate) deletes: BothSides<u32>,
    pub(crate) flips: BothSides<u32>,
    pub(crate) writes: BothSides<u32>,
    pub(crate) creates: BothSides<u32>,
    /// Rule and value of what a write of the engine replaced or deleted before the other side ever showed it.
    pub(crate) replaced: Vec<(usize, Value)>,
    /// The same, where a person wrote between the engine's read and its write, and no change event tells of it.
    pub(crate) overwritten_unseen: u32,
    /// A late request took effect although it had been repeated or given up, because Outlook ignored its precondition.
    pub(crate) unrefused: u32,
    /// A creation was repeated after a person had deleted what the first one made, unseen, and Outlook had forgotten it.
    pub(crate) recreated: u32,
    /// A mail was put down to a person who had changed something else, because the change event was lost that says so.
    pub(crate) misattributed: u32,
    /// A write was refused for good.
    pub(crate) refused: bool,
    /// What people did in Salesforce that Exchange may mail about.
    causes: Vec<Cause>,
    /// Edits that no person made; they are among the edits as well.
    pub(crate) automated: u32,
    /// Holds that a person approved, and that no write has used: whether it deletes, and when.
    pub(crate) approvals: Vec<(bool, DateTime<Utc>)>,
    /// Holds that a person discarded.
    pub(crate) discards: u32,
    /// How often a person brought the meeting back, and how many deletions that undid.
    pub(crate) restored: u32,
    pub(crate) undone: u32,
    /// When the first record of a side was deleted or called off by somebody else than the engine.
    pub(crate) gone_at: BothSides<Option<DateTime<Utc>>>,
}

/// Something that a person did in Salesforce; explains one mail.
#[derive(Debug, Clone)]
struct Cause {
    /// Rules and what they were set to.
    set: Vec<(usize, Value)>,
    deletes: bool,
    used: bool,
    at: DateTime<Utc>,
    /// Its change event was not lost.
    told: bool,
    /// When the row changed again, whoever did that.
    until: Option<DateTime<Utc>>,
}

impl Cause {
    /// Tells whether a write that mails carries it.
    fn is_carried(&self, intent: &Intent) -> bool {
        if matches!(intent.action, Action::Delete(_)) {
            return self.deletes && self.told;
        }
        self.set.iter().any(|(rule, value)| intent.fields.get(field_of(*rule, intent.side)) == Some(value))
    }

    /// Tells whether a row that was read for a write named this person as its last author, and no event says what it was
    /// that the person changed.
    fn is_mistaken(&self, intent: &Intent) -> bool {
        let updates = matches!(intent.action, Action::Update(_)) && !self.deletes;
        updates && !self.told && self.until.is_none_or(|until| until + LAG > intent.recorded_at)
    }
}

/// A write that is limited.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    pub(crate) meeting: usize,
    /// When it was recorded.
    pub(crate) at: DateTime<Utc>,
    /// A person had approved it.
    pub(crate) approved: bool,
}

impl Tally {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            edits: BothSides::default(),
            deletes: BothSides::default(),
            flips: BothSides::default(),
            writes: BothSides::default(),
            creates: BothSides::default(),
            replaced: Vec::new(),
            overwritten_unseen: 0,
            unrefused: 0,
            recreated: 0,
            misattributed: 0,
            refused: false,
            causes: Vec::new(),
            automated: 0,
            approvals: Vec::new(),
            discards: 0,
            restored: 0,
            undone: 0,
            gone_at: BothSides::default(),
        }
    }

    /// How many records may be made for the meeting.
    pub(crate) fn generations(&self, conflict: DeleteConflict) -> u32 {
        let deletes = self.deletes.outlook + self.deletes.salesforce;
        1 + self.restored + if conflict == DeleteConflict::EditWins { deletes } else { 0 }
    }

    /// Takes note that a person wants the meeting back.
    pub(crate) fn lives_again(&mut self) {
        self.restored += 1;
        self.undone = self.deletes.outlook + self.deletes.salesforce;
        self.gone_at = BothSides::default();
    }

    /// Takes note of a change of the row in Salesforce: whoever made the one before is not its last author any more.
    pub(crate) fn note_change(
        &mut self,
        author: Author,
        (before, after): (Option<&Row>, &Row),
        changed: u8,
        told: bool,
    ) {
        let at = after.shown.modified;
        if let Some(last) = self.causes.last_mut() {
            last.until.get_or_insert(at);
        }
        let deletes = after.deleted && before.is_none_or(|before| !before.deleted);
        if author != Author::Person || changed == 0 && !deletes {
            return;
        }
        let rules = (0..FIELDS.len()).filter(|rule| changed & 1 << rule != 0);
        let value = |rule| Some((rule, after.shown.fields.get(field_of(rule, Side::Salesforce))?.clone()));
        let set = rules.filter_map(value).collect();
        self.causes.push(Cause { set, deletes, used: false, at, told, until: None });
    }
}

impl World {
    /// Asks of a write that took effect whether it might leave: who caused it, and how long it waited.
    pub(crate) fn ask_about(&mut self, meeting: usize, intent: &Intent, mails: bool, over: bool) {
        let deletes = matches!(intent.action, Action::Delete(_)) && intent.reason != Reason::BecamePrivate;
        if !mails && !deletes {
            return;
        }
        let (at, policy) = (intent.recorded_at, self.swarm.mail);
        let tally = &mut self.meetings[meeting];
        let approval = tally.approvals.iter().position(|approval| approval.0 == deletes && approval.1 <= at);
        let approved = approval.map(|index| tally.approvals.remove(index)).is_some();
        let gone_at = *tally.gone_at.get(intent.side.other());
        let mut broken = None;
        if mails {
            if policy == MailPolicy::Never {
                broken = Some("M1: a mail although the policy is `never`");
            } else if over {
                broken = Some("M2: a mail about a meeting that is over");
            } else if policy == MailPolicy::PersonEdits && !approved {
                let mut unused = tally.causes.iter_mut().rev().filter(|cause| !cause.used && cause.at <= at);
                let carried = unused.find(|cause| cause.is_carried(intent)).map(|cause| cause.used = true);
                if carried.is_none() {
                    let mut unused = tally.causes.iter_mut().rev().filter(|cause| !cause.used && cause.at <= at);
                    match unused.find(|cause| cause.is_mistaken(intent)) {
                        Some(cause) => {
                            cause.used = true;
                            tally.misattributed += 1;
                        }
                        None => broken = Some("M3: a mail that no person's edit caused"),
                    }
                }
            }
            let close = |mail: &Use| mail.meeting == meeting && (at - mail.at).abs() < MAIL_QUIET;
            if !approved && !deletes && self.mails.iter().any(close) {
                broken = broken.or(Some("M4: two mails about one meeting within a minute"));
            }
            self.mails.push(Use { meeting, at, approved });
        }
        if deletes {
            let wait = if mails { MAIL_QUIET } else { DELETE_WAIT };
            if !approved && gone_at.is_some_and(|gone_at| at - gone_at < wait) {
                broken = broken.or(Some("S10: a deletion left without waiting"));
            }
            self.deletions.push(Use { meeting, at, approved });
        }
        if let Some(broken) = broken {
            self.breaks(|| broken.to_owned());
        }
    }

    /// Takes note that a person or automation edits a record.
    pub(crate) fn count_edit(&mut self, author: Author, meeting: usize, side: Side) {
        let tally = &mut self.meetings[meeting];
        *tally.edits.get_mut(side) += 1;
        tally.automated += u32::from(author == Author::Automation);
    }

    /// Takes note that somebody deletes or calls off what is there of a meeting on a side.
    pub(crate) fn count_delete(&mut self, author: Author, meeting: usize, side: Side) {
        let now = self.now;
        let tally = &mut self.meetings[meeting];
        *tally.deletes.get_mut(side) += 1;
        tally.automated += u32::from(author == Author::Automation);
        tally.gone_at.get_mut(side).get_or_insert(now);
    }

    pub(crate) fn count_write(&mut self, meeting: usize, side: Side) {
        let tally = &mut self.meetings[meeting];
        let from = side.other();
        *tally.writes.get_mut(side) += 1;
        // What undid a write of ours without being refused makes it necessary once more.
        let undone = if side == Side::Outlook { tally.unrefused } else { 0 };
        let mut people = tally.edits.get(from) + tally.deletes.get(from) + tally.flips.get(from);
        if self.swarm.delete_conflict == DeleteConflict::EditWins {
            // A deletion may be undone, although the edit that wins had crossed: where its answer was lost, nobody knows.
            people += tally.deletes.get(side);
        }
        // The first read of another mailbox's copy may lag, and nobody can tell: a value goes back, and forth again.
        people += 2 * u32::from(tally.kind != Kind::Plain && self.swarm.rates.stale_reads > 0);
        let (writes, caused) = (*tally.writes.get(side), people + undone);
        if writes > caused {
            self.breaks(|| format!("S2: {writes} writes to {side} for {caused} edits on {from}"));
        }
    }
}
