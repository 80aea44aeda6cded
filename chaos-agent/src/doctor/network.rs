//! Namespaces, devices, sockets, traffic control: each tried in a namespace that ends with the attempt.

use std::net::{TcpListener, TcpStream, UdpSocket};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage},
};
use nix::errno::Errno;

use super::{
    Need, Outcome, Probe, bpf, mend,
    rights::{may_try, needs_privileges},
};
use crate::{
    net::{
        Netlink, NetlinkError, link, offload,
        sockets::{self, State},
        tap::{self, TapError, TapSpec},
        veth::{self, VethSpec},
    },
    netns::{Netns, NetnsError},
};

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "network namespaces",
        need: Need::Basic,
        purpose: "targets, private devices",
        run: namespaces,
    },
    Probe { name: "tc programs", need: Need::Basic, purpose: "every fault", run: programs },
    Probe { name: "tcx", need: Need::Optional, purpose: "programs that end with the agent", run: tcx },
    Probe { name: "clsact", need: Need::Optional, purpose: "programs where there is no tcx", run: clsact },
    Probe { name: "veth", need: Need::Basic, purpose: "loss per wire packet", run: pair },
    Probe { name: "delay line", need: Need::Optional, purpose: "delays, rates, reordering", run: delay_line },
    Probe { name: "owners of sockets", need: Need::Basic, purpose: "cgroups on ingress", run: owners },
    Probe { name: "SOCK_DESTROY", need: Need::Optional, purpose: "ending idle connections", run: destroy },
    Probe { name: "sch_fq", need: Need::Optional, purpose: "delays inside the kernel", run: || qdisc("fq") },
    Probe {
        name: "sch_netem",
        need: Need::Optional,
        purpose: "comparing with netem",
        run: || qdisc("netem"),
    },
];

/// The index of `lo` in a new namespace.
const LOOPBACK: u32 = 1;

const SPEC: VethSpec<'_> =
    VethSpec { near: "chaos-probe", far: "chaos-probe-far", tx_queue_len: 100, mtu: 1500 };

/// Runs `attempt` in a namespace of its own.
fn try_inside(attempt: impl FnOnce(&Netns) -> Outcome + Send) -> Outcome {
    if !may_try() {
        return needs_privileges();
    }
    let tried = Netns::anonymous().and_then(|netns| netns.run(|| attempt(&netns)));
    tried.unwrap_or_else(|error: NetnsError| Outcome::unknown(error.to_string()))
}

fn namespaces() -> Outcome {
    if !may_try() {
        return needs_privileges();
    }
    let cookie = Netns::anonymous().and_then(|netns| netns.run(|| ()).map(|()| netns.cookie()));
    match cookie {
        Ok(Ok(_)) => Outcome::ok("made, entered, left"),
        // Before 5.14.
        Ok(Err(_)) => Outcome::ok("made, entered, left; no cookies"),
        Err(error) => Outcome::missing(error.to_string(), mend::kernel_option("CONFIG_NET_NS")),
    }
}

fn programs() -> Outcome {
    if !may_try() {
        return needs_privileges();
    }
    if tcx().is_ok() {
        return Outcome::ok("by tcx");
    }
    let fallback = clsact();
    if fallback.is_ok() { Outcome::ok("by clsact, with a guard process that cleans up") } else { fallback }
}

fn tcx() -> Outcome {
    try_inside(|_| {
        let linked = bpf::load_pass().and_then(|program| bpf::link_tcx(&program, LOOPBACK));
        match linked {
            Ok(_) => Outcome::ok("attached and detached"),
            Err(errno) => Outcome::missing(
                format!("a tcx link: {errno}; clsact and the guard do instead"),
                mend::kernel_option("version 6.6 or newer"),
            ),
        }
    })
}

fn clsact() -> Outcome {
    try_inside(|_| {
        let mut message = TcMessage::default();
        message.header.parent = TcHandle::CLSACT;
        message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
        match add_qdisc(message, "clsact") {
            Ok(()) => Outcome::ok("added and gone"),
            Err(error) => Outcome::missing(error.to_string(), mend::module("sch_ingress cls_bpf")),
        }
    })
}

/// A scheduler that is not there is `ENOENT`; any other answer (netem wants parameters) comes from itself.
fn qdisc(kind: &'static str) -> Outcome {
    try_inside(|_| {
        let mut message = TcMessage::default();
        message.header.parent = TcHandle::ROOT;
        match add_qdisc(message, kind) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => {
                Outcome::missing("this kernel does not have it", mend::module(&format!("sch_{kind}")))
            }
            _ => Outcome::ok("there"),
        }
    })
}

