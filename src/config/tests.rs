//! Tests of loading: one row per way to get a configuration wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use calbridge_core::document::{Node, Shape, parse};
use calbridge_core::policy::{FirstContact, Mode, Policy, Timers};
use chrono::TimeDelta;
use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::options::{OPTIONS, find};
use super::*;

/// Files that a test needs, by path.
#[derive(Default)]
struct Shelf(BTreeMap<PathBuf, String>);

impl Files for Shelf {
    fn read(&self, path: &Path) -> Result<String, String> {
        self.0.get(path).cloned().ok_or_else(|| "No such file".to_owned())
    }
}

/// The smallest configuration that is right; `{}` marks nothing, tests replace whole lines.
const GOOD: &str = "\
outlook:
  tenant_id: contoso.com
  client_id: 0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10
  client_secret: canary-secret
event_hubs:
  namespace: contoso.servicebus.windows.net
  hub: graph-events
  notification_url: EventHub:https://contoso.servicebus.windows.net/eventhubname/graph-events?tenantId=contoso.com
salesforce:
  login_url: https://acme.my.salesforce.com/
  client_id: key
  client_secret: canary-secret
enrolments:
  - mailbox: anna@contoso.com
";

fn load_text(text: &str, environment: &[(&str, &str)], shelf: &Shelf) -> Result<Config, Vec<ConfigProblem>> {
    load(&Sources {
        file: Some((PathBuf::from("conf/c.yaml"), text.to_owned())),
        given: Vec::new(),
        given_enrolments: Vec::new(),
        environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        files: shelf,
    })
}

fn problems(text: &str) -> Vec<String> {
    load_text(text, &[], &Shelf::default()).map(|_config| ()).unwrap_err().iter().map(ToString::to_string).collect()
}

/// The good file with one line replaced (found by its beginning), or with lines added at the end.
fn with(line: &str, replacement: &str) -> String {
    if line.is_empty() {
        return format!("{GOOD}{replacement}\n");
    }
    let mut found = false;
    let lines: Vec<&str> = GOOD
        .lines()
        .filter_map(|old| {
            if !found && old.starts_with(line) {
                found = true;
                return (!replacement.is_empty()).then_some(replacement);
            }
            Some(old)
        })
        .collect();
    assert!(found, "{line}");
    lines.join("\n") + "\n"
}

#[test]
fn the_smallest_file_is_enough_and_defaults_are_those_of_the_core() {
    let config = load_text(GOOD, &[], &Shelf::default()).unwrap();
    assert_eq!(config.connection.as_str(), "default");
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.policy.timers, Timers::default());
    assert_eq!(config.outlook.graph_url, "https://graph.microsoft.com/v1.0");
    assert_eq!(config.salesforce.login_url, "https://acme.my.salesforce.com");
    assert_eq!(config.redis.ttl, Duration::from_hours(96));
    assert_eq!(config.enrolments[0].mailbox, "anna@contoso.com");
    assert!(config.redis.url.is_none());
    assert_eq!(config.store.file(), Some(Path::new("calbridge.db")));
}

#[test]
fn a_file_overrides_defaults_and_its_paths_count_from_its_folder() {
    let text = with(
        "",
        "sync: { mode: observe, first_contact: outlook, quiet_ms: 1_000 }\nstore: { url: \"sqlite:data/c.db\" }\n\
         log: { format: json }\nrehearsal: { start_at: \"2026-11-23T09:00:00+01:00\", speed: 60 }",
    );
    let config = load_text(&text, &[], &Shelf::default()).unwrap();
    assert_eq!(config.policy.mode, Mode::Observe);
    assert_eq!(config.policy.first_contact, FirstContact::Outlook);
    assert_eq!(config.policy.timers.quiet, TimeDelta::seconds(1));
    assert_eq!(config.store.file(), Some(Path::new("conf/data/c.db")));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.rehearsal.start_at.unwrap().to_rfc3339(), "2026-11-23T08:00:00+00:00");
}

