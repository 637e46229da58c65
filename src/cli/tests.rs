//! Tests of the command line with an engine that answers from memory.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use clap::CommandFactory;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::ports::{Finding, Store};

/// Answers what it was made with.
#[derive(Default)]
struct Prepared {
    findings: Vec<Finding>,
    found: usize,
    asked: Mutex<Vec<(TraceRequest, bool)>>,
}

#[async_trait]
impl Backend for Prepared {
    async fn run(&self, _config: Config, _context: RunContext) -> Result<(), Failure> {
        Ok(())
    }

    fn holder(&self, _config: &Config) -> Option<String> {
        Some("the database `x` is in use by process 7 on host `y`".to_owned())
    }

    async fn check(&self, _config: &Config) -> Vec<Finding> {
        self.findings.clone()
    }

    async fn open_store(&self, _config: &Config) -> Result<Arc<dyn Store>, Failure> {
        Err(Failure::Refused("database `x` belongs to process 7; stop it first".to_owned()))
    }

    async fn open_desk(&self, config: &Config) -> Result<Arc<dyn Store>, Failure> {
        self.open_store(config).await
    }

    async fn trace(&self, _config: &Config, request: &TraceRequest, values: bool) -> Result<TraceAnswer, Failure> {
        self.asked.lock().unwrap().push((request.clone(), values));
        Ok(TraceAnswer {
            found: self.found,
            text: if self.found == 0 { String::new() } else { "in step since 9:00".to_owned() },
            json: json!([self.found]),
        })
    }
}

/// Runs one command line; returns exit, stdout and stderr.
async fn call(backend: &Prepared, arguments: &[&str]) -> (Exit, String, String) {
    let (mut data, mut complaints) = (Vec::new(), Vec::new());
    let exit = {
        let mut output = Output::to(&mut data, &mut complaints);
        let arguments = std::iter::once("calbridge").chain(arguments.iter().copied());
        execute(arguments, backend, &mut output).await
    };
    (exit, String::from_utf8(data).unwrap(), String::from_utf8(complaints).unwrap())
}

fn config_file() -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let text = "\
outlook: { tenant_id: contoso.com, client_id: 0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10, client_secret: s }
event_hubs:
  namespace: contoso.servicebus.windows.net
  hub: h
  notification_url: EventHub:https://contoso.servicebus.windows.net/eventhubname/h?tenantId=contoso.com
salesforce: { login_url: https://acme.my.salesforce.com, client_id: k, client_secret: s }
enrolments: [{ mailbox: anna@contoso.com }]
";
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn the_definition_of_the_arguments_is_sound() {
    Args::command().debug_assert();
}

#[tokio::test]
async fn help_names_every_command_and_the_exit_codes() {
    let (exit, data, _) = call(&Prepared::default(), &["--help"]).await;
    assert_eq!(exit.code(), 0);
    for word in ["run", "check", "trace", "status", "mapping", "explain", "Exit codes:", "nothing was found"] {
        assert!(data.contains(word), "{word} is missing from:\n{data}");
    }
    let (exit, data, _) = call(&Prepared::default(), &["trace", "--help"]).await;
    assert_eq!(exit.code(), 0);
    assert!(data.contains("--mailbox anna@contoso.com --on 2026-12-01"), "{data}");
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    for arguments in [
        &[][..],
        &["rnu"],
        &["trace"],
        &["trace", "--mailbox", "a@b.c"],
        &["trace", "x", "--mailbox", "a@b.c", "--on", "2026-12-01"],
        &["trace", "--mailbox", "a@b.c", "--on", "tomorrow"],
        &["run", "--colour"],
    ] {
        let (exit, data, complaints) = call(&Prepared::default(), arguments).await;
        assert_eq!(exit, Exit::Refused, "{arguments:?}");
        assert!(data.is_empty() && !complaints.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_ends_every_command_with_2_and_all_problems() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "sync: { mode: fast }\nstoer: {}\n").unwrap();
    let path = file.path().to_str().unwrap();
    for arguments in [
        &["run", "--config", path][..],
        &["check", "--config", path],
        &["status", "--config", path],
        &["trace", "x", "--config", path],
    ] {
        let (exit, data, complaints) = call(&Prepared::default(), arguments).await;
        assert_eq!(exit, Exit::Refused, "{arguments:?}");
        assert!(data.is_empty(), "{data}");
        assert!(complaints.contains(&format!("{path}:1: `sync.mode` is `fast`")), "{complaints}");
        assert!(
            complaints.contains(&format!("{path}:2: `stoer` is not a known key; did you mean `store`?")),
            "{complaints}"
        );
        assert!(complaints.contains("problems; `calbridge explain CODE`"), "{complaints}");
    }
    let (exit, data, _) = call(&Prepared::default(), &["check", "--json", "--config", path]).await;
    assert_eq!(exit, Exit::Refused);
    let data: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(data["ok"], false);
    assert!(data["problems"].as_array().unwrap().iter().any(|problem| problem["code"] == "CB1008"));
    let (exit, _, complaints) = call(&Prepared::default(), &["run", "--config", "/nowhere.yaml"]).await;
    assert_eq!(exit, Exit::Refused);
    assert!(complaints.contains("CB1001"), "{complaints}");
}

#[tokio::test]
async fn check_offline_reads_files_only() {
    let file = config_file();
    let path = file.path().to_str().unwrap();
    let (exit, data, complaints) = call(&Prepared::default(), &["check", "--offline", "--config", path]).await;
    assert_eq!(exit, Exit::Done, "{complaints}");
    assert!(
        data.contains("ok      configuration: 1 mailboxes; mapping `default.yaml (built in)` with 5 rules"),
        "{data}"
    );
}

#[tokio::test]
async fn trace_asks_for_what_was_given_and_ends_with_3_when_nothing_is_found() {
    let file = config_file();
    let path = file.path().to_str().unwrap();
    let backend = Prepared::default();
    let (exit, data, complaints) = call(&backend, &["trace", "quarterly", "review", "--config", path]).await;
    assert_eq!(exit, Exit::NotFound);
    assert!(data.is_empty() && complaints.contains("nothing is known by this"), "{complaints}");

    let backend = Prepared { found: 1, ..Prepared::default() };
    let (exit, data, _) =
        call(&backend, &["trace", "--mailbox", "a@b.c", "--on", "2026-12-01", "--values", "--config", path]).await;
    assert_eq!((exit, data.trim()), (Exit::Done, "in step since 9:00"));
    let (request, values) = backend.asked.lock().unwrap().remove(0);
    assert!(values);
    assert!(
        matches!(request, TraceRequest::Day { mailbox, on } if mailbox == "a@b.c" && on.to_string() == "2026-12-01")
    );
    let (_, data, _) = call(&backend, &["trace", "x", "--json", "--config", path]).await;
    assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), json!([1]));
}

