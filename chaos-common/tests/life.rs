//! When a rule acts, how far, and on whom not: schedule, limits, shadow, protection, ages of flows.

use chaos_common::{
    abi::{Count, Direction, Flow, FlowKey, Rule, Tally, device_flags, rule_flags},
    compile::RuleInput,
    host::{Host, HostSteps},
    job::{Size, job_flags},
    judge::{Action, judge},
    lookup::{flow_key, symmetric},
    packet::{Class, Packet, packet_flags, tcp as flags},
};

use crate::support::{DEVICE, NETNS, NOW_NS, addr, arm, everywhere, job, judge_at, judge_one, run, tcp};

const MS: u64 = 1_000_000;

fn rule(change: impl Fn(&mut Rule)) -> RuleInput {
    let mut rule = everywhere(1, "100%");
    change(&mut rule.rule);
    rule
}

fn tally(host: &Host, slot: u32, what: Count) -> Tally {
    let counters = host.counters.borrow();
    counters.get(&(slot, Direction::Egress as u32)).map_or(Tally::default(), |c| c.tallies[what as usize])
}

fn counted(host: &Host, what: Count) -> u64 {
    tally(host, 1, what).packets
}

fn dropped_at(host: &Host, now_ns: u64) -> bool {
    host.now_ns.set(now_ns);
    judge_one(host, &tcp()) != 0
}

#[test]
fn a_rule_acts_from_its_start_until_its_end_to_the_nanosecond() {
    let host = arm(vec![rule(|rule| (rule.starts_ns, rule.expires_ns) = (NOW_NS + 10, NOW_NS + 20))]);
    for offset in 0..40 {
        assert_eq!(dropped_at(&host, NOW_NS + offset), (10..20).contains(&offset), "{offset} ns");
    }
    assert_eq!(counted(&host, Count::Matched), 40);
    assert_eq!(counted(&host, Count::Dropped), 10);
    assert_eq!(counted(&host, Count::Expired), 20);
    assert_eq!(tally(&host, 1, Count::Expired).bytes, 2000);
}

#[test]
fn a_lapsed_lease_ends_it_and_a_renewed_one_goes_on() {
    let mut host = arm(vec![rule(|rule| rule.expires_ns = NOW_NS + 300)]);
    host.states.get_mut(&1).unwrap().lease_until_ns = NOW_NS + 100;
    assert!(dropped_at(&host, NOW_NS + 99));
    assert!(!dropped_at(&host, NOW_NS + 100));
    host.states.get_mut(&1).unwrap().lease_until_ns = NOW_NS + 200;
    assert!(dropped_at(&host, NOW_NS + 199));
    assert!(!dropped_at(&host, NOW_NS + 299));
    assert_eq!((counted(&host, Count::Lease), counted(&host, Count::Expired)), (2, 0));
    // What has expired has expired, whatever its lease says.
    assert!(!dropped_at(&host, NOW_NS + 300));
    assert_eq!((counted(&host, Count::Lease), counted(&host, Count::Expired)), (2, 1));
}

#[test]
fn flapping_keeps_its_duty_cycle_and_its_phase() {
    for (on, period) in [(100, 200), (1, 1000), (30, 70), (50, 50), (0, 10)] {
        let host = arm(vec![rule(|rule| {
            (rule.flap_on_ns, rule.flap_period_ns) = (on * MS, period * MS);
            (rule.starts_ns, rule.expires_ns) = (NOW_NS + 5 * MS, u64::MAX);
        })]);
        let mut acted = 0;
        for ms in 0..period * 20 {
            let begins = NOW_NS + 5 * MS + ms * MS;
            assert_eq!(dropped_at(&host, begins), ms % period < on, "{on} of {period}, {ms} ms");
            assert_eq!(
                dropped_at(&host, begins + MS - 1),
                ms % period < on,
                "the last nanosecond of {ms} ms"
            );
            acted += u64::from(ms % period < on);
        }
        assert_eq!(counted(&host, Count::Dropped), 2 * acted);
        assert_eq!(acted, on * 20, "{on} of {period}");
        assert!(!dropped_at(&host, NOW_NS + 4 * MS), "before it starts");
    }
}

