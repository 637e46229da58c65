//! Sealing: field values rest encrypted, with one data key a meeting, so that erasing the key erases the values.
//!
//! ```text
//!   store key (32 bytes, a file beside the database)
//!     |-- HMAC "wrap"  -> wraps the data keys (table data_key)
//!     |-- HMAC "words" -> keyed hashes of subject words (table word)
//!     '-- HMAC "check" -> recognises a wrong key file (table meta)
//!   data key (random, one a link or lane) -> AES-256-GCM over bases, images, raw messages
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use hmac::{Hmac, Mac};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

use crate::ports::StoreError;

/// Bytes of every key.
const KEY_LEN: usize = 32;

/// Where the store key comes from.
#[derive(Clone)]
pub enum KeySource {
    /// The file `<database>.key`, made with mode 0600 when a new database is made.
    BesideDatabase,
    /// Another file with 32 bytes; made in the same way.
    File(PathBuf),
    /// Given by the caller; also what an in-memory store in a test uses.
    Given(Box<[u8; KEY_LEN]>),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BesideDatabase => f.write_str("BesideDatabase"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Given(_) => f.write_str("Given(..)"),
        }
    }
}

/// The keys derived from the store key.
pub(super) struct Sealer {
    wrap: Zeroizing<[u8; KEY_LEN]>,
    words: Zeroizing<[u8; KEY_LEN]>,
    check: String,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

/// The key of one meeting, unwrapped.
pub(super) struct DataKey(RandomizedNonceKey);

impl Sealer {
    /// Derives the keys.
    pub(super) fn new(store_key: &[u8; KEY_LEN]) -> Self {
        let check = hmac(store_key, &[b"calbridge store key check v1"]);
        Self {
            wrap: Zeroizing::new(hmac(store_key, &[b"calbridge store wrap v1"])),
            words: Zeroizing::new(hmac(store_key, &[b"calbridge store words v1"])),
            check: hex(&check),
        }
    }

    /// Returns what tells this store key from another one without telling what it is.
    pub(super) fn check(&self) -> &str {
        &self.check
    }

    /// Draws a data key; returns its wrapped form too.
    pub(super) fn new_data_key(&self, key_id: &str) -> Result<(DataKey, Vec<u8>), StoreError> {
        let fresh = Zeroizing::new(random_key()?);
        let wrapped = seal(&gcm(&self.wrap)?, "data key", key_id, fresh.as_slice())?;
        Ok((DataKey(gcm(&fresh)?), wrapped))
    }

    /// Unwraps a stored data key.
    pub(super) fn unwrap_data_key(&self, key_id: &str, wrapped: &[u8]) -> Result<DataKey, StoreError> {
        let bytes = Zeroizing::new(open(&gcm(&self.wrap)?, "data key", key_id, wrapped)?);
        let bytes: &[u8; KEY_LEN] =
            bytes.as_slice().try_into().map_err(|_unspecified| corrupt("data key", "it does not have 32 bytes"))?;
        Ok(DataKey(gcm(bytes)?))
    }

    /// Returns a keyed hash by which equal bytes are recognised and nothing is learned about them.
    pub(super) fn fingerprint(&self, parts: &[&[u8]]) -> String {
        let mut all: Vec<&[u8]> = vec![b"calbridge message v1\n"];
        all.extend(parts);
        hex(&hmac(&self.words, &all)[..16])
    }

    /// Returns the keyed hashes of the words of a text, each once.
    pub(super) fn word_hashes(&self, text: &str) -> BTreeSet<String> {
        words(text).iter().map(|word| hex(&hmac(&self.words, &[word.as_bytes()])[..16])).collect()
    }
}

impl DataKey {
    /// Seals bytes; `purpose` and `key_id` are bound to them and must be given again to open.
    pub(super) fn seal(&self, purpose: &str, key_id: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        seal(&self.0, purpose, key_id, plain)
    }

    /// Opens what [`DataKey::seal`] made.
    pub(super) fn open(&self, purpose: &str, key_id: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        open(&self.0, purpose, key_id, sealed)
    }
}

/// Splits a text into lower-case words of at least two characters.
pub(super) fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .map(str::to_lowercase)
        .filter(|word| word.chars().nth(1).is_some())
        .collect()
}

