//! The sandbox's own certificate authority, and the one server certificate that every TLS listener shows.
//!
//! Owns keys, certificates and rustls configurations. Does not listen: that is `net.rs` and `event_hubs/`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Name of the CA file inside the folder given to [`TlsAuthority::create`].
const CA_FILE: &str = "ca.pem";

/// First and last year of validity.
///
/// Certificates are checked against the real clock of the client, whatever the sandbox's clock says, so the span is
/// wide on both sides. It ends before 2050, where X.509 changes its date encoding.
const VALID_YEARS: (i32, i32) = (2020, 2049);

/// Says why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Key or certificate generation failed.
    #[error("cannot make the sandbox certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The CA file could not be written.
    #[error("cannot write the CA certificate to `{}`: {source}; give a folder that can be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// rustls did not accept the certificate or its key.
    #[error("cannot serve the sandbox certificate: {0}")]
    Serve(#[from] rustls::Error),
}

/// A certificate authority made for one run, with a leaf for `localhost` and `127.0.0.1`.
pub struct TlsAuthority {
    ca_path: PathBuf,
    config: ServerConfig,
}

impl fmt::Debug for TlsAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsAuthority").field("ca_path", &self.ca_path).finish_non_exhaustive()
    }
}

impl TlsAuthority {
    /// Makes an authority and writes its certificate (never its key) as PEM into `dir`, replacing an older one.
    pub fn create(dir: &Path) -> Result<Self, TlsError> {
        install_crypto_provider();
        let ca_key = KeyPair::generate()?;
        let ca_params = authority_params();
        let ca = ca_params.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca_params, ca_key);

        let leaf_key = KeyPair::generate()?;
        let leaf = leaf_params()?.signed_by(&leaf_key, &issuer)?;

        let ca_path = dir.join(CA_FILE);
        std::fs::write(&ca_path, ca.pem()).map_err(|source| TlsError::Write { path: ca_path.clone(), source })?;
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        Ok(Self { ca_path, config })
    }

    /// Returns the PEM file that clients must trust.
    pub fn ca_path(&self) -> &Path {
        &self.ca_path
    }

    /// Returns a server configuration that offers these application protocols, most wanted first; empty offers none.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

/// Makes aws-lc-rs the process-wide provider of rustls, unless one is installed already.
pub fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Losing this race means that another thread installed a provider: just as good.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(VALID_YEARS.0, 1, 1);
    params.not_after = date_time_ymd(VALID_YEARS.1, 1, 1);
    params.distinguished_name = named("calbridge local sandbox CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn leaf_params() -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    params.not_before = date_time_ymd(VALID_YEARS.0, 1, 1);
    params.not_after = date_time_ymd(VALID_YEARS.1, 1, 1);
    params.distinguished_name = named("localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Python 3.13 verifies with VERIFY_X509_STRICT, which insists on this extension.
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
