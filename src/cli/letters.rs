//! `holds` and `dead-letters`: what waits for a person, and what the person says.
//!
//! An answer is taken down in the database; the engine follows it within a second, or when it next runs.

use calbridge_core::case::Instruction;
use calbridge_core::ids::{LaneId, MailboxId};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use chrono::SecondsFormat;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde_json::{Value, json};

use super::args::{
    ConfigArgs, DeadLettersArgs, DeadLettersCommand, HoldsArgs, HoldsCommand, KeptSide, ListArgs, PickArgs, ShowArgs,
};
use super::backend::{Backend, Failure, TraceRequest};
use super::config;
use super::output::{Exit, Output};
use crate::clock::EngineClock;
use crate::config::Config;
use crate::ports::{Clock as _, EnrolmentRow, OpenLetter};

/// Most that are read at once; whoever has more answers them with `--all` again.
const MOST: usize = 100_000;

/// Most that a table shows.
const SHOWN: usize = 200;

/// Fewest characters of an id that name it.
const SHORTEST: usize = 6;

/// Which list is meant.
#[derive(Debug, Clone, Copy)]
enum List {
    Holds,
    DeadLetters,
}

impl List {
    fn noun(self, count: usize) -> &'static str {
        match (self, count) {
            (Self::Holds, 1) => "hold",
            (Self::Holds, _) => "holds",
            (Self::DeadLetters, 1) => "dead letter",
            (Self::DeadLetters, _) => "dead letters",
        }
    }
}

/// Runs `holds`.
pub(super) async fn holds(args: &HoldsArgs, backend: &dyn Backend, output: &mut Output<'_>) -> Exit {
    match &args.command {
        HoldsCommand::List(args) => list(List::Holds, args, backend, output).await,
        HoldsCommand::Approve(args) => answer(List::Holds, args, Instruction::Approve, backend, output).await,
        HoldsCommand::Discard(args) => answer(List::Holds, args, Instruction::Discard, backend, output).await,
    }
}

/// Runs `dead-letters`.
pub(super) async fn dead_letters(args: &DeadLettersArgs, backend: &dyn Backend, output: &mut Output<'_>) -> Exit {
    let (args, instruction) = match &args.command {
        DeadLettersCommand::List(args) => return list(List::DeadLetters, args, backend, output).await,
        DeadLettersCommand::Show(args) => return show(args, backend, output).await,
        DeadLettersCommand::Retry(args) => (args, Instruction::Retry),
        DeadLettersCommand::Skip(args) => (args, Instruction::Skip),
        DeadLettersCommand::Keep(args) => {
            let side = match args.side {
                KeptSide::Outlook => Side::Outlook,
                KeptSide::Salesforce => Side::Salesforce,
            };
            (&args.pick, Instruction::Keep(side))
        }
    };
    answer(List::DeadLetters, args, instruction, backend, output).await
}

/// What is open, and who the mailboxes are.
struct Desk {
    config: Config,
    letters: Vec<OpenLetter>,
    enrolments: Vec<EnrolmentRow>,
}

impl Desk {
    fn address<'a>(&'a self, mailbox: &'a MailboxId) -> &'a str {
        let row = self.enrolments.iter().find(|row| row.enrolment.mailbox == *mailbox);
        row.map_or(mailbox.as_str(), |row| row.address.as_str())
    }

    /// Keeps what a filter names.
    ///
    /// # Errors
    /// Says which filter names nothing that exists.
    fn filter(&mut self, reason: Option<&str>, mailbox: Option<&str>) -> Result<(), String> {
        if let Some(text) = reason {
            let reason = Reason::find(text)
                .ok_or_else(|| format!("`{text}` is no reason; `calbridge explain` lists all of them"))?;
            self.letters.retain(|open| open.letter.reason == reason);
        }
        if let Some(address) = mailbox {
            let row = self.enrolments.iter().find(|row| row.address.eq_ignore_ascii_case(address));
            let row = row.ok_or_else(|| format!("`{address}` is not enrolled; `calbridge status` lists who is"))?;
            let mailbox = row.enrolment.mailbox.clone();
            self.letters.retain(|open| open.mailbox.as_ref() == Some(&mailbox));
        }
        Ok(())
    }
}

