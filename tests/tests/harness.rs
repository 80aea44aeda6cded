//! The instruments themselves, against the plain kernel: they must see what is there, and go
//! red where it is wrong.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{fs, process::Command};

use chaos_tests::{
    lab::{
        alone,
        process::{self, on_one_cpu},
        shapes::{A6, B4, B6, Pair},
    },
    measure::{
        ping::ping,
        stats::check_rate,
        tcp::{self, Measured, plain},
    },
    packet::{Net, random::random_packet},
    require_root, require_tools,
};
use rand::{SeedableRng, rngs::StdRng};

/// Drops packets with probability 1/`one_in` where they enter the receiver's stack.
fn drop_at_random(pair: &Pair, one_in: u32) {
    let b = &pair.b;
    b.run("nft add table inet t").unwrap();
    b.run("nft add chain inet t c { type filter hook prerouting priority -400 ; }").unwrap();
    b.run(&format!("nft add rule inet t c numgen random mod {one_in} < 1 drop")).unwrap();
}

fn transfer(pair: &Pair) -> Measured {
    tcp::transfer((&pair.a, &plain), (&pair.b, &plain), &tcp::usual(B4), || Ok(())).unwrap().0
}

/// Also with single segments, as they leave the normaliser: what a test with a rule then shows is the rule's.
#[test]
fn without_a_rule_nothing_is_lost_or_late() {
    require_root!();
    let _alone = alone().unwrap();
    for single in [false, true] {
        let pair = Pair::new().unwrap();
        if single {
            pair.single_segments().unwrap();
        }
        let (a, b): ((_, tcp::Wrap<'_>), (_, tcp::Wrap<'_>)) =
            ((&pair.a, &on_one_cpu), (&pair.b, &on_one_cpu));
        let (measured, ()) = tcp::transfer(a, b, &tcp::usual(B4), || Ok(())).unwrap();
        measured.check_untouched(if single { "single segments" } else { "plain veth" }).unwrap();
    }
}

/// The same loss is rolled by nftables: once for whole skbs, where the bursts must be seen, and
/// once for wire packets.
#[test]
fn loss_of_single_packets_is_geometric_and_of_skbs_is_not() {
    require_root!();
    require_tools!("nft");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    drop_at_random(&pair, 100);
    assert!(transfer(&pair).check_loss("skbs", 0.01).is_err(), "bursts pass as single losses");
    pair.single_segments().unwrap();
    transfer(&pair).check_loss("single segments", 0.01).unwrap();
}

#[test]
fn ping_sees_the_loss_of_both_ip_versions() {
    require_root!();
    require_tools!("nft", "ping");
    let pair = Pair::new().unwrap();
    assert_eq!(ping(&pair.a, B6.into(), Some(A6.into()), 500).unwrap().lost(), 0);
    drop_at_random(&pair, 5);
    for to in [B4.into(), B6.into()] {
        let result = ping(&pair.a, to, None, 1000).unwrap();
        check_rate("ping", result.lost(), result.sent, 0.2).unwrap();
    }
}

/// An outsider judges what the builder makes.
#[test]
fn tcpdump_finds_no_wrong_checksum_in_random_packets() {
    require_tools!("tcpdump");
    let mut rng = StdRng::seed_from_u64(1);
    // pcap(5): magic, version 2.4, zone, accuracy, snapshot length, link type Ethernet.
    let mut capture: Vec<u8> = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1].map(u32::to_ne_bytes).concat();
    for _ in 0..2000 {
        let packet = random_packet(&mut rng, true);
        let whole = packet.cut.is_none() && !matches!(packet.net, Net::V4 { fragment: Some(_), .. });
        // tcpdump takes an address of the routing header for the destination, although no segment is left.
        if whole && !["Fragment", "Routing"].iter().any(|name| packet.to_string().contains(name)) {
            let bytes = packet.bytes();
            let length = u32::try_from(bytes.len()).unwrap();
            capture.extend([0, 0, length, length].map(u32::to_ne_bytes).concat());
            capture.extend(bytes);
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), capture).unwrap();
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-nn", "-vv", "-r"]).arg(file.path());
    let text = process::run(tcpdump).unwrap();
    assert!(text.matches("cksum 0x").count() > 500, "tcpdump checked too little");
    let bad: Vec<_> =
        text.lines().filter(|line| line.contains("(incorrect") || line.contains("[bad ")).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