#[test]
fn limits_are_exact() {
    let host = arm(vec![rule(|rule| rule.max_packets = 10)]);
    let hit = (0..25).filter(|_| dropped_at(&host, NOW_NS)).count();
    assert_eq!((hit, counted(&host, Count::Dropped), counted(&host, Count::Limited)), (10, 10, 15));

    let host = arm(vec![rule(|rule| rule.max_bytes = 1050)]);
    let hit = (0..25).filter(|_| dropped_at(&host, NOW_NS)).count();
    assert_eq!((hit, tally(&host, 1, Count::Dropped).bytes), (10, 1000));
    assert_eq!(counted(&host, Count::Limited), 15);

    let host = arm(vec![rule(|rule| (rule.max_packets, rule.max_bytes) = (7, 500))]);
    assert_eq!((0..25).filter(|_| dropped_at(&host, NOW_NS)).count(), 5, "the narrower one counts");
}

/// The first flows that the rule meets are hit, whole and both ways; no others, and what has no flow is none.
#[test]
fn a_limit_of_flows_admits_the_first_and_no_others() {
    let host = arm(vec![rule(|rule| rule.max_flows = 3)]);
    let from = |port: u16| Packet { source_port: port, ..tcp() };
    for _ in 0..4 {
        let hit: Vec<u16> = (1..=8).filter(|port| judge_one(&host, &from(*port)) != 0).collect();
        assert_eq!(hit, [1, 2, 3]);
    }
    assert_eq!((counted(&host, Count::Dropped), counted(&host, Count::Limited)), (12, 20));
    let answer = Packet {
        source: tcp().destination,
        destination: tcp().source,
        source_port: tcp().destination_port,
        destination_port: 2,
        ..tcp()
    };
    assert_ne!(judge_at(&host, &answer, DEVICE, Direction::Ingress), 0, "the other way of an admitted flow");
    let bare = Packet { class: Class::OTHER, flags: packet_flags::IP, ..tcp() };
    assert_eq!(judge_one(&host, &bare), 0, "no flow");
}

/// Only what is hit counts against a limit.
#[test]
fn what_passes_uses_no_limit_up() {
    let mut rule = everywhere(1, "every=3");
    rule.rule.max_packets = 5;
    let host = arm(vec![rule]);
    let hit: Vec<usize> = (1..=30).filter(|_| dropped_at(&host, NOW_NS)).collect();
    assert_eq!(hit, [3, 6, 9, 12, 15]);
}

/// A packet of many wire packets that would exceed the limit is not hit at all.
#[test]
fn a_gso_packet_never_exceeds_a_limit() {
    let host = arm(vec![rule(|rule| rule.max_packets = 100)]);
    let mut job = job(&host, &tcp(), DEVICE, Direction::Egress);
    job.size = Size::of(&job.packet, 64_000, 45);
    assert_eq!(job.size, Size { segments: 45, bytes: 64_000 + 44 * 54 });
    let hit = (0..5).filter(|_| run(&host, &job) != 0).count();
    assert_eq!((hit, counted(&host, Count::Dropped)), (2, 90));
    assert_eq!(tally(&host, 1, Count::Dropped).bytes, 2 * job.size.bytes);
    assert_eq!(Size::of(&tcp(), 100, 0), Size { segments: 1, bytes: 100 }, "not GSO");
}

#[test]
fn shadow_counts_what_would_be_hit_and_touches_nothing() {
    let with = |shadow: u32| {
        let mut rule = everywhere(1, "30%");
        rule.rule.seed = 5;
        rule.rule.flags |= shadow | rule_flags::WIRE;
        rule.rule.max_packets = 200;
        arm(vec![rule])
    };
    let (real, shadow) = (with(0), with(rule_flags::SHADOW));
    for _ in 0..1000 {
        judge_one(&real, &tcp());
        let mut job = job(&shadow, &tcp(), DEVICE, Direction::Egress);
        job.flags = 0;
        assert_eq!(run(&shadow, &job), 0, "nor is it sent through the normaliser");
    }
    assert_eq!(tally(&shadow, 1, Count::Dropped), Tally::default());
    assert_eq!(tally(&shadow, 1, Count::Shadowed), tally(&real, 1, Count::Dropped));
    for what in [Count::Matched, Count::Limited] {
        assert_eq!(tally(&shadow, 1, what), tally(&real, 1, what), "{what:?}");
    }
    assert_eq!(counted(&shadow, Count::Shadowed), 200);
}

