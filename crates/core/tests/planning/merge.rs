//! The merge table, one line per row; together the rows cover every cell exactly once.

use calbridge_core::link::LinkState;
use calbridge_core::mapping::{Conflict, Direction, Initial};
use calbridge_core::observed::Stamp;
use calbridge_core::plan::{Outcome, Plan};
use calbridge_core::reason::Reason;
use calbridge_core::side::Side;
use calbridge_core::value::Value;
use chrono::TimeDelta;

use crate::scene::{Scene, event, link_id, mapping, record, text_rule, timed, token, version};

/// Base, what changed, the rule's direction, its conflict policy, its `initial`, whether Outlook may be written; then the verdict.
///
/// `same`: both now hold the same new value. `differ`: two new values. `outlook` without a base: only Outlook holds one.
/// For `latest`, Salesforce is the later one here; the test below this one looks at the moments.
const TABLE: &str = "
known   none       *                 *                        *                       *   | in_step
known   outlook    both,to_salesforce *                       *                       *   | salesforce outlook_changed
known   outlook    to_outlook        *                        *                       *   | leave one_way_field
known   salesforce to_salesforce     *                        *                       *   | leave one_way_field
known   salesforce both,to_outlook   *                        *                       yes | outlook salesforce_changed
known   salesforce both,to_outlook   *                        *                       no  | leave not_organizer
known   same       *                 *                        *                       *   | base same_change
known   differ     to_salesforce     *                        *                       *   | salesforce conflict_outlook_wins
known   differ     to_outlook        *                        *                       yes | outlook conflict_salesforce_wins
known   differ     to_outlook        *                        *                       no  | leave not_organizer
known   differ     both              outlook_wins             *                       *   | salesforce conflict_outlook_wins
known   differ     both              salesforce_wins,latest   *                       yes | outlook conflict_salesforce_wins
known   differ     both              manual                   *                       yes | ask
known   differ     both              salesforce_wins,latest,manual *                  no  | salesforce conflict_outlook_wins
unknown none       *                 *                        *                       *   | base in_step
unknown same       *                 *                        *                       *   | base in_step
unknown outlook    to_salesforce     *                        *                       *   | salesforce initial_value
unknown outlook    both              *                        outlook,fill_empty      *   | salesforce initial_value
unknown outlook    both              *                        salesforce              yes | outlook initial_value
unknown outlook    both              *                        salesforce              no  | leave not_organizer
unknown outlook    both              *                        ask                     *   | ask
unknown outlook    to_outlook        *                        *                       yes | outlook initial_value
unknown outlook    to_outlook        *                        *                       no  | leave not_organizer
unknown salesforce to_salesforce     *                        *                       *   | salesforce initial_value
unknown salesforce both              *                        outlook                 *   | salesforce initial_value
unknown salesforce both              *                        salesforce,fill_empty   yes | outlook initial_value
unknown salesforce both              *                        salesforce,fill_empty   no  | leave not_organizer
unknown salesforce both              *                        ask                     *   | ask
unknown salesforce to_outlook        *                        *                       yes | outlook initial_value
unknown salesforce to_outlook        *                        *                       no  | leave not_organizer
unknown differ     to_salesforce     *                        *                       *   | salesforce initial_value
unknown differ     both              *                        outlook,fill_empty      *   | salesforce initial_value
unknown differ     both              *                        salesforce              yes | outlook initial_value
unknown differ     both              *                        salesforce              no  | leave not_organizer
unknown differ     both              *                        ask                     *   | ask
unknown differ     to_outlook        *                        *                       yes | outlook initial_value
unknown differ     to_outlook        *                        *                       no  | leave not_organizer
";

const AXES: [&[&str]; 6] = [
    &["known", "unknown"],
    &["none", "outlook", "salesforce", "same", "differ"],
    &["both", "to_salesforce", "to_outlook"],
    &["outlook_wins", "salesforce_wins", "latest", "manual"],
    &["outlook", "salesforce", "fill_empty", "ask"],
    &["yes", "no"],
];

fn cells() -> Vec<[&'static str; 6]> {
    let mut cells = vec![[""; 6]];
    for (index, values) in AXES.iter().enumerate() {
        let grow = |cell: &[&'static str; 6]| {
            let cell = *cell;
            values.iter().map(move |value| {
                let mut longer = cell;
                longer[index] = value;
                longer
            })
        };
        cells = cells.iter().flat_map(grow).collect();
    }
    cells
}

/// Returns the verdict of the one row that covers a cell.
fn expected(cell: &[&str; 6]) -> &'static str {
    let covers = |row: &&str| {
        let columns = row.split('|').next().unwrap().split_whitespace();
        columns.zip(cell).all(|(column, value)| column == "*" || column.split(',').any(|one| one == *value))
    };
    let rows: Vec<&str> = TABLE.lines().filter(|line| !line.is_empty()).filter(covers).collect();
    let [row] = rows.as_slice() else { panic!("{cell:?} is covered by {} rows: {rows:?}", rows.len()) };
    row.split('|').nth(1).unwrap().trim()
}

