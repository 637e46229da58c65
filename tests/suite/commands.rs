//! The commands of the real program: what they refuse and how they say it, what they prove, what they print.

use std::path::Path;

use calbridge_sandbox::Options;
use serde_json::{Value, json};

use crate::support::process::{Bench, Ended, Running, call, free_address};

/// A configuration with nothing wrong; the tables below change one line of it.
const GOOD: &str = "\
outlook:
  tenant_id: contoso.example
  client_id: 0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10
  client_secret: quince
event_hubs:
  namespace: contoso.servicebus.windows.net
  hub: graph-events
  notification_url: EventHub:https://contoso.servicebus.windows.net/eventhubname/graph-events?tenantId=contoso.example
salesforce:
  login_url: https://acme.my.salesforce.com
  client_id: key
  client_secret: quince
enrolments:
  - mailbox: anna@contoso.example
";

/// A mapping with nothing wrong.
const MAPPING: &str = "\
version: 1
fields:
  - { name: time, outlook: time, salesforce: time }
  - { name: subject, outlook: subject, salesforce: Subject }
";

/// Replaces a line (from 1) of a text; one after the last is appended.
fn with_line(text: &str, line: usize, replacement: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    if line > lines.len() {
        lines.push(replacement);
    } else {
        lines[line - 1] = replacement;
    }
    lines.join("\n") + "\n"
}

/// Asserts that a command was refused with exactly these problems: file, line, code, words of it.
fn assert_refused(ended: &Ended, expected: &[(&Path, usize, &str, &str)], what: &str) {
    assert_eq!(ended.code, 2, "{what}: {ended:?}");
    let told: Vec<&str> = ended.complaints.lines().collect();
    assert_eq!(told.len(), expected.len() + 1, "{what}: one message for each problem, and how many: {told:#?}");
    for ((file, line, code, words), told) in expected.iter().zip(&told) {
        let place = if *line == 0 { format!("{}: ", file.display()) } else { format!("{}:{line}: ", file.display()) };
        assert!(told.starts_with(&place), "{what}: `{place}` is not where it is told: {told}");
        assert!(told.ends_with(&format!("({code})")), "{what}: {code} is not its code: {told}");
        assert!(told.contains(words), "{what}: it lacks `{words}`: {told}");
    }
    assert!(!ended.complaints.contains("quince"), "{what}: a secret is shown: {told:#?}");
    let noun = if expected.len() == 1 { "problem" } else { "problems" };
    let last = format!("{} {noun}; `calbridge explain CODE` tells more about each code", expected.len());
    assert_eq!(told.last().copied(), Some(last.as_str()), "{what}");
}