/// Finds the store key. `may_create` is false where a database exists that was sealed with a key already.
pub(super) fn store_key(
    source: &KeySource,
    database: Option<&Path>,
    may_create: bool,
) -> Result<Zeroizing<[u8; KEY_LEN]>, StoreError> {
    let path = match (source, database) {
        (KeySource::Given(key), _) => return Ok(Zeroizing::new(**key)),
        (KeySource::File(path), _) => path.clone(),
        (KeySource::BesideDatabase, Some(database)) => {
            let mut name = database.as_os_str().to_owned();
            name.push(".key");
            PathBuf::from(name)
        }
        (KeySource::BesideDatabase, None) => return random_key().map(Zeroizing::new),
    };
    match read_key(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_create => create_key(&path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(corrupt(
            "store key",
            &format!("the file `{}` is missing; put it back beside the database that it belongs to", path.display()),
        )),
        Err(error) => Err(corrupt("store key", &format!("the file `{}`: {error}", path.display()))),
        Ok(key) => Ok(key),
    }
}

fn read_key(path: &Path) -> std::io::Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
    fs::File::open(path)?.take(KEY_LEN as u64 + 1).read_to_end(&mut bytes)?;
    let key: [u8; KEY_LEN] = bytes.as_slice().try_into().map_err(|_unspecified| {
        std::io::Error::new(std::io::ErrorKind::InvalidData, "it must hold exactly 32 bytes")
    })?;
    Ok(Zeroizing::new(key))
}

fn create_key(path: &Path) -> Result<Zeroizing<[u8; KEY_LEN]>, StoreError> {
    let key = Zeroizing::new(random_key()?);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let written = options.open(path).and_then(|mut file| {
        file.write_all(key.as_slice())?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(key),
        Err(error) => Err(StoreError::Database(format!("cannot write the key file `{}`: {error}", path.display()))),
    }
}

fn random_key() -> Result<[u8; KEY_LEN], StoreError> {
    let mut key = [0; KEY_LEN];
    aws_lc_rs::rand::fill(&mut key)
        .map_err(|error| StoreError::Database(format!("the system gives no random bytes: {error}")))?;
    Ok(key)
}

fn gcm(key: &[u8; KEY_LEN]) -> Result<RandomizedNonceKey, StoreError> {
    RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|error| corrupt("key", &error.to_string()))
}

fn seal(key: &RandomizedNonceKey, purpose: &str, key_id: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut body = plain.to_vec();
    let nonce = key
        .seal_in_place_append_tag(binding(purpose, key_id), &mut body)
        .map_err(|error| StoreError::Database(format!("cannot seal values: {error}")))?;
    let mut sealed = Vec::with_capacity(NONCE_LEN + body.len());
    sealed.extend_from_slice(nonce.as_ref());
    sealed.extend_from_slice(&body);
    Ok(sealed)
}

fn open(key: &RandomizedNonceKey, purpose: &str, key_id: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let short = || corrupt(purpose, "it is too short");
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(short)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_unspecified| short())?;
    let mut body = body.to_vec();
    let plain = key
        .open_in_place(nonce, binding(purpose, key_id), &mut body)
        .map_err(|_unspecified| corrupt(purpose, "it was not sealed with this key, or it was changed"))?;
    Ok(plain.to_vec())
}

fn binding(purpose: &str, key_id: &str) -> Aad<Vec<u8>> {
    Aad::from([purpose.as_bytes(), &[0], key_id.as_bytes()].concat())
}

fn hmac(key: &[u8; KEY_LEN], parts: &[&[u8]]) -> [u8; KEY_LEN] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

fn corrupt(what: &str, why: &str) -> StoreError {
    StoreError::Corrupt { what: what.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> Sealer {
        Sealer::new(&[7; KEY_LEN])
    }

    #[test]
    fn what_was_sealed_opens_only_with_its_own_key_purpose_and_owner() {
        let sealer = sealer();
        let (key, wrapped) = sealer.new_data_key("link-1").unwrap();
        let sealed = key.seal("base", "link-1", b"quarterly review").unwrap();
        let again = sealer.unwrap_data_key("link-1", &wrapped).unwrap();
        assert_eq!(again.open("base", "link-1", &sealed).unwrap(), b"quarterly review");
        assert!(again.open("image", "link-1", &sealed).is_err());
        assert!(again.open("base", "link-2", &sealed).is_err());
        assert!(sealer.unwrap_data_key("link-2", &wrapped).is_err());
        let (other, _) = sealer.new_data_key("link-1").unwrap();
        assert!(other.open("base", "link-1", &sealed).is_err());
        assert!(!sealed.windows(9).any(|window| window == b"quarterly"));
    }

    #[test]
    fn words_are_found_in_any_letter_case_and_script() {
        let sealer = sealer();
        let subject = sealer.word_hashes("Über-Review: Q4 a 東京");
        assert_eq!(words("Über-Review: Q4 a 東京").len(), 4);
        assert!(sealer.word_hashes("über q4").is_subset(&subject));
        assert_ne!(Sealer::new(&[8; KEY_LEN]).word_hashes("über"), sealer.word_hashes("über"));
    }

    #[test]
    fn the_key_file_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("calbridge.db");
        let made = store_key(&KeySource::BesideDatabase, Some(&database), true).unwrap();
        let read = store_key(&KeySource::BesideDatabase, Some(&database), false).unwrap();
        assert_eq!(*made, *read);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.path().join("calbridge.db.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_missing_key_file_of_an_old_database_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let error = store_key(&KeySource::BesideDatabase, Some(&folder.path().join("x.db")), false).unwrap_err();
        assert!(error.to_string().contains("x.db.key"), "{error}");
    }
}