fn named<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(name.into()).unwrap()
}

/// Sets the stage for a cell.
fn stage(cell: &[&str; 6]) -> Scene {
    let [base, changed, direction, conflict, initial, writable] = *cell;
    let mut rule = text_rule("subject", "subject", "Subject");
    rule.direction = named::<Direction>(direction);
    rule.conflict = named::<Conflict>(conflict);
    rule.initial = named::<Initial>(initial);
    let mut scene = Scene::in_step();
    scene.rules.mapping = mapping(vec![rule, text_rule("time", "time", "time")]);
    let known = base == "known";
    if !known {
        scene.link().base.remove("subject");
    }
    let (outlook, salesforce) = match (changed, known) {
        ("none", _) => ("lunch", "lunch"),
        ("outlook", true) => ("dinner", "lunch"),
        ("salesforce", true) => ("lunch", "supper"),
        ("outlook", false) => ("dinner", ""),
        ("salesforce", false) => ("", "supper"),
        ("same", _) => ("dinner", "dinner"),
        _ => ("dinner", "supper"),
    };
    for (side, subject) in [(Side::Outlook, outlook), (Side::Salesforce, salesforce)] {
        if subject != "lunch" {
            scene.set_subject(side, subject);
        }
    }
    scene.edit(Side::Salesforce, |snapshot| snapshot.modified += TimeDelta::seconds(30));
    scene.edit(Side::Outlook, |snapshot| snapshot.traits.is_organizer = writable == "yes");
    scene
}

/// Puts a plan into the words of the table, and checks what every such plan must look like.
fn verdict(scene: &Scene, plan: &Plan) -> String {
    let next = plan.next.as_ref().expect("a linked meeting stays linked");
    let before = &scene.case.link.as_ref().unwrap().base;
    if let LinkState::DeadLetter { reason, .. } = next.state {
        assert_eq!((reason, plan.outcome), (Reason::ManualConflict, Outcome::DeadLetter));
        assert!(plan.steps.is_empty() && next.base == *before);
        assert_eq!(plan.decisions.first().map(|decision| decision.reason), Some(Reason::ManualConflict));
        return "ask".to_owned();
    }
    if let [step] = plan.steps.as_slice() {
        assert_eq!(plan.outcome, Outcome::Write);
        // The base moves when the write is confirmed, not before; the intent knows both what is written and what is lost.
        assert_eq!(next.base, *before);
        assert_eq!(next.intents.get(step.side).as_ref(), Some(step));
        assert_eq!(step.fields.keys().collect::<Vec<_>>(), step.replaced.keys().collect::<Vec<_>>());
        assert_eq!(step.fields.len(), 1);
        let [decision] = plan.decisions.as_slice() else { panic!("{:?}", plan.decisions) };
        assert_eq!((decision.write, decision.reason), (Some(step.side), step.reason));
        return format!("{} {}", step.side, step.reason);
    }
    assert!(plan.steps.is_empty(), "one field is one write");
    assert_eq!(plan.outcome, Outcome::InStep);
    let reason = plan.decisions.first().map(|decision| decision.reason);
    match reason {
        _ if next.base != *before => format!("base {}", reason.unwrap_or(Reason::InStep)),
        Some(reason) => format!("leave {reason}"),
        None => "in_step".to_owned(),
    }
}

#[test]
fn every_cell_of_the_merge_table_is_decided_as_its_row_says() {
    for cell in cells() {
        let scene = stage(&cell);
        assert_eq!(verdict(&scene, &scene.plan()), expected(&cell), "{cell:?}");
    }
}

#[test]
fn every_row_of_the_merge_table_is_needed() {
    for row in TABLE.lines().filter(|line| !line.is_empty()) {
        let verdict = row.split('|').nth(1).unwrap().trim();
        let columns: Vec<&str> = row.split('|').next().unwrap().split_whitespace().collect();
        let covered = |cell: &&[&str; 6]| {
            cell.iter()
                .zip(&columns)
                .all(|(value, column)| *column == "*" || column.split(',').any(|one| one == *value))
        };
        let cells = cells();
        let cell = cells.iter().find(covered).unwrap_or_else(|| panic!("no cell for `{row}`"));
        assert_eq!(expected(cell), verdict);
    }
}

#[test]
fn the_later_edit_wins_only_when_it_is_clearly_later() {
    for (lead_ms, winner) in [(-60_000, "salesforce"), (0, "salesforce"), (4_999, "salesforce"), (5_000, "outlook")] {
        let mut scene = stage(&["known", "differ", "both", "latest", "outlook", "yes"]);
        scene.edit(Side::Outlook, |_| ());
        scene.edit(Side::Salesforce, |snapshot| snapshot.modified += TimeDelta::milliseconds(lead_ms));
        assert!(verdict(&scene, &scene.plan()).starts_with(winner), "{lead_ms} ms");
    }
}

