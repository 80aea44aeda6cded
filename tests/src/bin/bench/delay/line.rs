//! Delay lines inside the kernel, beside the one of `chaos`: a private veth pair whose near end has `sch_fq`. A program
//! on the device gives a packet its time of departure and sends a clone of it into the pair (a clone has no socket: a
//! socket whose packets wait in a qdisc stops sending); one at the far end sends it back to the device.
//!
//! What waits in `sch_fq` comes at its time or not at all: another qdisc, or none, drops it. A line of which packets can be
//! had earlier lets them come round in steps, and asks a table each time.
//!
//! No rule is looked up, no MAC address kept, nothing counted: a line of ours could be no cheaper than these.

use anyhow::{Context as _, Result};
use aya::programs::TcAttachType::{Egress, Ingress};
use chaos_tests::lab::netns::Netns;

use crate::naive::{Instruction, KTIME_GET_NS, Naive, PASS, TABLE_AT, instruction, lookup};

/// Where packets wait.
const NEAR: &str = "line0";
/// Where they come out.
const FAR: &str = "line1";
/// More packets than any row of the benchmark has on its way, and longer than any row asks for.
const FQ: &str = "fq limit 100000 flow_limit 10000 horizon 10s";

// Of `struct __sk_buff`, `include/uapi/linux/bpf.h`.
const TC_INDEX: i16 = 44;
// Numbers of helpers.
const STORE_BYTES: i32 = 9;
const LOAD_BYTES: i32 = 26;
const CLONE_REDIRECT: i32 = 13;
const REDIRECT: i32 = 23;
const CHANGE_TYPE: i32 = 32;
const SET_TSTAMP: i32 = 192;
/// `BPF_SKB_TSTAMP_DELIVERY_MONO`: without it a redirection clears the time.
const MONOTONIC: i32 = 1;
/// `PACKET_HOST`.
const TO_US: i32 = 0;
/// The bits of `tc_index` that say "has waited", and one value of them.
const MARKER: i32 = 0xf000;
const WAITED: i32 = 0x3000;
/// A device that does not exist: what is redirected to it is gone, and its sender is told nothing.
const NOWHERE: i32 = 0x7fff_fff0;

/// A packet that waits longer comes round at least at multiples of this, nanoseconds.
const STEP: i32 = 1 << 23;
/// Of B and of A, in a [`Pair`](chaos_tests::lab::shapes::Pair).
const MACS: [u8; 12] = [2, 0x77, 0, 0, 0, 2, 2, 0x77, 0, 0, 0, 1];

/// How a packet waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Not at all: the way through the pair alone, which needs no `sch_fq`.
    Never,
    /// Once.
    AtOnce,
    /// In steps of at most [`STEP`].
    Steps,
}

/// A line in force; it goes when this is dropped, with what is in it.
pub(super) struct Line<'a> {
    netns: &'a Netns,
    programs: Vec<Naive>,
}

impl<'a> Line<'a> {
    /// Whatever leaves the device waits so long.
    ///
    /// # Errors
    /// When the kernel has no `sch_fq`, or refuses a program.
    pub(super) fn new(netns: &'a Netns, device: &str, ms: u32, how: How) -> Result<Self> {
        netns.run(&format!("ip link add {NEAR} type veth peer name {FAR}"))?;
        let mut line = Self { netns, programs: Vec::new() };
        for end in [NEAR, FAR] {
            netns.run(&format!("ip link set {end} addrgenmode none arp off up"))?;
        }
        if how != How::Never {
            netns.run(&format!("tc qdisc replace dev {NEAR} root {FQ}"))?;
        }
        let (device_index, near) = (index(netns, device)?, index(netns, NEAR)?);
        let out = match how {
            How::Never | How::AtOnce => Naive::attach(netns, FAR, Ingress, &out(device_index), None),
            How::Steps => {
                let again = round_again(device_index, near, MACS);
                Naive::attach(netns, FAR, Ingress, &again, Some(TABLE_AT))
            }
        };
        line.programs.push(out.context("the way out")?);
        let into = into(near, i64::from(ms) * 1_000_000, how);
        line.programs.push(Naive::attach(netns, device, Egress, &into, None).context("the way in")?);
        Ok(line)
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // What sends into the pair goes before the pair.
        while self.programs.pop().is_some() {}
        let _ = self.netns.run(&format!("ip link del {NEAR}"));
    }
}

fn index(netns: &Netns, device: &str) -> Result<i32> {
    let told = netns.run(&format!("ip -o link show dev {device}"))?;
    let (index, _) = told.split_once(':').with_context(|| format!("`ip` says of {device}: {told}"))?;
    Ok(index.trim().parse()?)
}

