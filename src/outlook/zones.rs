//! Time zone names: Graph speaks Windows names (and some IANA ones), we speak IANA.
//!
//! Reading and writing agree: a zone that is written and read back is the same zone. UTC is read as "no zone", because
//! UTC is what a time without a zone is written in.

use std::str::FromStr;

use chrono_tz::Tz;
use windows_timezones::WindowsTimezone;

/// IANA names in use today whose older spelling the Windows table knows.
///
/// The table follows CLDR, which keeps the first spelling for ever:
/// <https://github.com/unicode-org/cldr/blob/main/common/supplemental/windowsZones.xml>; the pairs are tzdata's `backward`.
const RENAMED: &[(Tz, Tz)] = &[
    (Tz::Asia__Kolkata, Tz::Asia__Calcutta),
    (Tz::Asia__Kathmandu, Tz::Asia__Katmandu),
    (Tz::Asia__Yangon, Tz::Asia__Rangoon),
    (Tz::Asia__Ho_Chi_Minh, Tz::Asia__Saigon),
    (Tz::Europe__Kyiv, Tz::Europe__Kiev),
    (Tz::America__Nuuk, Tz::America__Godthab),
    (Tz::America__Argentina__Buenos_Aires, Tz::America__Buenos_Aires),
    (Tz::America__Argentina__Catamarca, Tz::America__Catamarca),
    (Tz::America__Argentina__Cordoba, Tz::America__Cordoba),
    (Tz::America__Argentina__Jujuy, Tz::America__Jujuy),
    (Tz::America__Argentina__Mendoza, Tz::America__Mendoza),
    (Tz::America__Indiana__Indianapolis, Tz::America__Indianapolis),
    (Tz::America__Kentucky__Louisville, Tz::America__Louisville),
    (Tz::America__Atikokan, Tz::America__Coral_Harbour),
    (Tz::Africa__Asmara, Tz::Africa__Asmera),
    (Tz::Atlantic__Faroe, Tz::Atlantic__Faeroe),
    (Tz::Pacific__Chuuk, Tz::Pacific__Truk),
    (Tz::Pacific__Pohnpei, Tz::Pacific__Ponape),
    (Tz::Pacific__Kanton, Tz::Pacific__Enderbury),
];

/// Old and regional spellings of zones that have a Windows name.
const SYNONYMS: &[(Tz, Tz)] = &[
    (Tz::US__Alaska, Tz::America__Anchorage),
    (Tz::US__Arizona, Tz::America__Phoenix),
    (Tz::US__Central, Tz::America__Chicago),
    (Tz::US__Eastern, Tz::America__New_York),
    (Tz::US__Hawaii, Tz::Pacific__Honolulu),
    (Tz::US__Mountain, Tz::America__Denver),
    (Tz::US__Pacific, Tz::America__Los_Angeles),
    (Tz::Canada__Atlantic, Tz::America__Halifax),
    (Tz::Canada__Central, Tz::America__Winnipeg),
    (Tz::Canada__Eastern, Tz::America__Toronto),
    (Tz::Canada__Mountain, Tz::America__Edmonton),
    (Tz::Canada__Newfoundland, Tz::America__St_Johns),
    (Tz::Canada__Pacific, Tz::America__Vancouver),
    (Tz::GB, Tz::Europe__London),
    (Tz::Japan, Tz::Asia__Tokyo),
    (Tz::NZ, Tz::Pacific__Auckland),
    (Tz::PRC, Tz::Asia__Shanghai),
    (Tz::Singapore, Tz::Asia__Singapore),
    (Tz::Turkey, Tz::Europe__Istanbul),
];

/// Reads a zone as Graph names it; none for UTC, for `tzone://Microsoft/Custom` and for names nobody knows.
///
/// A zone with a Windows name becomes the principal zone of that name: it is what a write in this zone reads back as.
pub(super) fn from_graph(name: &str) -> Option<Tz> {
    let zone = any_zone(name)?;
    if is_utc(zone) {
        return None;
    }
    Some(windows(zone).map_or(zone, principal))
}

/// Returns the name under which Graph certainly knows a zone.
pub(super) fn to_graph(zone: Tz) -> Option<&'static str> {
    windows(zone).map(WindowsTimezone::name)
}

/// Reads a mailbox's zone, Windows or IANA, as an IANA name.
pub(super) fn iana(name: &str) -> Option<String> {
    any_zone(name).map(|zone| zone.name().to_owned())
}

/// Reads the zone that an instant is given in; UTC included.
pub(super) fn any_zone(name: &str) -> Option<Tz> {
    let name = name.trim();
    if let Ok(zone) = Tz::from_str(name) {
        return Some(zone);
    }
    let zone = WindowsTimezone::from_str(name).ok()?;
    Some(principal(zone))
}

fn principal(zone: WindowsTimezone) -> Tz {
    let old = Tz::from(zone);
    RENAMED.iter().find(|(_, before)| *before == old).map_or(old, |(now, _)| *now)
}

fn windows(zone: Tz) -> Option<WindowsTimezone> {
    let known = |zone: Tz| WindowsTimezone::try_from(zone).ok();
    known(zone)
        .or_else(|| RENAMED.iter().chain(SYNONYMS).find(|(now, _)| *now == zone).and_then(|(_, before)| known(*before)))
}

fn is_utc(zone: Tz) -> bool {
    matches!(
        zone,
        Tz::UTC
            | Tz::Etc__UTC
            | Tz::Etc__UCT
            | Tz::Etc__Zulu
            | Tz::Etc__Universal
            | Tz::UCT
            | Tz::Zulu
            | Tz::Universal
            | Tz::Etc__GMT
            | Tz::GMT
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_names_become_the_spelling_of_today() {
        assert_eq!(from_graph("W. Europe Standard Time"), Some(Tz::Europe__Berlin));
        assert_eq!(from_graph("India Standard Time"), Some(Tz::Asia__Kolkata));
        assert_eq!(from_graph("FLE Standard Time"), Some(Tz::Europe__Kyiv));
    }

    #[test]
    fn zones_written_are_read_back_the_same() {
        for zone in chrono_tz::TZ_VARIANTS {
            let Some(name) = to_graph(zone) else { continue };
            let Some(read) = from_graph(name) else {
                assert!(is_utc(zone), "{zone} is written as {name} and lost");
                continue;
            };
            assert_eq!(to_graph(read), Some(name), "{zone}");
            assert_eq!(from_graph(to_graph(read).unwrap()), Some(read), "{zone}");
        }
    }

    #[test]
    fn newer_spellings_and_synonyms_have_windows_names() {
        for (zone, _) in RENAMED.iter().chain(SYNONYMS) {
            let known = to_graph(*zone).is_some();
            assert!(known || matches!(zone, Tz::Pacific__Kanton), "{zone}");
        }
        assert_eq!(to_graph(Tz::US__Pacific), Some("Pacific Standard Time"));
    }

    #[test]
    fn utc_custom_and_unknown_zones_are_no_zone() {
        for name in ["UTC", "Etc/UTC", "tzone://Microsoft/Custom", "Mars Standard Time", ""] {
            assert_eq!(from_graph(name), None, "{name}");
        }
        assert_eq!(iana("UTC").as_deref(), Some("UTC"));
        assert_eq!(iana("Romance Standard Time").as_deref(), Some("Europe/Paris"));
    }
}
