//! What TCP needs: the key, and the certificate. Read from files, again at SIGHUP.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use subtle::ConstantTimeEq as _;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::config::{Config, ConfigError};

/// Shorter keys are guessed.
const KEY_BYTES_MIN: usize = 16;
const KEY_VARIABLE: &str = "CHAOS_KEY";

/// What is in effect. Clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct Credentials(Arc<RwLock<Read>>);

/// What was read.
#[derive(Clone, Default)]
pub(super) struct Read {
    key: Option<Arc<[u8]>>,
    tls: Option<Arc<ServerConfig>>,
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key itself.
        f.debug_struct("Read")
            .field("has_key", &self.key.is_some())
            .field("has_tls", &self.tls.is_some())
            .finish()
    }
}

impl Credentials {
    pub(super) fn new(read: Read) -> Self {
        Self(Arc::new(RwLock::new(read)))
    }

    /// From now on these.
    pub(super) fn replace(&self, read: Read) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = read;
    }

    /// Whether this is the key. Takes as long whatever of it is wrong; its length is no secret.
    pub(crate) fn fits(&self, given: Option<&[u8]>) -> bool {
        let read = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match (&read.key, given) {
            (Some(key), Some(given)) => key.ct_eq(given).into(),
            _ => false,
        }
    }

    /// How TLS is spoken; none = it is not.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).tls.clone()
    }
}

/// Reads what the configuration names, and refuses what would be open to everyone.
///
/// # Errors
/// What is missing or wrong, and what mends it.
pub(super) fn read(config: &Config) -> Result<Read, ConfigError> {
    let Some(address) = config.listen else { return Ok(Read::default()) };
    let key = key(config, std::env::var(KEY_VARIABLE).ok())?;
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Some(Arc::new(tls(cert, key)?)),
        _ => None,
    };
    if tls.is_none() && !address.ip().to_canonical().is_loopback() && !config.insecure {
        return wrong(format!(
            "{address} can be reached by others: give --tls-cert and --tls-key, or say --insecure and let the key go over the network in clear"
        ));
    }
    Ok(Read { key: Some(key), tls })
}

fn key(config: &Config, variable: Option<String>) -> Result<Arc<[u8]>, ConfigError> {
    let variable = variable.filter(|key| !key.is_empty());
    let (text, place) = match (&config.key_file, variable) {
        (Some(file), Some(_)) => {
            return wrong(format!(
                "{KEY_VARIABLE} and the key file {} are both there: leave one out",
                file.display()
            ));
        }
        (Some(file), None) => (secret("the key of --key-file", file)?, file.display().to_string()),
        (None, Some(key)) => (key, KEY_VARIABLE.to_owned()),
        (None, None) => {
            return wrong(format!(
                "listening on TCP needs a key: (umask 77; head -c 32 /dev/urandom | base64 > FILE), then --key-file FILE; or set {KEY_VARIABLE}"
            ));
        }
    };
    let key = text.trim();
    if key.len() < KEY_BYTES_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong(format!(
            "the key in {place} is no good: {KEY_BYTES_MIN} or more letters, digits and signs, without spaces, are wanted"
        ));
    }
    Ok(key.as_bytes().into())
}

/// A file that others may not read.
fn secret(what: &'static str, path: &Path) -> Result<String, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { what, path: path.to_owned(), error };
    let mut file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & 0o007 != 0 {
        return wrong(format!("everyone can open {0}: chmod o= {0}", path.display()));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

fn tls(cert: &Path, key: &Path) -> Result<ServerConfig, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable {
        what: "the certificate of --tls-cert",
        path: cert.to_owned(),
        error,
    };
    let bad = |path: &Path, error: &dyn std::fmt::Display| {
        ConfigError::Together(format!("{}: no PEM that TLS can use: {error}", path.display()))
    };
    let text = fs::read(cert).map_err(unreadable)?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| bad(cert, &error))?;
    let private = PrivateKeyDer::from_pem_slice(secret("the key of --tls-key", key)?.as_bytes())
        .map_err(|error| bad(key, &error))?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(cert, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| bad(cert, &error))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

fn wrong<T>(what: String) -> Result<T, ConfigError> {
    Err(ConfigError::Together(what))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn on(address: &str) -> Config {
        Config { listen: Some(address.parse().unwrap()), ..Config::default() }
    }

    #[test]
    fn the_key_is_long_secret_and_one() {
        let file = std::env::temp_dir().join(format!("chaos-key-{}", std::process::id()));
        let with_file = Config { key_file: Some(file.clone()), ..on("127.0.0.1:0") };
        let said = |config: &Config, variable: Option<&str>| {
            key(config, variable.map(str::to_owned)).map_or_else(|error| error.to_string(), |_| String::new())
        };
        assert!(said(&on("127.0.0.1:0"), None).contains("--key-file FILE"));
        assert!(said(&on("127.0.0.1:0"), Some("short")).contains("16 or more"));
        assert_eq!(said(&on("127.0.0.1:0"), Some("0123456789abcdef")), "");
        fs::write(&file, "0123456789abcdef\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(said(&with_file, None).contains("chmod o="));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(said(&with_file, None), "");
        assert!(said(&with_file, Some("0123456789abcdef")).contains("both"));
        let credentials = Credentials::new(Read { key: key(&with_file, None).ok(), tls: None });
        assert!(credentials.fits(Some(b"0123456789abcdef")));
        for wrong in [None, Some(&b""[..]), Some(b"0123456789abcdeF"), Some(b"0123456789abcdef0")] {
            assert!(!credentials.fits(wrong), "{wrong:?}");
        }
        let missing = tls(Path::new("/no/such/cert.pem"), &file).unwrap_err().to_string();
        assert!(
            missing.starts_with("the certificate of --tls-cert /no/such/cert.pem: No such file"),
            "{missing}"
        );
        fs::remove_file(&file).unwrap();
    }
}
