//! Reads calendar exports (iCalendar, RFC 5545) as real programs write them.
//!
//! Owns everything from bytes to Graph event bodies; knows nothing of mailboxes. A line, zone or event that cannot be
//! read becomes a row of [`CalendarFile::not_loaded`] with its reason and never stops the rest of the file.
//!
//! ```text
//!   bytes -> lines (unfold, decode, parse) -> components (nesting) -> zones (names, VTIMEZONE) -> event (one VEVENT)
//!                                                                          times, recurrence
//! ```

mod components;
mod custom_zone;
mod event;
mod lines;
mod recurrence;
mod times;
mod zones;

#[cfg(test)]
mod real_files;

use chrono_tz::Tz;
use serde::Serialize;
use serde_json::Value;

use self::components::Component;
use self::zones::Zones;

pub use self::event::{EventStart, ImportedEvent};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;
/// Most events taken from one file; the rest is counted, not loaded.
pub const MAX_EVENTS: usize = 20_000;
/// Most rows of [`CalendarFile::not_loaded`]; further ones are only counted.
pub const MAX_NOT_LOADED: usize = 2_000;

/// Says why a whole file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CalendarFileError {
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("the file has `{bytes}` bytes, more than the {MAX_FILE_BYTES} that are read; export a shorter period")]
    TooLarge {
        /// Size of the file.
        bytes: usize,
    },
    /// No `BEGIN:VCALENDAR` was found.
    #[error("no `BEGIN:VCALENDAR` line found; give a file in iCalendar format (.ics)")]
    NotACalendar,
}

/// What a calendar export holds, in the order of the file.
#[derive(Debug, Clone, Serialize)]
pub struct CalendarFile {
    /// The calendar's own name (`X-WR-CALNAME`), where it has one.
    pub name: Option<String>,
    /// Events that can be created in a mailbox.
    pub events: Vec<ImportedEvent>,
    /// What could not be loaded, each with its reason.
    pub not_loaded: Vec<NotLoaded>,
    /// Rows left off `not_loaded` because there were more than [`MAX_NOT_LOADED`].
    pub not_loaded_beyond: usize,
}

/// One thing of a file that does not become an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotLoaded {
    /// Line of the file, from 1.
    pub line: usize,
    /// Kind of thing: `VEVENT`, `VTODO`, `VTIMEZONE`, `line`.
    pub what: String,
    /// Subject of the event, where it has one.
    pub subject: Option<String>,
    /// Why, in words.
    pub reason: String,
}

/// Reads one calendar export.
///
/// `home` is the zone of the mailbox that the file goes into: it is the zone of times that name none (unless the file
/// has an `X-WR-TIMEZONE`) and of all-day events.
///
/// # Errors
/// [`CalendarFileError`] for a file that is too large or no calendar at all.
pub fn read(bytes: &[u8], home: Tz) -> Result<CalendarFile, CalendarFileError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(CalendarFileError::TooLarge { bytes: bytes.len() });
    }
    let mut losses = Losses::default();
    let content = lines::read(bytes, &mut losses);
    let calendars = components::assemble(content, &mut losses);
    if calendars.is_empty() {
        return Err(CalendarFileError::NotACalendar);
    }
    let mut events = Vec::new();
    let mut name = None;
    for calendar in &calendars {
        name = name.or_else(|| calendar.text("X-WR-CALNAME"));
        let zones = Zones::of(calendar, home, &mut losses);
        for component in &calendar.children {
            read_component(component, &zones, &mut events, &mut losses);
        }
    }
    losses.rows.sort_by_key(|row| row.line);
    Ok(CalendarFile { name, events, not_loaded: losses.rows, not_loaded_beyond: losses.beyond })
}

