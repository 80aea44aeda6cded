//! Host names into addresses, once, when a fault starts.

use std::net::IpAddr;

use anyhow::Result;

use super::failure::Failure;
use crate::{
    netns::Netns,
    targets::{self, Target, TargetError},
};

/// The addresses of a name, asked for inside the target's network namespace.
///
/// # Errors
/// The name has none: a rule without its peer would hit everybody or nobody. Or the target is not there.
pub(crate) fn addresses(target: &Target, name: &str) -> Result<Vec<IpAddr>> {
    let place = targets::resolve(target)?;
    let namespace = place.namespaces.first().map(|found| &found.netns);
    look_up(namespace, name)
        .map_err(|error| Failure::refused(format!("the peer {name}, as {target} sees it: {error}")).into())
}

fn look_up(namespace: Option<&Netns>, name: &str) -> Result<Vec<IpAddr>, TargetError> {
    // The port is only there because an address with a port is what is resolved there.
    let peer = Target::HostPort { host: name.to_owned(), port: 1 };
    let found = targets::addresses_of(&peer, namespace)?;
    Ok(found.into_iter().filter_map(|endpoint| endpoint.net).map(|net| net.addr()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_has_addresses_and_each_only_once() {
        let found = look_up(None, "localhost").unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        let mut unique = found.clone();
        unique.dedup();
        assert_eq!(found, unique);
    }

    #[test]
    fn a_name_without_address_is_refused_with_its_name() {
        let error = look_up(None, "no-such-host.invalid").expect_err("RFC 6761: never resolves");
        assert!(error.to_string().contains("`no-such-host.invalid`"), "{error}");
    }

    #[test]
    fn a_name_for_a_target_that_is_not_there_says_so() {
        let nowhere = Target::NetnsName("no-such-namespace".to_owned());
        let error = addresses(&nowhere, "localhost").expect_err("nowhere to resolve it");
        assert!(error.to_string().contains("no-such-namespace"), "{error}");
    }
}