#[test]
fn each_wrong_line_gives_one_problem_with_line_code_and_mend() {
    let table: &[(&str, &str, &str)] = &[
        (
            "  tenant_id",
            "  tenant_idd: contoso.com",
            "conf/c.yaml:2: `outlook.tenant_idd` is not a known key; did you mean `tenant_id`? (CB1003)",
        ),
        (
            "  tenant_id",
            "",
            "conf/c.yaml:2: `outlook.tenant_id` is missing; add `tenant_id: 5f3c1e0a-6d1f-4a56-9f43-2d1f0a3b7c11` (CB1005)",
        ),
        (
            "  tenant_id",
            "  tenant_id:",
            "conf/c.yaml:2: `outlook.tenant_id` is missing; add `tenant_id: 5f3c1e0a-6d1f-4a56-9f43-2d1f0a3b7c11` (CB1005)",
        ),
        ("  tenant_id", "  tenant_id: [a]", "conf/c.yaml:2: `outlook.tenant_id` is a list; expected a text (CB1004)"),
        (
            "  tenant_id",
            "  tenant_id: contoso",
            "conf/c.yaml:2: `outlook.tenant_id` is `contoso`; give the tenant's guid or its domain (CB1010)",
        ),
        (
            "  client_id: 0d",
            "  client_id: nine",
            "conf/c.yaml:3: `outlook.client_id` is `nine`; give a guid such as `0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10` (CB1010)",
        ),
        (
            "  client_secret",
            "",
            "conf/c.yaml:2: `outlook.client_secret` is missing; set the environment variable CALBRIDGE_OUTLOOK__CLIENT_SECRET or give `client_secret_file` (CB1009)",
        ),
        (
            "  client_secret",
            "  client_secret_file: gone",
            "conf/c.yaml:4: `outlook.client_secret_file`: cannot read `conf/gone`: No such file; give the path of a file that holds the secret (CB1009)",
        ),
        (
            "  namespace",
            "  namespace: sb://contoso",
            "conf/c.yaml:6: `event_hubs.namespace` is `sb://contoso`; give the host name alone, without scheme and port (CB1010)",
        ),
        ("  hub", "  hub: ~", "conf/c.yaml:7: `event_hubs.hub` is missing; add `hub: graph-events` (CB1005)"),
        (
            "  notification_url",
            "  notification_url: https://x",
            "conf/c.yaml:8: `event_hubs.notification_url` is `https://x`; give it as `EventHub:https://NAMESPACE/eventhubname/HUB?tenantId=DOMAIN` (CB1010)",
        ),
        (
            "  login_url",
            "  login_url: http://acme.my.salesforce.com",
            "conf/c.yaml:10: `salesforce.login_url` is `http://acme.my.salesforce.com`; `http` would show secrets to everybody on the way; use `https` (CB1010)",
        ),
        (
            "  - mailbox",
            "  - mailbox: anna",
            "conf/c.yaml:14: `enrolments[0].mailbox` is not an address; give the mailbox as `name@domain` (CB1011)",
        ),
        (
            "  - mailbox",
            "  - salesforce_user: anna@acme.com",
            "conf/c.yaml:14: `enrolments[0].mailbox` is missing; add `mailbox: anna@contoso.com` (CB1005)",
        ),
        (
            "  - mailbox",
            "  - anna@contoso.com",
            "conf/c.yaml:14: `enrolments[0]` is a text; expected a mapping of keys (CB1004)",
        ),
        (
            "  - mailbox",
            "  - { mailbox: a@b.c, user: x }",
            "conf/c.yaml:14: `enrolments[0].user` is not a known key; expected one of `mailbox`, `salesforce_user` (CB1003)",
        ),
        (
            "  - mailbox",
            "  - { mailbox: a@b.c, salesforce_user: anna }",
            "conf/c.yaml:14: `enrolments[0].salesforce_user` is not a Salesforce user; give the user name `name@domain` or the id of 15 or 18 characters (CB1011)",
        ),
        (
            "",
            "  - mailbox: ANNA@contoso.com",
            "conf/c.yaml:15: `enrolments[1].mailbox` was already enrolled at conf/c.yaml:14; keep one of the two (CB1011)",
        ),
        (
            "",
            "sync: { mode: obsrve }",
            "conf/c.yaml:15: `sync.mode` is `obsrve`; did you mean `observe`? choose one of `observe`, `sync` (CB1008)",
        ),
        (
            "",
            "sync: { quiet_ms: 60001 }",
            "conf/c.yaml:15: `sync.quiet_ms` is 60001; give a whole number from 0 to 60000 (CB1007)",
        ),
        (
            "",
            "sync: { quiet_ms: soon }",
            "conf/c.yaml:15: `sync.quiet_ms` is a text; expected a whole number from 0 to 60000 (CB1004)",
        ),
        (
            "",
            "sync: { quiet_ms: 6000 }",
            "conf/c.yaml:15: `sync.quiet_ms` (6000 milliseconds) is more than `sync.max_wait_ms` (5000 milliseconds); lower the one or raise the other (CB1013)",
        ),
        (
            "",
            "sync: { mapping_file: m.yaml }",
            "conf/c.yaml:15: `sync.mapping_file`: cannot read `conf/m.yaml`: No such file; give the path of a mapping file (CB1101)",
        ),
        ("", "snyc: { mode: sync }", "conf/c.yaml:15: `snyc` is not a known key; did you mean `sync`? (CB1003)"),
        ("", "sync: 5", "conf/c.yaml:15: `sync` is a whole number; expected a mapping of keys (CB1004)"),
        (
            "",
            "network: { ca_file: ca.pem }",
            "conf/c.yaml:15: `network.ca_file`: cannot read `conf/ca.pem`: No such file; give the path of a file that is there (CB1010)",
        ),
        (
            "",
            "web: { address: here }",
            "conf/c.yaml:15: `web.address` is `here`; give it as `IP:PORT`, such as `127.0.0.1:9465` (CB1010)",
        ),
        (
            "",
            "redis: { url: \"http://canary-secret@h\" }",
            "conf/c.yaml:15: `redis.url` is not a usable address; give it as `redis://HOST:PORT/0`, or `rediss://` for TLS (CB1010)",
        ),
        (
            "",
            "rehearsal: { speed: 0 }",
            "conf/c.yaml:15: `rehearsal.speed` is 0; give a number from 0.01 to 1000 (CB1007)",
        ),
        (
            "",
            "rehearsal: { start_at: today }",
            "conf/c.yaml:15: `rehearsal.start_at` is `today`; give a moment with its offset, such as `2026-11-23T08:00:00Z` (CB1010)",
        ),
        (
            "",
            "connection: { id: \"a b\" }",
            "conf/c.yaml:15: `connection.id` is `a b`; use at most 64 letters, digits, `-` and `_` (CB1010)",
        ),
        ("", "outlook: {}", "conf/c.yaml:15: `outlook` was already given on line 1; keep one of the two (CB1006)"),
    ];
    for (line, replacement, expected) in table {
        assert_eq!(problems(&with(line, replacement)), [*expected], "{line} -> {replacement}");
    }
}

