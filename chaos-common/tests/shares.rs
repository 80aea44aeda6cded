//! Shares of flows: whole conversations, as many as asked; and shares as people write them.

use chaos_common::{
    abi::{Direction, rule_flags},
    compile::RuleInput,
    env::Prob,
    host::Host,
    lookup::{flow_hash, flow_key, reverse},
    packet::Packet,
    units::{parse_share, percent, prob_to_share, share_to_prob},
};
use proptest::prelude::*;

use crate::{
    statistics::{assert_independent, assert_rate, hits, neighbours},
    support::{DEVICE, NETNS, Random, arm, everywhere, judge_at, judge_one, tcp},
};

const FLOWS: u64 = 100_000;

fn share(p: f64, seed: u64) -> RuleInput {
    let mut rule = everywhere(1, "100%");
    rule.rule.flags |= rule_flags::SHARE;
    rule.rule.share = share_to_prob(p);
    rule.rule.share_seed = seed;
    rule
}

fn random_flow(random: &mut Random) -> Packet {
    let mut packet = tcp();
    packet.source[3] = random.word() as u32;
    packet.destination[3] = random.below(4) as u32;
    packet.source_port = random.word() as u16;
    packet.destination_port = *random.pick(&[80, 443]);
    packet
}

fn answer(packet: &Packet) -> Packet {
    Packet {
        source: packet.destination,
        destination: packet.source,
        source_port: packet.destination_port,
        destination_port: packet.source_port,
        ..*packet
    }
}

fn is_hit(host: &Host, packet: &Packet, direction: Direction) -> bool {
    judge_at(host, packet, DEVICE, direction) != 0
}

#[test]
fn a_share_of_flows_takes_whole_conversations() {
    for (p, seed) in [(0.01, 1), (0.3, 2), (0.5, 3), (0.9, 4)] {
        let host = arm(vec![share(p, seed)]);
        let mut random = Random::new(seed);
        let mut taken = 0;
        for _ in 0..FLOWS {
            let packet = random_flow(&mut random);
            let hit = is_hit(&host, &packet, Direction::Egress);
            taken += u64::from(hit);
            assert_eq!(is_hit(&host, &packet, Direction::Egress), hit, "a retransmission");
            assert_eq!(is_hit(&host, &answer(&packet), Direction::Ingress), hit, "the answer");
            assert_eq!(is_hit(&host, &answer(&packet), Direction::Egress), hit, "from the other end");
        }
        assert_rate("share of flows", taken, FLOWS, p);
    }
}

/// Neighbouring ports and addresses, as clients have them, are spread like any others, and two
/// seeds choose independently.
#[test]
fn a_share_of_neighbouring_flows_is_a_share() {
    let mut packet = tcp();
    let host = arm(vec![share(0.3, 5)]);
    let chosen: Vec<bool> = (0..=u16::MAX)
        .map(|port| {
            packet.source_port = port;
            is_hit(&host, &packet, Direction::Egress)
        })
        .collect();
    assert_rate("ports", hits(&chosen), 65_536, 0.3);
    let (one, next) = neighbours(&chosen);
    assert_independent("neighbouring ports", &one, &next, 0.3);
    let by = |seed: u64| -> Vec<bool> {
        let share = share_to_prob(0.3);
        let key = |port| flow_key(&Packet { source_port: port, ..tcp() }, NETNS, Direction::Egress);
        (0..=u16::MAX).map(|port| share.hits((flow_hash(seed, &key(port)) >> 32) as u32)).collect()
    };
    assert_eq!(by(5), chosen);
    assert_independent("neighbouring seeds", &by(5), &by(6), 0.3);
}

#[test]
fn no_and_all_flows_are_exact_and_what_has_no_flow_is_not_hit() {
    let mut random = Random::new(1);
    let (none, all) = (arm(vec![share(0.0, 1)]), arm(vec![share(1.0, 1)]));
    for _ in 0..10_000 {
        let packet = random_flow(&mut random);
        assert!(!is_hit(&none, &packet, Direction::Egress) && is_hit(&all, &packet, Direction::Egress));
    }
    let fragment = Packet { flags: 16 | 2, source_port: 0, destination_port: 0, ..tcp() };
    assert_eq!(judge_one(&all, &fragment), 0, "a later fragment belongs to no flow that is known");
}

#[test]
fn shares_that_are_none_are_refused_with_what_is_accepted() {
    for text in [
        "", "%", "-1%", "101%", "1.1", "-0.1", "+5%", "nan", "inf", "1e3", "10%%", "ten", "0x10", " 5%",
        "5 %x", "1/2",
    ] {
        let error = parse_share(text).expect_err(text);
        assert!(error.contains(&format!("`{text}`")) && error.contains("0% to 100%"), "{error}");
    }
    for (text, share) in [
        ("0", 0.0),
        ("0%", 0.0),
        ("1", 1.0),
        ("100%", 1.0),
        ("10%", 0.1),
        ("0.1", 0.1),
        (".5", 0.5),
        ("5 %", 0.05),
    ] {
        assert!((prob_to_share(parse_share(text).unwrap()) - share).abs() < 1e-9, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn percentages_survive_a_round_trip(ten_thousandths in 0..=1_000_000u32) {
        let text = percent(Prob((u64::from(ten_thousandths) * u64::from(u32::MAX) / 1_000_000) as u32));
        let again = percent(parse_share(&text).unwrap());
        prop_assert_eq!(text, again);
    }

    #[test]
    fn any_probability_survives_as_a_fraction(bits: u32) {
        let text = format!("{:.17}", prob_to_share(Prob(bits)));
        prop_assert_eq!(parse_share(&text), Ok(Prob(bits)));
    }

    #[test]
    fn a_share_above_nothing_is_never_nothing(share in 0.0..1.0f64) {
        let prob = share_to_prob(share);
        prop_assert_eq!(prob == Prob::NEVER, share == 0.0);
        prop_assert!((prob_to_share(prob) - share).abs() <= 1.0 / f64::from(u32::MAX));
    }

    #[test]
    fn any_text_is_a_share_or_refused(text in ".{0,12}") {
        if let Ok(prob) = parse_share(&text) {
            prop_assert!((0.0..=1.0).contains(&prob_to_share(prob)));
        }
    }

    #[test]
    fn both_ends_name_one_conversation(seed: u64, local: [u32; 4], peer: [u32; 4], ports: [u16; 2]) {
        let [local_port, peer_port] = ports;
        let key = chaos_common::abi::FlowKey { netns: 1, local, peer, local_port, peer_port, proto: 6 };
        prop_assert_eq!(flow_hash(seed, &key), flow_hash(seed, &reverse(&key)));
    }
}
