//! What no rule may touch on the host: it is asked after a rule matched, before anything happens.

use crate::{
    abi::{FlowKey, device_flags},
    job::Job,
    lookup::flow_key,
    packet::{Addr, Class, mapped},
    world::World,
};

/// The address of the cloud's metadata service.
pub(crate) const METADATA: Addr = mapped(0xa9fe_a9fe_u32.to_be());

const DHCP4: [u16; 2] = [67, 68];
const DHCP6: [u16; 2] = [546, 547];
const PROTO_IGMP: u8 = 2;

/// DHCP, multicast listener reports, the metadata service; then the protected table: whole
/// conversations (ssh), peers (network root file system), local ports (the agent's own).
#[inline(always)]
pub fn is_protected<W: World>(world: &W, job: &Job) -> bool {
    let packet = &job.packet;
    if job.device.flags & device_flags::PROTECT == 0 {
        return false;
    }
    if !packet.is_ip() {
        return false;
    }
    let key = flow_key(packet, job.netns, job.direction());
    if packet.class == Class::UDP && packet.has_ports() && (is_pair(&key, DHCP4) || is_pair(&key, DHCP6)) {
        return true;
    }
    if packet.proto == PROTO_IGMP || key.peer == METADATA || key.local == METADATA {
        return true;
    }
    let peer = FlowKey { netns: key.netns, peer: key.peer, ..FlowKey::default() };
    let port =
        FlowKey { netns: key.netns, local_port: key.local_port, proto: key.proto, ..FlowKey::default() };
    world.is_protected(&key) || world.is_protected(&peer) || (packet.has_ports() && world.is_protected(&port))
}

/// The port on which a DHCP server listens; the client connects to it to renew its lease.
#[inline(always)]
pub(crate) const fn is_dhcp_server(port: u16) -> bool {
    let [server4, _] = DHCP4;
    let [_, server6] = DHCP6;
    port == server4 || port == server6
}

#[inline(always)]
fn is_pair(key: &FlowKey, ports: [u16; 2]) -> bool {
    let [a, b] = ports;
    (key.local_port == a || key.local_port == b) && (key.peer_port == a || key.peer_port == b)
}