#[test]
fn every_option_of_a_wrong_type_is_named_with_its_line() {
    for option in OPTIONS.iter().filter(|option| option.key.contains('.')) {
        let mut tree = parse("c", GOOD).unwrap();
        let place = calbridge_core::document::Place { source: "conf/c.yaml".into(), line: 77, column: 1 };
        tree.set(option.key, Node { shape: Shape::List(Vec::new()), place });
        let found = problems(&render(&tree, 0));
        assert!(
            found.iter().any(|line| line.contains(&format!("`{}` is a list; expected", option.key))),
            "{}: {found:#?}",
            option.key
        );
        assert!(found.iter().all(|line| line.starts_with("conf/c.yaml:")), "{found:#?}");
    }
}

/// Writes a tree back as YAML, for tests that change a tree.
fn render(node: &Node, depth: usize) -> String {
    match &node.shape {
        Shape::Null => "~\n".to_owned(),
        Shape::Scalar { text, .. } => format!("{text:?}\n"),
        Shape::List(items) if items.is_empty() => "[]\n".to_owned(),
        Shape::List(items) => {
            let pad = "  ".repeat(depth);
            items.iter().fold("\n".to_owned(), |text, item| text + &pad + "-" + &render(item, depth + 1))
        }
        Shape::Map(entries) => {
            let pad = "  ".repeat(depth);
            entries
                .iter()
                .fold("\n".to_owned(), |text, entry| text + &pad + &entry.key + ": " + &render(&entry.value, depth + 1))
        }
    }
}

