//! A message that was set aside, for people: where it stood, why it is no signal, and, only when asked for, what it says.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::ports::{DeadLetter, MessageLetter};

/// Tells about a message as text and as JSON; `raw` is what is kept of it, none where values are not to be shown.
pub fn message(letter: &DeadLetter, about: &MessageLetter, raw: Option<&[u8]>) -> (String, Value) {
    let reason = letter.reason;
    let mut text = String::new();
    let mut line = |words: String| writeln!(text, "{words}").expect("writing to a String cannot fail");
    line(format!("a message from {} that was set aside: {} ({})", about.side, reason.words(), reason.code()));
    line(format!("  what was wrong  {}", letter.detail));
    line(format!("  came            {}, {}", moment(letter.at), times(about)));
    if let Some(position) = &about.position {
        line(format!("  stood           in {} at {}", position.stream, position.value));
    }
    line(format!("  size            {} bytes", about.size));
    line(format!("  what to do      docs/errors/{0}.md, or `calbridge explain {0}`", reason.code()));
    let mut told = json!({
        "id": about.id, "side": about.side, "position": about.position, "size": about.size, "times": about.times,
        "last_at": moment(about.last_at),
    });
    match raw {
        Some(raw) => {
            let words = String::from_utf8_lossy(raw);
            let cut = u64::try_from(raw.len()).is_ok_and(|kept| kept < about.size);
            line(format!("\n{}{}", printable(&words), if cut { "\n(the rest was not kept)" } else { "" }));
            told["text"] = json!(words);
            told["base64"] = json!(STANDARD.encode(raw));
        }
        None => line("\nadd `--values` to see what it says; it may hold personal content".to_owned()),
    }
    let json = json!([{
        "verdict": {"is": "message_set_aside"}, "reason": reason, "code": reason.code(), "detail": letter.detail,
        "at": moment(letter.at), "message": told,
    }]);
    (text, json)
}

fn times(about: &MessageLetter) -> String {
    match about.times {
        0 | 1 => "once".to_owned(),
        times => format!("{times} times, the last {}", moment(about.last_at)),
    }
}

/// Takes the control characters out of a message, with which it could rewrite a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use calbridge_core::ids::{ConnectionId, StreamId};
    use calbridge_core::reason::Reason;
    use calbridge_core::side::Side;
    use calbridge_core::signal::Position;

    use super::*;

    #[test]
    fn content_is_shown_only_when_asked_for_and_cannot_steer_a_terminal() {
        let at = DateTime::from_timestamp(1_795_251_601, 0).unwrap();
        let about = MessageLetter {
            id: "01".to_owned(),
            side: Side::Outlook,
            position: Some(Position { stream: StreamId::new("event_hubs/h/g/0"), value: "7".to_owned() }),
            size: 5_000,
            times: 3,
            last_at: at,
        };
        let letter = DeadLetter {
            held: false,
            connection: ConnectionId::new("c"),
            link: None,
            record: None,
            reason: Reason::Undecodable,
            detail: "the message is no JSON".to_owned(),
            at,
            message: Some(about.clone()),
        };
        let (text, json) = message(&letter, &about, None);
        assert!(
            text.contains("CB2073") && text.contains("event_hubs/h/g/0 at 7") && text.contains("3 times"),
            "{text}"
        );
        assert!(json[0]["message"]["text"].is_null());
        let (text, json) = message(&letter, &about, Some(b"\x1b[2Jsecret\xff"));
        assert!(text.contains("secret") && !text.contains('\u{1b}') && text.contains("was not kept"), "{text}");
        assert_eq!(json[0]["message"]["base64"], "G1sySnNlY3JldP8=");
    }
}
