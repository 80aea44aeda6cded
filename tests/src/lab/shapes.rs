//! Networks made of namespaces: a pair, a stacked pair, a container behind a host, twins.
//!
//! All addresses are constants; the namespaces keep them apart. IPv6 addresses come without
//! duplicate address detection, so they work at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

use super::netns::Netns;

/// IPv4 address of end A of a pair.
pub const A4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// IPv4 address of end B of a pair.
pub const B4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// IPv6 address of end A of a pair.
pub const A6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// IPv6 address of end B of a pair.
pub const B6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// IPv4 address of the container of [`Contained`].
pub const CONTAINER4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

/// Two namespaces joined by a veth pair: `va` in A, `vb` in B.
#[derive(Debug)]
pub struct Pair {
    /// [`A4`], [`A6`] on `va`.
    pub a: Netns,
    /// [`B4`], [`B6`] on `vb`.
    pub b: Netns,
}

impl Pair {
    /// Makes the pair.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> Result<Self> {
        let (a, b) = (Netns::new()?, Netns::new()?);
        join(&a, "va", &b, "vb", None)?;
        address(&a, "va", A4, A6)?;
        address(&b, "vb", B4, B6)?;
        Ok(Self { a, b })
    }

    /// Makes A's veth hand over one segment per skb (`gso_max_segs 1`), so that what looks at
    /// skbs sees wire packets: the reference for loss per wire packet.
    ///
    /// # Errors
    /// When the device does not take it.
    pub fn single_segments(&self) -> Result<()> {
        self.a.run("ip link set va gso_max_segs 1").map(drop)
    }
}

/// Joins two namespaces by a veth pair, both ends up; MACs are fixed, `index` sets both ifindexes.
///
/// # Errors
/// When a name or an index is taken.
pub fn join(a: &Netns, a_dev: &str, b: &Netns, b_dev: &str, index: Option<u32>) -> Result<()> {
    let index = index.map(|index| format!("index {index}")).unwrap_or_default();
    let (near, far) = ("02:77:00:00:00:01", "02:77:00:00:00:02");
    a.run(&format!(
        "ip link add {a_dev} {index} address {near} type veth peer name {b_dev} {index} address {far} netns {}",
        b.name()
    ))?;
    a.run(&format!("ip link set {a_dev} up"))?;
    b.run(&format!("ip link set {b_dev} up")).map(drop)
}

/// Gives a device its addresses.
///
/// # Errors
/// When the device is not there.
pub fn address(netns: &Netns, device: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    netns.run(&format!("ip addr add {v4}/24 dev {device}"))?;
    netns.run(&format!("ip addr add {v6}/64 dev {device} nodad")).map(drop)
}

/// A pair whose addresses sit on stacked devices: veth, port of a bridge, and on top a VLAN
/// device where the kernel has them.
#[derive(Debug)]
pub struct Stacked {
    /// Bridge `br0` over `va`; [`A4`], [`A6`] on [`Self::device`].
    pub a: Netns,
    /// The same shape; [`B4`], [`B6`].
    pub b: Netns,
    /// The device with the addresses, in both namespaces: `br0`, or `br0.10` over it.
    pub device: &'static str,
}

