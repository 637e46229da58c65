//! From bytes to content lines: unfolding, character sets, parameters, quoting.
//!
//! Lenient where real programs err (RFC 5545 section 3.1 and RFC 6868 say how it should be):
//! bytes that are not UTF-8 are read as Windows-1252, vCalendar 1.0 quoted-printable values are decoded, and a quote
//! that was closed behind the value instead of before the colon is mended.

use super::Losses;

/// Longest logical line that is kept, in bytes; longer ones are reported and dropped.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// `NAME;PARAM=value:value`, with the line it began on.
#[derive(Debug, Clone)]
pub(super) struct ContentLine {
    /// Line of the file, from 1.
    pub(super) line: usize,
    /// Upper-case property name without a group prefix.
    pub(super) name: String,
    /// Upper-case parameter names with their values.
    pub(super) params: Vec<(String, String)>,
    /// The value as written (escapes are resolved by [`unescape`] where the type is text).
    pub(super) value: String,
}

impl ContentLine {
    /// Returns the first value of a parameter.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads all content lines; what cannot be parsed is reported.
pub(super) fn read(bytes: &[u8], losses: &mut Losses) -> Vec<ContentLine> {
    let wide = from_utf16(bytes);
    let bytes = wide.as_deref().map_or(bytes, str::as_bytes);
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut found = Vec::new();
    for (line, logical) in unfold(bytes) {
        if logical.len() > MAX_LINE_BYTES {
            losses.line(line, format!("the line has more than {MAX_LINE_BYTES} bytes"));
            continue;
        }
        let text = decode(&logical);
        if text.trim().is_empty() {
            continue;
        }
        match parse(line, &text).or_else(|| parse_with_stray_quote(line, &text)) {
            Some(mut content) => {
                if content.param("ENCODING").is_some_and(|encoding| encoding.eq_ignore_ascii_case("QUOTED-PRINTABLE")) {
                    content.value = decode(&unquote_printable(content.value.as_bytes()))
                        .replace("\r\n", "\\n")
                        .replace('\n', "\\n");
                }
                found.push(content);
            }
            None => losses.line(line, "not of the form `NAME:value`; complete or delete the line"),
        }
    }
    found
}

/// Resolves the escapes of a text value: `\n`, `\,`, `\;`, `\\`.
pub(super) fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('n' | 'N') => text.push('\n'),
            Some(other) => text.push(other),
            None => text.push('\\'),
        }
    }
    text
}

/// Splits a list value at commas that are not escaped.
pub(super) fn split_list(value: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut escaped = false;
    for c in value.chars() {
        if c == ',' && !escaped {
            items.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        items.last_mut().expect("starts with one item and only grows").push(c);
    }
    items
}

/// Joins folded lines; the fold may fall inside a UTF-8 sequence, so this works on bytes.
fn unfold(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut logical: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut soft_break = false;
    for (index, physical) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let physical = physical.strip_suffix(b"\r").unwrap_or(physical);
        let continues = matches!(physical.first(), Some(b' ' | b'\t'));
        match logical.last_mut() {
            Some((_, current)) if soft_break => current.extend_from_slice(physical),
            Some((_, current)) if continues => current.extend_from_slice(physical.get(1..).unwrap_or_default()),
            _ => logical.push((index + 1, physical.to_vec())),
        }
        soft_break = logical.last().is_some_and(|(_, current)| is_soft_break(current));
    }
    logical
}

/// Tells whether a vCalendar 1.0 quoted-printable value goes on in the next line.
fn is_soft_break(line: &[u8]) -> bool {
    let head: Vec<u8> = line.iter().take(256).take_while(|byte| **byte != b':').map(u8::to_ascii_uppercase).collect();
    line.ends_with(b"=") && head.windows(16).any(|part| part == b"QUOTED-PRINTABLE")
}

fn unquote_printable(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'=' {
            out.push(byte);
            continue;
        }
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        if let Some(decoded) = digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            out.push(decoded);
            rest = tail.get(2..).unwrap_or_default();
        }
    }
    out
}

fn from_utf16(bytes: &[u8]) -> Option<String> {
    let (little, tail) = match bytes {
        [0xFF, 0xFE, tail @ ..] => (true, tail),
        [0xFE, 0xFF, tail @ ..] => (false, tail),
        _ => return None,
    };
    let units: Vec<u16> = tail
        .chunks_exact(2)
        .map(
            |pair| {
                if little { u16::from_le_bytes([pair[0], pair[1]]) } else { u16::from_be_bytes([pair[0], pair[1]]) }
            },
        )
        .collect();
    Some(String::from_utf16_lossy(&units))
}

fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| windows_1252(*byte)).collect(),
    }
}

