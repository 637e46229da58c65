//! `docker-compose.yml`, without containers: its services run as plain processes with the command lines, environment and
//! files that it gives them, and `Dockerfile` says which program each image starts. Only folders and ports are others.
//!
//! Owns the reading of both files as far as they are used here; anything in them that this does not know fails the test, so
//! that no setting is silently left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use calbridge_core::document::{self, Node, Shape};
use tempfile::TempDir;

use crate::support::PATIENCE;
use crate::support::process::{Ended, Running, free_address};

/// How often a condition that no event announces is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Where the programs of the images are, as the `Dockerfile` places them.
const ENGINE: &str = "/usr/local/bin/calbridge";
const SANDBOX: &str = "/usr/local/bin/calbridge-sandbox";
const PEOPLE: &str = "/usr/local/bin/people";

/// The address that Redis listens on by itself, and the one of the engine's probes (`web.address`).
const REDIS_PORT: &str = "6379";
const PROBES: &str = "127.0.0.1:9465";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn text(node: &Node) -> String {
    match &node.shape {
        Shape::Scalar { text, .. } => text.clone(),
        other => panic!("{}: a text was expected: {other:?}", node.place.line),
    }
}

fn texts(node: Option<&Node>) -> Vec<String> {
    match node.map(|node| &node.shape) {
        None => Vec::new(),
        Some(Shape::List(items)) => items.iter().map(text).collect(),
        Some(other) => panic!("a list was expected: {other:?}"),
    }
}

fn entries(node: Option<&Node>) -> Vec<(String, &Node)> {
    match node.map(|node| &node.shape) {
        None => Vec::new(),
        Some(Shape::Map(entries)) => entries.iter().map(|entry| (entry.key.clone(), &entry.value)).collect(),
        Some(other) => panic!("a mapping was expected: {other:?}"),
    }
}

/// What a stage of the `Dockerfile` says of its containers.
#[derive(Debug, Default)]
struct Stage {
    user: String,
    volumes: Vec<String>,
    stop_signal: String,
    entrypoint: Vec<String>,
    command: Vec<String>,
    health: Vec<String>,
}

/// Reads the stages of the `Dockerfile` by name.
fn stages() -> BTreeMap<String, Stage> {
    let joined = read("Dockerfile").replace("\\\n", " ");
    let json = |text: &str| -> Vec<String> {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("`{text}` is not in exec form: {error}"))
    };
    let mut stages: BTreeMap<String, Stage> = BTreeMap::new();
    let mut name = String::new();
    for line in joined.lines().filter(|line| !line.starts_with('#')) {
        let Some((word, rest)) = line.split_once(' ') else { continue };
        if word == "FROM" {
            rest.rsplit(' ').next().unwrap().clone_into(&mut name);
        }
        let stage = stages.entry(name.clone()).or_default();
        match word {
            "USER" => rest.clone_into(&mut stage.user),
            "VOLUME" => stage.volumes.push(rest.to_owned()),
            "STOPSIGNAL" => rest.clone_into(&mut stage.stop_signal),
            "ENTRYPOINT" => stage.entrypoint = json(rest),
            "CMD" => stage.command = json(rest),
            "HEALTHCHECK" => stage.health = json(rest.split_once("CMD ").expect("it has a command").1),
            _ => {}
        }
    }
    stages
}

/// A service of the compose file.
#[derive(Debug)]
struct Service {
    program: Vec<String>,
    environment: Vec<(String, String)>,
    health: Vec<String>,
    /// Services that must run before, and whether they must be healthy.
    after: Vec<(String, bool)>,
    /// Sources of what is mounted, by target.
    mounts: BTreeMap<String, String>,
    read_only: bool,
    network: Option<String>,
    grace: Option<String>,
}