async fn desk(list: List, args: &ConfigArgs, backend: &dyn Backend, output: &mut Output<'_>) -> Result<Desk, Exit> {
    let config = config::load(args).map_err(|problems| {
        output.problems(&problems);
        Exit::Refused
    })?;
    let read = async {
        let store = backend.open_store(&config).await?;
        let letters = store.letters(matches!(list, List::Holds), MOST).await?;
        let enrolments = store.enrolments(&config.connection).await?;
        Ok::<_, Failure>((letters, enrolments))
    };
    match read.await {
        Ok((letters, enrolments)) => Ok(Desk { config, letters, enrolments }),
        Err(failure) => Err(failed(&failure, output)),
    }
}

fn failed(failure: &Failure, output: &mut Output<'_>) -> Exit {
    output.complain(&failure.to_string());
    match failure {
        Failure::Refused(_) => Exit::Refused,
        Failure::Failed(_) => Exit::Failed,
    }
}

async fn list(list: List, args: &ListArgs, backend: &dyn Backend, output: &mut Output<'_>) -> Exit {
    let mut desk = match desk(list, &args.config, backend, output).await {
        Ok(desk) => desk,
        Err(exit) => return exit,
    };
    if let Err(problem) = desk.filter(args.reason.as_deref(), args.mailbox.as_deref()) {
        output.complain(&problem);
        return Exit::Refused;
    }
    if args.json {
        let rows: Vec<Value> = desk.letters.iter().map(|open| as_json(&desk, open)).collect();
        output.json(&rows);
        return Exit::Done;
    }
    if desk.letters.is_empty() {
        output.print(match list {
            List::Holds => "nothing is held",
            List::DeadLetters => "there are no dead letters",
        });
        return Exit::Done;
    }
    output.print(&table(&desk));
    if desk.letters.len() > SHOWN {
        output.print(&format!("{} more; `--json` prints all", desk.letters.len() - SHOWN));
    }
    output.print(match list {
        List::Holds => "`calbridge holds approve ID` does it, `calbridge holds discard ID` does not; `calbridge trace` tells the story",
        List::DeadLetters => {
            "`calbridge dead-letters show ID` tells the story; `retry`, `skip`, or `keep outlook|salesforce` ends it"
        }
    });
    Exit::Done
}

fn as_json(desk: &Desk, open: &OpenLetter) -> Value {
    json!({
        "id": open.id,
        "at": open.letter.at,
        "reason": open.letter.reason,
        "code": open.letter.reason.code(),
        "words": open.letter.reason.words(),
        "detail": open.letter.detail,
        "link": open.letter.link,
        "mailbox": open.mailbox.as_ref().map(|mailbox| desk.address(mailbox)),
        "outlook_event_id": open.outlook,
        "salesforce_id": open.salesforce,
        "record": open.letter.record.as_ref().map(calbridge_core::ids::RecordId::key),
        "answered": open.instruction,
        "message": open.letter.message,
    })
}

fn table(desk: &Desk) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_width(100);
    table.set_header(["id", "since", "reason", "mailbox", "salesforce", "what"]);
    for open in desk.letters.iter().take(SHOWN) {
        let what = match (&open.instruction, &open.letter.message) {
            (Some(_), _) => "answered; the engine follows".to_owned(),
            (None, Some(about)) => {
                format!("message, {} bytes, {} times: {}", about.size, about.times, open.letter.detail)
            }
            (None, None) if open.letter.detail.is_empty() => open.letter.reason.words().to_owned(),
            (None, None) => open.letter.detail.clone(),
        };
        table.add_row([
            short(&open.id).to_owned(),
            open.letter.at.to_rfc3339_opts(SecondsFormat::Secs, true),
            open.letter.reason.name().to_owned(),
            open.mailbox.as_ref().map(|mailbox| desk.address(mailbox).to_owned()).unwrap_or_default(),
            open.salesforce.clone().unwrap_or_default(),
            what,
        ]);
    }
    table.to_string()
}

/// Returns the beginning of an id; ids that are made in the same millisecond differ behind it, so it is long.
fn short(id: &str) -> &str {
    id.get(..23).unwrap_or(id)
}

