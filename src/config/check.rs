//! Checks a tree against the table of options.

use std::path::Path;

use calbridge_core::document::{Found, Place, Section, Shape, nearest};
use secrecy::SecretString;

use super::address;
use super::load::Files;
use super::options::{Kind, Need, OPTIONS, Opt, find};
use super::problem::{CONTRADICTION, ConfigProblem, FORM, SECRET};
use super::secrets;
use super::values::{Checked, Values};
use crate::secret::Secret;

/// Checks every option; what is wrong lands in `problems` and in the section's report.
pub(super) fn check(
    top: &Section<'_>,
    files: &dyn Files,
    folder: Option<(&str, &Path)>,
    problems: &mut Vec<ConfigProblem>,
    warnings: &mut Vec<ConfigProblem>,
) -> Values {
    known_keys(top);
    let mut values = Values::default();
    for option in OPTIONS {
        let Some((section, key)) = locate(top, option) else {
            continue;
        };
        if is_needed(option, top) && section.get(key).is_none() && !is_mistyped(option, top, &section, key) {
            missing(option, &section, key, problems);
        }
        if let Some((value, place)) = read(option, &section, key, files, folder, (problems, warnings)) {
            values.insert(option.key, value, &place);
        }
    }
    for (section, key) in [
        ("outlook", "client_secret"),
        ("event_hubs", "connection_string"),
        ("salesforce", "client_secret"),
        ("store", "password"),
        ("redis", "url"),
    ] {
        secrets::only_once(top, section, key, problems);
    }
    contradictions(&values, problems);
    values
}

/// Notes keys that no option has, at the top and in every section.
fn known_keys(top: &Section<'_>) {
    let mut sections: Vec<&str> = Vec::new();
    for option in OPTIONS {
        let name = option.key.split('.').next().unwrap_or(option.key);
        if !sections.contains(&name) {
            sections.push(name);
        }
    }
    top.only(&sections);
    for name in sections {
        let keys = keys_of(name);
        if keys.is_empty() {
            continue;
        }
        if let Some(section) = top.section(name) {
            section.only(&keys);
        }
    }
}

/// Finds the section and the key inside it; none when the section is of a wrong kind, which is noted.
fn locate<'a>(top: &Section<'a>, option: &'static Opt) -> Option<(Section<'a>, &'static str)> {
    match option.key.split_once('.') {
        None => Some((top.clone(), option.key)),
        Some((section, key)) => {
            let entry = top.entries().iter().find(|entry| entry.key == section)?;
            Section::open(&entry.value, section, top.report()).map(|section| (section, key))
        }
    }
}

fn given(top: &Section<'_>, key: &str) -> Option<String> {
    let (section, key) = key.split_once('.')?;
    let entry = top.entries().iter().find(|entry| entry.key == section)?;
    match &entry.value.get(key)?.shape {
        Shape::Scalar { text, .. } => Some(text.clone()),
        _ => None,
    }
}

fn is_needed(option: &Opt, top: &Section<'_>) -> bool {
    match option.need {
        Need::Optional => false,
        Need::Always => true,
        Need::When(key, value) => given(top, key).as_deref() == Some(value),
        Need::OrElse(other) => given(top, other).is_none(),
        Need::WhenOrElse(key, value, other) => given(top, key).as_deref() == Some(value) && given(top, other).is_none(),
    }
}

/// Tells whether a key that is missing, or its section, stands there with a slip of the pen: one message is enough.
fn is_mistyped(option: &Opt, top: &Section<'_>, section: &Section<'_>, key: &str) -> bool {
    let section_name = option.key.split('.').next().unwrap_or(option.key);
    let sections: Vec<&str> = OPTIONS.iter().filter_map(|option| option.key.split('.').next()).collect();
    let keys = keys_of(section_name);
    let meant = |given: &Section<'_>, known: &[&str], wanted: &str| {
        given.entries().iter().any(|entry| {
            !known.contains(&entry.key.as_str()) && nearest(&entry.key, known.iter().copied()) == Some(wanted)
        })
    };
    meant(top, &sections, section_name) || (!keys.is_empty() && meant(section, &keys, key))
}

/// Returns the keys of a section; none for an option that is no section.
fn keys_of(section: &str) -> Vec<&'static str> {
    OPTIONS.iter().filter_map(|option| option.key.strip_prefix(section)?.strip_prefix('.')).collect()
}

fn missing(option: &Opt, section: &Section<'_>, key: &str, problems: &mut Vec<ConfigProblem>) {
    if !matches!(option.kind, Kind::Secret | Kind::SecretFile) {
        section.require(key, &format!("`{key}: {}`", option.example));
        return;
    }
    let place = section.place_of_missing(key);
    let mend = if option.kind == Kind::Secret {
        format!("set the environment variable {} or give `{key}_file`", variable(option.key))
    } else {
        format!("add `{key}: {}`", option.example)
    };
    problems.push(ConfigProblem::new(place, SECRET, format!("`{}` is missing; {mend}", option.key)));
}

/// Returns the environment variable of an option.
pub(super) fn variable(key: &str) -> String {
    format!("CALBRIDGE_{}", key.replace('.', "__").to_uppercase())
}