/// Windows-1252 differs from Latin-1 between 0x80 and 0x9F (<https://encoding.spec.whatwg.org/index-windows-1252.txt>).
fn windows_1252(byte: u8) -> char {
    const UPPER: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9F => UPPER[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

fn parse(line: usize, text: &str) -> Option<ContentLine> {
    let name_end = text.find([';', ':'])?;
    let (name, mut rest) = text.split_at_checked(name_end)?;
    let name = name.rsplit('.').next().unwrap_or(name).trim();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return None;
    }
    let mut params = Vec::new();
    loop {
        if let Some(value) = rest.strip_prefix(':') {
            return Some(ContentLine { line, name: name.to_ascii_uppercase(), params, value: value.to_owned() });
        }
        let tail = rest.strip_prefix(';')?;
        let end = end_of_param(tail)?;
        let (param, after) = tail.split_at_checked(end)?;
        let (key, value) = param.split_once('=').unwrap_or((param, ""));
        params.push((key.trim().to_ascii_uppercase(), param_value(value)));
        rest = after;
    }
}

/// Finds the `;` or `:` outside quotes that ends a parameter.
fn end_of_param(text: &str) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(at, c)| {
        if c == '"' {
            quoted = !quoted;
        }
        (!quoted && matches!(c, ';' | ':')).then_some(at)
    })
}

/// Strips quotes and resolves the caret escapes of RFC 6868.
fn param_value(written: &str) -> String {
    let bare: String = written.chars().filter(|c| *c != '"').collect();
    if !bare.contains('^') {
        return bare;
    }
    let mut value = String::with_capacity(bare.len());
    let mut chars = bare.chars().peekable();
    while let Some(c) = chars.next() {
        let resolved = match (c, chars.peek()) {
            ('^', Some('n')) => Some('\n'),
            ('^', Some('^')) => Some('^'),
            ('^', Some('\'')) => Some('"'),
            _ => None,
        };
        match resolved {
            Some(real) => {
                value.push(real);
                chars.next();
            }
            None => value.push(c),
        }
    }
    value
}

/// Reads `NAME;TZID="Some zone:20200609T090000"`, where the closing quote slipped behind the value.
fn parse_with_stray_quote(line: usize, text: &str) -> Option<ContentLine> {
    let bare: String = text.chars().filter(|c| *c != '"').collect();
    if bare.len() == text.len() {
        return None;
    }
    let (head, value) = bare.rsplit_once(':')?;
    let mut parts = head.split(';');
    let name = parts.next()?.trim();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return None;
    }
    let params = parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(key, value)| (key.trim().to_ascii_uppercase(), value.to_owned()))
        .collect();
    Some(ContentLine { line, name: name.to_ascii_uppercase(), params, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> ContentLine {
        let mut losses = Losses::default();
        let mut lines = read(text.as_bytes(), &mut losses);
        assert!(losses.rows.is_empty(), "{:?}", losses.rows);
        assert_eq!(lines.len(), 1);
        lines.remove(0)
    }

    #[test]
    fn folded_lines_are_joined_even_inside_a_character() {
        let mut bytes = b"SUMMARY:caf\xC3\r\n \xA9 at n\r\n\toon".to_vec();
        bytes.extend_from_slice(b"\r\n");
        let lines = read(&bytes, &mut Losses::default());
        assert_eq!(lines[0].value, "café at noon");
    }

    #[test]
    fn quoted_parameters_may_hold_colons_and_semicolons() {
        let line = one("DTSTART;TZID=\"(UTC-05:00) Eastern; Time\";VALUE=DATE-TIME:20201028T133000");
        assert_eq!(line.param("TZID"), Some("(UTC-05:00) Eastern; Time"));
        assert_eq!(line.param("VALUE"), Some("DATE-TIME"));
        assert_eq!(line.value, "20201028T133000");
    }

    #[test]
    fn a_quote_closed_behind_the_value_is_mended() {
        let line = one("DTSTART;TZID=\"W. Europe Standard Time:20200609T090000\"");
        assert_eq!(line.param("TZID"), Some("W. Europe Standard Time"));
        assert_eq!(line.value, "20200609T090000");
    }

    #[test]
    fn quoted_printable_values_go_on_over_soft_breaks() {
        let line = one("DESCRIPTION;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:Gr=C3=BC=\r\n=C3=9Fe=0D=0Azwei");
        assert_eq!(unescape(&line.value), "Grüße\nzwei");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_read_as_windows_1252() {
        let lines = read(b"SUMMARY:Pr\xFCfung \x96 R\xE4ume", &mut Losses::default());
        assert_eq!(lines[0].value, "Prüfung – Räume");
    }

    #[test]
    fn wide_files_with_a_byte_order_mark_are_read() {
        let mut bytes = vec![0xFF, 0xFE];
        for unit in "SUMMARY:Größe".encode_utf16() {
            bytes.extend_from_slice(&unit.to_le_bytes());
        }
        assert_eq!(read(&bytes, &mut Losses::default())[0].value, "Größe");
    }

    #[test]
    fn a_line_without_a_colon_is_reported_with_its_number() {
        let mut losses = Losses::default();
        let lines = read(b"BEGIN:VCALENDAR\r\nthis is not a line\r\nEND:VCALENDAR", &mut losses);
        assert_eq!(lines.len(), 2);
        assert_eq!(losses.rows[0].line, 2);
    }

    #[test]
    fn escapes_and_lists_are_resolved() {
        assert_eq!(unescape(r"a\, b\; c\\d\nE\N"), "a, b; c\\d\nE\n");
        assert_eq!(split_list(r"one\, two,three"), vec![r"one\, two".to_owned(), "three".to_owned()]);
    }
}
