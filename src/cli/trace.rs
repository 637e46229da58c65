//! `trace`: the story of a meeting.

use super::args::TraceArgs;
use super::backend::{Backend, Failure, TraceRequest};
use super::config;
use super::output::{Exit, Output};

/// Finds meetings and prints their story.
pub(super) async fn run(args: &TraceArgs, backend: &dyn Backend, output: &mut Output<'_>) -> Exit {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            output.problems(&problems);
            return Exit::Refused;
        }
    };
    let request = match (&args.mailbox, args.on) {
        (Some(mailbox), Some(on)) => TraceRequest::Day { mailbox: mailbox.clone(), on },
        _ => TraceRequest::Anything(args.anything.join(" ")),
    };
    match backend.trace(&config, &request, args.values).await {
        Ok(answer) => {
            if args.json {
                output.json(&answer.json);
            } else if answer.found > 0 || !answer.text.is_empty() {
                output.print(answer.text.trim_end());
            }
            if answer.found > 0 {
                return Exit::Done;
            }
            output.complain(match request {
                TraceRequest::Anything(_) => {
                    "nothing is known by this; give an id, words of the subject, or `--mailbox ADDRESS --on DATE`"
                }
                TraceRequest::Day { .. } => "no meeting of this mailbox is known on this day; is the mailbox enrolled?",
            });
            Exit::NotFound
        }
        Err(failure) => {
            output.complain(&failure.to_string());
            match failure {
                Failure::Refused(_) => Exit::Refused,
                Failure::Failed(_) => Exit::Failed,
            }
        }
    }
}
