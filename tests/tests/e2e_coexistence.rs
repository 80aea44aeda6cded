//! Other people's programs in the same chain keep running, and do not switch us off.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::time::Duration;

use aya::programs::TcAttachType;
use chaos_tests::{
    chaos::Chaos,
    foreign::{Foreign, OK, Place, SHOT},
    lab::shapes::{Pair, pair_address},
    measure::ping::ping,
    require_root,
};

/// Whether everything A sends is lost.
fn blocked(pair: &Pair) -> bool {
    ping(&pair.a, pair_address(true, false), None, 20).unwrap().received == 0
}

/// The modes of attaching, each with a foreign program of its own kind and of the other.
const CASES: [(&str, Place); 4] = [
    ("tcx", Place::TcxFirst),
    ("tcx", Place::Clsact(1)),
    ("clsact", Place::Clsact(1)),
    ("clsact", Place::Clsact(9)),
];

#[test]
fn a_program_that_ends_the_chain_and_was_there_before_us_does_not_hide_us() {
    require_root!();
    for direction in [TcAttachType::Egress, TcAttachType::Ingress] {
        for (attach, place) in CASES {
            let pair = Pair::new().unwrap();
            let _foreign = Foreign::attach(&pair.a, "va", direction, place, OK).unwrap();
            let chaos = Chaos::inject(&pair.a, &format!("--partition --attach {attach}")).unwrap();
            assert!(blocked(&pair), "{attach} {place:?}");
            chaos.stop().unwrap();
            assert!(!blocked(&pair), "{attach} {place:?}");
        }
    }
}

/// What we pass on still meets the foreign program: here it drops, which nothing of ours does.
#[test]
fn a_program_after_us_still_runs() {
    require_root!();
    let later = [("tcx", Place::TcxLast), ("tcx", Place::Clsact(9)), ("clsact", Place::Clsact(9))];
    for (attach, place) in later {
        let pair = Pair::new().unwrap();
        let chaos = Chaos::inject(&pair.a, &format!("--partition --proto tcp --attach {attach}")).unwrap();
        assert!(!blocked(&pair));
        let foreign = Foreign::attach(&pair.a, "va", TcAttachType::Egress, place, SHOT).unwrap();
        assert!(blocked(&pair), "{attach} {place:?}: the foreign program no longer runs");
        drop(foreign);
        chaos.stop().unwrap();
    }
}

/// One that ends the chain and is added while we act: behind us it changes nothing; in front of
/// us we either get back to the front or say that we were displaced.
#[test]
fn a_program_added_later_is_harmless_or_reported() {
    require_root!();
    let cases = [
        ("tcx", Place::TcxLast, true),
        ("tcx", Place::Clsact(1), true),
        ("tcx", Place::TcxFirst, false),
        ("clsact", Place::Clsact(9), true),
        ("clsact", Place::Clsact(1), false),
    ];
    for (attach, place, behind) in cases {
        let pair = Pair::new().unwrap();
        let mut chaos = Chaos::inject(&pair.a, &format!("--partition --attach {attach}")).unwrap();
        let foreign = Foreign::attach(&pair.a, "va", TcAttachType::Egress, place, OK).unwrap();
        let _other = Foreign::attach(&pair.a, "va", TcAttachType::Ingress, place, OK).unwrap();
        if behind {
            assert!(blocked(&pair), "{attach} {place:?}");
        } else if chaos.wait_for("event", Duration::from_secs(10)).is_err() {
            assert!(blocked(&pair), "{attach} {place:?}: displaced without a word");
        }
        chaos.stop().unwrap();
        drop(foreign);
    }
}

/// After us the chain is as it was: the foreign programs and their qdisc are still there.
#[test]
fn what_belongs_to_others_stays() {
    require_root!();
    let pair = Pair::new().unwrap();
    let _foreign = Foreign::attach(&pair.a, "va", TcAttachType::Egress, Place::Clsact(5), OK).unwrap();
    let show = || pair.a.run("tc filter show dev va egress").unwrap() + &pair.a.run("tc qdisc show").unwrap();
    let before = show();
    for attach in ["tcx", "clsact"] {
        let chaos = Chaos::inject(&pair.a, &format!("--partition --attach {attach}")).unwrap();
        chaos.stop().unwrap();
        assert_eq!(show(), before, "{attach}");
    }
}
