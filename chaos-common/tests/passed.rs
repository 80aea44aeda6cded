//! Keys of what the gate let go: whatever decides changes them, and they are spread.

use std::collections::HashSet;

use chaos_common::{
    abi::{BANKS, Direction, control, dims},
    passed::{Moment, PLACES, generation, key, place, rest},
};

use crate::support::Random;

const MOMENT: Moment = Moment {
    generation: 0x8123_4567_89ab_cdef,
    netns: 4096,
    ifindex: 2,
    direction: Direction::Egress,
    owner: 77,
};

const ADDRESSES: u64 = 0x0a00_0001_0a00_0002;
const REST: u64 = rest(4, 6, 0x9c40_0050);

/// Every field counts, also where two change places.
#[test]
fn whatever_decides_is_part_of_the_key() {
    let moments = [
        MOMENT,
        Moment { generation: MOMENT.generation + control::NEXT, ..MOMENT },
        Moment { netns: 4097, ..MOMENT },
        Moment { ifindex: 3, ..MOMENT },
        Moment { direction: Direction::Ingress, ..MOMENT },
        Moment { owner: 78, ..MOMENT },
        Moment { netns: MOMENT.owner, owner: MOMENT.netns, ..MOMENT },
    ];
    let rests = [REST, rest(4, 17, 0x9c40_0050), rest(4, 6, 0x0050_9c40), rest(4, 6, 0)];
    let mut all = Vec::new();
    for (moment, rest) in moments.iter().flat_map(|moment| rests.map(|rest| (moment, rest))) {
        for addresses in [ADDRESSES, ADDRESSES.rotate_left(32), 0] {
            all.push(key(moment, [addresses], rest));
        }
        for addresses in [[1, 2, 3, 4], [2, 1, 3, 4], [1, 2, 4, 3], [3, 4, 1, 2], [0, 0, 0, ADDRESSES]] {
            all.push(key(moment, addresses, rest));
        }
    }
    let unlike: HashSet<u64> = all.iter().copied().collect();
    assert_eq!(unlike.len(), all.len());
    assert!(!unlike.contains(&0));
}

/// The word that arms: never 0, its bank and flags where they are looked for, the rest random and with room to count.
#[test]
fn a_generation_says_what_it_is_of() {
    let mut random = Random::new(3);
    let mut all = HashSet::new();
    let drawn = (0..1000).map(|_| random.word()).collect::<Vec<_>>();
    for (number, random) in [0, u64::MAX, 1 << 63].into_iter().chain(drawn).enumerate() {
        let bank = number as u32 % BANKS;
        for (dims, flags) in [
            (0, control::REMEMBERS),
            (dims::PEER_ADDR | dims::CGROUP, control::REMEMBERS | control::OWNED),
            (dims::LEARN_OWNERS, control::REMEMBERS | control::OWNED),
            (dims::FLOWS | dims::CGROUP, control::OWNED),
        ] {
            let word = generation(bank, random, dims);
            assert_eq!(word & (control::REMEMBERS | control::OWNED), flags, "{word:#x}");
            assert_eq!(word % u64::from(BANKS), u64::from(bank), "{word:#x}");
            assert_ne!(word & !(control::REMEMBERS | control::OWNED) & !(control::NEXT - 1), 0);
            let later = word + control::NEXT * 65_536;
            assert_eq!(later & (control::REMEMBERS | control::OWNED), flags, "{later:#x}");
            all.insert(word);
        }
    }
    // (LEARN_OWNERS and CGROUP are one; 0 and 1 << 63 have the same random bits.)
    assert!(all.len() > 3 * 1000, "{}", all.len());
}

/// Clients of one address that count their ports up, and networks whose addresses are counted up: what is met most.
#[test]
fn neighbours_have_keys_and_places_of_their_own() {
    let mut keys = Vec::new();
    for port in 0..1 << 16 {
        keys.push(key(&MOMENT, [ADDRESSES], rest(4, 6, port << 16 | 0x51)));
        keys.push(key(&MOMENT, [ADDRESSES], rest(4, 17, 0x0050_0000 | port)));
    }
    for host in 0..1u64 << 17 {
        keys.push(key(&MOMENT, [ADDRESSES + host + 1], REST));
        keys.push(key(&MOMENT, [ADDRESSES ^ (host + 1) << 40], REST));
        keys.push(key(&MOMENT, [0xfd, host, 0xfd, 1 << 56], REST));
        let generation = MOMENT.generation + control::NEXT * (host + 1);
        keys.push(key(&Moment { generation, ..MOMENT }, [ADDRESSES], REST));
        keys.push(key(&Moment { owner: host + 100, ..MOMENT }, [ADDRESSES], REST));
    }
    let mut random = Random::new(11);
    for _ in 0..1 << 17 {
        keys.push(key(&MOMENT, [random.word()], rest(4, 6, random.word() as u32)));
    }
    let unlike: HashSet<u64> = keys.iter().copied().collect();
    assert_eq!(unlike.len(), keys.len());
    // Drawn at random, four keys a place leave 1.8 % (exp(-4)) of the places empty: 74, with a deviation below 9.
    for some in keys.chunks_exact(4 * PLACES) {
        let used: HashSet<usize> = some.iter().map(|key| place(*key)).collect();
        assert!(used.iter().all(|place| *place < PLACES));
        assert!(used.len() > PLACES - 74 - 8 * 9, "{} places are used", used.len());
    }
}

/// Each bit of an address changes half of the key's upper half, which names the place.
#[test]
fn a_bit_changes_half_of_the_key() {
    const ROUNDS: u64 = 4096;
    let (mut changed, mut random) = (0u64, Random::new(5));
    for _ in 0..ROUNDS {
        let (addresses, bit) = (random.word(), random.below(64));
        let of = |addresses| key(&MOMENT, [addresses], REST) >> 32;
        changed += u64::from((of(addresses) ^ of(addresses ^ 1 << bit)).count_ones());
    }
    // 16 bits each; the sum of 4096 has a deviation of 181 if bits change on their own.
    assert!(changed.abs_diff(16 * ROUNDS) < 8 * 181, "{changed}");
}