#[test]
fn all_problems_come_at_once_sorted_by_line_with_those_of_the_mapping() {
    let text = with("  tenant_id", "  tenent_id: x").replace("  hub: graph-events\n", "")
        + "sync: { mapping_file: m.yaml, mode: fast }\nlog: { level: 5 }\n";
    let mut shelf = Shelf::default();
    shelf.0.insert(
        PathBuf::from("conf/m.yaml"),
        "version: 1\nfields:\n  - { name: a, outlook: subjct, salesforce: Subject }\n".to_owned(),
    );
    let found = load_text(&text, &[], &shelf).map(|_config| ()).unwrap_err();
    let short: Vec<String> =
        found.iter().map(|problem| format!("{}:{} {}", problem.file, problem.line, problem.code)).collect();
    assert_eq!(
        short,
        [
            "conf/c.yaml:2 CB1003",
            "conf/c.yaml:6 CB1005",
            "conf/c.yaml:14 CB1008",
            "conf/c.yaml:15 CB1008",
            "conf/m.yaml:3 CB1109",
        ],
        "{found:#?}"
    );
}

#[test]
fn an_empty_file_lacks_everything_required_and_says_so_once_each() {
    let found = problems("");
    let required = OPTIONS
        .iter()
        .filter(|option| {
            found.iter().filter(|line| line.contains(&format!("`{}` is missing", option.key))).count() == 1
        })
        .count();
    assert_eq!(required, found.len(), "{found:#?}");
    assert_eq!(found.len(), 10, "{found:#?}");
    assert!(found.iter().all(|line| line.starts_with("conf/c.yaml:1: ")), "{found:#?}");
}

#[test]
fn syntax_is_reported_with_its_line() {
    let found = problems("outlook:\n  tenant_id: [\n");
    assert!(found[0].starts_with("conf/c.yaml:"), "{found:#?}");
    assert!(found[0].ends_with("(CB1002)"), "{found:#?}");
}

#[test]
fn the_environment_sets_secrets_and_addresses_and_nothing_else() {
    let text = with("  client_secret", "");
    let shelf = Shelf::default();
    let config = load_text(
        &text,
        &[
            ("CALBRIDGE_OUTLOOK__CLIENT_SECRET", "from-outside"),
            ("CALBRIDGE_SALESFORCE__LOGIN_URL", "https://other.my.salesforce.com"),
            ("CALBRIDGE_PORT", "tcp://10.0.0.1:80"),
            ("PATH", "/bin"),
        ],
        &shelf,
    )
    .unwrap();
    assert_eq!(config.outlook.client_secret.text().expose_secret(), "from-outside");
    assert_eq!(config.salesforce.login_url, "https://other.my.salesforce.com");

    let found = load_text(
        GOOD,
        &[
            ("CALBRIDGE_SYNC__MODE", "observe"),
            ("CALBRIDGE_OUTLOOK__CLIENT_SECRT", "x"),
            ("CALBRIDGE_WEB__ADDRESS", "nowhere"),
        ],
        &shelf,
    )
    .map(|_config| ())
    .unwrap_err();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "environment variable CALBRIDGE_OUTLOOK__CLIENT_SECRT: no option has this name; did you mean `CALBRIDGE_OUTLOOK__CLIENT_SECRET`? (CB1012)",
            "environment variable CALBRIDGE_SYNC__MODE: only secrets and addresses come from the environment; set `sync.mode` in the file (CB1012)",
            "environment variable CALBRIDGE_WEB__ADDRESS: `web.address` is `nowhere`; give it as `IP:PORT`, such as `127.0.0.1:9465` (CB1010)",
        ]
    );
}

#[test]
fn secrets_come_from_files_and_never_show() {
    let mut shelf = Shelf::default();
    shelf.0.insert(PathBuf::from("conf/s"), "canary-secret\n".to_owned());
    shelf.0.insert(PathBuf::from("conf/empty"), " \n".to_owned());
    let text = with("  client_secret", "  client_secret_file: s");
    let config = load_text(&text, &[], &shelf).unwrap();
    assert_eq!(config.outlook.client_secret.text().expose_secret(), "canary-secret");
    let shown = format!("{config:?}");
    assert!(!shown.contains("canary-secret"), "{shown}");
    assert!(!shown.contains("anna@"), "{shown}");

    let text = with("  client_secret", "  client_secret_file: empty");
    let found = load_text(&text, &[], &shelf).map(|_config| ()).unwrap_err();
    assert_eq!(found[0].code, "CB1009");
    let text = with("", "redis: { url: \"redis://h\", url_file: s }");
    let found = load_text(&text, &[], &shelf).map(|_config| ()).unwrap_err();
    assert!(found[0].message.contains("are both given; keep one"), "{found:?}");
}