/// Reads the compose file with what the images add to it.
fn services() -> BTreeMap<String, Service> {
    let root = document::parse("docker-compose.yml", &read("docker-compose.yml")).expect("it is sound YAML");
    let volumes: Vec<String> = entries(root.get("volumes")).into_iter().map(|(name, _)| name).collect();
    let stages = stages();
    let images: BTreeMap<String, String> = entries(root.get("services"))
        .into_iter()
        .filter_map(|(_, service)| Some((text(service.get("image")?), text(service.get("build")?.get("target")?))))
        .collect();
    let mut services = BTreeMap::new();
    for (name, service) in entries(root.get("services")) {
        for (key, _) in entries(Some(service)) {
            let known = [
                "build",
                "image",
                "command",
                "entrypoint",
                "environment",
                "network_mode",
                "depends_on",
                "read_only",
                "tmpfs",
                "volumes",
                "stop_grace_period",
                "healthcheck",
            ];
            assert!(known.contains(&key.as_str()), "{name}: this test does not know `{key}`");
        }
        let image = text(service.get("image").expect("each service has an image"));
        let stage =
            images.get(&image).map(|target| stages.get(target).unwrap_or_else(|| panic!("no stage `{target}`")));
        if stage.is_none() {
            assert!(image.starts_with("redis:"), "{name}: `{image}` is neither built here nor Redis");
        }
        let own = |key: &str, of_image: Option<&Vec<String>>| match service.get(key) {
            Some(node) => texts(Some(node)),
            None => of_image.cloned().unwrap_or_default(),
        };
        let mut program = own("entrypoint", stage.map(|stage| &stage.entrypoint));
        // An entrypoint of the service's own takes the image's command away.
        let of_image = stage.filter(|_| service.get("entrypoint").is_none()).map(|stage| &stage.command);
        program.extend(own("command", of_image));
        let after = entries(service.get("depends_on").filter(|node| matches!(node.shape, Shape::Map(_))))
            .into_iter()
            .map(|(other, how)| (other, text(how.get("condition").expect("it has a condition"))))
            .map(|(other, how)| match how.as_str() {
                "service_healthy" => (other, true),
                "service_started" => (other, false),
                how => panic!("{name}: unknown condition `{how}`"),
            });
        let after = match service.get("depends_on") {
            Some(list) if matches!(list.shape, Shape::List(_)) => {
                texts(Some(list)).into_iter().map(|other| (other, false)).collect()
            }
            _ => after.collect(),
        };
        let mounts = texts(service.get("volumes")).into_iter().map(|mount| {
            let mut parts = mount.split(':');
            let (source, target) = (parts.next().unwrap(), parts.next().expect("it has a target"));
            assert!(matches!(parts.next(), None | Some("ro")), "{name}: {mount}");
            let there = if source.starts_with('.') {
                repository(source).exists()
            } else {
                volumes.contains(&source.to_owned())
            };
            assert!(there, "{name}: `{source}` is neither a file here nor a declared volume");
            (target.to_owned(), source.to_owned())
        });
        let environment = entries(service.get("environment")).into_iter().map(|(key, value)| (key, text(value)));
        let health = match service.get("healthcheck").and_then(|check| check.get("disable")) {
            Some(_) => Vec::new(),
            None => stage.map(|stage| stage.health.clone()).unwrap_or_default(),
        };
        let read = Service {
            program,
            environment: environment.collect(),
            health,
            after,
            mounts: mounts.collect(),
            read_only: service.get("read_only").is_some_and(|flag| text(flag) == "true"),
            network: service.get("network_mode").map(text),
            grace: service.get("stop_grace_period").map(text),
        };
        services.insert(name, read);
    }
    services
}

/// The places of this machine that stand for those of the containers.
struct Places {
    folder: TempDir,
    redis_port: u16,
    probes: std::net::SocketAddr,
}