fn read_component(component: &Component, zones: &Zones, events: &mut Vec<ImportedEvent>, losses: &mut Losses) {
    match component.name.as_str() {
        "VEVENT" if events.len() >= MAX_EVENTS => {
            losses.component(component, format!("the file has more than {MAX_EVENTS} events"));
        }
        "VEVENT" => match event::read(component, zones) {
            Ok(event) => events.push(event),
            Err(reason) => losses.component(component, reason),
        },
        "VTIMEZONE" => {}
        "VTODO" => losses.component(component, "a task, not an event".to_owned()),
        "VJOURNAL" => losses.component(component, "a journal entry, not an event".to_owned()),
        "VFREEBUSY" => losses.component(component, "free/busy times, not an event".to_owned()),
        other => losses.component(component, format!("a `{other}`, not an event")),
    }
}

/// Collects what could not be loaded, up to a limit.
#[derive(Debug, Default)]
struct Losses {
    rows: Vec<NotLoaded>,
    beyond: usize,
}

impl Losses {
    fn push(&mut self, row: NotLoaded) {
        if self.rows.len() < MAX_NOT_LOADED {
            self.rows.push(row);
        } else {
            self.beyond += 1;
        }
    }

    fn line(&mut self, line: usize, reason: impl Into<String>) {
        self.push(NotLoaded { line, what: "line".to_owned(), subject: None, reason: reason.into() });
    }

    fn component(&mut self, component: &Component, reason: String) {
        self.push(NotLoaded {
            line: component.line,
            what: component.name.clone(),
            subject: component.text("SUMMARY").filter(|subject| !subject.is_empty()),
            reason,
        });
    }
}

/// Returns a Graph `dateTimeTimeZone` object.
fn graph_time(local: chrono::NaiveDateTime, zone: &str) -> Value {
    serde_json::json!({ "dateTime": local.format("%Y-%m-%dT%H:%M:%S.0000000").to_string(), "timeZone": zone })
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};

    use super::*;

    const SAMPLE: &str = "BEGIN:VCALENDAR\r\nX-WR-TIMEZONE:Europe/Paris\r\nBEGIN:VTIMEZONE\r\nTZID:Own\r\nBEGIN:STANDARD\r\n\
        DTSTART:16010101T030000\r\nTZOFFSETFROM:+0200\r\nTZOFFSETTO:+0100\r\nRRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10\r\n\
        END:STANDARD\r\nEND:VTIMEZONE\r\nBEGIN:VEVENT\r\nSUMMARY;LANGUAGE=de:Gr\u{fc}\u{df}e\\, alle\r\n\
        DTSTART;TZID=\"Own\":20260705T090000\r\nDURATION:P1DT2H\r\nEXDATE:20260706T090000Z\r\n\
        RRULE:FREQ=MONTHLY;BYDAY=1SU;UNTIL=20270101T000000Z\r\nATTENDEE;CN=\"A; B\":mailto:a@example.com\r\n\
        END:VEVENT\r\nEND:VCALENDAR\r\n";

    #[test]
    fn damaged_files_are_read_as_far_as_they_go_and_never_panic() {
        let pieces: Vec<&str> = SAMPLE.split_inclusive([':', ';', '=', '\n', '0']).collect();
        let odd = [
            "\u{0}",
            "9999999999",
            "-",
            "\"",
            "^",
            "\\",
            "=",
            "\u{1f600}",
            ";;",
            "BEGIN:VEVENT\n",
            "END:VEVENT\n",
            " ",
        ];
        for seed in 0..2_000 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut parts = pieces.clone();
            for _ in 0..random.random_range(1..8) {
                let at = random.random_range(0..parts.len());
                match random.random_range(0..3) {
                    0 => parts[at] = odd.choose(&mut random).copied().unwrap_or_default(),
                    1 => parts.swap(at, 0),
                    _ => {
                        parts.truncate(at + 1);
                    }
                }
            }
            let mut bytes = parts.concat().into_bytes();
            let at = random.random_range(0..bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.random();
            }
            if let Ok(file) = read(&bytes, Tz::Europe__Berlin) {
                assert!(file.events.len() <= 8, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let bytes = vec![b' '; MAX_FILE_BYTES + 1];
        assert!(matches!(read(&bytes, Tz::UTC), Err(CalendarFileError::TooLarge { .. })));
    }
}
