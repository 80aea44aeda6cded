//! How many rules one packet could match: intersects one set of every dimension, in all ways
//! that can matter.

use std::collections::{BTreeSet, HashSet};

use super::{CompileError, Input, Tables};
use crate::abi::{CLAUSES_PER_PACKET, MATCHES_MAX, SET_WORDS};

type Words = [u64; SET_WORDS];

/// Intersections looked at before giving up.
const EFFORT: usize = 200_000;

struct Search<'a> {
    tables: &'a Tables,
    dimensions: Vec<Vec<Words>>,
    seen: HashSet<(usize, Words)>,
}

/// Refuses a set of which one packet could match too many rules.
pub(super) fn check(tables: &Tables, input: &Input) -> Result<(), CompileError> {
    let mut search = Search { tables, dimensions: dimensions(tables), seen: HashSet::new() };
    let Some(words) = search.exceed(0, &[u64::MAX; SET_WORDS])? else { return Ok(()) };
    let slots = search.slots(&words);
    let names: Vec<&str> = input
        .rules
        .iter()
        .filter(|rule| slots.contains(&rule.slot))
        .map(|rule| rule.name.as_str())
        .take(MATCHES_MAX + 4)
        .collect();
    Err(CompileError::TooManyMatches { count: slots.len(), limit: MATCHES_MAX, names: names.join(", ") })
}

/// The distinct sets of every dimension; those that select least come first.
fn dimensions(tables: &Tables) -> Vec<Vec<Words>> {
    let header = &tables.header;
    let mut numbers: Vec<BTreeSet<u32>> = vec![
        tables.devices.values().flat_map(|d| [d.sets, d.tagged_sets].concat()).collect(),
        header.class_sets.into_iter().collect(),
        tables.cgroups.values().map(|c| c.own).chain([header.any_cgroup_set]).collect(),
        tables.cgroups.values().map(|c| c.peer).chain([header.any_peer_cgroup_set]).collect(),
    ];
    for (nets, any) in tables.nets.iter().zip(header.any_addr_sets) {
        numbers.push(nets.values().copied().chain([any]).collect());
    }
    for (ports, none) in tables.ports.iter().zip(header.no_port_sets) {
        numbers.push(ports.values().copied().chain([none]).collect());
    }
    let mut dimensions: Vec<Vec<Words>> = numbers
        .into_iter()
        .map(|numbers| {
            numbers.iter().filter_map(|n| tables.sets.get(*n as usize)).map(|set| set.words).collect()
        })
        .collect();
    dimensions.sort_by_key(|sets: &Vec<Words>| sets.iter().map(size).max());
    dimensions
}

fn size(words: &Words) -> u32 {
    words.iter().map(|word| word.count_ones()).sum()
}

impl Search<'_> {
    /// A selection that is too large, if there is one.
    fn exceed(&mut self, depth: usize, words: &Words) -> Result<Option<Words>, CompileError> {
        if size(words) as usize <= MATCHES_MAX || !self.seen.insert((depth, *words)) {
            return Ok(None);
        }
        if self.seen.len() > EFFORT {
            return Err(CompileError::TooEntangled(MATCHES_MAX));
        }
        let Some(sets) = self.dimensions.get(depth).cloned() else {
            let exceeds = self.slots(words).len() > MATCHES_MAX || size(words) as usize > CLAUSES_PER_PACKET;
            return Ok(exceeds.then_some(*words));
        };
        for set in sets {
            let mut both = *words;
            for (word, other) in both.iter_mut().zip(set) {
                *word &= other;
            }
            if let Some(found) = self.exceed(depth.saturating_add(1), &both)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The rules that the clauses are of, exclusions left out.
    fn slots(&self, words: &Words) -> BTreeSet<u32> {
        let clauses = self.tables.clauses.iter().enumerate();
        let chosen = clauses.filter(|(index, clause)| {
            clause.excludes == 0 && words.get(index >> 6).is_some_and(|word| word >> (index & 63) & 1 != 0)
        });
        chosen.map(|(_, clause)| clause.slot).collect()
    }
}
