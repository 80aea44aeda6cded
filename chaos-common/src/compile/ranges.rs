//! Sets by range of addresses and by run of ports, in about the time that it takes to write them down.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Flat, Ports, Prefix, sets::Bits};
use crate::abi::Side;

/// What a packet's address, or port, says of the clauses.
#[derive(Default)]
pub(super) struct Ranges<K> {
    /// Of what is in no range: the clauses that name none.
    pub(super) none: Bits,
    /// Of what is in a range: of addresses in it and in no narrower one; of ports from this one to the next.
    pub(super) ranges: BTreeMap<K, Bits>,
}

/// By range of addresses.
pub(super) fn nets(flat: &[Flat<'_>], side: Side) -> Ranges<Prefix> {
    let mut none = Bits::default();
    let mut named: HashMap<Prefix, Bits> = HashMap::new();
    for clause in flat {
        if clause.nets(side).is_empty() {
            none.insert(clause.index);
        }
        for net in clause.nets(side) {
            named.entry(*net).or_default().insert(clause.index);
        }
    }
    let lengths: BTreeSet<u8> = named.keys().map(|prefix| prefix.len).collect();
    let wider = |prefix: &Prefix| {
        let prefix = *prefix;
        let shorter = lengths.range(..=prefix.len);
        shorter.map(move |len| prefix.widened(*len)).filter(move |wider| wider.covers(&prefix))
    };
    let ranges = named.keys().map(|prefix| {
        let mut bits = none.clone();
        wider(prefix).filter_map(|wider| named.get(&wider)).for_each(|more| bits.join(more));
        (*prefix, bits)
    });
    let ranges = ranges.collect();
    Ranges { none, ranges }
}

/// By run of ports, from 0 on.
pub(super) fn ports(flat: &[Flat<'_>], side: Side) -> Ranges<u16> {
    let mut none = Bits::default();
    // What begins and what ends at a port.
    let mut changes: BTreeMap<u16, (Vec<usize>, Vec<usize>)> = BTreeMap::from([(0, Default::default())]);
    for clause in flat {
        if clause.ports(side).is_empty() {
            none.insert(clause.index);
        }
        for (first, last) in joined(clause.ports(side)) {
            changes.entry(first).or_default().0.push(clause.index);
            if let Some(after) = last.checked_add(1) {
                changes.entry(after).or_default().1.push(clause.index);
            }
        }
    }
    let mut now = none.clone();
    let ranges = changes.into_iter().map(|(start, (begin, end))| {
        for index in end {
            now.remove(index);
        }
        for index in begin {
            now.insert(index);
        }
        (start, now.clone())
    });
    let ranges = ranges.collect();
    Ranges { none, ranges }
}

/// The same ports in ranges that neither overlap nor touch.
fn joined(ports: &[Ports]) -> Vec<Ports> {
    let mut sorted: Vec<Ports> = ports.iter().copied().filter(|(first, last)| first <= last).collect();
    sorted.sort_unstable();
    let mut joined: Vec<Ports> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match joined.last_mut() {
            Some((_, before)) if first <= before.saturating_add(1) => *before = last.max(*before),
            _ => joined.push((first, last)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn ports_are_joined() {
        assert_eq!(joined(&[(5, 9), (1, 2), (3, 3), (8, 20), (30, 30)]), [(1, 3), (5, 20), (30, 30)]);
        assert_eq!(joined(&[(0, 65_535), (7, 7), (65_535, 65_535)]), [(0, 65_535)]);
    }
}
