//! Where a tunnel ends, as its device tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DecodeError, NlasIterator};

/// Kinds of device, and which of their attributes hold the other end, of either family
/// (`include/uapi/linux/if_tunnel.h` and `if_link.h`, Linux 6.18).
const REMOTES: [(&[&str], &[u16]); 5] = [
    // IFLA_GRE_REMOTE
    (&["gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan"], &[7]),
    // IFLA_IPTUN_REMOTE
    (&["ipip", "sit", "ip6tnl"], &[3]),
    // IFLA_VTI_REMOTE
    (&["vti", "vti6"], &[5]),
    // IFLA_VXLAN_GROUP, IFLA_VXLAN_GROUP6
    (&["vxlan"], &[2, 16]),
    // IFLA_GENEVE_REMOTE, IFLA_GENEVE_REMOTE6
    (&["geneve"], &[2, 7]),
];

/// The other end, from `IFLA_INFO_DATA`; none = no tunnel, or one that ends at many places.
pub(super) fn remote(kind: Option<&str>, data: &[u8]) -> Result<Option<IpAddr>, DecodeError> {
    let of_kind = REMOTES.iter().find(|(kinds, _)| kind.is_some_and(|kind| kinds.contains(&kind)));
    let Some((_, attributes)) = of_kind else { return Ok(None) };
    for attribute in NlasIterator::new(data) {
        let attribute = attribute?;
        if attributes.contains(&attribute.kind())
            && let Some(addr) = address(attribute.value())
        {
            return Ok(Some(addr));
        }
    }
    Ok(None)
}

/// One machine's address: neither "any" nor a group.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
    v4().or_else(v6).filter(|addr| !addr.is_unspecified() && !addr.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes
    }

    #[test]
    fn the_other_end_is_read_by_the_kind_of_the_device() {
        let gre = [attribute(6, &[10, 0, 0, 1]), attribute(7, &[10, 0, 0, 2])].concat();
        assert_eq!(remote(Some("gretap"), &gre).unwrap(), Some("10.0.0.2".parse().unwrap()));
        assert_eq!(remote(Some("veth"), &gre).unwrap(), None);
        assert_eq!(remote(None, &gre).unwrap(), None);
        let v6: Ipv6Addr = "fd00::7".parse().unwrap();
        let vxlan = attribute(16, &v6.octets());
        assert_eq!(remote(Some("vxlan"), &vxlan).unwrap(), Some(v6.into()));
    }

    #[test]
    fn a_group_or_nobody_is_no_end() {
        for other in [[239, 1, 1, 1], [0, 0, 0, 0]] {
            assert_eq!(remote(Some("vxlan"), &attribute(2, &other)).unwrap(), None);
        }
        assert!(remote(Some("vxlan"), &[9, 0, 2, 0, 1]).is_err(), "an attribute that lies about its length");
    }
}
