//! A PostgreSQL server of one test's own, which may be stopped and started at any time.

use super::postgres::{Database, Server, shell};

/// How a server goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// In order: transactions are rolled back, connections closed.
    Fast,
    /// As in a crash; the next start recovers from the log.
    Immediate,
}

impl Shutdown {
    fn mode(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// A server that only one test uses.
#[derive(Clone, Copy)]
pub(crate) struct OwnServer(&'static Server);

impl OwnServer {
    /// Starts a server with an empty database; none, and a line that says so, where there is no PostgreSQL.
    pub(crate) async fn start() -> Option<(Self, Database)> {
        // It ends with this program, as the one that tests share does.
        let server: &'static Server = Box::leak(Box::new(Server::start()?));
        let database = Database::named_on(server);
        database.make().await;
        Some((Self(server), database))
    }

    /// Stops it and waits until it is down.
    pub(crate) async fn stop(self, shutdown: Shutdown) {
        self.control(&format!("--mode={} stop", shutdown.mode())).await;
    }

    /// Starts it at the same address, with the same data, and waits until it answers.
    pub(crate) async fn start_again(self) {
        self.control("--timeout=60 --log=server.log start").await;
    }

    /// Has `pg_ctl` do something to its end; the options of the first start are kept beside the data.
    async fn control(self, what: &str) {
        let (programs, folder) = (self.0.programs.display(), self.0.folder.display());
        // The first start's options, as the server noted them, lead to the same port.
        let script = format!(
            "cd {folder} && options=$(cut -d' ' -f4- data/postmaster.opts | tr -d '\"') && \
             exec {programs}/pg_ctl --pgdata=data --wait --options=\"$options\" {what} >control.log 2>&1"
        );
        let mut command = tokio::process::Command::from(shell());
        let status = command.args(["-c", &script]).current_dir("/").status().await.expect("a shell starts");
        let said = std::fs::read_to_string(self.0.folder.join("control.log")).unwrap_or_default();
        assert!(status.success(), "pg_ctl {what}: {said}");
    }
}