fn read(
    option: &'static Opt,
    section: &Section<'_>,
    key: &str,
    files: &dyn Files,
    folder: Option<(&str, &Path)>,
    (problems, warnings): (&mut Vec<ConfigProblem>, &mut Vec<ConfigProblem>),
) -> Option<(Checked, Place)> {
    let path_of = |found: &Found<String>| match folder {
        Some((file, folder)) if &*found.place.source == file => folder.join(&found.value),
        _ => Path::new(&found.value).to_path_buf(),
    };
    match option.kind {
        Kind::Enrolments => None,
        Kind::Flag => section.flag(key).map(|found| (Checked::Flag(found.value), found.place)),
        Kind::Whole(from, to) => {
            section.whole(key, &(from..=to)).map(|found| (Checked::Whole(found.value), found.place))
        }
        Kind::Decimal(from, to) => {
            section.decimal(key, &(from..=to)).map(|found| (Checked::Decimal(found.value), found.place))
        }
        Kind::Choice(words) => {
            let found = section.text(key)?;
            if words.contains(&found.value.as_str()) {
                return Some((Checked::Text(found.value), found.place));
            }
            section.unknown_choice(key, &found, words);
            None
        }
        Kind::Secret => {
            let found = section.text(key)?;
            Some((Checked::Secret(SecretString::from(found.value).into()), found.place))
        }
        Kind::SecretFile => {
            let found = section.text(key)?;
            let path = path_of(&found);
            let secret = secrets::from_file(files, option.key, &path, &found.place, problems)?;
            warnings.extend(secrets::open_to_all(files, option.key, &path, &found.place));
            Some((Checked::Secret(Secret::in_file(secret, path)), found.place))
        }
        Kind::StoreUrl => {
            let found = section.text(key)?;
            if let Some(mend) = address::fault(option.kind, &found.value) {
                let message = format!("`{}` is `{}`; {mend}", option.key, brief(&found.value));
                problems.push(ConfigProblem::new(&found.place, FORM, message));
                return None;
            }
            match found.value.strip_prefix(address::SQLITE) {
                Some(path) => {
                    let file = Found { value: path.to_owned(), place: found.place };
                    Some((Checked::Path(path_of(&file)), file.place))
                }
                None => Some((Checked::Text(found.value), found.place)),
            }
        }
        Kind::Path => {
            let found = section.text(key)?;
            let path = path_of(&found);
            Some((Checked::Path(path), found.place))
        }
        Kind::ReadableFile => {
            let found = section.text(key)?;
            let path = path_of(&found);
            // The mapping file is read, and complained about, where it is parsed.
            if option.key != "sync.mapping_file"
                && let Err(why) = files.read(&path)
            {
                let message = format!(
                    "`{}`: cannot read `{}`: {why}; give the path of a file that is there",
                    option.key,
                    path.display()
                );
                problems.push(ConfigProblem::new(&found.place, FORM, message));
                return None;
            }
            Some((Checked::Path(path), found.place))
        }
        Kind::SecretUrl => {
            let found = section.text(key)?;
            if let Some(mend) = address::fault(option.kind, &found.value) {
                let message = format!("`{}` is not a usable address; {mend}", option.key);
                problems.push(ConfigProblem::new(&found.place, FORM, message));
                return None;
            }
            Some((Checked::Secret(SecretString::from(found.value).into()), found.place))
        }
        kind => {
            let found = section.text(key)?;
            if let Some(mend) = address::fault(kind, &found.value) {
                let message = format!("`{}` is `{}`; {mend}", option.key, brief(&found.value));
                problems.push(ConfigProblem::new(&found.place, FORM, message));
                return None;
            }
            Some((Checked::Text(found.value), found.place))
        }
    }
}

/// Shortens a value that may be anything, and hides the user part of an address.
fn brief(text: &str) -> String {
    if text.contains('@') {
        return "(hidden: it may hold a password)".to_owned();
    }
    if text.chars().count() <= 80 {
        return text.to_owned();
    }
    let head: String = text.chars().take(77).collect();
    format!("{head}...")
}

/// Notes values that are fine alone and wrong together.
fn contradictions(values: &Values, problems: &mut Vec<ConfigProblem>) {
    let mut at_most = |lesser: &str, scale: i64, greater: &str, greater_scale: i64| {
        let (Some(place), Some(_)) = (values.place(lesser), values.place(greater)) else {
            return;
        };
        if values.whole(lesser) * scale > values.whole(greater) * greater_scale {
            let (lesser_unit, greater_unit) = (unit(lesser), unit(greater));
            let message = format!(
                "`{lesser}` ({} {lesser_unit}) is more than `{greater}` ({} {greater_unit}); lower the one or raise the other",
                values.whole(lesser),
                values.whole(greater)
            );
            problems.push(ConfigProblem::new(place, CONTRADICTION, message));
        }
    };
    at_most("sync.quiet_ms", 1, "sync.max_wait_ms", 1);
    at_most("sync.retry_min_ms", 1, "sync.retry_max_secs", 1000);
    at_most("outlook.subscription_renew_before_mins", 1, "outlook.subscription_lifetime_mins", 1);
    let Some(place) = values.place("store.url") else { return };
    let on_a_server = values.optional_text("store.url").is_some();
    if on_a_server && values.path("store.key_file").is_none() {
        let message = "`store.key_file` is missing; with PostgreSQL name a file for the key, the same for all instances: \
                       it is made at the first start";
        problems.push(ConfigProblem::new(place, CONTRADICTION, message.to_owned()));
    }
    if !on_a_server && values.secret("store.password").is_some() {
        let message = "`store.password` is for PostgreSQL, and `store.url` names a file; take it out";
        problems.push(ConfigProblem::new(place, CONTRADICTION, message.to_owned()));
    }
}

fn unit(key: &str) -> &'static str {
    find(key).map_or("", |option| option.unit)
}
