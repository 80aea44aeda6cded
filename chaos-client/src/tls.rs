//! Agents at https://.

use std::{env, fs, sync::Arc};

use ureq::{
    config::ConfigBuilder,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
    typestate::AgentScope,
};

use crate::Error;

/// The file of the certificates that are trusted.
const FILE: &str = "CHAOS_CA";

/// Trusts the certificates in the file `CHAOS_CA` (PEM), and no others.
pub(crate) fn secured(config: ConfigBuilder<AgentScope>) -> Result<ConfigBuilder<AgentScope>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder().root_certs(roots()?).unversioned_rustls_crypto_provider(provider);
    Ok(config.tls_config(tls.build()))
}

fn roots() -> Result<RootCerts, Error> {
    let wrong = |what: String| Error::Setting(format!("{FILE}: {what}"));
    // Without one nothing is trusted: an https:// URL then fails in its handshake.
    let Some(path) = env::var_os(FILE) else { return Ok(RootCerts::new_with_certs(&[])) };
    let text = fs::read(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let mut roots = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            roots.push(certificate);
        }
    }
    if roots.is_empty() {
        return Err(wrong(format!("{} holds no certificate in PEM", path.to_string_lossy())));
    }
    Ok(RootCerts::from(roots))
}