fn add_qdisc(mut message: TcMessage, kind: &str) -> Result<(), NetlinkError> {
    message.header.index = LOOPBACK.cast_signed();
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    let message = RouteNetlinkMessage::NewQueueDiscipline(message);
    Netlink::route()?.change("adding a queueing discipline", message, NLM_F_CREATE | NLM_F_EXCL)
}

/// Makes the pair of [`SPEC`] with its far end in another namespace, and tells what to do with it.
fn with_pair(netns: &Netns, then: impl FnOnce(&Netns) -> Outcome) -> Outcome {
    let made = Netns::anonymous().map_err(veth::VethError::from).and_then(|far| {
        veth::create(&mut Netlink::route()?, &SPEC, &far)?;
        Ok(far)
    });
    match made {
        Ok(_far) => then(netns),
        Err(error) => Outcome::missing(error.to_string(), mend::module("veth")),
    }
}

fn pair() -> Outcome {
    try_inside(|netns| {
        with_pair(netns, |_| match offload::offloads_off(SPEC.near) {
            Ok(()) => Outcome::ok("a pair without offloads"),
            Err(error) => Outcome::missing(error.to_string(), mend::kernel_option("CONFIG_VETH")),
        })
    })
}

/// Makes the device of a delay line and lets it go.
fn delay_line() -> Outcome {
    try_inside(|_| {
        let spec = TapSpec { name: SPEC.near, queue_len: 10_000, mtu: tap::MAX_MTU };
        let made =
            Netlink::route().map_err(TapError::from).and_then(|mut route| tap::create(&mut route, &spec));
        match made {
            Ok(tap) => {
                Outcome::ok(format!("a TAP {}, mask {:#x}", tap.offloads.describe(), tap.offloads.mask()))
            }
            Err(error) => Outcome::missing(
                error.to_string(),
                format!("{}; in a container: --device /dev/net/tun", mend::module("tun")),
            ),
        }
    })
}

fn owners() -> Outcome {
    try_inside(|_| {
        let listed = UdpSocket::bind("0.0.0.0:0").map(|_held| sockets::list(&mut Netlink::sock_diag()?));
        match listed {
            Err(error) => Outcome::unknown(format!("a UDP socket: {error}")),
            Ok(Err(error)) => {
                Outcome::missing(error.to_string(), mend::module("inet_diag tcp_diag udp_diag"))
            }
            Ok(Ok(sockets)) if sockets.iter().any(|socket| socket.cgroup.is_some()) => {
                Outcome::ok("sock_diag tells the cgroup")
            }
            Ok(Ok(_)) => Outcome::missing(
                "sock_diag does not tell the cgroup",
                mend::kernel_option("version 5.9 or newer and CONFIG_CGROUPS"),
            ),
        }
    })
}

fn destroy() -> Outcome {
    try_inside(|_| match destroy_own_connection() {
        Ok(true) => Outcome::ok("ended a connection of our own"),
        Ok(false) => Outcome::unknown("our own connection was not found"),
        Err(Failure::Refused(error)) => {
            Outcome::missing(error.to_string(), mend::kernel_option("CONFIG_INET_DIAG_DESTROY"))
        }
        Err(Failure::NotTried(why)) => Outcome::unknown(why),
    })
}

enum Failure {
    Refused(NetlinkError),
    NotTried(String),
}

fn destroy_own_connection() -> Result<bool, Failure> {
    let not_tried = |error: &dyn std::error::Error| Failure::NotTried(error.to_string());
    link::set_up(&mut Netlink::route().map_err(Failure::Refused)?, LOOPBACK).map_err(|e| not_tried(&e))?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| not_tried(&e))?;
    let address = listener.local_addr().map_err(|e| not_tried(&e))?;
    let _client = TcpStream::connect(address).map_err(|e| not_tried(&e))?;
    let mut netlink = Netlink::sock_diag().map_err(Failure::Refused)?;
    let all = sockets::list(&mut netlink).map_err(|e| not_tried(&e))?;
    let own = all.iter().find(|socket| socket.state == State::Established && socket.peer == address);
    own.map_or(Ok(false), |socket| sockets::destroy(&mut netlink, socket).map_err(Failure::Refused))
}
