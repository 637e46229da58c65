//! The reference of all options, printed from the table.

use std::fmt::Write as _;

use calbridge_core::document::{Node, Shape, parse};

use super::check::variable;
use super::load::DEFAULT_YAML;
use super::options::{Kind, Need, OPTIONS, Opt};

/// Returns `config/REFERENCE.md`.
pub fn markdown() -> String {
    let defaults = parse("default", DEFAULT_YAML).ok();
    let mut text = String::from(
        "# Configuration reference\n\n\
         Printed by `calbridge config reference`; do not edit. Defaults are in `calbridge.default.yaml`, built into the\n\
         program; a file of yours overrides them key by key. Everything wrong is reported at once, with file and line.\n\
         Secrets and addresses can be set by the environment variable named with them. Paths in a file of yours count from\n\
         its folder.\n",
    );
    let mut section = "";
    for option in OPTIONS {
        let name = option.key.split('.').next().unwrap_or(option.key);
        if name != section {
            section = name;
            push(&mut text, &format!("\n## {section}\n"));
        }
        describe(&mut text, option, defaults.as_ref());
    }
    text
}

fn describe(text: &mut String, option: &Opt, defaults: Option<&Node>) {
    push(text, &format!("\n### `{}`\n\n{}\n\n", option.key, option.meaning));
    let mut facts = vec![("Type", option.kind.words())];
    if !option.unit.is_empty() {
        facts.push(("Unit", option.unit.to_owned()));
    }
    let range = option.kind.range();
    if !range.is_empty() {
        facts.push(("Range", range));
    }
    facts.push(("Default", default_of(option, defaults)));
    if let Some(need) = need(option.need) {
        facts.push(("Required", need));
    }
    facts.push(("Example", format!("`{}`", option.example)));
    if option.kind.from_environment() {
        facts.push(("Environment", format!("`{}`", variable(option.key))));
    }
    facts.push(("If wrong", option.wrong.to_owned()));
    for (name, fact) in facts {
        push(text, &format!("- {name}: {fact}\n"));
    }
    if option.kind == Kind::Enrolments {
        push(
            text,
            "- Item `mailbox`: address of the mailbox, required\n\
             - Item `salesforce_user`: user name, or id of 15 or 18 characters\n",
        );
    }
}

fn default_of(option: &Opt, defaults: Option<&Node>) -> String {
    let mut node = defaults;
    for key in option.key.split('.') {
        node = node.and_then(|node| node.get(key));
    }
    match node.map(|node| &node.shape) {
        Some(Shape::Scalar { text, .. }) => format!("`{text}`"),
        _ => "none".to_owned(),
    }
}

fn need(need: Need) -> Option<String> {
    match need {
        Need::Optional => None,
        Need::Always => Some("yes".to_owned()),
        Need::When(key, value) => Some(format!("when `{key}` is `{value}`")),
        Need::OrElse(other) => Some(format!("yes, or `{other}`")),
        Need::WhenOrElse(key, value, other) => Some(format!("when `{key}` is `{value}`, or `{other}`")),
    }
}

fn push(text: &mut String, more: &str) {
    write!(text, "{more}").expect("writing to a String cannot fail");
}
