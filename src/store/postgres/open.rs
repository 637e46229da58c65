//! Opening: settings, what every connection begins with, and words for what keeps it from answering.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::Executor as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use url::{Host, Url};

use super::PostgresStore;
use super::dialect::{Pool, has_table};
use super::sql::{Opened, failed};
use crate::ports::{Clock, StoreError};
use crate::store::seal::KeySource;

/// Statements kept compiled on each connection: about 60 texts, some of them in five sizes.
const COMPILED_STATEMENTS: usize = 300;

/// Code of a refused password, and of a user that may not come in like this.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const REFUSED: [&str; 2] = ["28P01", "28000"];
/// Code of a database that is not there.
const NO_DATABASE: &str = "3D000";

/// How the store is reached.
#[derive(Clone)]
pub struct PostgresSettings {
    /// `postgres://USER@HOST[:PORT]/DATABASE[?sslmode=...]`, without a password.
    pub url: String,
    /// The user's password; none where the server asks for none.
    pub password: Option<SecretString>,
    /// PEM file with certificates to trust, where the URL names none.
    pub ca_file: Option<PathBuf>,
    /// Where the key for field values comes from: the same for all instances.
    pub key: KeySource,
    /// Most connections of this instance. Default: 8.
    pub connections: u32,
    /// Longest wait for a connection. Default: 10 s.
    pub patience: Duration,
    /// Names of fields and rules whose words trace searches for, in any letter case. Default: `subject`.
    pub subject_fields: Vec<String>,
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings").field("url", &self.url).finish_non_exhaustive()
    }
}

impl PostgresSettings {
    /// Makes the default settings for a database.
    pub fn new(url: impl Into<String>, key: KeySource) -> Self {
        Self {
            url: url.into(),
            password: None,
            ca_file: None,
            key,
            connections: 8,
            patience: Duration::from_secs(10),
            subject_fields: vec!["subject".to_owned()],
        }
    }

    fn options(&self) -> Result<PgConnectOptions, StoreError> {
        // The parser's own words may repeat the text.
        let unusable = || StoreError::Database("`store.url` is no `postgres://USER@HOST/DATABASE`".to_owned());
        let url = Url::parse(&self.url).map_err(|_unparsed| unusable())?;
        if url.scheme() != "postgres" {
            return Err(unusable());
        }
        if matches!(self.key, KeySource::BesideDatabase) {
            return Err(StoreError::Corrupt {
                what: "store key".to_owned(),
                why: "there is no place beside a server's database; name a file in `store.key_file`".to_owned(),
            });
        }
        let mut options = PgConnectOptions::from_str(&self.url).map_err(|_unparsed| unusable())?;
        if let Some(password) = &self.password {
            options = options.password(password.expose_secret());
        }
        let given = |name: &str| url.query_pairs().any(|(key, _)| key == name);
        if !given("sslmode") {
            options = options.ssl_mode(if is_local(&url) { PgSslMode::Prefer } else { PgSslMode::VerifyFull });
        }
        if let Some(ca_file) = self.ca_file.as_ref().filter(|_| !given("sslrootcert")) {
            options = options.ssl_root_cert(ca_file);
        }
        Ok(options.application_name("calbridge").statement_cache_capacity(COMPILED_STATEMENTS))
    }
}

/// Returns the database as people may see it: which, and where; backticks go around it.
fn name_of(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_default();
    format!("{database}` on `{}:{}", options.get_host(), options.get_port())
}

