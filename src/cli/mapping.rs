//! `mapping lint`, `mapping test`, `mapping default`.

use std::path::Path;

use calbridge_core::mapping::{Mapping, MappingSpec, TestOutcome};
use calbridge_core::value::{Value, When};
use serde_json::json;

use super::args::{MappingArgs, MappingCommand, MappingFileArgs};
use super::output::{Exit, Output};
use crate::config::{ConfigProblem, DEFAULT_MAPPING, Disk, Files};

/// Code of a test that does not pass.
const TEST_FAILED: &str = "CB1120";

/// Runs a command about a mapping file.
pub(super) fn run(args: &MappingArgs, output: &mut Output<'_>) -> Exit {
    match &args.command {
        MappingCommand::Default => {
            output.print(DEFAULT_MAPPING.trim_end());
            Exit::Done
        }
        MappingCommand::Lint(args) => lint(args, output),
        MappingCommand::Test(args) => test(args, output),
    }
}

fn lint(args: &MappingFileArgs, output: &mut Output<'_>) -> Exit {
    match read(args.file.as_deref()) {
        Ok((name, spec, mapping)) => {
            if args.json {
                output.json(&json!({ "ok": true, "file": name, "problems": [], "rules": mapping.rules() }));
            } else {
                output.print(&format!(
                    "{name}: {} rules and {} tests, nothing wrong",
                    mapping.rules().len(),
                    spec.tests.len()
                ));
            }
            Exit::Done
        }
        Err(problems) => refuse(&problems, args.json, output),
    }
}

fn test(args: &MappingFileArgs, output: &mut Output<'_>) -> Exit {
    let (name, spec, mapping) = match read(args.file.as_deref()) {
        Ok(read) => read,
        Err(problems) => return refuse(&problems, args.json, output),
    };
    let outcomes = mapping.run_tests(&spec.tests);
    let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
    if args.json {
        output.json(&json!({ "ok": failed == 0, "file": name, "tests": outcomes }));
    } else {
        for outcome in &outcomes {
            output.print(&describe(&name, outcome));
        }
        output.print(&format!("{} tests, {failed} failed", outcomes.len()));
    }
    if failed == 0 { Exit::Done } else { Exit::Failed }
}

fn describe(name: &str, outcome: &TestOutcome) -> String {
    if outcome.failures.is_empty() {
        return format!("ok      {}", outcome.name);
    }
    let mut lines = vec![format!("FAILED  {name}:{}: {}", outcome.line, outcome.name)];
    for failure in &outcome.failures {
        lines.push(format!(
            "        {}: expected {}, found {}; {} ({TEST_FAILED})",
            failure.field,
            shown(&failure.expected),
            shown(&failure.found),
            failure.hint
        ));
    }
    lines.join("\n")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Flag(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::When(When::Timed { start, end, zone: None }) => format!("{start} to {end}"),
        Value::When(When::Timed { start, end, zone: Some(zone) }) => format!("{start} to {end} ({zone})"),
        Value::When(When::AllDay { first, last }) => format!("{first} to {last}, all day"),
    }
}

fn refuse(problems: &[ConfigProblem], as_json: bool, output: &mut Output<'_>) -> Exit {
    if as_json {
        output.json(&json!({ "ok": false, "problems": problems }));
    } else {
        output.problems(problems);
    }
    Exit::Refused
}

fn read(file: Option<&Path>) -> Result<(String, MappingSpec, Mapping), Vec<ConfigProblem>> {
    let (name, text) = match file {
        None => ("default.yaml (built in)".to_owned(), DEFAULT_MAPPING.to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            let text = Disk.read(path).map_err(|why| {
                vec![ConfigProblem {
                    file: name.clone(),
                    line: 0,
                    code: "CB1101",
                    message: format!("cannot read the mapping file: {why}; give the path of a file that is there"),
                }]
            })?;
            (name, text)
        }
    };
    let compiled = MappingSpec::parse(&name, &text).and_then(|spec| Ok((Mapping::compile(&spec)?, spec)));
    match compiled {
        Ok((mapping, spec)) => Ok((name, spec, mapping)),
        Err(problems) => Err(problems.into_iter().map(ConfigProblem::from).collect()),
    }
}
