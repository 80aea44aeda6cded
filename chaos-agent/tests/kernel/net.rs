//! Links, addresses, routes, private pairs, offloads, sockets: against a real kernel. Needs root.
use std::{
    io::Write,
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use crate::support::{NamedNetns, eventually, sh, skip};
use chaos_agent::{
    net::{
        Netlink, addr, link, offload, route,
        sockets::{self, State, Transport},
        veth::{self, VethSpec},
        watch::LinkWatch,
    },
    netns::Netns,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn links_tell_what_they_are() {
    if skip("net: links tell what they are") {
        return;
    }
    let named = NamedNetns::new();
    let name = &named.0;
    sh(&format!(
        "ip -n {name} link add br0 type bridge && ip -n {name} link add va type veth peer name vb \
         && ip -n {name} link set va master br0 && ip -n {name} tuntap add tun0 mode tun \
         && ip -n {name} link add mv0 link vb type macvlan"
    ));
    let links = named.open().run(|| link::list(&mut Netlink::route().unwrap()).unwrap()).unwrap();
    let find = |name: &str| links.iter().find(|link| link.name == name).unwrap();
    assert!(find("lo").is_loopback() && find("lo").is_up() && find("lo").has_ethernet_header());
    let port = find("va");
    assert_eq!(port.kind.as_deref(), Some("veth"));
    assert_eq!(port.master, Some(find("br0").index));
    assert_eq!(port.master_kind.as_deref(), Some("bridge"));
    assert!(port.is_port() && !port.is_up() && port.lower().is_none());
    assert_eq!(find("mv0").lower(), Some(find("vb").index));
    assert!(!find("tun0").has_ethernet_header() && find("tun0").is_noarp());
    assert_eq!(find("br0").mtu, 1500);
}

#[test]
fn a_private_pair_is_silent_and_cut_to_wire_packets() {
    if skip("net: a private pair is silent and cut to wire packets") {
        return;
    }
    let (near_ns, far_ns) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
    let spec = VethSpec { near: "chaos-near", far: "chaos-far", tx_queue_len: 10_000, mtu: 65_535 };
    let pair = near_ns.run(|| veth::create(&mut Netlink::route().unwrap(), &spec, &far_ns).unwrap()).unwrap();
    for (netns, name, index) in [(&near_ns, "chaos-near", pair.near), (&far_ns, "chaos-far", pair.far)] {
        netns
            .run(|| {
                let mut netlink = Netlink::route().unwrap();
                let found = link::by_name(&mut netlink, name).unwrap().unwrap();
                assert_eq!(found.index, index);
                assert!(found.is_up() && found.is_noarp() && found.is_ours());
                offload::offloads_off(name).unwrap();
                let left = offload::active_features(name).unwrap();
                assert!(!left.iter().any(|feature| feature.contains("segmentation")), "{left:?}");
                assert!(addr::list(&mut netlink).unwrap().is_empty(), "an address of its own");
                let details = sh(&format!("ip -d link show {name}"));
                assert!(details.contains("gso_max_segs 1 "), "{details}");
                assert!(details.contains("addrgenmode none"), "{details}");
                assert!(details.contains("qlen 10000"), "{details}");
                assert!(details.contains("numtxqueues 1 numrxqueues 1"), "{details}");
            })
            .unwrap();
    }
    near_ns
        .run(|| {
            // Nothing may have been sent by the kernel itself.
            let sent = sh("ip -s -j link show chaos-near");
            assert!(sent.contains("\"tx\":{\"bytes\":0,\"packets\":0"), "{sent}");
            let mut netlink = Netlink::route().unwrap();
            assert!(link::delete_by_name(&mut netlink, "chaos-near").unwrap());
            assert!(!link::delete_by_name(&mut netlink, "chaos-near").unwrap());
        })
        .unwrap();
    far_ns
        .run(|| {
            assert!(link::by_name(&mut Netlink::route().unwrap(), "chaos-far").unwrap().is_none());
        })
        .unwrap();
}

#[test]
fn a_pair_ends_with_the_last_handle_of_its_far_namespace() {
    if skip("net: a pair ends with the last handle of its far namespace") {
        return;
    }
    let (near_ns, far_ns) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
    let spec = VethSpec { near: "chaos-a", far: "chaos-b", tx_queue_len: 100, mtu: 1500 };
    near_ns.run(|| veth::create(&mut Netlink::route().unwrap(), &spec, &far_ns).unwrap()).unwrap();
    drop(far_ns);
    eventually("the near end goes with the far namespace", Duration::from_secs(2), || {
        near_ns.run(|| link::by_name(&mut Netlink::route().unwrap(), "chaos-a").unwrap().is_none()).unwrap()
    });
}

#[test]
fn a_name_taken_is_an_error_and_leaves_nothing() {
    if skip("net: a name taken is an error and leaves nothing") {
        return;
    }
    let (near_ns, far_ns) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
    let spec = VethSpec { near: "chaos-a", far: "chaos-b", tx_queue_len: 100, mtu: 1500 };
    let create = || near_ns.run(|| veth::create(&mut Netlink::route().unwrap(), &spec, &far_ns)).unwrap();
    create().unwrap();
    let error = create().unwrap_err().to_string();
    assert!(error.contains("EEXIST"), "{error}");
    let count =
        |netns: &Netns| netns.run(|| link::list(&mut Netlink::route().unwrap()).unwrap().len()).unwrap();
    assert_eq!((count(&near_ns), count(&far_ns)), (2, 2));
}

#[test]
fn routes_and_addresses_are_the_namespaces_own() {
    if skip("net: routes and addresses are the namespace's own") {
        return;
    }
    let named = NamedNetns::new();
    let name = &named.0;
    sh(&format!(
        "ip -n {name} link add va type veth peer name vb && ip -n {name} link set va up \
         && ip -n {name} link set vb up && ip -n {name} addr add 10.7.0.1/24 dev va \
         && ip -n {name} addr add fd00:7::1/64 dev va nodad \
         && ip -n {name} route add 10.9.0.0/16 via 10.7.0.254 \
         && ip -n {name} route add unreachable 10.8.0.0/16 && ip -n {name} route add blackhole 10.6.0.0/16 \
         && ip -n {name} -6 route add unreachable fd00:8::/64"
    ));
    named
        .open()
        .run(|| {
            let mut netlink = Netlink::route().unwrap();
            let va = link::by_name(&mut netlink, "va").unwrap().unwrap().index;
            let addresses = addr::list(&mut netlink).unwrap();
            assert!(
                addresses.iter().any(|a| a.index == va && a.net.to_string() == "10.7.0.1/24" && a.global)
            );
            assert!(addresses.iter().any(|a| a.index == va && a.net.to_string() == "fd00:7::1/64"));
            assert!(addresses.iter().any(|a| a.net.to_string() == "127.0.0.1/8" && !a.global));
            let mut to = |text: &str| route::lookup(&mut netlink, ip(text)).unwrap();
            assert_eq!(to("10.7.0.2").unwrap().device, va);
            assert_eq!(to("10.7.0.2").unwrap().source, Some(ip("10.7.0.1")));
            assert_eq!(to("10.9.1.1").unwrap().gateway, Some(ip("10.7.0.254")));
            assert!(to("10.7.0.1").unwrap().local);
            assert_eq!(to("fd00:7::2").unwrap().device, va);
            for nowhere in ["10.8.0.1", "10.6.0.1", "192.0.2.1", "fd00:8::1", "2001:db8::1"] {
                assert_eq!(to(nowhere), None, "{nowhere}");
            }
        })
        .unwrap();
}

#[test]
fn the_watch_tells_of_devices_and_addresses() {
    if skip("net: the watch tells of devices and addresses") {
        return;
    }
    let named = NamedNetns::new();
    let mut watch = named.open().run(LinkWatch::open).unwrap().unwrap();
    assert!(!watch.changed().unwrap());
    sh(&format!("ip -n {} addr add 10.1.1.1/32 dev lo", named.0));
    assert!(watch.changed().unwrap());
    assert!(!watch.changed().unwrap());
    sh(&format!("ip -n {} link add vx type veth peer name vy", named.0));
    assert!(watch.changed().unwrap());
    // Ours, in another namespace: must not be heard.
    let elsewhere = NamedNetns::new();
    sh(&format!("ip -n {} addr add 10.1.1.1/32 dev lo", elsewhere.0));
    assert!(!watch.changed().unwrap());
}

#[test]
fn sockets_have_owners_and_can_be_ended() {
    if skip("net: sockets have owners and can be ended") {
        return;
    }
    let named = NamedNetns::new();
    named
        .open()
        .run(|| {
            let listener = TcpListener::bind("[::]:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            // Through IPv4 to a dual-stack listener: the accepted socket has v4-mapped addresses.
            let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (server, _) = listener.accept().unwrap();
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut netlink = Netlink::sock_diag().unwrap();
            let all = sockets::list(&mut netlink).unwrap();
            let listening = all.iter().find(|s| s.state == State::Listen).unwrap();
            assert!(listening.dual_stack && listening.local.port() == port && !listening.has_peer());
            assert!(listening.cgroup.is_some(), "the kernel tells the cgroup");
            let accepted =
                all.iter().find(|s| s.state == State::Established && s.local.port() == port).unwrap();
            assert_eq!(accepted.local.ip(), ip("127.0.0.1"));
            assert_eq!(accepted.peer, client.local_addr().unwrap());
            let bound = all.iter().find(|s| s.transport == Transport::Udp).unwrap();
            assert_eq!(bound.local, udp.local_addr().unwrap());
            assert!(bound.cookie != 0 && bound.inode != 0);

            match sockets::destroy(&mut netlink, accepted) {
                Ok(ended) => assert!(ended),
                Err(error) => {
                    let _ = writeln!(std::io::stderr(), "SKIPPED the end of a connection: {error}");
                    return;
                }
            }
            assert!(!sockets::destroy(&mut netlink, accepted).unwrap());
            let error = std::io::Read::read(&mut &server, &mut [0]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED));
        })
        .unwrap();
}
