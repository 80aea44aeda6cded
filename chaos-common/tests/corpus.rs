//! Replays the corpora of the fuzz targets, byte for byte the same in every run.
//!
//! `CHAOS_BLESS=1 cargo test -p chaos-common corpus` writes the files of the interesting packets
//! anew; what fuzzing found is left alone.

use std::{fs, path::PathBuf};

use crate::{
    checks,
    support::Random,
    wire::{
        AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, MOBILITY, ROUTING, TCP, UDP, authentication,
        extension, fragment, frame, icmp, ipv4, ipv4_with, ipv6, tagged, tcp, udp,
    },
};

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn replay(target: &str, check: fn(&[u8])) {
    let folder = corpus(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in &paths {
        let bytes = fs::read(path).unwrap();
        let outcome = std::panic::catch_unwind(|| check(&bytes));
        assert!(outcome.is_ok(), "{} fails; see above", path.display());
    }
    assert!(paths.len() >= 10, "{} has {} files: it was lost", folder.display(), paths.len());
    println!("{} files of {target}", paths.len());
}

#[test]
fn fuzz_replay_parse() {
    replay("parse", checks::parse);
}

#[test]
fn fuzz_replay_lookup() {
    replay("lookup", checks::lookup);
}

/// The name says what the frame has that others have not.
pub(crate) fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let segment = tcp(0x12, 12, b"data");
    let chain = authentication(DESTINATION, 2, &extension(TCP, 0, &segment));
    let chain = extension(ROUTING, 0, &extension(FRAGMENT, 0, &fragment(AUTHENTICATION, 1, &chain)));
    let many =
        (0..7).fold(udp(b"x"), |carries, n| extension(if n == 0 { UDP } else { DESTINATION }, 0, &carries));
    vec![
        ("v4-tcp", frame(&ipv4(TCP, &segment))),
        ("v4-tcp-no-data", frame(&ipv4(TCP, &tcp(2, 0, b"")))),
        ("v4-udp-all-options", frame(&ipv4_with(40, 0, UDP, &udp(b"x")))),
        ("v4-first-fragment", frame(&ipv4_with(0, 0x2000, UDP, &udp(b"x")))),
        ("v4-later-fragment", frame(&ipv4_with(0, 0x00b9, UDP, &udp(b"x")))),
        ("v4-echo", frame(&ipv4(1, &icmp(8)))),
        ("v4-unreachable", frame(&ipv4(1, &icmp(3)))),
        ("v4-igmp", frame(&ipv4(2, &[0x16, 0, 0, 0, 224, 0, 0, 251]))),
        ("v4-without-mac", ipv4(TCP, &segment)),
        ("v6-tcp", frame(&ipv6(TCP, &segment))),
        ("v6-chain", frame(&ipv6(HOP_BY_HOP, &chain))),
        ("v6-too-many-extensions", frame(&ipv6(DESTINATION, &many))),
        ("v6-mobility", frame(&ipv6(MOBILITY, &extension(UDP, 1, &udp(b"x"))))),
        ("v6-first-fragment", frame(&ipv6(FRAGMENT, &fragment(UDP, 1, &udp(b"x"))))),
        ("v6-later-fragment", frame(&ipv6(FRAGMENT, &fragment(UDP, 8, &udp(b"x"))))),
        ("v6-neighbour-solicitation", frame(&ipv6(58, &icmp(135)))),
        ("v6-echo", frame(&ipv6(58, &icmp(128)))),
        ("v6-without-mac", ipv6(UDP, &udp(b"x"))),
        ("vlan", tagged(&[(0x8100, 7)], 0x0800, &ipv4(TCP, &segment))),
        ("qinq", tagged(&[(0x88a8, 7), (0x8100, 8)], 0x86dd, &ipv6(TCP, &segment))),
        ("three-tags", tagged(&[(0x8100, 7), (0x8100, 8), (0x8100, 9)], 0x0800, &ipv4(TCP, &segment))),
        ("arp", tagged(&[], 0x0806, &[0, 1, 8, 0, 6, 4, 0, 1])),
        ("cut", frame(&ipv4(TCP, &segment))[..40].to_vec()),
        ("empty", Vec::new()),
    ]
}

/// Random rules, then all short packets at random places.
fn rules_and_packets(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let rules = random.below(12) as u8;
    // A rule takes 4 bytes and its clauses; what is too much becomes a packet.
    let mut bytes = vec![rules];
    bytes.extend((0..u64::from(rules) * 16).map(|_| random.word() as u8 & random.word() as u8));
    for (_, packet) in packets().iter().filter(|(_, packet)| packet.len() < 128) {
        bytes.extend([random.word() as u8 & 0x0b, random.word() as u8, random.word() as u8]);
        bytes.push(packet.len() as u8);
        bytes.extend(packet);
    }
    bytes
}

#[test]
fn the_interesting_packets_are_in_the_corpus() {
    let lookups = (1..=24).map(|seed| ("lookup", format!("rules-{seed}"), rules_and_packets(seed)));
    let parses = packets().into_iter().map(|(name, bytes)| ("parse", name.to_owned(), bytes));
    for (target, name, bytes) in parses.chain(lookups) {
        let path = corpus(target).join(&name);
        if std::env::var_os("CHAOS_BLESS").is_some() {
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).is_ok_and(|known| known == bytes), "{target}/{name} is missing or another");
    }
}
