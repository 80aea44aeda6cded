//! `WireGuard` devices: the port of their outer side, by generic netlink.

use netlink_packet_core::{NlasIterator, parse_u16};
use netlink_packet_generic::{
    GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd, WireguardMessage};
use nix::errno::Errno;

use super::netlink::{Netlink, NetlinkError};

// include/uapi/linux/genetlink.h and wireguard.h, Linux 6.18.
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
/// Length of `struct genlmsghdr`.
const GENL_HEADER_BYTES: usize = 4;

/// The UDP port at which the device of this name sends and receives; none = it has none yet. In the namespace of the
/// calling thread; needs `CAP_NET_ADMIN`.
pub fn listen_port(device: &str) -> Result<Option<u16>, NetlinkError> {
    const WHAT: &str = "asking WireGuard for the port of a device";
    let mut netlink = Netlink::generic()?;
    let Some(family) = family(&mut netlink)? else { return Ok(None) };
    let mut message = GenlMessage::from_payload(WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::IfName(device.to_owned())],
    });
    message.set_resolved_family_id(family);
    // A device with many peers comes in several parts, of which the first has the port.
    let ports = netlink.dump(WHAT, &message, |ports: &mut Vec<u16>, _, payload| {
        ports.extend(number(WHAT, payload, WGDEVICE_A_LISTEN_PORT)?);
        Ok(())
    })?;
    Ok(ports.into_iter().find(|port| *port != 0))
}

/// The number of the family `wireguard`; none = the kernel has no `WireGuard`.
fn family(netlink: &mut Netlink) -> Result<Option<u16>, NetlinkError> {
    const WHAT: &str = "asking for the generic netlink family of WireGuard";
    let message = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName("wireguard".to_owned())],
    });
    let mut found = None;
    let answer = netlink.request(WHAT, message, 0, &mut |_, payload| {
        found = number(WHAT, payload, CTRL_ATTR_FAMILY_ID)?;
        Ok(())
    });
    match answer {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
        other => other.map(|()| found),
    }
}

/// One attribute of an answer. What else is in it (keys, peers) is not looked at.
fn number(what: &'static str, payload: &[u8], wanted: u16) -> Result<Option<u16>, NetlinkError> {
    let fail = |error: netlink_packet_core::DecodeError| NetlinkError::decode(what, &error);
    for attribute in NlasIterator::new(payload.get(GENL_HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute.map_err(fail)?;
        if attribute.kind() == wanted {
            return parse_u16(attribute.value()).map(Some).map_err(fail);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;

    use super::*;

    #[test]
    fn the_port_is_read_from_what_the_kernel_tells_of_a_device() {
        let message = GenlMessage::from_payload(WireguardMessage {
            cmd: WireguardCmd::GetDevice,
            attributes: vec![
                WireguardAttribute::IfName("wg0".to_owned()),
                WireguardAttribute::PrivateKey([7; WireguardAttribute::WG_KEY_LEN]),
                WireguardAttribute::ListenPort(51820),
            ],
        });
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        assert_eq!(number("testing", &bytes, WGDEVICE_A_LISTEN_PORT).unwrap(), Some(51820));
        assert_eq!(number("testing", &bytes, 40).unwrap(), None);
        bytes.truncate(bytes.len() - 3);
        assert!(number("testing", &bytes, WGDEVICE_A_LISTEN_PORT).is_err());
    }

    #[test]
    fn a_kernel_without_wireguard_has_no_port() {
        // Asking for a family needs no rights; whether there is one depends on the kernel.
        assert!(family(&mut Netlink::generic().unwrap()).is_ok());
    }
}
