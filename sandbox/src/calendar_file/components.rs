//! Nesting of content lines into components; mends what is not closed.

use super::Losses;
use super::lines::{ContentLine, unescape};

/// Deepest nesting that is followed (a calendar, an event and its alarm are three).
const MAX_DEPTH: usize = 8;

/// `BEGIN:NAME` to `END:NAME`.
#[derive(Debug, Clone)]
pub(super) struct Component {
    /// Line of `BEGIN`, from 1.
    pub(super) line: usize,
    /// Upper-case name.
    pub(super) name: String,
    /// Properties directly inside, in order.
    pub(super) properties: Vec<ContentLine>,
    /// Components directly inside, in order.
    pub(super) children: Vec<Component>,
}

impl Component {
    /// Returns the first property of that name.
    pub(super) fn property(&self, name: &str) -> Option<&ContentLine> {
        self.properties.iter().find(|property| property.name == name)
    }

    /// Returns all properties of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContentLine> {
        self.properties.iter().filter(move |property| property.name == name)
    }

    /// Returns the first property of that name as text with escapes resolved, trimmed.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.property(name).map(|property| unescape(&property.value).trim().to_owned())
    }

    /// Returns the first property of that name as a trimmed upper-case word.
    pub(super) fn word(&self, name: &str) -> Option<String> {
        self.property(name).map(|property| property.value.trim().to_ascii_uppercase())
    }
}

/// Nests lines into the calendars of a file.
pub(super) fn assemble(lines: Vec<ContentLine>, losses: &mut Losses) -> Vec<Component> {
    let mut calendars = Vec::new();
    let mut open: Vec<Component> = Vec::new();
    for line in lines {
        match line.name.as_str() {
            "BEGIN" => begin(&line, &mut open, &mut calendars, losses),
            "END" => end(&line, &mut open, &mut calendars, losses),
            _ => match open.last_mut() {
                Some(component) => component.properties.push(line),
                None => losses
                    .line(line.line, "outside of any calendar; move it between `BEGIN:VCALENDAR` and `END:VCALENDAR`"),
            },
        }
    }
    while let Some(component) = open.pop() {
        losses.line(
            component.line,
            format!("`{0}` is not closed; read up to the end of the file, add `END:{0}`", component.name),
        );
        attach(component, &mut open, &mut calendars);
    }
    calendars.retain(|component| component.name == "VCALENDAR");
    calendars
}

fn begin(line: &ContentLine, open: &mut Vec<Component>, calendars: &mut Vec<Component>, losses: &mut Losses) {
    let name = line.value.trim().to_ascii_uppercase();
    // A component of the calendar begins while another one is open: the END of that one is missing.
    if matches!(name.as_str(), "VEVENT" | "VTODO" | "VJOURNAL" | "VFREEBUSY" | "VTIMEZONE" | "VCALENDAR") {
        let keep = usize::from(name != "VCALENDAR" && open.first().is_some_and(|first| first.name == "VCALENDAR"));
        while open.len() > keep {
            close_top(open, calendars, losses);
        }
    }
    if open.len() >= MAX_DEPTH {
        losses.line(line.line, format!("`{name}` is nested deeper than {MAX_DEPTH} levels"));
    }
    open.push(Component { line: line.line, name, properties: Vec::new(), children: Vec::new() });
}

fn end(line: &ContentLine, open: &mut Vec<Component>, calendars: &mut Vec<Component>, losses: &mut Losses) {
    let name = line.value.trim().to_ascii_uppercase();
    if !open.iter().any(|component| component.name == name) {
        losses.line(line.line, format!("`END:{name}` closes nothing; delete the line"));
        return;
    }
    while open.last().is_some_and(|component| component.name != name) {
        close_top(open, calendars, losses);
    }
    if let Some(component) = open.pop() {
        attach(component, open, calendars);
    }
}

fn close_top(open: &mut Vec<Component>, calendars: &mut Vec<Component>, losses: &mut Losses) {
    if let Some(component) = open.pop() {
        let reason = format!(
            "`{0}` is not closed; read up to where the next thing begins or ends, add `END:{0}`",
            component.name
        );
        losses.line(component.line, reason);
        attach(component, open, calendars);
    }
}

fn attach(component: Component, open: &mut [Component], calendars: &mut Vec<Component>) {
    // Beyond the limit a component is dropped together with what is inside it: nothing that deep is read.
    if open.len() >= MAX_DEPTH {
        return;
    }
    match open.last_mut() {
        Some(parent) => parent.children.push(component),
        None => calendars.push(component),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;

    fn assembled(text: &str) -> (Vec<Component>, Losses) {
        let mut losses = Losses::default();
        let content = lines::read(text.as_bytes(), &mut losses);
        let calendars = assemble(content, &mut losses);
        (calendars, losses)
    }

    #[test]
    fn an_alarm_keeps_its_properties_to_itself() {
        let (calendars, losses) = assembled(
            "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:Talk\nBEGIN:VALARM\nSUMMARY:Wake\nEND:VALARM\nEND:VEVENT\nEND:VCALENDAR",
        );
        assert!(losses.rows.is_empty());
        assert_eq!(calendars[0].children[0].text("SUMMARY").as_deref(), Some("Talk"));
    }

    #[test]
    fn an_event_without_end_does_not_swallow_the_next_one() {
        let (calendars, losses) =
            assembled("BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:A\nBEGIN:VEVENT\nSUMMARY:B\nEND:VEVENT\nEND:VCALENDAR");
        assert_eq!(calendars[0].children.len(), 2);
        assert_eq!(losses.rows.len(), 1);
        assert_eq!(losses.rows[0].line, 2);
    }

    #[test]
    fn endless_nesting_is_cut_off() {
        let mut text = "BEGIN:VCALENDAR\n".to_owned();
        for _ in 0..50_000 {
            text.push_str("BEGIN:X-DEEP\n");
        }
        let (calendars, losses) = assembled(&text);
        assert_eq!(calendars.len(), 1);
        assert!(losses.beyond > 0);
    }
}
