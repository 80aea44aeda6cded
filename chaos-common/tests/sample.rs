//! Which packets are told of.

use std::thread;

use chaos_common::{
    abi::RuleState,
    host::Host,
    sample::{SampleState, Sampling, takes},
};
use proptest::prelude::*;

const SECOND_NS: u64 = 1_000_000_000;

proptest! {
    /// Of each second the first, then one in so many: as a plain count says it.
    #[test]
    fn a_second_is_sampled_as_told(
        first in 0u32..50,
        every in 0u32..20,
        seconds in prop::collection::vec(0u64..200, 1..5),
    ) {
        let host = Host::default();
        let state = SampleState::default();
        let sampling = Sampling::new(first, every);
        for (second, packets) in (100u64..).zip(seconds) {
            let told: Vec<u64> = (0..packets)
                .filter(|n| takes(&host, &state, sampling, second * SECOND_NS + n))
                .collect();
            let wanted: Vec<u64> = (0..packets)
                .filter(|n| {
                    sampling != Sampling::OFF
                        && (*n < u64::from(first)
                            || (every != 0 && (n - u64::from(first)).is_multiple_of(u64::from(every))))
                })
                .collect();
            prop_assert_eq!(told, wanted);
        }
    }
}

#[test]
fn off_is_zero_and_all_is_all() {
    let host = Host::default();
    let state = SampleState::default();
    assert_eq!(Sampling::default(), Sampling::OFF);
    assert!((0..1000).all(|n| !takes(&host, &state, Sampling::OFF, n)));
    assert!((0..1000).all(|n| takes(&host, &state, Sampling::ALL, n * SECOND_NS / 100)));
}

/// Several CPUs share a rule's count: within one second exactly as many are told of as were asked for.
#[test]
fn cpus_share_the_count() {
    let rule = RuleState::default();
    let sampling = Sampling::new(1000, 100);
    let told: usize = thread::scope(|scope| {
        let state = &rule.sample;
        let cpus: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let host = Host::default();
                    (0..25_000).filter(|_| takes(&host, state, sampling, 0)).count()
                })
            })
            .collect();
        cpus.into_iter().map(|cpu| cpu.join().unwrap()).sum()
    });
    assert_eq!(told, 1000 + (100_000 - 1000) / 100);
}