#[test]
fn of_several_rules_any_drop_wins_and_each_counts() {
    let rules = || {
        let shadow = RuleInput { slot: 3, ..rule(|rule| rule.flags |= rule_flags::SHADOW) };
        vec![everywhere(1, "0%"), everywhere(2, "partition"), shadow, everywhere(4, "every=2")]
    };
    let mut backwards = rules();
    backwards.reverse();
    for rules in [rules(), backwards] {
        let host = arm(rules);
        for _ in 0..10 {
            assert_ne!(judge_one(&host, &tcp()), 0);
        }
        let packets = |slot, what| tally(&host, slot, what).packets;
        assert!((1..=4).all(|slot| packets(slot, Count::Matched) == 10));
        assert_eq!([1, 2, 3, 4].map(|slot| packets(slot, Count::Dropped)), [0, 10, 0, 5]);
        assert_eq!(packets(3, Count::Shadowed), 10);
    }
}

#[test]
fn single_wire_packets_are_asked_for_only_where_it_matters() {
    let asked = |flags: u32, packet: &Packet, now_ns: u64, job_flags: u32| {
        let rule = rule(|rule| {
            rule.flags |= flags;
            (rule.starts_ns, rule.flap_on_ns, rule.flap_period_ns) = (NOW_NS + 10, 10, 20);
            rule.expires_ns = NOW_NS + 100;
        });
        let host = arm(vec![rule]);
        host.now_ns.set(now_ns);
        let mut job = job(&host, packet, DEVICE, Direction::Egress);
        job.flags = job_flags;
        judge(&mut HostSteps { host: &host, job }) == Action::Normalise
    };
    let (wire, acts) = (rule_flags::WIRE, NOW_NS + 10);
    let udp = Packet { class: Class::UDP, proto: 17, ..tcp() };
    let icmp = Packet { class: Class::ICMP, proto: 1, flags: packet_flags::IP, ..tcp() };
    assert!(asked(wire, &tcp(), acts, 0) && asked(wire, &udp, acts, 0));
    assert!(asked(wire, &tcp(), acts + 15, 0), "between two phases the order is kept");
    assert!(!asked(0, &tcp(), acts, 0), "a whole fault");
    assert!(!asked(wire, &icmp, acts, 0), "nothing to cut");
    assert!(!asked(wire, &tcp(), acts, job_flags::FINAL), "it comes from there");
    assert!(!asked(wire | rule_flags::SHADOW, &tcp(), acts, 0), "shadow");
    assert!(!asked(wire, &tcp(), NOW_NS, 0), "not begun");
    assert!(!asked(wire, &tcp(), NOW_NS + 100, 0), "expired");
    assert!(!asked(wire, &tcp(), acts, job_flags::FORWARDED), "not concerned");
}

/// A host whose device looks the protected traffic up, with these entries.
fn protecting(entries: &[FlowKey]) -> Host {
    let mut host = arm(vec![everywhere(1, "partition")]);
    host.tables.devices.get_mut(&DEVICE).unwrap().flags |= device_flags::PROTECT;
    host.protected.extend(entries);
    host
}

#[test]
fn the_protected_table_knows_conversations_peers_and_ports() {
    let packet = tcp();
    let whole = flow_key(&packet, NETNS, Direction::Egress);
    let peer = FlowKey { netns: NETNS, peer: whole.peer, ..FlowKey::default() };
    let port = FlowKey { netns: NETNS, local_port: whole.local_port, proto: 6, ..FlowKey::default() };
    for entry in [whole, peer, port] {
        let host = protecting(&[entry]);
        assert_eq!(judge_one(&host, &packet), 0, "{entry:?}");
        assert!(host.counters.borrow().is_empty(), "what is protected is not even counted");
        let answer = Packet {
            source: packet.destination,
            destination: packet.source,
            source_port: packet.destination_port,
            destination_port: packet.source_port,
            ..packet
        };
        assert_eq!(judge_at(&host, &answer, DEVICE, Direction::Ingress), 0, "the answer, {entry:?}");
        let elsewhere = protecting(&[FlowKey { netns: NETNS + 1, ..entry }]);
        assert_ne!(judge_one(&elsewhere, &packet), 0, "another namespace, {entry:?}");
    }
    let other = Packet { destination: addr("10.0.0.3"), source_port: 40001, ..packet };
    assert_ne!(judge_one(&protecting(&[whole, peer, port]), &other), 0);
    let mut unasked = protecting(&[whole]);
    unasked.tables.devices.get_mut(&DEVICE).unwrap().flags = 0;
    assert_ne!(judge_one(&unasked, &packet), 0, "a container's own ssh is fair game");
}

