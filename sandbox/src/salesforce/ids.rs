//! Salesforce record ids: 15 case-sensitive characters, and the 18-character form whose suffix encodes the case.

/// Key prefix of organisations.
pub(crate) const ORGANISATION: &str = "00D";
/// Key prefix of users.
pub(crate) const USER: &str = "005";
/// Key prefix of events.
pub(crate) const EVENT: &str = "00U";
/// Key prefix of event relations (invitees).
pub(crate) const EVENT_RELATION: &str = "0RE";

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SUFFIX: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// Makes the 18-character id of the `number`th record under a three-character key prefix.
pub(crate) fn make(prefix: &str, number: u64) -> String {
    let mut id: Vec<u8> = prefix.bytes().chain(*b"Sb0").collect();
    // Numbers start high, so that ids differ in letter case from the first record on and clients that fold case show it.
    let mut rest = number + 22_000_000;
    let mut tail = [b'0'; 9];
    for slot in tail.iter_mut().rev() {
        *slot = DIGITS[usize::try_from(rest % 62).expect("a remainder of 62 fits")];
        rest /= 62;
    }
    id.extend(tail);
    let short = String::from_utf8(id).expect("ids are made of ASCII");
    with_suffix(&short)
}

/// Returns the 18-character form of a 15- or 18-character id; none when the text is not an id.
///
/// An 18-character id is accepted in any letter case where its suffix tells the right one.
pub fn normalise(id: &str) -> Option<String> {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    match id.len() {
        15 => Some(with_suffix(id)),
        18 => restore_case(id),
        _ => None,
    }
}

/// Returns the 15-character form of an id.
pub fn short(id: &str) -> &str {
    id.get(..15).unwrap_or(id)
}

fn with_suffix(short: &str) -> String {
    let mut long = short.to_owned();
    for chunk in short.as_bytes().chunks(5) {
        let mut bits = 0;
        for (place, byte) in chunk.iter().enumerate() {
            if byte.is_ascii_uppercase() {
                bits |= 1 << place;
            }
        }
        long.push(char::from(SUFFIX[bits]));
    }
    long
}

fn restore_case(long: &str) -> Option<String> {
    let (body, suffix) = long.split_at_checked(15)?;
    let mut restored = String::with_capacity(18);
    for (chunk, check) in body.as_bytes().chunks(5).zip(suffix.bytes()) {
        let bits = SUFFIX.iter().position(|digit| digit.eq_ignore_ascii_case(&check))?;
        for (place, byte) in chunk.iter().enumerate() {
            let upper = bits & (1 << place) != 0;
            if upper && !byte.is_ascii_alphabetic() {
                return None;
            }
            let cased = if upper { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
            restored.push(char::from(cased));
        }
    }
    Some(with_suffix(&restored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffix_matches_a_published_pair_of_ids() {
        // The pair of the vendor's own explanation of the 18-character form.
        assert_eq!(normalise("001A0000006Vm9r").as_deref(), Some("001A0000006Vm9rIAC"));
    }

    #[test]
    fn short_and_long_forms_meet_in_the_long_one() {
        let id = make(EVENT, 7);
        assert_eq!(id.len(), 18);
        assert_eq!(normalise(short(&id)), Some(id.clone()));
        assert_eq!(normalise(&id), Some(id.clone()));
        assert_eq!(normalise(&id.to_lowercase()), Some(id));
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        assert_eq!(normalise("Calbridge_Link__c"), None);
        assert_eq!(normalise("00U"), None);
        assert_eq!(normalise("00U5e000001VWX!"), None);
    }

    #[test]
    fn neighbours_get_different_ids() {
        assert_ne!(make(EVENT, 1), make(EVENT, 2));
        assert_ne!(make(EVENT, 1), make(USER, 1));
    }
}
