//! `check`: configuration, mapping, addresses, then both sides as the engine will use them.

use serde_json::json;

use super::args::CheckArgs;
use super::backend::Backend;
use super::config;
use super::output::{Exit, Output};
use crate::config::{ConfigProblem, reach};
use crate::ports::Finding;

/// Runs every check and prints what was found.
pub(super) async fn run(args: &CheckArgs, backend: &dyn Backend, output: &mut Output<'_>) -> Exit {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems, args.json, output),
    };
    if !args.offline {
        let problems = reach::probe(&config).await;
        if !problems.is_empty() {
            return refuse(&problems, args.json, output);
        }
    }
    let mut findings = vec![Finding {
        what: "configuration".to_owned(),
        ok: true,
        detail: format!(
            "{} mailboxes; mapping `{}` with {} rules",
            config.enrolments.len(),
            config.mapping.name,
            config.mapping.mapping.rules().len()
        ),
        code: None,
    }];
    if !args.offline {
        findings.extend(backend.check(&config).await);
    }
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    if args.json {
        output.json(&json!({ "ok": failed == 0, "problems": [], "warnings": config.warnings, "findings": findings }));
    } else {
        for warning in &config.warnings {
            output.print(&format!("warn    {warning}"));
        }
        for finding in &findings {
            output.print(&line(finding));
        }
        output.print(&match failed {
            0 => "Everything is in order.".to_owned(),
            1 => "1 thing is not in order.".to_owned(),
            many => format!("{many} things are not in order."),
        });
    }
    if failed == 0 { Exit::Done } else { Exit::Failed }
}

fn refuse(problems: &[ConfigProblem], as_json: bool, output: &mut Output<'_>) -> Exit {
    if as_json {
        output.json(&json!({ "ok": false, "problems": problems, "findings": [] }));
    } else {
        output.problems(problems);
    }
    Exit::Refused
}

fn line(finding: &Finding) -> String {
    let mark = if finding.ok { "ok    " } else { "FAILED" };
    let code = finding.code.map(|code| format!(" ({code})")).unwrap_or_default();
    format!("{mark}  {}: {}{code}", finding.what, finding.detail)
}