#[test]
fn signing_in_with_a_signed_token_needs_user_and_key_and_no_secret() {
    let text = GOOD.replace("  client_secret: canary-secret\nenrol", "  auth: jwt_bearer\nenrol");
    let found = problems(&text);
    assert_eq!(
        found,
        [
            "conf/c.yaml:10: `salesforce.username` is missing; add `username: calbridge@acme.com` (CB1005)",
            "conf/c.yaml:10: `salesforce.private_key_file` is missing; add `private_key_file: /run/secrets/salesforce.pem` (CB1009)",
        ]
    );
    let mut shelf = Shelf::default();
    shelf.0.insert(PathBuf::from("/k.pem"), "key".to_owned());
    let text =
        text.replace("  auth: jwt_bearer\n", "  auth: jwt_bearer\n  username: a@b.c\n  private_key_file: /k.pem\n");
    let config = load_text(&text, &[], &shelf).unwrap();
    assert!(matches!(config.salesforce.auth, SalesforceAuth::JwtBearer { .. }));
}

#[test]
fn the_default_file_and_the_table_of_options_name_the_same_keys() {
    let tree = parse("default", DEFAULT_YAML).unwrap();
    let mut keys = BTreeSet::new();
    let Shape::Map(sections) = &tree.shape else { panic!() };
    for section in sections {
        match &section.value.shape {
            Shape::Map(entries) => keys.extend(entries.iter().map(|entry| format!("{}.{}", section.key, entry.key))),
            _ => {
                keys.insert(section.key.clone());
            }
        }
    }
    let known: BTreeSet<String> = OPTIONS.iter().map(|option| option.key.to_owned()).collect();
    assert_eq!(keys, known);
    assert!(find("outlook.tenant_id").is_some());
}

#[test]
fn the_example_for_production_is_right_once_its_secrets_are_there() {
    let mut shelf = Shelf::default();
    for (name, value) in
        [("outlook_client_secret", "s"), ("salesforce_client_secret", "s"), ("redis_url", "redis://redis:6379")]
    {
        shelf.0.insert(Path::new("/run/secrets").join(name), value.to_owned());
    }
    let config = load_text(include_str!("../../config/production.example.yaml"), &[], &shelf).unwrap();
    assert_eq!(config.policy.mode, Mode::Observe);
    assert_eq!(config.enrolments.len(), 2);
}

#[test]
fn the_reference_is_current() {
    let printed = include_str!("../../config/REFERENCE.md");
    assert!(printed == reference::markdown(), "run `calbridge config reference > config/REFERENCE.md`");
}

#[test]
fn the_endpoints_file_of_the_sandbox_makes_a_whole_configuration() {
    let mut shelf = Shelf::default();
    shelf.0.insert(PathBuf::from("/tmp/ca.pem"), "pem".to_owned());
    let config = Config::for_sandbox(&endpoints().to_string(), None, &shelf).unwrap();
    assert_eq!(config.connection.as_str(), "sandbox");
    assert_eq!(config.outlook.graph_url, "https://localhost:4402/v1.0");
    assert_eq!(config.event_hubs.custom_endpoint.as_deref(), Some("amqp://127.0.0.1:4404"));
    assert_eq!(config.policy.first_contact, FirstContact::Outlook);
    assert_eq!(config.enrolments.len(), 1);
    assert!((config.rehearsal.speed - 60.0).abs() < f64::EPSILON);
    assert_eq!(config.rehearsal.clock_url.as_deref(), Some("http://127.0.0.1:4400/clock"));

    let found = Config::for_sandbox("{\"ca_certificate\": 5}", None, &shelf).map(|_config| ()).unwrap_err();
    assert_eq!(found[0].code, "CB1014");
    assert!(found[0].message.contains("`ca_certificate`"), "{found:?}");
}