#[tokio::test]
async fn a_database_of_another_process_ends_status_with_2() {
    let file = config_file();
    let (exit, _, complaints) =
        call(&Prepared::default(), &["status", "--config", file.path().to_str().unwrap()]).await;
    assert_eq!(exit, Exit::Refused);
    assert!(complaints.contains("belongs to process 7"), "{complaints}");
}

#[tokio::test]
async fn mapping_files_are_linted_and_tested() {
    let backend = Prepared::default();
    let (exit, data, _) = call(&backend, &["mapping", "lint"]).await;
    assert_eq!(exit, Exit::Done);
    assert!(data.contains("5 rules"), "{data}");
    let (exit, data, _) = call(&backend, &["mapping", "test"]).await;
    assert_eq!(exit, Exit::Done, "{data}");
    assert!(data.contains("tests, 0 failed"), "{data}");

    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(file.path(), "version: 1\nfields:\n  - { name: a, outlook: subjct, salesforce: Subject }\n")
        .unwrap();
    let (exit, _, complaints) = call(&backend, &["mapping", "lint", path]).await;
    assert_eq!(exit, Exit::Refused);
    assert!(complaints.contains(&format!("{path}:3: `subjct` is not a field of Outlook")), "{complaints}");

    let (_, default, _) = call(&backend, &["mapping", "default"]).await;
    std::fs::write(file.path(), default.replace("ShowAs: OutOfOffice", "ShowAs: Busy")).unwrap();
    let (exit, data, _) = call(&backend, &["mapping", "test", path]).await;
    assert_eq!(exit, Exit::Failed, "{data}");
    assert!(data.contains("ShowAs: expected \"Busy\", found \"OutOfOffice\""), "{data}");
    let (exit, data, _) = call(&backend, &["mapping", "test", path, "--json"]).await;
    assert_eq!(exit, Exit::Failed);
    assert_eq!(serde_json::from_str::<Value>(&data).unwrap()["ok"], false);
}

#[tokio::test]
async fn reasons_and_codes_are_explained_by_name_and_by_code() {
    let backend = Prepared::default();
    for word in ["needs_adopt", "CB2037", "cb2037", "NEEDS_ADOPT"] {
        let (exit, data, _) = call(&backend, &["explain", word]).await;
        assert_eq!(exit, Exit::Done, "{word}");
        assert!(data.starts_with("# CB2037 needs_adopt"), "{data}");
    }
    let (exit, data, _) = call(&backend, &["explain", "config_secret"]).await;
    assert_eq!(exit, Exit::Done);
    assert!(data.starts_with("# CB1009"), "{data}");
    let (exit, _, complaints) = call(&backend, &["explain", "need_adopt"]).await;
    assert_eq!(exit, Exit::NotFound);
    assert!(complaints.contains("did you mean `needs_adopt`?"), "{complaints}");
    let (exit, data, _) = call(&backend, &["explain"]).await;
    assert_eq!(exit, Exit::Done);
    assert!(data.contains("CB2001  in_step"), "{data}");
}

#[tokio::test]
async fn the_reference_and_the_defaults_are_printed() {
    let backend = Prepared::default();
    let (_, data, _) = call(&backend, &["config", "reference"]).await;
    assert!(data.contains("### `outlook.client_secret`"), "{data}");
    let (_, data, _) = call(&backend, &["config", "default"]).await;
    assert!(data.contains("first_contact: new_only"), "{data}");
}