async fn answer(
    list: List,
    args: &PickArgs,
    instruction: Instruction,
    backend: &dyn Backend,
    output: &mut Output<'_>,
) -> Exit {
    let mut desk = match desk(list, &args.config, backend, output).await {
        Ok(desk) => desk,
        Err(exit) => return exit,
    };
    if let Err(problem) = desk.filter(args.reason.as_deref(), args.mailbox.as_deref()) {
        output.complain(&problem);
        return Exit::Refused;
    }
    let picked = match pick(list, &desk.letters, args) {
        Ok(picked) => picked,
        Err(problem) => {
            output.complain(&problem);
            return Exit::NotFound;
        }
    };
    let lanes: Vec<LaneId> = picked.iter().filter_map(|open| open.lane).collect();
    let messages: Vec<&str> = picked.iter().filter(|open| open.lane.is_none()).map(|open| open.id.as_str()).collect();
    if !messages.is_empty() && instruction != Instruction::Skip {
        output.complain(
            "a message that could not be read cannot be tried again: the periodic comparison finds what it spoke of; \
             `calbridge dead-letters skip ID` closes it",
        );
        if lanes.is_empty() {
            return Exit::Failed;
        }
    }
    match take_down(&desk.config, &lanes, &messages, instruction, backend).await {
        Ok(taken) => {
            if args.json {
                output.json(&json!({ "answered": taken, "instruction": instruction }));
            } else {
                let words = if taken == 1 { "is" } else { "are" };
                output.print(&format!(
                    "{taken} {} {words} answered; a running engine follows within seconds",
                    list.noun(usize::try_from(taken).unwrap_or(usize::MAX))
                ));
            }
            Exit::Done
        }
        Err(failure) => failed(&failure, output),
    }
}

async fn take_down(
    config: &Config,
    lanes: &[LaneId],
    messages: &[&str],
    instruction: Instruction,
    backend: &dyn Backend,
) -> Result<u64, Failure> {
    let store = backend.open_desk(config).await?;
    let now = EngineClock::wall().now();
    let mut taken = if lanes.is_empty() { 0 } else { store.instruct(lanes, instruction).await? };
    if instruction == Instruction::Skip {
        for id in messages {
            taken += u64::from(store.close_message(id, now).await?);
        }
    }
    Ok(taken)
}

/// Finds what the arguments name.
///
/// # Errors
/// Says which id names nothing, or more than one.
fn pick<'a>(list: List, letters: &'a [OpenLetter], args: &PickArgs) -> Result<Vec<&'a OpenLetter>, String> {
    if args.all {
        return match letters {
            [] => Err(format!("there are no such {}", list.noun(2))),
            letters => Ok(letters.iter().collect()),
        };
    }
    args.ids.iter().map(|id| one(list, letters, id)).collect()
}

fn one<'a>(list: List, letters: &'a [OpenLetter], id: &str) -> Result<&'a OpenLetter, String> {
    let is_named = |open: &&OpenLetter| {
        let link = open.letter.link.map(|link| link.to_string());
        let record = open.letter.record.as_ref().map(|record| record.remote_id().to_owned());
        let whole = [link.as_deref(), record.as_deref(), open.outlook.as_deref(), open.salesforce.as_deref()];
        whole.contains(&Some(id)) || (id.len() >= SHORTEST && open.id.starts_with(id))
    };
    let mut found = letters.iter().filter(is_named);
    let noun = list.noun(1);
    match (found.next(), found.next()) {
        (Some(open), None) => Ok(open),
        (None, _) => Err(format!("no {noun} is named by `{id}`; `list` shows them all")),
        (Some(_), Some(_)) => Err(format!("`{id}` names more than one {noun}; give more of its id")),
    }
}

async fn show(args: &ShowArgs, backend: &dyn Backend, output: &mut Output<'_>) -> Exit {
    let desk = match desk(List::DeadLetters, &args.config, backend, output).await {
        Ok(desk) => desk,
        Err(exit) => return exit,
    };
    let open = match one(List::DeadLetters, &desk.letters, &args.id) {
        Ok(open) => open,
        Err(problem) => {
            output.complain(&problem);
            return Exit::NotFound;
        }
    };
    let name = match (&open.letter.link, &open.letter.record) {
        (Some(link), _) => link.to_string(),
        (None, Some(record)) => record.remote_id().to_owned(),
        (None, None) => open.id.clone(),
    };
    match backend.trace(&desk.config, &TraceRequest::Anything(name), args.values).await {
        Ok(story) if args.json => output.json(&json!({ "dead_letter": as_json(&desk, open), "story": story.json })),
        Ok(story) => {
            let letter = &open.letter;
            output.print(&format!("dead letter {}: {} ({})", open.id, letter.reason.words(), letter.reason.code()));
            output.print(story.text.trim_end());
        }
        Err(failure) => return failed(&failure, output),
    }
    Exit::Done
}