#[test]
fn a_changed_rule_makes_the_base_unknown() {
    let mut scene = Scene::in_step();
    scene.link().base.get_mut("subject").unwrap().rule = "another".to_owned();
    scene.set_subject(Side::Salesforce, "supper");
    let plan = scene.plan();
    assert_eq!(plan.steps[0].side, Side::Salesforce, "`initial: outlook` decides, not who changed");
    assert_eq!(plan.reasons, [Reason::InitialValue]);
}

#[test]
fn changes_of_different_fields_on_both_sides_cross_without_a_conflict() {
    let mut scene = Scene::in_step();
    scene.set_subject(Side::Outlook, "dinner");
    let later = timed("2026-12-01T11:00:00Z", "2026-12-01T12:00:00Z");
    scene.edit(Side::Salesforce, |snapshot| {
        snapshot.fields.insert("time".to_owned(), later.clone());
    });
    let plan = scene.plan();
    let written: Vec<_> = plan.steps.iter().map(|step| (step.side, step.fields.clone())).collect();
    assert_eq!(
        written,
        [
            (Side::Outlook, [("time".to_owned(), later)].into()),
            (Side::Salesforce, [("Subject".to_owned(), Value::text("dinner"))].into()),
        ]
    );
    for step in &plan.steps {
        assert_eq!(step.token, scene.fresh.token(step.side));
        assert_eq!(step.stamp.token, Some(step.token));
        assert_eq!(step.expected, Some(version(step.side, 2)));
        assert_eq!(step.give_up_at - step.recorded_at, TimeDelta::seconds(70));
    }
}

#[test]
fn a_time_that_ends_before_it_starts_or_lasts_more_than_14_days_goes_nowhere() {
    for (side, end) in
        Side::BOTH.into_iter().flat_map(|side| [(side, "2026-12-01T10:00:00Z"), (side, "2026-12-15T11:01:00Z")])
    {
        let mut scene = Scene::in_step();
        scene.edit(side, |snapshot| {
            snapshot.fields.insert("time".to_owned(), timed("2026-12-01T11:00:00Z", end));
        });
        let plan = scene.plan();
        assert!(plan.steps.is_empty(), "{side} {end}");
        assert_eq!(plan.reasons, [Reason::TimeNotMappable], "{side} {end}");
        assert_eq!(plan.next.unwrap().base, scene.link().base, "the base stays for the next edit");
    }
}

#[test]
fn a_version_without_a_mapped_change_writes_nothing_and_says_so() {
    let mut scene = Scene::in_step();
    scene.edit(Side::Outlook, |_| ());
    scene.signal(event(1), false, vec![version(Side::Outlook, 2)]);
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons), (Outcome::InStep, vec![Reason::NoMappedChange]));
}

#[test]
fn nothing_is_written_to_salesforce_without_stamp_fields() {
    let mut scene = Scene::in_step();
    scene.rules.policy.salesforce_stampable = false;
    scene.set_subject(Side::Outlook, "dinner");
    let plan = scene.plan();
    assert_eq!((plan.outcome, plan.reasons[0]), (Outcome::Wait, Reason::MissingStampField));
    assert!(plan.steps.is_empty() && plan.wake_at.is_some());

    let mut scene = Scene::in_step();
    scene.rules.policy.salesforce_stampable = false;
    scene.set_subject(Side::Salesforce, "supper");
    assert_eq!(scene.plan().steps.len(), 1, "Outlook needs no fields of its own");
}

#[test]
fn observing_decides_the_same_and_changes_nothing() {
    let mut scene = Scene::in_step();
    scene.set_subject(Side::Outlook, "dinner");
    let synced = scene.plan();
    scene.rules.policy.mode = calbridge_core::policy::Mode::Observe;
    let observed = scene.plan();
    assert_eq!(observed.decisions, synced.decisions);
    assert_eq!((observed.outcome, observed.reasons[0]), (Outcome::Skip, Reason::ObserveMode));
    assert!(observed.steps.is_empty() && observed.next.is_none());
}

#[test]
fn notices_of_our_own_write_are_counted_as_echoes() {
    for side in Side::BOTH {
        let mut scene = Scene::in_step();
        let stamp = snapshot_stamp(7);
        scene.replica(side).stamped = Some(stamp.clone());
        scene.edit(side, |snapshot| {
            snapshot.version = version(side, 1);
            snapshot.stamp = Some(stamp.clone());
        });
        scene.signal(record(side), false, vec![version(side, 1)]);
        let plan = scene.plan();
        assert_eq!((plan.echoes, plan.reasons), (1, vec![Reason::Echo]), "{side}");

        // The same stamp under a later version: a person changed it since.
        scene.set_subject(side, "dinner");
        let plan = scene.plan();
        assert_eq!((plan.echoes, plan.steps.len()), (0, 1), "{side}");
    }
}

fn snapshot_stamp(number: u128) -> Stamp {
    Stamp { link: link_id(), partner: String::new(), token: Some(token(number)) }
}