impl Stacked {
    /// Makes the stack; `vlan` asks for VLAN devices on top.
    ///
    /// # Errors
    /// Without root, or when VLAN devices are asked for and the kernel has none ([`has_vlan`]).
    pub fn new(vlan: bool) -> Result<Self> {
        let (a, b) = (Netns::new()?, Netns::new()?);
        join(&a, "va", &b, "vb", None)?;
        let device = if vlan { "br0.10" } else { "br0" };
        for (netns, port, v4, v6) in [(&a, "va", A4, A6), (&b, "vb", B4, B6)] {
            netns.run("ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
            netns.run(&format!("ip link set {port} master br0"))?;
            netns.run("ip link set br0 up")?;
            if vlan {
                netns.run("ip link add link br0 name br0.10 type vlan id 10")?;
                netns.run("ip link set br0.10 up")?;
            }
            address(netns, device, v4, v6)?;
        }
        Ok(Self { a, b, device })
    }
}

/// Whether the kernel can make VLAN devices (`CONFIG_VLAN_8021Q`); tried in a namespace.
///
/// # Errors
/// Without root.
pub fn has_vlan() -> Result<bool> {
    let netns = Netns::new()?;
    Ok(netns.run("ip link add link lo name try.10 type vlan id 10").is_ok())
}

/// A container behind a host: container — bridge `cbr0` of the host — host's `uplink` — peer.
#[derive(Debug)]
pub struct Contained {
    /// [`CONTAINER4`] on `eth0`.
    pub container: Netns,
    /// Forwards; 10.78.0.1 on `cbr0` (port `vc`), [`A4`] on `uplink`.
    pub host: Netns,
    /// [`B4`] on `vb`, with a route to the container.
    pub peer: Netns,
}

impl Contained {
    /// Makes the three namespaces and checks that the container reaches the peer.
    ///
    /// # Errors
    /// Without root, or when forwarding is blocked.
    pub fn new() -> Result<Self> {
        let (container, host, peer) = (Netns::new()?, Netns::new()?, Netns::new()?);
        join(&host, "uplink", &peer, "vb", None)?;
        address(&host, "uplink", A4, A6)?;
        address(&peer, "vb", B4, B6)?;
        join(&host, "vc", &container, "eth0", None)?;
        host.run("ip link add cbr0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
        host.run("ip link set vc master cbr0")?;
        host.run("ip link set cbr0 up")?;
        host.run("ip addr add 10.78.0.1/24 dev cbr0")?;
        host.run("sysctl -qw net.ipv4.ip_forward=1")?;
        container.run(&format!("ip addr add {CONTAINER4}/24 dev eth0"))?;
        container.run("ip route add default via 10.78.0.1")?;
        peer.run(&format!("ip route add 10.78.0.0/24 via {A4}"))?;
        let answer = container.run(&format!("ping -c 3 -i 0.2 -W 2 -q {B4}"));
        ensure!(answer.is_ok(), "the container does not reach the peer: {answer:?}");
        Ok(Self { container, host, peer })
    }
}

/// Two pairs that differ in nothing: the same names, ifindexes, addresses and MACs.
#[derive(Debug)]
pub struct Twins {
    /// One pair.
    pub one: Pair,
    /// The other.
    pub two: Pair,
}

impl Twins {
    /// Makes both pairs and checks that the near namespaces look alike.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> Result<Self> {
        let twin = || -> Result<Pair> {
            let (a, b) = (Netns::new()?, Netns::new()?);
            join(&a, "va", &b, "vb", Some(77))?;
            address(&a, "va", A4, A6)?;
            address(&b, "vb", B4, B6)?;
            Ok(Pair { a, b })
        };
        let twins = Self { one: twin()?, two: twin()? };
        let looks = |netns: &Netns| -> Result<(String, String)> {
            let link = netns.run("ip -o link show va")?;
            let link = link.split(" link-netns").next().unwrap_or_default().to_owned();
            Ok((link, netns.run("ip -o addr show va")?))
        };
        ensure!(looks(&twins.one.a)? == looks(&twins.two.a)?, "the twins differ");
        Ok(twins)
    }
}

/// The address of one end of a pair in the wanted IP version.
#[must_use]
pub fn pair_address(end_b: bool, v6: bool) -> IpAddr {
    match (end_b, v6) {
        (false, false) => A4.into(),
        (true, false) => B4.into(),
        (false, true) => A6.into(),
        (true, true) => B6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{A4, B4, B6, Contained, Pair, Stacked, Twins, has_vlan};

    #[test]
    fn a_pair_talks_in_both_ip_versions() {
        crate::require_root!();
        let pair = Pair::new().unwrap();
        pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
        pair.a.run(&format!("ping -c 1 -W 2 -q {B6}")).unwrap();
        pair.b.run(&format!("ping -c 1 -W 2 -q {A4}")).unwrap();
    }

    #[test]
    fn stacked_devices_talk() {
        crate::require_root!();
        let stacked = Stacked::new(false).unwrap();
        stacked.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
        if !has_vlan().unwrap() {
            crate::skip!("the part with VLAN devices: this kernel has none (CONFIG_VLAN_8021Q)");
        }
        let stacked = Stacked::new(true).unwrap();
        stacked.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    }

    #[test]
    fn the_container_and_the_twins_come_up() {
        crate::require_root!();
        Contained::new().unwrap();
        let twins = Twins::new().unwrap();
        twins.one.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
        twins.two.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    }
}