impl Places {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let places = Self { folder, redis_port: free_address().port(), probes: free_address() };
        for volume in ["rehearsal", "data"] {
            std::fs::create_dir(places.folder.path().join(volume)).unwrap();
        }
        // The engine's settings, as they are but for the folder of the database.
        let settings = read("config/rehearsal.yaml");
        let home = "url: sqlite:/data/";
        assert!(settings.contains(home), "the database is on the volume");
        let settings = settings.replace(home, &format!("url: sqlite:{}/", places.of("data")));
        std::fs::write(places.folder.path().join("rehearsal.yaml"), settings).unwrap();
        places
    }

    fn of(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Translates a word of a command line, an environment or a health check.
    fn translate(&self, word: &str) -> String {
        match word {
            ENGINE => return env!("CARGO_BIN_EXE_calbridge").to_owned(),
            SANDBOX => return programs().join("calbridge-sandbox").display().to_string(),
            PEOPLE => return repository("scripts/people.sh").display().to_string(),
            "20400" => return "0".to_owned(),
            _ => {}
        }
        let probes = PROBES.replace(':', "/");
        word.replace("/etc/calbridge/rehearsal.yaml", &self.of("rehearsal.yaml"))
            .replace("/rehearsal/", &format!("{}/", self.of("rehearsal")))
            .replace(&format!(":{REDIS_PORT}"), &format!(":{}", self.redis_port))
            .replace(&probes, &self.probes.to_string().replace(':', "/"))
    }

    fn translated(&self, words: &[String]) -> Vec<String> {
        // A volume named as a whole, without a file in it.
        words
            .iter()
            .map(|word| if word == "/rehearsal" { self.of("rehearsal") } else { self.translate(word) })
            .collect()
    }

    /// Starts a service as a process.
    fn start(&self, name: &str, service: &Service, more: &[(&str, String)]) -> Running {
        let mut words = self.translated(&service.program);
        if name == "redis" {
            words.extend(["--port".to_owned(), self.redis_port.to_string()]);
        }
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", programs().display());
        let mut environment = vec![("PATH".to_owned(), path)];
        environment.extend(service.environment.iter().map(|(name, value)| (name.clone(), self.translate(value))));
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let (program, arguments) = words.split_first().expect("a service starts something");
        Running::of(program, arguments, &environment)
    }

    /// Waits until the image's health check passes.
    async fn healthy(&self, name: &str, service: &Service) {
        let words = self.translated(&service.health);
        let (program, arguments) = words.split_first().unwrap_or_else(|| panic!("{name} has a health check"));
        let mut last = None;
        let waiting = async {
            loop {
                let ended = Running::of(program, arguments, &[]).ended().await;
                if ended.code == 0 {
                    return;
                }
                last = Some(ended);
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{name} does not become healthy by {words:?}: {last:?}");
    }

    /// Runs a command line that the head of the compose file shows, with this machine's places.
    async fn engine(&self, arguments: &str) -> Ended {
        let words: Vec<String> = arguments.split(' ').map(|word| self.translate(word)).collect();
        Running::of(env!("CARGO_BIN_EXE_calbridge"), &words, &[]).ended().await
    }
}

/// Where `cargo` puts programs: the sandbox's is beside the engine's.
fn programs() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_calbridge")).parent().expect("it lies in a folder").to_path_buf();
    assert!(folder.join("calbridge-sandbox").is_file(), "build it first: `cargo build -p calbridge-sandbox --bins`");
    folder
}

#[test]
fn the_images_run_as_nobody_in_particular_write_to_one_volume_and_end_on_sigterm() {
    let stages = stages();
    for (name, program, volume) in [("engine", ENGINE, "/data"), ("sandbox", SANDBOX, "/rehearsal")] {
        let stage = &stages[name];
        let user: Vec<u32> = stage.user.split(':').map(|id| id.parse().expect("a number needs no user file")).collect();
        assert!(user.len() == 2 && user.iter().all(|id| *id >= 1_000), "{name}: {}", stage.user);
        assert_eq!(stage.volumes, [volume], "{name}");
        assert_eq!(stage.stop_signal, "SIGTERM", "{name}");
        assert_eq!(stage.entrypoint, [program], "{name}");
        assert!(!stage.health.is_empty(), "{name}");
    }
    let services = services();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["engine", "people", "redis", "sandbox"]);
    for (name, service) in &services {
        assert!(name == "redis" || service.read_only, "{name}: its root is read-only");
        assert_eq!(service.network.is_none(), name == "sandbox", "{name}: all live in the sandbox's network");
    }
    // A Dockerfile builds its last stage when none is named: the engine.
    assert!(read("Dockerfile").rfind("AS engine") > read("Dockerfile").rfind("AS sandbox"));
    let engine = &services["engine"];
    assert_eq!(engine.grace.as_deref(), Some("30s"), "what orchestrators grant by default");
    assert_eq!(engine.mounts["/data"], "data");
    assert_eq!(engine.mounts["/etc/calbridge/rehearsal.yaml"], "./config/rehearsal.yaml");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_of_the_compose_file_run_as_processes_and_meetings_cross_until_sigterm_drains_the_engine() {
    let services = services();
    let places = Places::new();
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    // `people` is given an end; everything else is as in the file.
    let probes = ("CALBRIDGE_WEB__ADDRESS", places.probes.to_string());
    let more = |name: &str| -> Vec<(&str, String)> {
        match name {
            "engine" => vec![probes.clone()],
            "people" => vec![("ROUNDS", "1".to_owned()), ("PAUSE", "0".to_owned())],
            _ => Vec::new(),
        }
    };
    while running.len() < services.len() {
        let ready = |service: &Service| service.after.iter().all(|(other, _)| running.contains_key(other));
        let (name, service) = services
            .iter()
            .find(|(name, service)| !running.contains_key(*name) && ready(service))
            .expect("no service waits for itself");
        for (other, must_be_healthy) in &service.after {
            if *must_be_healthy {
                places.healthy(other, &services[other]).await;
            }
        }
        let started = places.start(name, service, &more(name));
        running.insert(name.clone(), started);
    }

    let people = running.remove("people").unwrap().ended().await;
    assert_eq!(people.code, 0, "{people:?}");
    let told: Vec<&str> = people.data.lines().collect();
    let expected = [
        "outlook: someone created \"Planning 1\"",
        "salesforce shows \"Planning 1\"",
        "outlook: someone moved it to \"Room 1\"",
        "salesforce shows \"Room 1\"",
        "salesforce: someone created \"Visit 1\"",
        "outlook shows \"Visit 1\"",
        "salesforce: someone deleted \"Visit 1\"",
        "outlook no longer shows \"Visit 1\"",
    ];
    assert_eq!(told, expected);

    let paths = "--config /etc/calbridge/rehearsal.yaml --sandbox-endpoints /rehearsal/sandbox.json";
    assert!(read("docker-compose.yml").contains(&format!("calbridge status {paths}")), "its head shows this command");
    let status = places.engine(&format!("status {paths}")).await;
    assert_eq!(status.code, 0, "{status:?}");
    let check = places.engine(&format!("check {paths}")).await;
    assert_eq!(check.code, 0, "{check:?}");

    // A second engine on the same file, whether its probes have a place of their own or not.
    let engine = running.remove("engine").unwrap();
    let holder = format!("in use by process {} on host `", engine.id());
    let elsewhere = vec![("CALBRIDGE_WEB__ADDRESS", free_address().to_string())];
    for probes in [elsewhere, more("engine")] {
        let second = places.start("engine", &services["engine"], &probes).ended().await;
        assert_eq!(second.code, 2, "{second:?}");
        assert!(second.complaints.contains(&holder), "{holder}: {second:?}");
        assert!(second.complaints.contains(" since 20"), "{second:?}");
    }

    let ended = engine.stop().await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.complaints.trim_end().lines().last().is_some_and(|line| line.contains("stopped")), "{ended:?}");
    assert!(!ended.complaints.contains("redis"), "Redis was there all the time: {ended:?}");
    let sandbox = running.remove("sandbox").unwrap().stop().await;
    assert_eq!(sandbox.code, 0, "{sandbox:?}");
    assert!(!Path::new(&places.of("rehearsal")).join("sandbox.json").exists(), "the endpoints go with the sandbox");
    assert_eq!(running.remove("redis").unwrap().stop().await.code, 0);
}
