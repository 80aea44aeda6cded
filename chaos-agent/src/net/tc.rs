//! Traffic control: clsact qdiscs and the eBPF filters on them.
//!
//! Sources: `tc-bpf(8)`, `net/sched/sch_ingress.c` and `net/sched/cls_bpf.c` (6.18). Among filters of one priority the
//! newest runs first; an `ingress` qdisc in the same place keeps clsact out.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::netlink::{Netlink, NetlinkError};

/// `ETH_P_ALL`: a filter for every protocol. Another protocol at the same priority is refused by the kernel.
const PROTOCOL_ALL: u16 = 0x0003;

/// The two places where a clsact qdisc runs filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Packets that come in.
    Ingress,
    /// Packets that go out.
    Egress,
}

impl Side {
    fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }
}

/// A filter as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Lower runs first.
    pub priority: u16,
    /// Names it within its priority.
    pub handle: u32,
    /// `bpf`, `u32`, `flower`, ...
    pub kind: String,
    /// The name given at attaching (bpf only).
    pub name: Option<String>,
    /// Id of the program (bpf only).
    pub program_id: Option<u32>,
}

/// What sits where clsact goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngressQdisc {
    /// Nothing: clsact may be added.
    None,
    /// clsact, somebody's; more filters may be added.
    Clsact,
    /// The plain `ingress` qdisc: only ingress filters, and no clsact.
    Ingress,
}

/// One filter of ours, and how it is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnFilter {
    /// Interface, in its own namespace.
    pub interface: u32,
    /// Where on it.
    pub side: Side,
    /// Its priority.
    pub priority: u16,
    /// Its handle.
    pub handle: u32,
    /// The program that must be there for it to be ours.
    pub program_id: u32,
}

/// What happened to a filter that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterRemoval {
    /// Deleted.
    Removed,
    /// No filter (or interface) there any more.
    Gone,
    /// Another program is in its place, which stays.
    Foreign,
}

fn message(interface: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = interface.cast_signed();
    message.header.parent = parent;
    message
}

fn filter_message(interface: u32, side: Side, priority: u16, handle: u32) -> TcMessage {
    let mut message = message(interface, side.parent());
    message.header.handle = TcHandle::from(handle);
    // tcm_info: priority above, protocol in network order below (TC_H_MAKE in tc_filter_modify, iproute2).
    message.header.info = u32::from(priority) << 16 | u32::from(PROTOCOL_ALL.to_be());
    message
}

/// Lists the filters of one side, in the order in which they run.
pub fn filters(netlink: &mut Netlink, interface: u32, side: Side) -> Result<Vec<Filter>, NetlinkError> {
    let request = RouteNetlinkMessage::GetTrafficFilter(message(interface, side.parent()));
    let listed = match netlink.dump_route("listing traffic filters", &request) {
        // No qdisc there (kernels differ in whether they say so), or no interface.
        Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::ENODEV | Errno::ENOENT)) => {
            Vec::new()
        }
        listed => listed?,
    };
    Ok(listed.into_iter().filter_map(filter).collect())
}

fn filter(message: RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
    let mut filter = Filter {
        priority: u16::try_from(message.header.info >> 16).ok()?,
        handle: message.header.handle.into(),
        kind: String::new(),
        name: None,
        program_id: None,
    };
    for attribute in message.attributes {
        if let TcAttribute::Kind(kind) = attribute {
            filter.kind = kind;
        } else if let TcAttribute::Options(options) = attribute {
            for option in options {
                if let TcOption::Bpf(TcFilterBpfOption::ProgName(name)) = option {
                    filter.name = Some(name);
                } else if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option {
                    filter.program_id = Some(id);
                }
            }
        }
    }
    // The kernel also lists each priority itself, as an entry without a handle.
    (filter.handle != 0).then_some(filter)
}

/// Attaches a program in direct-action mode for all protocols; the handle must be free.
pub fn add_filter(
    netlink: &mut Netlink,
    interface: u32,
    side: Side,
    (priority, handle): (u16, u32),
    program: BorrowedFd<'_>,
    name: &str,
) -> Result<(), NetlinkError> {
    let mut message = filter_message(interface, side, priority, handle);
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    let message = RouteNetlinkMessage::NewTrafficFilter(message);
    netlink.change("attaching a traffic filter", message, NLM_F_CREATE | NLM_F_EXCL)
}

/// Deletes a filter if it still has our program, and only then.
pub fn remove_filter(netlink: &mut Netlink, own: &OwnFilter) -> Result<FilterRemoval, NetlinkError> {
    let present = filters(netlink, own.interface, own.side)?
        .into_iter()
        .find(|filter| (filter.priority, filter.handle) == (own.priority, own.handle));
    match present {
        None => return Ok(FilterRemoval::Gone),
        Some(filter) if filter.program_id != Some(own.program_id) => return Ok(FilterRemoval::Foreign),
        Some(_) => {}
    }
    let mut message = filter_message(own.interface, own.side, own.priority, own.handle);
    // Without the kind the kernel deletes every filter of the priority.
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    match netlink.change("removing a traffic filter", RouteNetlinkMessage::DelTrafficFilter(message), 0) {
        Ok(()) => Ok(FilterRemoval::Removed),
        Err(error) if is_gone(&error) => Ok(FilterRemoval::Gone),
        Err(error) => Err(error),
    }
}

/// What sits at an interface's ingress.
pub fn ingress_qdisc(netlink: &mut Netlink, interface: u32) -> Result<IngressQdisc, NetlinkError> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(message(interface, TcHandle::UNSPEC));
    for listed in netlink.dump_route("listing queueing disciplines", &request)? {
        let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = listed else { continue };
        // The kernel lists those of all interfaces whatever was asked (tc_dump_qdisc, before 6.1 at least).
        if qdisc.header.index != interface.cast_signed() || qdisc.header.parent != TcHandle::CLSACT {
            continue;
        }
        let clsact =
            qdisc.attributes.iter().any(|attribute| *attribute == TcAttribute::Kind("clsact".to_owned()));
        return Ok(if clsact { IngressQdisc::Clsact } else { IngressQdisc::Ingress });
    }
    Ok(IngressQdisc::None)
}

/// Adds a clsact qdisc; true when it was not there before, so that it is ours to remove.
pub fn add_clsact(netlink: &mut Netlink, interface: u32) -> Result<bool, NetlinkError> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(clsact_message(interface));
    match netlink.change("adding a clsact qdisc", message, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Some(Errno::EEXIST) => match ingress_qdisc(netlink, interface)? {
            IngressQdisc::Clsact => Ok(false),
            IngressQdisc::Ingress | IngressQdisc::None => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Removes the clsact qdisc if no filter is on it; true when it was removed. Only for one that we added.
pub fn remove_empty_clsact(netlink: &mut Netlink, interface: u32) -> Result<bool, NetlinkError> {
    for side in [Side::Ingress, Side::Egress] {
        if !filters(netlink, interface, side)?.is_empty() {
            return Ok(false);
        }
    }
    if ingress_qdisc(netlink, interface)? != IngressQdisc::Clsact {
        return Ok(false);
    }
    let message = RouteNetlinkMessage::DelQueueDiscipline(clsact_message(interface));
    match netlink.change("removing a clsact qdisc", message, 0) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn clsact_message(interface: u32) -> TcMessage {
    let mut message = message(interface, TcHandle::CLSACT);
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}

/// The object or its interface does not exist (any more).
fn is_gone(error: &NetlinkError) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV | Errno::EINVAL))
}
