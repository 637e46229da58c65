//! What a person sees: short lines of at most 100 columns, colours on a terminal only.
//!
//! Owns the form of the output; knows nothing of meetings.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// Widest line printed.
const WIDTH: usize = 100;
/// Where the words of an act begin, after its time.
const WORDS_AT: usize = 17;
/// A wait shorter than this is not worth a word.
const SHORT_WAIT: Duration = Duration::from_millis(700);
/// How often a long wait is told where no line can be rewritten.
const STILL_WAITING: Duration = Duration::from_secs(5);

/// How a piece of text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Title,
    Person,
    Good,
    Bad,
    Quiet,
    Plain,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Title => "1",
            Self::Person => "36",
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Quiet => "2",
            Self::Plain => "0",
        }
    }
}

/// The terminal, or the file that stands in for it.
#[derive(Debug)]
pub(crate) struct Screen {
    colours: bool,
    terminal: bool,
}

impl Screen {
    /// Looks where the output goes; `plain` and the variable `NO_COLOR` switch colours off.
    pub(crate) fn new(plain: bool) -> Self {
        let terminal = std::io::stdout().is_terminal() && !plain;
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colours: terminal && !unwanted, terminal }
    }

    /// Prints an empty line.
    pub(crate) fn gap(&self) {
        self.put(Tone::Plain, "");
    }

    /// Prints a heading after an empty line.
    pub(crate) fn title(&self, text: &str) {
        self.gap();
        self.paragraph(Tone::Title, 0, text);
    }

    /// Prints what somebody did, with the time.
    pub(crate) fn act(&self, at: DateTime<Utc>, text: &str) {
        self.timed(Tone::Person, at, text);
    }

    /// Prints what calbridge did, with the time.
    pub(crate) fn outcome(&self, at: DateTime<Utc>, text: &str) {
        self.timed(Tone::Good, at, text);
    }

    /// Prints a line below an act or an outcome.
    pub(crate) fn detail(&self, text: &str) {
        self.paragraph(Tone::Quiet, WORDS_AT, text);
    }

    /// Prints text, wrapped and indented.
    pub(crate) fn paragraph(&self, tone: Tone, indent: usize, text: &str) {
        for line in wrapped(text, WIDTH - indent) {
            self.put(tone, &format!("{}{line}", " ".repeat(indent)));
        }
    }

    /// Prints text that is laid out already.
    pub(crate) fn block(&self, text: &str) {
        for line in text.lines() {
            self.put(Tone::Plain, line);
        }
    }

    /// Tells that something is awaited; called again and again until it is there.
    pub(crate) fn waiting(&self, what: &str, since: Duration, told: &mut Duration) {
        if since < SHORT_WAIT {
            return;
        }
        if self.terminal {
            let line = format!("   ... {:>4.1} s: waiting until {what}", since.as_secs_f64());
            let line: String = line.chars().take(WIDTH - 1).collect();
            let (dim, plain) = if self.colours { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
            raw(&format!("\r\x1b[K{dim}{line}{plain}"));
        } else if since >= *told + STILL_WAITING {
            *told = since;
            self.put(Tone::Quiet, &format!("   ... {:>4.1} s: waiting until {what}", since.as_secs_f64()));
        }
    }

    /// Takes the line of [`Self::waiting`] away.
    pub(crate) fn waited(&self) {
        if self.terminal {
            raw("\r\x1b[K");
        }
    }

    fn timed(&self, tone: Tone, at: DateTime<Utc>, text: &str) {
        let mut head = format!("   {}", at.format("%H:%M:%S%.3f"));
        head = format!("{head:<WORDS_AT$}");
        for line in wrapped(text, WIDTH - WORDS_AT) {
            self.put(tone, &format!("{head}{line}"));
            head = " ".repeat(WORDS_AT);
        }
    }

    fn put(&self, tone: Tone, line: &str) {
        let line = line.trim_end();
        if self.colours && tone != Tone::Plain && !line.is_empty() {
            raw(&format!("\x1b[{}m{line}\x1b[0m\n", tone.code()));
        } else {
            raw(&format!("{line}\n"));
        }
    }
}

fn raw(text: &str) {
    // A reader who went away (`| head`) is no reason to stop in the middle of a write.
    let mut out = std::io::stdout().lock();
    let _written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Breaks text at blanks; a word that is longer than the width stands alone.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        let used = line.chars().count();
        if used > 0 && used + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if used > 0 || word.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Shortens an id so that it can still be told from others: the end of Outlook's ids is padding.
pub(crate) fn short(id: &str) -> String {
    if id.chars().count() <= 18 {
        return id.to_owned();
    }
    let head: String = id.chars().take(4).collect();
    let body: Vec<char> = id.trim_end_matches(['A', '=']).chars().collect();
    let tail: String = body.iter().skip(body.len().saturating_sub(8)).collect();
    format!("{head}..{tail}")
}

/// Writes an instant to the minute, for people.
pub(crate) fn minute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// Writes an instant to the second, in RFC 3339.
pub(crate) fn second(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Writes milliseconds as seconds.
pub(crate) fn seconds(millis: i64) -> String {
    format!("{}.{:03} s", millis / 1000, millis.rem_euclid(1000))
}

/// Writes a number with its noun.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
