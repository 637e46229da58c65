//! Zone names as calendar programs write them, and instants of local times.
//!
//! A `VTIMEZONE` of the file decides over a well-known name; the well-known zone is kept for display where both agree.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use windows_timezones::WindowsTimezone;

use super::Losses;
use super::components::Component;
use super::custom_zone::{CustomZone, parse_offset};
use super::lines::unescape;

/// All zones of one calendar.
#[derive(Debug)]
pub(super) struct Zones {
    custom: BTreeMap<String, CustomZone>,
    floating: Tz,
    home: Tz,
}

/// A zone that a time refers to.
#[derive(Debug, Clone)]
pub(super) enum Zone<'a> {
    /// A zone of the tz database.
    Known(Tz),
    /// A `VTIMEZONE`, with the well-known zone of the same name where there is one.
    Custom(&'a CustomZone, Option<Tz>),
    /// A plain offset from UTC.
    Offset(TimeDelta),
}

impl Zones {
    /// Collects a calendar's zones; those that cannot be read are reported.
    pub(super) fn of(calendar: &Component, home: Tz, losses: &mut Losses) -> Self {
        let mut custom = BTreeMap::new();
        for component in calendar.children.iter().filter(|child| child.name == "VTIMEZONE") {
            let Some(name) = component.text("TZID") else {
                losses.component(component, "the zone has no `TZID`".to_owned());
                continue;
            };
            match CustomZone::read(component) {
                Ok(zone) => {
                    custom.insert(name, zone);
                }
                Err(reason) => losses.component(component, reason),
            }
        }
        let floating = calendar.text("X-WR-TIMEZONE").and_then(|name| known_zone(&name)).unwrap_or(home);
        Self { custom, floating, home }
    }

    /// Returns the zone of times that name none.
    pub(super) fn floating(&self) -> Tz {
        self.floating
    }

    /// Returns the mailbox's zone.
    pub(super) fn home(&self) -> Tz {
        self.home
    }

    /// Finds the zone of a `TZID` parameter.
    pub(super) fn find(&self, name: &str) -> Option<Zone<'_>> {
        let plain = unescape(name).trim().to_owned();
        let known = known_zone(&plain);
        if let Some(custom) = self.custom.get(name.trim()).or_else(|| self.custom.get(&plain)) {
            return Some(Zone::Custom(custom, known));
        }
        known.map(Zone::Known).or_else(|| offset_name(&plain).map(Zone::Offset))
    }
}

impl Zone<'_> {
    /// Returns the instant of a local time.
    pub(super) fn instant(&self, local: NaiveDateTime) -> DateTime<Utc> {
        match self {
            Self::Known(zone) => instant_in(*zone, local),
            Self::Custom(zone, _) => zone.instant(local),
            Self::Offset(offset) => (local - *offset).and_utc(),
        }
    }

    /// Returns a zone of the tz database in which this local time is the same instant.
    pub(super) fn known(&self, local: NaiveDateTime) -> Option<Tz> {
        match self {
            Self::Known(zone) => Some(*zone),
            Self::Custom(custom, known) => known.filter(|zone| instant_in(*zone, local) == custom.instant(local)),
            Self::Offset(offset) => offset.is_zero().then_some(Tz::UTC),
        }
    }
}

/// Returns the instant of a local time; one that occurs twice is the first, one that is skipped counts from the offset
/// before the gap.
pub(super) fn instant_in(zone: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) => time.to_utc(),
        LocalResult::Ambiguous(first, second) => first.to_utc().min(second.to_utc()),
        LocalResult::None => {
            // No gap of the tz database is longer than a day.
            let before = local - TimeDelta::days(1);
            match zone.from_local_datetime(&before).earliest() {
                Some(time) => time.to_utc() + TimeDelta::days(1),
                None => local.and_utc(),
            }
        }
    }
}

/// Finds a zone by IANA name, Windows name, Windows description or a path that ends with an IANA name.
pub(super) fn known_zone(name: &str) -> Option<Tz> {
    let name = name.trim().trim_matches('"');
    let name = name.strip_prefix("TZID=").unwrap_or(name);
    if matches!(name.to_ascii_uppercase().as_str(), "UTC" | "GMT" | "Z" | "ETC/UTC" | "COORDINATED UNIVERSAL TIME") {
        return Some(Tz::UTC);
    }
    if let Ok(zone) = name.parse::<Tz>() {
        return Some(zone);
    }
    if let Ok(windows) = name.parse::<WindowsTimezone>() {
        return Some(Tz::from(windows));
    }
    if let Some(zone) = DESCRIPTIONS.get(&description_key(name)) {
        return Some(*zone);
    }
    // `/mozilla.org/20050126_1/Europe/Berlin`, `/freeassociation.sourceforge.net/Europe/Berlin`
    let mut path = name.strip_prefix('/')?;
    while let Some((_, tail)) = path.split_once('/') {
        if let Ok(zone) = tail.parse::<Tz>() {
            return Some(zone);
        }
        path = tail;
    }
    None
}

