//! The people of the sandbox: plausible names, addresses at the tenant's domain, zones.

use chrono_tz::Tz;

/// Primary domain of the tenant; `.example` is reserved and never resolves (RFC 2606).
pub(crate) const DOMAIN: &str = "contoso.example";

const GIVEN: [&str; 24] = [
    "Ada", "Ben", "Chiara", "David", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Keiko", "Liam", "Mara",
    "Noah", "Olga", "Priya", "Quentin", "Rosa", "Sven", "Tara", "Uma", "Viktor", "Wanda", "Yusuf",
];
const FAMILY: [&str; 23] = [
    "Berger",
    "Costa",
    "Dietrich",
    "Eriksen",
    "Ferrari",
    "Garcia",
    "Haddad",
    "Ivanova",
    "Jansen",
    "Kovacs",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quinn",
    "Rossi",
    "Schmidt",
    "Tanaka",
    "Urban",
    "Vogel",
    "Weiss",
    "Yilmaz",
];
const ZONES: [Tz; 6] = [
    Tz::Europe__Berlin,
    Tz::America__New_York,
    Tz::Asia__Kolkata,
    Tz::Europe__London,
    Tz::America__Los_Angeles,
    Tz::Australia__Sydney,
];

/// One person to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Somebody {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) zone: Tz,
}

/// Returns the nth person, always the same one; the first lives in Berlin. Addresses never repeat.
pub(crate) fn somebody(number: usize) -> Somebody {
    // 24 and 23 have no common divisor: all 552 combinations come before the first repetition.
    let given = GIVEN[number % GIVEN.len()];
    let family = FAMILY[number % FAMILY.len()];
    let round = number / (GIVEN.len() * FAMILY.len());
    let suffix = if round == 0 { String::new() } else { format!("{}", round + 1) };
    Somebody {
        name: if round == 0 { format!("{given} {family}") } else { format!("{given} {family} {}", round + 1) },
        address: format!("{}.{}{suffix}@{DOMAIN}", given.to_lowercase(), family.to_lowercase()),
        zone: ZONES[number % ZONES.len()],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn two_thousand_people_have_addresses_of_their_own() {
        let addresses: BTreeSet<String> = (0..2_000).map(|number| somebody(number).address).collect();
        assert_eq!(addresses.len(), 2_000);
        assert_eq!(somebody(0).address, "ada.berger@contoso.example");
        assert_eq!(somebody(0).zone, Tz::Europe__Berlin);
    }
}
