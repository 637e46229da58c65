//! Files that cannot be right: each is refused at once, with the line and the mend, whatever its size or shape.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::support::process::{Ended, call};

/// A configuration that is right but for the path in it.
fn with_secret(path: &Path) -> String {
    format!(
        "connection:\n  id: main\noutlook:\n  tenant_id: contoso.com\n  client_id: 0d7a4f9e-2a53-4b0c-8d59-6d8f6f0c9a10\n  \
         client_secret_file: {}\nevent_hubs:\n  namespace: contoso.servicebus.windows.net\n  hub: graph-events\n  \
         notification_url: EventHub:https://contoso.servicebus.windows.net/eventhubname/graph-events?tenantId=contoso.com\n\
         salesforce:\n  login_url: https://acme.my.salesforce.com/\n  client_id: key\n  client_secret: zyxcanary\n\
         enrolments:\n  - mailbox: anna@contoso.com\n",
        path.display()
    )
}

async fn check(config: &Path) -> Ended {
    call(&["check", "--offline", "--config", config.to_str().unwrap()]).await
}

/// Writes a file and checks it; returns what was complained of.
async fn refused(folder: &TempDir, name: &str, content: &[u8]) -> String {
    let path = folder.path().join("calbridge.yaml");
    std::fs::write(&path, content).unwrap();
    let ended = check(&path).await;
    assert_eq!(ended.code, 2, "{name}: {ended:?}");
    assert!(ended.complaints.len() < 20_000, "{name}: {} bytes of complaints", ended.complaints.len());
    assert!(!ended.complaints.contains("panicked"), "{name}: {ended:?}");
    ended.complaints
}

#[tokio::test]
async fn configurations_of_any_size_and_shape_are_refused_with_line_and_mend() {
    let folder = TempDir::new().unwrap();
    let bomb: String = std::iter::once("a0: &a0 [x, x]\n".to_owned())
        .chain((1..30).map(|level| format!("a{level}: &a{level} [*a{0}, *a{0}, *a{0}, *a{0}]\n", level - 1)))
        .collect();
    let latin = b"connection:\n  id: main\n# caf\xe9\n".to_vec();
    let cases: [(&str, Vec<u8>, &[&str]); 11] = [
        ("10 MB", vec![b'#'; 10_000_000], &["longer than 2097152 bytes"]),
        ("a little over what is parsed", vec![b'#'; 1_500_000], &["calbridge.yaml:1", "longer than 1048576 bytes"]),
        (
            "lists nested 100 000 deep",
            [vec![b'['; 100_000], vec![b']'; 100_000]].concat(),
            &["calbridge.yaml:1", "CB1002"],
        ),
        ("mappings nested 10 000 deep", "{a: ".repeat(10_000).into_bytes(), &["calbridge.yaml:1", "CB1002"]),
        ("aliases that grow without bound", bomb.into_bytes(), &["calbridge.yaml:", "more than 20000 values"]),
        ("an alias of nothing", b"connection: *nobody\n".to_vec(), &["calbridge.yaml:1", "CB1002"]),
        (
            "keys given twice",
            b"connection:\n  id: a\n  id: b\nconnection:\n  id: c\n".to_vec(),
            &["calbridge.yaml:3", "calbridge.yaml:4", "keep one"],
        ),
        ("Latin-1", latin, &["line 3 is not UTF-8", "save the file as UTF-8"]),
        ("NUL characters", b"connection:\n  id: \0\0\n".to_vec(), &["calbridge.yaml:2"]),
        ("not YAML", b"connection: [\n".to_vec(), &["calbridge.yaml:", "check indentation"]),
        ("an unknown key", b"connection:\n  idd: main\n".to_vec(), &["calbridge.yaml:2", "did you mean `id`"]),
    ];
    for (name, content, words) in cases {
        let complaints = refused(&folder, name, &content).await;
        for word in words {
            assert!(complaints.contains(word), "{name}: `{word}` is missing in {complaints}");
        }
    }
}

#[tokio::test]
async fn paths_that_lead_to_no_usable_file_are_named_with_the_line_and_the_mend() {
    let folder = TempDir::new().unwrap();
    let secret = |name: &str| folder.path().join(name);
    std::fs::create_dir(secret("directory")).unwrap();
    std::fs::write(secret("empty"), " \n").unwrap();
    std::fs::write(secret("large"), vec![b'x'; 100_000]).unwrap();
    std::fs::write(secret("binary"), b"\xff\xfe").unwrap();
    let endless = Path::new("/dev/zero").to_path_buf();
    for (path, words) in [
        (secret("missing"), "No such file"),
        (secret("directory"), "it is a directory"),
        (secret("empty"), "is empty; put the secret into it"),
        (secret("large"), "is it the right file?"),
        (secret("binary"), "line 1 is not UTF-8"),
        (endless, "is it the right file?"),
    ] {
        let complaints = refused(&folder, words, with_secret(&path).as_bytes()).await;
        assert!(complaints.contains(words) && complaints.contains("calbridge.yaml:6"), "{words}: {complaints}");
        assert!(!complaints.contains("zyxcanary"), "{complaints}");
    }
    for (path, words) in [(secret("missing.yaml"), "No such file"), (secret("directory"), "it is a directory")] {
        let ended = check(&path).await;
        assert!(
            ended.code == 2 && ended.complaints.contains(words) && ended.complaints.contains("--config"),
            "{ended:?}"
        );
    }
    // The mapping file is read by the same rules.
    std::fs::write(secret("good"), "secret").unwrap();
    for (mapping, words) in [("directory", "it is a directory"), ("large", "CB11"), ("nowhere", "No such file")] {
        let text = format!("{}sync:\n  mapping_file: {mapping}\n", with_secret(&secret("good")));
        let complaints = refused(&folder, mapping, text.as_bytes()).await;
        assert!(complaints.contains(words), "{mapping}: {complaints}");
    }
}

#[tokio::test]
async fn a_secret_that_everybody_may_read_is_a_warning_and_one_that_few_may_read_is_none() {
    let folder = TempDir::new().unwrap();
    let (secret, config) = (folder.path().join("secret"), folder.path().join("calbridge.yaml"));
    std::fs::write(&secret, "zyxcanary").unwrap();
    std::fs::write(&config, with_secret(&secret)).unwrap();
    for (mode, warned) in [(0o644, true), (0o640, false), (0o600, false)] {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        let ended = check(&config).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(ended.data.contains("CB1016"), warned, "{mode:o}: {ended:?}");
        assert_eq!(ended.data.contains("calbridge.yaml:6"), warned, "{mode:o}: {ended:?}");
        assert!(!ended.data.contains("zyxcanary"));
    }
}
