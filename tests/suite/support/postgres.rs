//! A real PostgreSQL server of a test program's own, on a free port, in a temporary folder; each test has a database.
//!
//! The server is started by the first test that asks, and ends with the program, however that ends: a shell holds the other
//! end of a pipe of ours, stops the server when the pipe closes, and removes the folder. The same file serves the tests of
//! the store and those of the suite.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};

/// Set to 1 where a missing PostgreSQL is a failure: in continuous integration.
const REQUIRED: &str = "CALBRIDGE_TEST_REQUIRE_POSTGRES";
/// Where Debian puts the programs of each version; others put them on the path.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The account that a server runs under where we are root: it refuses to run as root.
const ACCOUNT: &str = "postgres";
/// The role that databases of tests belong to, and its password.
const ROLE: &str = "calbridge";
pub(crate) const PASSWORD: &str = "Zimt und Zucker";

/// Makes, serves, and cleans up: `$1` programs, `$2` folder, `$3` port.
///
/// Without `fsync`: what a test kills is the engine, never the machine.
const KEEPER: &str = r#"
set -eu
cd "$2"
"$1/initdb" --pgdata=data --username=admin --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 \
    --locale=C.UTF-8 --no-sync >initdb.log 2>&1 || { cat initdb.log >&2; exit 1; }
trap '"$1/pg_ctl" --pgdata=data --mode=immediate --wait stop >/dev/null 2>&1 || true; cd /; rm -rf "$2"' EXIT
"$1/pg_ctl" --pgdata=data --wait --timeout=60 --log=server.log --options="-c listen_addresses=127.0.0.1 -c port=$3 \
    -c unix_socket_directories=$2 -c fsync=off -c max_connections=300 -c shared_buffers=64MB" start >/dev/null \
    || { cat server.log >&2; exit 1; }
echo ready
read -r _ || true
"#;

pub(crate) struct Server {
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
    /// Its standard input is the pipe that keeps the server alive.
    _keeper: Child,
}

/// A database of a test's own; it goes with the server.
pub(crate) struct Database {
    server: &'static Server,
    name: String,
}

impl Database {
    /// Makes an empty database; none, and a line that says so, where there is no PostgreSQL.
    pub(crate) async fn create() -> Option<Self> {
        let database = Self::named_only()?;
        let mut admin = database.server.admin("postgres").await;
        let make = format!("CREATE DATABASE {} OWNER {ROLE}", database.name);
        admin.execute(AssertSqlSafe(make)).await.expect("a database can be made");
        admin.close().await.expect("the connection closes");
        Some(database)
    }

    /// Takes a name that no database has.
    pub(crate) fn named_only() -> Option<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let server = Server::running()?;
        Some(Self { server, name: format!("t{}", MADE.fetch_add(1, Ordering::Relaxed)) })
    }

    /// Returns the address for `store.url`; the password is [`PASSWORD`].
    pub(crate) fn url(&self) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/{}", self.server.port, self.name)
    }

    /// Opens a connection that may do everything.
    pub(crate) async fn admin(&self) -> PgConnection {
        self.server.admin(&self.name).await
    }

    /// Ends all connections to the database, as a restart of the server does.
    pub(crate) async fn cut_connections(&self) -> i64 {
        let mut admin = self.server.admin("postgres").await;
        let cut = sqlx::query_scalar(
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
        );
        cut.bind(&self.name).fetch_one(&mut admin).await.expect("connections can be ended")
    }
}

impl Server {
    fn running() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        SERVER.get_or_init(Self::start).as_ref()
    }

    fn start() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "tests are told by the environment what must be present")]
        let required = std::env::var(REQUIRED).is_ok_and(|value| value == "1");
        let Some(programs) = programs() else {
            assert!(!required, "PostgreSQL is required and its programs are not found");
            // Past the capture of the test harness, so that a run without PostgreSQL does not look like one with it.
            let _told =
                writeln!(std::io::stderr(), "skipped: there is no PostgreSQL here, what needs it is not tested");
            return None;
        };
        // The port may be taken by somebody else between asking for it and using it.
        let tried = (0..5).find_map(|_| Self::on_free_port(&programs));
        Some(tried.expect("PostgreSQL starts in one of five tries"))
    }

    fn on_free_port(programs: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let root = is_root();
        // Other accounts may not enter a temporary folder of root's.
        let folder = if root { tempfile::Builder::new().tempdir_in("/tmp") } else { tempfile::tempdir() };
        let folder = folder.expect("a temporary folder can be made").keep();
        let mut command = if root {
            let given = Command::new("chown").arg(ACCOUNT).arg(&folder).status().expect("chown runs");
            assert!(given.success(), "the folder can be given to the account `{ACCOUNT}`");
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={ACCOUNT}"), &format!("--regid={ACCOUNT}"), "--clear-groups", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        command.args(["-c", KEEPER, "sh"]).arg(programs).arg(&folder).arg(port.to_string());
        let mut keeper =
            command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell starts");
        let mut line = String::new();
        let said = BufReader::new(keeper.stdout.take().expect("it is piped")).read_line(&mut line);
        if said.is_err() || line.trim() != "ready" {
            keeper.wait().expect("the shell ends");
            // What it left is of no use; the system's own cleaning takes what we may not.
            let _left = std::fs::remove_dir_all(&folder);
            return None;
        }
        let server = Self { folder, programs: programs.to_path_buf(), port, _keeper: keeper };
        server.make_role();
        Some(server)
    }

    fn make_role(&self) {
        let made = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--username=admin", "--dbname=postgres", "--host"])
            .arg(&self.folder)
            .args(["--port", &self.port.to_string(), "--command"])
            .arg(format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"))
            .status()
            .expect("psql runs");
        assert!(made.success(), "the role of the tests can be made");
    }

    async fn admin(&self, database: &str) -> PgConnection {
        let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
            .socket(&self.folder)
            .port(self.port)
            .username("admin")
            .database(database);
        options.connect().await.expect("the server answers")
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs").stdout;
    id.trim_ascii() == b"0"
}

/// Finds the newest version of the programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = versions
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    newest.map(|path| path.join("bin")).or_else(|| {
        let found = Command::new("sh").args(["-c", "command -v initdb"]).output().ok()?;
        let path = PathBuf::from(String::from_utf8(found.stdout).ok()?.trim());
        path.parent().filter(|_| found.status.success()).map(Path::to_path_buf)
    })
}