/// Tells whether the server is on this machine, where a plain connection harms nobody.
fn is_local(url: &Url) -> bool {
    if url.query_pairs().any(|(key, value)| key == "host" && value.starts_with('/')) {
        return true;
    }
    match url.host() {
        // Schemes that the URL standard does not know keep their host as text.
        Some(Host::Domain(name)) => {
            name == "localhost"
                || name.starts_with("%2F")
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => true,
    }
}

impl PostgresStore {
    /// Opens a database for an engine beside others, migrating it as needed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the key does not fit, [`StoreError::Database`] otherwise.
    pub async fn open(settings: PostgresSettings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let pool = connect(&settings, false).await?;
        Self::prepare(opened(&settings, pool, clock)).await
    }

    /// Opens an existing database for reading; every write to it fails.
    ///
    /// # Errors
    /// [`StoreError::Database`] when there is no such database, [`StoreError::Corrupt`] when the key does not fit.
    pub async fn open_read_only(settings: PostgresSettings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let name = name_of(&settings.options()?);
        let pool = connect(&settings, true).await?;
        Self::attach(opened(&settings, pool, clock), &name).await
    }

    /// Opens an existing database to take down what a person says.
    ///
    /// # Errors
    /// As [`PostgresStore::open_read_only`].
    pub async fn open_desk(settings: PostgresSettings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let name = name_of(&settings.options()?);
        let pool = connect(&settings, false).await?;
        Self::attach(opened(&settings, pool, clock), &name).await
    }

    /// Looks what an engine would find, for `calbridge check`; changes nothing.
    ///
    /// # Errors
    /// As [`PostgresStore::open`], and where tables are missing and the user may not make them.
    pub async fn look(settings: PostgresSettings, clock: Arc<dyn Clock>) -> Result<String, StoreError> {
        let options = settings.options()?;
        let name = name_of(&options);
        let pool = connect(&settings, true).await?;
        if has_table(&pool, "meta").await? {
            let store = Self::attach(opened(&settings, pool, clock), &name).await?;
            store.close().await;
            return Ok(format!("`{name}` answers and is ready"));
        }
        // Since PostgreSQL 15 only the owner of a database may make tables in its schema `public`.
        let may: bool = sqlx::query_scalar("SELECT has_schema_privilege(current_schema(), 'CREATE')")
            .fetch_one(&pool)
            .await
            .map_err(failed)?;
        pool.close().await;
        if !may {
            let user = options.get_username();
            return Err(StoreError::Database(format!(
                "user `{user}` may not make tables in `{name}`; make it the database's owner"
            )));
        }
        Ok(format!("`{name}` answers and is empty: the first `calbridge run` makes its tables"))
    }
}

fn opened(settings: &PostgresSettings, pool: Pool, clock: Arc<dyn Clock>) -> Opened<'_> {
    Opened {
        writer: pool.clone(),
        readers: pool,
        held: (),
        key: &settings.key,
        file: None,
        subject_fields: settings.subject_fields.clone(),
        clock,
    }
}

async fn connect(settings: &PostgresSettings, read_only: bool) -> Result<Pool, StoreError> {
    let options = settings.options()?;
    // One connection by itself first: a pool would try again in silence until its patience is over.
    let single = tokio::time::timeout(settings.patience, async {
        use sqlx::{ConnectOptions as _, Connection as _};
        options.connect().await?.close().await
    });
    match single.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(unreachable(&options, error)),
        Err(_) => {
            return Err(StoreError::Database(format!(
                "the server of `{}` did not answer within {} s; see that it runs and can be reached from here",
                name_of(&options),
                settings.patience.as_secs()
            )));
        }
    }
    PgPoolOptions::new()
        .max_connections(settings.connections.max(2))
        .acquire_timeout(settings.patience)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if read_only {
                    connection.execute("SET default_transaction_read_only = on").await?;
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await
        .map_err(failed)
}

/// Says in words what keeps the server from letting us in, and what to do. Never repeats what may hold a password.
fn unreachable(options: &PgConnectOptions, error: sqlx::Error) -> StoreError {
    let name = name_of(options);
    let user = options.get_username();
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    StoreError::Database(match (code.as_deref(), error) {
        (Some(code), _) if REFUSED.contains(&code) => format!(
            "the server of `{name}` refuses user `{user}`; mend the user in `store.url`, or `store.password_file`, or the \
             server's pg_hba.conf"
        ),
        (Some(NO_DATABASE), _) => format!(
            "there is no database `{name}`; make it (`createdb --owner={user} {}`), or mend `store.url`",
            options.get_database().unwrap_or_default()
        ),
        (_, sqlx::Error::Io(error)) => format!(
            "the server of `{name}` cannot be reached ({}); see that it runs, and mend `store.url`",
            error.kind()
        ),
        (_, sqlx::Error::Tls(error)) => {
            format!("no encrypted connection to `{name}`: {error}; see `sslmode` in `store.url`, and `network.ca_file`")
        }
        (_, other) => match failed(other) {
            StoreError::Database(text) => format!("the server of `{name}`: {text}"),
            other => other.to_string(),
        },
    })
}
