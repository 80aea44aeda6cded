//! Host names into addresses, once, when a fault starts.

use std::net::{IpAddr, ToSocketAddrs as _};

use anyhow::Result;

use super::failure::Failure;
use crate::targets::Target;

/// The addresses of a name, as processes of the target would see them.
///
/// # Errors
/// The name has none: an error, because a rule without its peer would hit everybody or nobody.
pub(crate) fn addresses(target: &Target, name: &str) -> Result<Vec<IpAddr>> {
    let found = (name, 0).to_socket_addrs().map_err(|error| unresolved(target, name, &error.to_string()))?;
    let mut addresses: Vec<IpAddr> = found.map(|found| found.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(unresolved(target, name, "it has no address").into());
    }
    Ok(addresses)
}

fn unresolved(target: &Target, name: &str, why: &str) -> Failure {
    Failure::refused(format!("the peer `{name}` cannot be resolved for {target}: {why}"))
        .mend("write its address instead, or correct the name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_has_addresses_and_each_only_once() {
        let found = addresses(&Target::Host, "localhost").unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        let mut unique = found.clone();
        unique.dedup();
        assert_eq!(found, unique);
    }

    #[test]
    fn a_name_without_address_is_refused_with_its_name() {
        let error = addresses(&Target::Host, "no-such-host.invalid").expect_err("RFC 6761: never resolves");
        assert!(error.to_string().contains("`no-such-host.invalid` cannot be resolved for host"), "{error}");
    }
}