/// An endpoints file made by the sandbox's own type, so that a change of its form shows here.
fn endpoints() -> serde_json::Value {
    use calbridge_sandbox::endpoints::{Clock, Endpoints, EventHubs, Mailbox, Microsoft, Salesforce};
    let text = |text: &str| text.to_owned();
    let endpoints = Endpoints {
        ca_certificate: text("/tmp/ca.pem"),
        control_url: text("http://127.0.0.1:4400"),
        microsoft: Microsoft {
            tenant_id: text("5f3c1e0a-6d1f-4a56-9f43-2d1f0a3b7c11"),
            domain: text("contoso.example"),
            client_id: text("0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10"),
            client_secret: text("secret"),
            authority_https: text("https://localhost:4402"),
            authority_http: text("http://127.0.0.1:4401"),
            graph_http: text("http://127.0.0.1:4401/v1.0"),
            graph_https: text("https://localhost:4402/v1.0"),
        },
        event_hubs: EventHubs {
            host: text("localhost"),
            amqps_port: 4403,
            amqp_port: 4404,
            hub: text("graph-events"),
            consumer_group: text("$Default"),
            partitions: 4,
            connection_string: text(
                "Endpoint=sb://localhost:4404;SharedAccessKeyName=k;SharedAccessKey=v;UseDevelopmentEmulator=true;",
            ),
            notification_url: text("EventHub:https://localhost/eventhubname/graph-events?tenantId=contoso.example"),
        },
        salesforce: Salesforce {
            org_id: text("00D000000000001EAA"),
            login_http: text("http://127.0.0.1:4405"),
            login_https: text("https://localhost:4406"),
            instance_http: text("http://127.0.0.1:4405"),
            instance_https: text("https://localhost:4406"),
            pubsub: text("localhost:4407"),
            client_id: text("key"),
            client_secret: text("secret"),
            username: text("bot@acme.example"),
            user_id: text("005000000000001AAA"),
            jwt_key_file: text("/tmp/jwt.pem"),
            api_version: text("66.0"),
        },
        mailboxes: vec![Mailbox {
            user_id: text("0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a11"),
            address: text("anna@contoso.example"),
            name: text("Anna"),
            zone: text("Europe/Berlin"),
            salesforce_user_id: text("005000000000002AAA"),
            salesforce_username: text("anna@contoso.example"),
        }],
        clock: Clock { start_at: text("2026-11-23T08:00:00Z"), speed: 60.0 },
    };
    serde_json::to_value(endpoints).unwrap()
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_told_with_its_line() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().port();
    let shut = {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        closed.local_addr().unwrap().port()
    };
    let text = format!(
        "outlook:\n  tenant_id: contoso.com\n  client_id: 0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10\n  client_secret: s\n  \
         authority: http://127.0.0.1:{open}\n  graph_url: http://127.0.0.1:{shut}/v1.0\n\
         event_hubs:\n  namespace: localhost\n  hub: h\n  custom_endpoint: amqp://127.0.0.1:{open}\n  \
         notification_url: EventHub:https://localhost/eventhubname/h?tenantId=contoso.com\n\
         salesforce:\n  login_url: http://127.0.0.1:{open}\n  client_id: key\n  client_secret: s\n  \
         pubsub_endpoint: 127.0.0.1:{shut}\n\
         enrolments:\n  - mailbox: anna@contoso.com\n"
    );
    let config = load_text(&text, &[], &Shelf::default()).unwrap();
    let found = reach::probe(&config).await;
    let short: Vec<(usize, &str)> = found.iter().map(|problem| (problem.line, problem.code)).collect();
    assert_eq!(short, [(6, "CB1015"), (16, "CB1015")], "{found:#?}");
    assert!(found[0].message.contains("`outlook.graph_url`: cannot reach"), "{found:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_change_of_a_good_file_makes_loading_panic(at in 0..GOOD.len(), insert in ".{0,3}", cut in 0usize..60) {
        let mut text: Vec<char> = GOOD.chars().collect();
        let end = (at + cut).min(text.len());
        text.splice(at..end, insert.chars());
        let text: String = text.into_iter().collect();
        drop(load_text(&text, &[], &Shelf::default()));
    }
}