/// On the device. What has waited loses the marker and passes; all else waits, as far as it can (not ARP).
fn into(near: i32, delay_ns: i64, how: How) -> Vec<Instruction> {
    let (low, high) = (delay_ns as i32, (delay_ns >> 32) as i32);
    let mut code = vec![
        // r6 = r1, the packet
        instruction(0xbf, 0x16, 0, 0),
        // r1 = r2 = skb->tc_index; if !(r2 & MARKER) goto wait
        instruction(0x61, 0x61, TC_INDEX, 0),
        instruction(0xbf, 0x12, 0, 0),
        instruction(0x57, 0x02, 0, MARKER),
        instruction(0x15, 0x02, 4, 0),
        // skb->tc_index = r1 & ~MARKER; return PASS
        instruction(0x57, 0x01, 0, 0xffff & !MARKER),
        instruction(0x63, 0x16, TC_INDEX, 0),
        instruction(0xb7, 0, 0, PASS),
        instruction(0x95, 0, 0, 0),
        // wait: r0 = now; r7 = r2 = now + delay
        instruction(0x85, 0, 0, KTIME_GET_NS),
        instruction(0x18, 0x07, 0, low),
        instruction(0, 0, 0, high),
        instruction(0x0f, 0x07, 0, 0),
        instruction(0xbf, 0x72, 0, 0),
    ];
    if how == How::Steps {
        code.extend(hop());
    }
    // if bpf_skb_set_tstamp(skb, r2, MONOTONIC) != 0 return PASS
    code.extend([
        instruction(0xbf, 0x61, 0, 0),
        instruction(0xb7, 0x03, 0, MONOTONIC),
        instruction(0x85, 0, 0, SET_TSTAMP),
        instruction(0x15, 0x00, 2, 0),
        instruction(0xb7, 0, 0, PASS),
        instruction(0x95, 0, 0, 0),
    ]);
    if how == How::Steps {
        // *(u64 *)(r10 - 8) = r7
        code.push(instruction(0x7b, 0x7a, -8, 0));
        code.extend(store(-8, 8));
    }
    code.extend([
        // bpf_clone_redirect(skb, near, 0)
        instruction(0xbf, 0x61, 0, 0),
        instruction(0xb7, 0x02, 0, near),
        instruction(0xb7, 0x03, 0, 0),
        instruction(0x85, 0, 0, CLONE_REDIRECT),
    ]);
    code.extend(redirect(NOWHERE));
    code
}

/// r2 = the next multiple of STEP after r0, or r7 where that comes first; those of one multiple are in the order of r7.
fn hop() -> [Instruction; 9] {
    [
        instruction(0xbf, 0x02, 0, 0),
        instruction(0x47, 0x02, 0, STEP - 1),
        instruction(0x07, 0x02, 0, 1),
        // r3 = r7; if r7 <= r2 goto soon; r3 = r2 + ((r7 - r2) >> 10); soon: r2 = r3
        instruction(0xbf, 0x73, 0, 0),
        instruction(0xbd, 0x27, 3, 0),
        instruction(0x1f, 0x23, 0, 0),
        instruction(0x77, 0x03, 0, 10),
        instruction(0x0f, 0x23, 0, 0),
        instruction(0xbf, 0x32, 0, 0),
    ]
}

/// `bpf_skb_store_bytes(skb, 0, r10 + at, count, 0)`
fn store(at: i32, count: i32) -> [Instruction; 7] {
    [
        instruction(0xbf, 0x61, 0, 0),
        instruction(0xb7, 0x02, 0, 0),
        instruction(0xbf, 0xa3, 0, 0),
        instruction(0x07, 0x03, 0, at),
        instruction(0xb7, 0x04, 0, count),
        instruction(0xb7, 0x05, 0, 0),
        instruction(0x85, 0, 0, STORE_BYTES),
    ]
}

/// `return bpf_redirect(device, 0);`
fn redirect(device: i32) -> [Instruction; 4] {
    [
        instruction(0xb7, 0x01, 0, device),
        instruction(0xb7, 0x02, 0, 0),
        instruction(0x85, 0, 0, REDIRECT),
        instruction(0x95, 0, 0, 0),
    ]
}

/// At the far end: the marker, and back to the device.
fn out(device: i32) -> Vec<Instruction> {
    let mut code = vec![instruction(0xbf, 0x16, 0, 0)];
    code.extend(back(device));
    code
}

fn back(device: i32) -> Vec<Instruction> {
    let mut code = vec![
        // skb->tc_index = (skb->tc_index & ~MARKER) | WAITED
        instruction(0x61, 0x61, TC_INDEX, 0),
        instruction(0x57, 0x01, 0, 0xffff & !MARKER),
        instruction(0x47, 0x01, 0, WAITED),
        instruction(0x63, 0x16, TC_INDEX, 0),
        // bpf_skb_change_type(skb, TO_US): it is addressed to another machine
        instruction(0xbf, 0x61, 0, 0),
        instruction(0xb7, 0x02, 0, TO_US),
        instruction(0x85, 0, 0, CHANGE_TYPE),
    ];
    code.extend(redirect(device));
    code
}

/// How many instructions of [`round_again`] send a packet round again: those of [`hop`], 4, and those of [`redirect`].
const AGAIN: i16 = 9 + 4 + 4;