#[tokio::test]
async fn each_fault_of_the_configuration_gives_one_message_with_file_line_and_mend_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calbridge.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, GOOD).unwrap();
    let fine = call(&["check", "--offline", "--config", path]).await;
    assert_eq!(fine.code, 0, "{fine:?}");

    let table: &[(usize, &str, usize, &str, &str)] = &[
        // Wrong keys.
        (
            2,
            "  tenant_idd: contoso.example",
            2,
            "CB1003",
            "`outlook.tenant_idd` is not a known key; did you mean `tenant_id`?",
        ),
        (15, "snyc: { mode: sync }", 15, "CB1003", "did you mean `sync`?"),
        (
            14,
            "  - { mailbox: anna@contoso.example, user: a@b.example }",
            14,
            "CB1003",
            "expected one of `mailbox`, `salesforce_user`",
        ),
        (15, "outlook: {}", 15, "CB1006", "was already given on line 1; keep one of the two"),
        (2, "  tenant_id:", 2, "CB1005", "`outlook.tenant_id` is missing; add `tenant_id: "),
        (14, "  - salesforce_user: anna@acme.example", 14, "CB1005", "add `mailbox: anna@contoso.com`"),
        // Wrong types and values.
        (
            15,
            "sync: { workers: many }",
            15,
            "CB1004",
            "`sync.workers` is a text; expected a whole number from 1 to 256",
        ),
        (15, "sync: 5", 15, "CB1004", "expected a mapping of keys"),
        (2, "  tenant_id: [contoso.example]", 2, "CB1004", "`outlook.tenant_id` is a list; expected a text"),
        (15, "salesforce_x: [", 15, "CB1002", ""),
        (15, "sync: { workers: 257 }", 15, "CB1007", "give a whole number from 1 to 256"),
        (15, "sync: { mode: obsrve }", 15, "CB1008", "did you mean `observe`? choose one of `observe`, `sync`"),
        (15, "log: { format: xml }", 15, "CB1008", "choose one of `text`, `json`"),
        (15, "sync: { quiet_ms: 6000 }", 15, "CB1013", "lower the one or raise the other"),
        (15, "rehearsal: { start_at: today }", 15, "CB1010", "give a moment with its offset"),
        // Addresses and ids of a wrong form.
        (3, "  client_id: nine", 3, "CB1010", "give a guid such as"),
        (6, "  namespace: sb://contoso", 6, "CB1010", "give the host name alone"),
        (10, "  login_url: http://acme.my.salesforce.com", 10, "CB1010", "use `https`"),
        (14, "  - mailbox: anna", 14, "CB1011", "give the mailbox as `name@domain`"),
        (15, "  - mailbox: ANNA@contoso.example", 15, "CB1011", "was already enrolled at"),
        (15, "web: { address: here }", 15, "CB1010", "give it as `IP:PORT`"),
        (15, "network: { ca_file: gone.pem }", 15, "CB1010", "give the path of a file that is there"),
        // Missing secrets.
        (
            4,
            "",
            2,
            "CB1009",
            "set the environment variable CALBRIDGE_OUTLOOK__CLIENT_SECRET or give `client_secret_file`",
        ),
        (
            12,
            "",
            10,
            "CB1009",
            "set the environment variable CALBRIDGE_SALESFORCE__CLIENT_SECRET or give `client_secret_file`",
        ),
        (4, "  client_secret_file: gone", 4, "CB1009", "give the path of a file that holds the secret"),
        // The mapping file itself is missing.
        (15, "sync: { mapping_file: gone.yaml }", 15, "CB1101", "give the path of a mapping file"),
    ];
    for (line, replacement, at, code, words) in table {
        std::fs::write(&file, with_line(GOOD, *line, replacement)).unwrap();
        let ended = call(&["check", "--offline", "--config", path]).await;
        assert_refused(&ended, &[(&file, *at, code, words)], &format!("line {line}: {replacement}"));
        let ended = call(&["run", "--config", path]).await;
        assert_refused(&ended, &[(&file, *at, code, words)], &format!("run, line {line}: {replacement}"));
    }

    std::fs::write(&file, with_line(GOOD, 5, "  client_secret_file: other\nevent_hubs:")).unwrap();
    std::fs::write(folder.path().join("other"), "quince2").unwrap();
    let ended = call(&["check", "--offline", "--config", path]).await;
    assert_refused(&ended, &[(&file, 5, "CB1009", "are both given; keep one")], "a secret given twice");
    let gone = folder.path().join("gone.yaml");
    let ended = call(&["run", "--config", gone.to_str().unwrap()]).await;
    assert_refused(&ended, &[(&gone, 0, "CB1001", "give its path with `--config`")], "no file");
    let ended = call(&["run", "--sandbox-endpoints", gone.to_str().unwrap()]).await;
    assert_refused(&ended, &[(&gone, 0, "CB1014", "is `calbridge-sandbox serve --endpoints FILE` up?")], "no sandbox");
}

#[tokio::test]
async fn each_fault_of_the_mapping_file_gives_one_message_with_its_own_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let (file, mapping) = (folder.path().join("calbridge.yaml"), folder.path().join("mapping.yaml"));
    std::fs::write(&file, with_line(GOOD, 15, "sync: { mapping_file: mapping.yaml }")).unwrap();
    let path = file.to_str().unwrap();
    let table: &[(&str, &str, &str)] = &[
        ("{ name: a, outlook: subjct, salesforce: Location }", "CB1109", "did you mean `subject`?"),
        ("{ name: a, outlook: location.displayName, salesforce: Loc }", "CB1109", "is not a field of Salesforce"),
        ("{ name: a, outlook: location.displayName }", "CB1105", "add `salesforce: Location`"),
        (
            "{ name: a, outlook: location.displayName, salesforce: Location, direction: up }",
            "CB1108",
            "choose one of `both`, `to_salesforce`, `to_outlook`",
        ),
        (
            "{ name: a, outlook: location.displayName, salesforce: Location, colour: red }",
            "CB1103",
            "`fields[2].colour` is not a known key",
        ),
        (
            "{ name: a, outlook: location.displayName, salesforce: Location, max_length: 300 }",
            "CB1116",
            "holds 255 characters; give at most that",
        ),
        (
            "{ name: a, outlook: location.displayName, salesforce: Location, on_create: maybe }",
            "CB1104",
            "expected `true` or `false`",
        ),
        ("{ name: a, outlook: showAs, salesforce: ShowAs }", "CB1117", "say with `to_salesforce` and `to_outlook`"),
    ];
    for (rule, code, words) in table {
        std::fs::write(&mapping, with_line(MAPPING, 5, &format!("  - {rule}"))).unwrap();
        for arguments in [
            &["check", "--offline", "--config", path][..],
            &["run", "--config", path],
            &["mapping", "lint", mapping.to_str().unwrap()],
        ] {
            let ended = call(arguments).await;
            assert_refused(&ended, &[(&mapping, 5, code, words)], &format!("{arguments:?}, {rule}"));
        }
    }
}

