//! The gate at a device: reads the headers of an ordinary packet where they lie, and lets it go if no rule can match.
//! What is not ordinary (tags, extension headers, fragments, headers outside the first part) is looked at by the
//! program that judges.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use chaos_common::{
    abi::{Direction, Gate, control, device_flags, gate::booked_place},
    gate::{self, Ends, Facts, GateAddr, Known},
    packet::Class,
    passed::{self, Moment},
};

use crate::{
    frame::Skb,
    maps::{CHAOS_BOOKED, CHAOS_CONTROL, CHAOS_GATES, CHAOS_NETNS, CHAOS_PASSED},
    source,
    world::{LEVELS_MAX, bank},
};

const ETH_IPV4: u16 = 0x0800_u16.to_be();
const ETH_IPV6: u16 = 0x86dd_u16.to_be();
const PROTO_ICMP: u8 = 1;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;

/// Whether the packet goes on: nothing is armed, or no rule matches it.
#[inline(always)]
pub(crate) fn lets_go(skb: Skb, direction: Direction) -> bool {
    let Some(generation) = CHAOS_CONTROL.get(control::GENERATION).copied().filter(|word| *word != 0) else {
        return true;
    };
    let Some(netns) = CHAOS_NETNS.get(0).copied() else { return false };
    let entry = entry(skb, (netns, generation, direction));
    if let Some(entry) = &entry
        && entry.has_gone()
    {
        return true;
    }
    let Some(is_ethernet) = asked(skb, (netns, generation, direction)) else { return false };
    if let Some(entry) = entry
        && is_ethernet
    {
        entry.goes();
    }
    true
}

/// Where what goes is remembered, and as what.
struct Entry {
    word: *mut u64,
    key: u64,
}

impl Entry {
    /// Whether it went before. If not, what is read from now on is not older than the key.
    #[inline(always)]
    fn has_gone(&self) -> bool {
        // SAFETY: in the table, aligned, and changed by others in one step.
        let known = unsafe { core::ptr::read_volatile(self.word) };
        if known == self.key {
            return true;
        }
        // SAFETY: as above. It adds nothing, but nothing behind it is read before it.
        core::hint::black_box(unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.word, 0) });
        false
    }

    #[inline(always)]
    fn goes(&self) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(self.word, self.key) };
    }
}

/// The entry of a packet of TCP or UDP that begins with an Ethernet header and has none that are optional.
#[inline(always)]
fn entry(skb: Skb, (netns, generation, direction): (u64, u64, Direction)) -> Option<Entry> {
    if generation & control::REMEMBERS == 0 || skb.vlan_present() != 0 {
        return None;
    }
    let words = CHAOS_PASSED.get_ptr_mut(0)?.cast::<u64>();
    let is_owned = generation & control::OWNED != 0 && matches!(direction, Direction::Egress);
    let owner = if is_owned { source::socket_word(skb) } else { 0 };
    let moment = Moment { generation, netns, ifindex: skb.ifindex(), direction, owner };
    let (start, end) = skb.bounds();
    let key = match load::<u16>(start.wrapping_add(12), end)? {
        ETH_IPV4 => key4(&moment, start.wrapping_add(14), end)?,
        ETH_IPV6 => key6(&moment, start.wrapping_add(14), end)?,
        _ => return None,
    };
    // SAFETY: a place is below their number.
    let word = unsafe { words.add(passed::place(key)) };
    Some(Entry { word, key })
}

#[inline(always)]
fn key4(moment: &Moment, start: usize, end: usize) -> Option<u64> {
    // Version and length, and the fragment's flag and offset.
    const MASK: u64 = u64::from_ne_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
    const PLAIN: u64 = u64::from_ne_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
    let ports = load::<u32>(start.wrapping_add(20), end)?;
    let [first] = load::<[u64; 1]>(start, end)?;
    let proto = load::<u8>(start.wrapping_add(9), end)?;
    if first & MASK != PLAIN || proto != PROTO_TCP && proto != PROTO_UDP {
        return None;
    }
    let addresses = load::<[u64; 1]>(start.wrapping_add(12), end)?;
    Some(passed::key(moment, addresses, passed::rest(4, proto, ports)))
}

#[inline(always)]
fn key6(moment: &Moment, start: usize, end: usize) -> Option<u64> {
    let ports = load::<u32>(start.wrapping_add(40), end)?;
    let version = load::<u8>(start, end)? >> 4;
    let proto = load::<u8>(start.wrapping_add(6), end)?;
    if version != 6 || proto != PROTO_TCP && proto != PROTO_UDP {
        return None;
    }
    let addresses = load::<[u64; 4]>(start.wrapping_add(8), end)?;
    Some(passed::key(moment, addresses, passed::rest(6, proto, ports)))
}

/// Asks the gate; if the packet goes, whether it was read with an Ethernet header.
#[inline(always)]
fn asked(skb: Skb, (netns, generation, direction): (u64, u64, Direction)) -> Option<bool> {
    let gate = CHAOS_GATES.get(bank(generation))?;
    let device = match gate::device(gate, netns, skb.ifindex()) {
        Known::Here(device) => device,
        Known::Nothing => return Some(false),
        Known::Unclear => return None,
    };
    if skb.vlan_present() != 0 {
        return None;
    }
    let is_ethernet = device.flags & device_flags::L3 == 0;
    let facts = facts(skb, !is_ethernet)?;
    gate::lets_go(gate, device.groups(direction), direction, &facts, &Here { skb, netns })
        .then_some(is_ethernet)
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
    if unsafe { core::ptr::read_volatile(byte) } != 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(byte, 1) };
    // What was let go because nobody was booked there is looked at again. A generation that has changed meanwhile did
    // so after the byte, which is all that counts.
    if let Some(generation) = CHAOS_CONTROL.get_ptr_mut(control::GENERATION) {
        // SAFETY: aligned, and changed by others in one step.
        let now = unsafe { core::ptr::read_volatile(generation) };
        if now != 0 {
            // SAFETY: as above.
            let _ = unsafe {
                atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                    generation,
                    now,
                    now.wrapping_add(control::NEXT),
                )
            };
        }
    }
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