/// At the far end of a line that goes in steps: once more round, unless it is time or the table says stop.
fn round_again(device: i32, near: i32, macs: [u8; 12]) -> Vec<Instruction> {
    let word = |at: usize| i32::from_le_bytes([macs[at], macs[at + 1], macs[at + 2], macs[at + 3]]);
    let mut code = lookup().to_vec();
    code.extend([
        // r8 = what is in the table
        instruction(0xbf, 0x08, 0, 0),
        // r7 = the time in the packet
        instruction(0xbf, 0x61, 0, 0),
        instruction(0xb7, 0x02, 0, 0),
        instruction(0xbf, 0xa3, 0, 0),
        instruction(0x07, 0x03, 0, -16),
        instruction(0xb7, 0x04, 0, 8),
        instruction(0x85, 0, 0, LOAD_BYTES),
        instruction(0x79, 0xa7, -16, 0),
        // if r8 == 0 || *r8 != 0 goto out
        instruction(0x15, 0x08, AGAIN + 4, 0),
        instruction(0x79, 0x88, 0, 0),
        instruction(0x55, 0x08, AGAIN + 2, 0),
        // if r7 <= now goto out
        instruction(0x85, 0, 0, KTIME_GET_NS),
        instruction(0xbd, 0x07, AGAIN, 0),
    ]);
    code.extend(hop());
    code.extend([
        instruction(0xbf, 0x61, 0, 0),
        instruction(0xb7, 0x03, 0, MONOTONIC),
        instruction(0x85, 0, 0, SET_TSTAMP),
        // if r0 != 0 goto out
        instruction(0x55, 0x00, 4, 0),
    ]);
    code.extend(redirect(near));
    // out:
    code.extend([
        instruction(0x62, 0x0a, -16, word(0)),
        instruction(0x62, 0x0a, -12, word(4)),
        instruction(0x62, 0x0a, -8, word(8)),
    ]);
    code.extend(store(-16, 12));
    code.extend(back(device));
    code
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use chaos_tests::{
        lab::shapes::{B4, Pair},
        measure::{
            datagrams::{Running, Seen, Stream},
            helper::{End, warm_up},
        },
        require_root, skip,
    };

    use super::*;
    use crate::delay::by::By;

    /// How many are held, and for how long: far longer than it takes to send them.
    const HELD: u32 = 100;
    const HELD_MS: u32 = 8_000;

    #[test]
    fn the_kernel_takes_the_programs() {
        require_root!();
        let pair = Pair::new().expect("a pair");
        let load = |way, code: &[Instruction], table| {
            Naive::attach(&pair.a, "va", way, code, table).expect("a program");
        };
        load(Egress, &into(1, 1_000_000_000_000, How::AtOnce), None);
        load(Egress, &into(1, 1_000_000_000_000, How::Steps), None);
        load(Ingress, &out(1), None);
        load(Ingress, &round_again(1, 1, MACS), Some(TABLE_AT));
    }

    /// How many packets wait in the line: `backlog 14200b 100p requeues 0`.
    fn waiting(pair: &Pair) -> u32 {
        let told = pair.a.run(&format!("tc -s qdisc show dev {NEAR}")).expect("tc");
        let (_, behind) = told.split_once(" backlog ").expect("a backlog");
        let count = behind.split(' ').nth(1).and_then(|word| word.strip_suffix('p'));
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{told}"))
    }

    /// Holds datagrams, does something to the line that holds them all, and tells what came.
    fn held(pair: &Pair, how: How, act: impl FnOnce(&mut Line<'_>)) -> Seen {
        let mut line = Line::new(&pair.a, "va", HELD_MS, how).expect("a line");
        let stream = Stream::new((B4, 5400).into(), HELD, Duration::from_millis(1));
        let running = Running::start(End::plain(&pair.a), End::plain(&pair.b), &stream).expect("datagrams");
        let begun = Instant::now();
        // What the kernel sends by itself waits, too.
        while waiting(pair) < HELD {
            assert!(begun.elapsed() < Duration::from_secs(7), "{} of {HELD} are held", waiting(pair));
            thread::sleep(Duration::from_millis(1));
        }
        act(&mut line);
        running.finish(Duration::from_secs(1)).expect("datagrams")
    }

    #[test]
    fn what_waits_is_lost_with_the_qdisc_and_comes_early_only_in_steps() {
        require_root!();
        let pair = Pair::new().expect("a pair");
        if let Some(reason) = By::Line(How::AtOnce).missing(&pair) {
            skip!("{reason}");
        }
        warm_up(&pair.a, B4.into()).expect("a way");
        for action in ["replace dev line0 root pfifo limit 1000", "del dev line0 root"] {
            let seen = held(&pair, How::AtOnce, |_| {
                pair.a.run(&format!("tc qdisc {action}")).expect("tc");
            });
            // A few that wait may be the kernel's own, and so many of ours had not come in yet.
            assert!(seen.lost() + 10 >= u64::from(HELD), "{action}: {} of {HELD} lost", seen.lost());
        }
        let seen = held(&pair, How::Steps, |line| line.programs[0].set(1).expect("the table"));
        assert_eq!((seen.lost(), seen.extra(), seen.damaged()), (0, 0, 0));
        let last_ns = seen.delays_ns().into_iter().max();
        assert!(last_ns < Some(u64::from(HELD_MS) * 1_000_000), "{last_ns:?}");
    }
}