#[tokio::test]
async fn all_faults_of_both_files_are_told_at_once_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let (file, mapping) = (folder.path().join("calbridge.yaml"), folder.path().join("mapping.yaml"));
    let mut text = with_line(GOOD, 2, "  tenant_id: [x]");
    for (line, replacement) in [
        (4, "  client_secretx: quince"),
        (6, "  namespace: sb://contoso"),
        (14, "  - mailbox: anna"),
        (15, "sync: { mode: fast, workers: no, mapping_file: mapping.yaml }"),
        (16, "stoer: {}"),
    ] {
        text = with_line(&text, line, replacement);
    }
    std::fs::write(&file, text).unwrap();
    let rules = "version: 2\nfields:\n  - { name: a, outlook: subjct, salesforce: Subject }\n  - { name: b }\n";
    std::fs::write(&mapping, rules).unwrap();
    let path = file.to_str().unwrap();
    let expected: &[(&Path, usize, &str, &str)] = &[
        (&file, 2, "CB1004", "`outlook.tenant_id`"),
        (&file, 4, "CB1003", "did you mean `client_secret`?"),
        (&file, 6, "CB1010", "`event_hubs.namespace`"),
        (&file, 14, "CB1011", "`enrolments[0].mailbox`"),
        (&file, 15, "CB1004", "`sync.workers`"),
        (&file, 15, "CB1008", "`sync.mode`"),
        (&file, 16, "CB1003", "did you mean `store`?"),
        (&mapping, 1, "CB1107", "`version`"),
        (&mapping, 3, "CB1109", "did you mean `subject`?"),
        (&mapping, 4, "CB1105", "`fields[1].outlook`"),
        (&mapping, 4, "CB1105", "`fields[1].salesforce`"),
    ];
    for arguments in [&["run"][..], &["check"], &["status"], &["trace", "anything"]] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--config", path]);
        let ended = call(&arguments).await;
        assert_refused(&ended, expected, &format!("{arguments:?}"));
    }
    let ended = call(&["check", "--json", "--config", path]).await;
    let told = ended.json();
    assert_eq!((ended.code, &told["ok"]), (2, &json!(false)));
    let problems = told["problems"].as_array().unwrap();
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, (file, line, code, _)) in problems.iter().zip(expected) {
        let found =
            (problem["file"].as_str().unwrap(), problem["line"].as_u64().unwrap(), problem["code"].as_str().unwrap());
        assert_eq!(found, (file.to_str().unwrap(), *line as u64, *code));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_do_not_answer_are_told_with_their_lines_and_do_not_keep_the_engine_down() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calbridge.yaml");
    let (closed, web) = (free_address(), free_address());
    let mut text = with_line(
        GOOD,
        4,
        &format!("  client_secret: quince\n  authority: https://{closed}\n  graph_url: https://{closed}/v1.0"),
    );
    text = text.replace("  hub: graph-events", &format!("  hub: graph-events\n  custom_endpoint: amqp://{closed}"));
    text = text.replace(
        "  login_url: https://acme.my.salesforce.com",
        &format!("  login_url: https://{closed}\n  pubsub_endpoint: {closed}"),
    );
    let text = format!("{text}web: {{ address: \"{web}\" }}\nstore: {{ url: \"sqlite:calbridge.db\" }}\n");
    std::fs::write(&file, &text).unwrap();
    let path = file.to_str().unwrap();
    let line = |key: &str| text.lines().position(|line| line.trim_start().starts_with(key)).unwrap() + 1;
    let expected: Vec<(&Path, usize, &str, &str)> =
        ["authority", "graph_url", "custom_endpoint", "login_url", "pubsub_endpoint"]
            .into_iter()
            .map(|key| (file.as_path(), line(key), "CB1015", "mend the address, or let the firewall through to it"))
            .collect();
    let ended = call(&["check", "--config", path]).await;
    assert_refused(&ended, &expected, "check");

    // An engine must come up in an outage: it says the same, and goes on.
    let running = Running::start(&["run", "--config", path]);
    for (_, line, ..) in &expected {
        let place = format!("{path}:{line}: ");
        running.log_until(&place, |told| told.contains(&place) && told.contains("CB1015")).await;
    }
    let ended = running.stop().await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!ended.complaints.contains("quince"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_proves_what_is_in_order_and_names_what_is_missing() {
    let bench = Bench::set_up(Options::default(), "").await;
    let faults = &bench.rehearsal.sandbox.world().faults;
    let fine = bench.call(&["check"]).await;
    assert_eq!(fine.code, 0, "{fine:?}");
    assert!(fine.data.ends_with("Everything is in order.\n"), "{}", fine.data);
    assert!(!fine.data.contains("FAILED"), "{}", fine.data);
    for mailbox in &bench.rehearsal.sandbox.endpoints().mailboxes {
        assert!(fine.data.contains(&format!("ok      outlook: mailbox {}", mailbox.address)), "{}", fine.data);
    }
    let told = bench.call(&["check", "--json"]).await.json();
    assert_eq!(told["ok"], true);
    assert!(told["findings"].as_array().unwrap().iter().all(|finding| finding["ok"] == true), "{told:#}");

    let failed = |ended: &Ended| -> Vec<String> {
        ended.data.lines().filter(|line| line.starts_with("FAILED")).map(str::to_owned).collect()
    };
    faults.change(|switches| switches.salesforce_link_field = false);
    let ended = bench.call(&["check"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(failed(&ended).len(), 1, "{}", ended.data);
    assert!(failed(&ended)[0].starts_with("FAILED  salesforce: field Calbridge_Link__c: "), "{}", ended.data);
    assert!(failed(&ended)[0].contains("create it on Activity as Text(36)"), "{}", ended.data);
    let told = bench.call(&["check", "--json"]).await;
    assert_eq!((told.code, &told.json()["ok"]), (1, &json!(false)));
    faults.change(|switches| (switches.salesforce_link_field, switches.salesforce_token_field) = (true, false));
    let ended = bench.call(&["check"]).await;
    assert!(failed(&ended)[0].starts_with("FAILED  salesforce: field Calbridge_Token__c: "), "{}", ended.data);
    faults.change(|switches| switches.salesforce_token_field = true);

    bench.mistype(|endpoints| endpoints["microsoft"]["client_secret"] = json!("quince~wrong"));
    let ended = bench.call(&["check"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(failed(&ended)[0].starts_with("FAILED  outlook: sign in: "), "{}", ended.data);
    assert!(failed(&ended)[0].contains("AADSTS7000215"), "{}", ended.data);
    assert!(!ended.data.contains("quince"), "{}", ended.data);
    bench.mistype(|endpoints| endpoints["salesforce"]["client_secret"] = json!("quince~wrong"));
    let ended = bench.call(&["check"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(failed(&ended)[0].starts_with("FAILED  salesforce: sign in: "), "{}", ended.data);
    assert!(!ended.data.contains("quince"), "{}", ended.data);
    bench.mistype(|_| {});

    let known = bench.rehearsal.person(0).mailbox().address.clone();
    bench.settings(&format!("enrolments:\n  - mailbox: nobody@contoso.example\n    salesforce_user: {known}\n"));
    let ended = bench.call(&["check"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(failed(&ended).len(), 1, "{}", ended.data);
    assert!(failed(&ended)[0].starts_with("FAILED  outlook: mailbox nobody@contoso.example: "), "{}", ended.data);
    assert!(failed(&ended)[0].contains("correct the address or remove the enrolment"), "{}", ended.data);
    bench.settings(&format!("enrolments:\n  - mailbox: {known}\n    salesforce_user: nobody@acme.example\n"));
    let ended = bench.call(&["check"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(failed(&ended).len(), 1, "{}", ended.data);
    assert!(failed(&ended)[0].starts_with("FAILED  salesforce: user nobody@acme.example: "), "{}", ended.data);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_on_the_same_database_ends_with_2_and_names_the_holder() {
    let bench = Bench::set_up(Options::default(), "").await;
    let running = bench.run().await;
    let status = bench.call(&["status"]).await;
    assert_eq!(status.code, 0, "status works beside a running engine: {status:?}");
    assert!(status.data.contains("enrolments: 3"), "{}", status.data);
    let json = bench.call(&["status", "--json"]).await.json();
    assert_eq!(json["connection"], "rehearsal");
    assert_eq!(json["enrolments"].as_array().unwrap().len(), 3);
    assert_eq!(json["subscriptions"].as_array().unwrap().len(), 3, "{json:#}");
    assert!(json["store"]["checkpoints"].is_object(), "{json:#}");

    let first = std::fs::read_to_string(&bench.config).unwrap();
    std::fs::write(&bench.config, first.replace(&bench.web.to_string(), &free_address().to_string())).unwrap();
    let second = bench.start().ended().await;
    assert_eq!(second.code, 2, "{second:?}");
    let holder = running.id().to_string();
    assert!(second.complaints.contains(&holder), "it does not name process {holder}: {}", second.complaints);
    assert_eq!(running.stop().await.code, 0);
    bench.end().await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told_by_the_commands_that_only_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calbridge.yaml");
    std::fs::write(&file, with_line(GOOD, 15, "store: { url: \"sqlite:calbridge.db\" }")).unwrap();
    for arguments in [&["status"][..], &["trace", "anything"]] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--config", file.to_str().unwrap()]);
        let ended = call(&arguments).await;
        assert_ne!(ended.code, 0, "{ended:?}");
        assert!(ended.complaints.contains("calbridge.db"), "{ended:?}");
    }
}

#[tokio::test]
async fn pages_help_and_the_mapping_commands_print_what_they_promise() {
    for (word, title) in [("needs_adopt", "# CB2037 needs_adopt"), ("CB1009", "# CB1009"), ("cb1310", "# CB1310")] {
        let ended = call(&["explain", word]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.data.starts_with(title), "{}", ended.data);
        for part in ["**Means**", "**Causes**", "**Do**"] {
            assert!(ended.data.contains(part), "{word} lacks {part}: {}", ended.data);
        }
    }
    let unknown = call(&["explain", "need_adopt"]).await;
    assert_eq!(unknown.code, 3, "{unknown:?}");
    assert!(unknown.complaints.contains("did you mean `needs_adopt`?"), "{unknown:?}");

    let help = call(&["--help"]).await;
    assert_eq!(help.code, 0);
    for command in ["run", "check", "trace", "status", "mapping", "explain"] {
        assert!(help.data.contains(&format!("  {command} ")), "{command} is missing from:\n{}", help.data);
        let ended = call(&[command, "--help"]).await;
        assert_eq!(ended.code, 0);
        assert!(ended.data.contains("Usage:"), "{}", ended.data);
    }
    for arguments in
        [&["mapping", "lint", "--help"][..], &["trace", "--help"], &["check", "--help"], &["run", "--help"]]
    {
        let ended = call(arguments).await;
        assert!(ended.data.contains("Example"), "{arguments:?} shows no example: {}", ended.data);
    }
    let wrong = call(&["trcae"]).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");

    let lint = call(&["mapping", "lint", "--json"]).await;
    assert_eq!((lint.code, &lint.json()["ok"]), (0, &json!(true)));
    assert_eq!(lint.json()["rules"].as_array().map(Vec::len), Some(5));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mapping.yaml");
    std::fs::write(&file, "version: 1\nfields:\n  - { name: a, outlook: subjct, salesforce: Subject }\n").unwrap();
    let lint = call(&["mapping", "lint", "--json", file.to_str().unwrap()]).await;
    let told: Value = lint.json();
    assert_eq!((lint.code, &told["ok"]), (2, &json!(false)));
    assert_eq!(told["problems"][0]["line"], 3, "{told:#}");
    let test = call(&["mapping", "test"]).await;
    assert_eq!(test.code, 0, "{test:?}");
}
