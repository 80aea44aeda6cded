//! The gate at a device: reads the headers of an ordinary packet where they lie, and lets it go if no rule can match.
//! What is not ordinary (tags, extension headers, fragments, headers outside the first part) is looked at by the
//! program that judges.

use chaos_common::{
    abi::{Direction, Gate, device_flags, gate::booked_place},
    gate::{self, Ends, Facts, GateAddr, Known},
    packet::Class,
};

use crate::{
    frame::Skb,
    maps::{CHAOS_BOOKED, CHAOS_GATES, CHAOS_NETNS},
    source,
    world::{LEVELS_MAX, Tables},
};

const ETH_IPV4: u16 = 0x0800_u16.to_be();
const ETH_IPV6: u16 = 0x86dd_u16.to_be();
const PROTO_ICMP: u8 = 1;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;

/// Whether the packet goes on: no rule of the bank matches it.
#[inline(always)]
pub(crate) fn lets_go(tables: &Tables, direction: Direction) -> bool {
    let skb = tables.skb;
    let (Some(gate), Some(netns)) = (CHAOS_GATES.get(tables.bank), CHAOS_NETNS.get(0)) else {
        return false;
    };
    let device = match gate::device(gate, *netns, skb.ifindex()) {
        Known::Here(device) => device,
        Known::Nothing => return true,
        Known::Unclear => return false,
    };
    if skb.vlan_present() != 0 {
        return false;
    }
    let Some(facts) = facts(skb, device.flags & device_flags::L3 != 0) else { return false };
    gate::lets_go(gate, device.groups(direction), direction, &facts, &Here { skb, netns: *netns })
}

/// The packet's own namespace and socket.
struct Here {
    skb: Skb,
    netns: u64,
}

impl Ends for Here {
    #[inline(always)]
    fn is_booked(&self, port: u16) -> bool {
        let place = booked_place(self.netns, port);
        // SAFETY: written here and by the agent, a byte at a time, and never taken back.
        CHAOS_BOOKED
            .get(0)
            .and_then(|booked| booked.get(place))
            .is_none_or(|byte| unsafe { core::ptr::read_volatile(byte) != 0 })
    }

    #[inline(always)]
    fn socket(&self, gate: &Gate) -> u64 {
        let mut levels = gate.cgroup_levels;
        let mut groups = gate.any_cgroup;
        for _ in 0..LEVELS_MAX {
            if levels == 0 {
                break;
            }
            let level = levels.ilog2();
            levels &= !(1u64 << (level & 63));
            let id = source::ancestor_cgroup(self.skb, level);
            if id != 0 {
                groups |= gate::cgroup(gate, id);
            }
        }
        groups
    }
}

/// Notes that an owner is booked there, before it is.
#[inline(always)]
pub(crate) fn booked(netns: u64, port: u16) {
    let Some(all) = CHAOS_BOOKED.get_ptr_mut(0) else { return };
    let place = booked_place(netns, port);
    // SAFETY: inside the array; only ever set to 1, by whoever comes first.
    let byte = unsafe { all.cast::<u8>().add(place) };
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(byte, 1) };
}

/// What lies at `at`, if the packet's bytes in memory go that far.
#[inline(always)]
fn load<T: Copy>(at: usize, end: usize) -> Option<T> {
    if at.wrapping_add(size_of::<T>()) > end {
        return None;
    }
    // SAFETY: inside the packet, which the verifier checks; it also refuses the program where such a load must be
    // aligned (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS` is off). Volatile, so that it stays one load.
    Some(unsafe { core::ptr::read_volatile(at as *const T) })
}

#[inline(always)]
fn facts(skb: Skb, l3: bool) -> Option<Facts> {
    let (start, end) = skb.bounds();
    if l3 {
        // More than the byte that is asked for: two pointers without an offset are compared by their lower halves,
        // from which the verifier learns nothing.
        return match u32::from_be(load::<u32>(start, end)?) >> 28 {
            4 => ipv4(start, end),
            6 => ipv6(start, end),
            _ => None,
        };
    }
    match load::<u16>(start.wrapping_add(12), end)? {
        ETH_IPV4 => ipv4(start.wrapping_add(14), end),
        ETH_IPV6 => ipv6(start.wrapping_add(14), end),
        _ => None,
    }
}

#[inline(always)]
fn ipv4(start: usize, end: usize) -> Option<Facts> {
    let [first, second, third, source, destination] = load::<[u32; 5]>(start, end)?.map(u32::from_be);
    let header = (first >> 24 & 0x0f) << 2;
    // Offset and more fragments: only the latter has a transport header, which is looked at elsewhere.
    if first >> 28 != 4 || header < 20 || second & 0x3fff != 0 {
        return None;
    }
    let at = start.wrapping_add(header as usize);
    transport((third >> 16) as u8, [GateAddr::V4(source), GateAddr::V4(destination)], at, end)
}

#[inline(always)]
fn ipv6(start: usize, end: usize) -> Option<Facts> {
    let [first, second] = load::<[u32; 2]>(start, end)?.map(u32::from_be);
    if first >> 28 != 6 {
        return None;
    }
    let addresses = [address6(start.wrapping_add(8), end)?, address6(start.wrapping_add(24), end)?];
    transport((second >> 8) as u8, addresses, start.wrapping_add(40), end)
}

#[inline(always)]
fn address6(at: usize, end: usize) -> Option<GateAddr> {
    let [a, b, c, d] = load::<[u32; 4]>(at, end)?.map(u32::from_be);
    // RFC 4291, section 2.5.5.2: what looks like IPv4 is looked up as IPv4.
    if a | b == 0 && c == 0xffff {
        return None;
    }
    Some(GateAddr::V6(u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d)))
}

#[inline(always)]
fn transport(proto: u8, addresses: [GateAddr; 2], at: usize, end: usize) -> Option<Facts> {
    let class = match proto {
        PROTO_TCP => Class::TCP,
        PROTO_UDP => Class::UDP,
        PROTO_ICMP => return Some(Facts { class: Class::ICMP.0, addresses, ports: None }),
        _ => return None,
    };
    let ports = u32::from_be(load::<u32>(at, end)?);
    Some(Facts { class: class.0, addresses, ports: Some([(ports >> 16) as u16, ports as u16]) })
}