#[test]
fn what_keeps_a_host_alive_is_protected_without_a_table() {
    let host = protecting(&[]);
    let udp = |local: u16, peer: u16| Packet {
        class: Class::UDP,
        proto: 17,
        source_port: local,
        destination_port: peer,
        ..tcp()
    };
    for (local, peer) in [(68, 67), (67, 68), (546, 547), (547, 546)] {
        assert_eq!(judge_one(&host, &udp(local, peer)), 0, "DHCP {local} {peer}");
    }
    for (local, peer) in [(68, 53), (1068, 67), (68, 546)] {
        assert_ne!(judge_one(&host, &udp(local, peer)), 0, "not DHCP: {local} {peer}");
    }
    assert_ne!(judge_one(&host, &Packet { source_port: 68, destination_port: 67, ..tcp() }), 0, "TCP");
    let igmp = Packet { class: Class::OTHER, proto: 2, flags: packet_flags::IP, ..tcp() };
    assert_eq!(judge_one(&host, &igmp), 0);
    let metadata = Packet { destination: addr("169.254.169.254"), ..tcp() };
    assert_eq!(judge_one(&host, &metadata), 0);
    assert_ne!(judge_one(&arm(vec![everywhere(1, "partition")]), &metadata), 0, "elsewhere it is not");
}

#[test]
fn forwarded_packets_are_hit_only_when_asked() {
    for (asked, forwarded, hit) in [(false, false, true), (false, true, false), (true, true, true)] {
        let host = arm(vec![rule(|rule| rule.flags |= if asked { rule_flags::FORWARDED } else { 0 })]);
        let mut job = job(&host, &tcp(), DEVICE, Direction::Ingress);
        job.flags |= if forwarded { job_flags::FORWARDED } else { 0 };
        assert_eq!(run(&host, &job) != 0, hit, "asked {asked}, forwarded {forwarded}");
    }
}

#[test]
fn a_flow_is_new_when_its_beginning_was_seen_since_arming() {
    let hit = |wanted: u32, first_seen_ns: Option<u64>, packet: &Packet| {
        let mut host = arm(vec![rule(|rule| rule.flags |= wanted)]);
        let key = symmetric(&flow_key(packet, NETNS, Direction::Egress));
        let flow = first_seen_ns.map(|first_seen_ns| (key, Flow { first_seen_ns, last_seen_ns: NOW_NS }));
        host.flows.extend(flow);
        judge_one(&host, packet) != 0
    };
    let (new, established) = (rule_flags::NEW, rule_flags::ESTABLISHED);
    for (first_seen_ns, is_new) in [
        (None, false),
        (Some(0), false),
        (Some(NOW_NS - 1), false),
        (Some(NOW_NS), true),
        (Some(NOW_NS + 1), true),
    ] {
        assert_eq!(hit(new, first_seen_ns, &tcp()), is_new, "new, {first_seen_ns:?}");
        assert_eq!(hit(established, first_seen_ns, &tcp()), !is_new, "established, {first_seen_ns:?}");
        assert!(hit(new | established, first_seen_ns, &tcp()) && hit(0, first_seen_ns, &tcp()));
    }
    let fragment = Packet { flags: packet_flags::IP | packet_flags::LATER_FRAGMENT, ..tcp() };
    assert!(!hit(established, None, &fragment), "it belongs to no flow that is known");
}

#[test]
fn tcp_flags_and_data_are_conditions() {
    let hit = |change: &dyn Fn(&mut Rule), packet: Packet| judge_one(&arm(vec![rule(change)]), &packet) != 0;
    let with = |tcp_flags| Packet { tcp_flags, ..tcp() };
    let any = |wanted: u8| move |rule: &mut Rule| rule.tcp_flags = wanted.into();
    assert!(hit(&any(flags::SYN), with(flags::SYN)) && hit(&any(flags::SYN), with(flags::SYN | flags::ACK)));
    assert!(hit(&any(flags::FIN | flags::RST), with(flags::RST)), "one of them is enough");
    assert!(!hit(&any(flags::SYN), with(flags::ACK)));
    let udp = Packet { class: Class::UDP, tcp_flags: 255, ..tcp() };
    assert!(!hit(&any(flags::SYN), udp), "only TCP has flags");
    let data_only = |rule: &mut Rule| rule.flags |= rule_flags::DATA_ONLY;
    assert!(hit(&data_only, tcp()));
    assert!(!hit(&data_only, Packet { flags: packet_flags::IP | packet_flags::PORTS, ..tcp() }));
}