/// `UTC+01`, `GMT-0330`, `+05:30`.
fn offset_name(name: &str) -> Option<TimeDelta> {
    let upper = name.to_ascii_uppercase();
    let offset = upper.strip_prefix("UTC").or_else(|| upper.strip_prefix("GMT")).unwrap_or(&upper);
    parse_offset(offset)
}

/// Windows descriptions without their offset prefix, which differs between versions (`(GMT+10:00)`, `(UTC+10:00)`).
static DESCRIPTIONS: LazyLock<BTreeMap<String, Tz>> = LazyLock::new(|| {
    let mut descriptions = BTreeMap::new();
    for variant in chrono_tz::TZ_VARIANTS {
        if let Ok(windows) = WindowsTimezone::try_from(variant) {
            descriptions.insert(description_key(windows.description()), Tz::from(windows));
        }
    }
    // Descriptions of older Windows versions.
    for (words, zone) in [
        ("Amsterdam, Berlin, Bern, Rome, Stockholm, Vienna", Tz::Europe__Berlin),
        ("Canberra, Melbourne, Sydney", Tz::Australia__Sydney),
        ("Greenwich Mean Time : Dublin, Edinburgh, Lisbon, London", Tz::Europe__London),
        ("Dublin, Edinburgh, Lisbon, London", Tz::Europe__London),
        ("Athens, Istanbul, Minsk", Tz::Europe__Athens),
        ("Pacific Time (US & Canada); Tijuana", Tz::America__Los_Angeles),
        ("Bangkok, Hanoi, Jakarta", Tz::Asia__Bangkok),
        ("Chennai, Kolkata, Mumbai, New Delhi", Tz::Asia__Kolkata),
        ("Beijing, Chongqing, Hong Kong, Urumqi", Tz::Asia__Shanghai),
        ("Brussels, Copenhagen, Madrid, Paris", Tz::Europe__Paris),
    ] {
        descriptions.entry(description_key(words)).or_insert(zone);
    }
    descriptions
});

fn description_key(description: &str) -> String {
    let upper = description.trim().to_ascii_lowercase();
    let words = match upper.strip_prefix("(utc").or_else(|| upper.strip_prefix("(gmt")) {
        Some(rest) => rest.split_once(')').map_or(upper.as_str(), |(_, words)| words),
        None => upper.as_str(),
    };
    let mended = words.replace('&', "and").replace('\\', "");
    mended.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_kinds_find_their_zone() {
        for (name, zone) in [
            ("Europe/Berlin", Tz::Europe__Berlin),
            ("US/Central", Tz::US__Central),
            ("W. Europe Standard Time", Tz::Europe__Berlin),
            ("Pacific Standard Time", Tz::America__Los_Angeles),
            ("(UTC-05:00) Eastern Time (US & Canada)", Tz::America__New_York),
            ("(UTC-05:00) Eastern Time (US and Canada)", Tz::America__New_York),
            ("(GMT+10:00) Canberra, Melbourne, Sydney", Tz::Australia__Sydney),
            ("(UTC+07:00) Bangkok, Hanoi, Jakarta", Tz::Asia__Bangkok),
            ("/freeassociation.sourceforge.net/Tzfile/Europe/Paris", Tz::Europe__Paris),
            ("TZID=Europe/Berlin", Tz::Europe__Berlin),
            ("utc", Tz::UTC),
        ] {
            assert_eq!(known_zone(name), Some(zone), "{name}");
        }
        assert_eq!(known_zone("Europe/Germany"), None);
        assert_eq!(known_zone("Customized Time Zone"), None);
        assert_eq!(offset_name("UTC+01"), Some(TimeDelta::hours(1)));
        assert_eq!(offset_name("Mars"), None);
    }

    #[test]
    fn every_windows_description_leads_back_to_a_zone_of_the_same_name() {
        for variant in chrono_tz::TZ_VARIANTS {
            let Ok(windows) = WindowsTimezone::try_from(variant) else {
                continue;
            };
            let found = known_zone(windows.description()).and_then(|zone| WindowsTimezone::try_from(zone).ok());
            assert_eq!(found, Some(windows), "{}", windows.description());
        }
    }

    #[test]
    fn a_skipped_hour_counts_from_the_offset_before_the_gap() {
        let skipped = "2026-03-29T02:30:00".parse().unwrap();
        assert_eq!(instant_in(Tz::Europe__Berlin, skipped).to_rfc3339(), "2026-03-29T01:30:00+00:00");
        let twice = "2026-10-25T02:30:00".parse().unwrap();
        assert_eq!(instant_in(Tz::Europe__Berlin, twice).to_rfc3339(), "2026-10-25T00:30:00+00:00");
    }
}
