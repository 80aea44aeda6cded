//! How many rules one packet could match: intersects one set of every dimension, in all ways
//! that can matter.

use std::collections::{BTreeSet, HashSet};

use super::{CompileError, Input, Prefix, RuleInput, Tables};
use crate::{
    abi::{MATCHES_MAX, SET_WORDS},
    judge::WALK_STEPS,
    packet::Class,
};

type Words = [u64; SET_WORDS];

/// Sets compared before giving up: a few seconds.
const EFFORT: usize = 3_000_000;

/// What a packet has decides which sets can meet: no packet has an IPv4 and an IPv6 address, or
/// is ICMP and has a port.
#[derive(Clone, Copy)]
struct Shape {
    /// None = not IP.
    family: Option<Family>,
    ports: bool,
    classes: &'static [Class],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// As `packet` parses; TCP and UDP have no ports in later fragments.
const SHAPES: [Shape; 5] = {
    const PORTS: &[Class] = &[Class::TCP, Class::UDP];
    const ALL: &[Class] = &[Class::LINK, Class::TCP, Class::UDP, Class::ICMP, Class::ICMP6, Class::OTHER];
    [
        Shape { family: None, ports: false, classes: &[Class::LINK] },
        Shape { family: Some(Family::V4), ports: true, classes: PORTS },
        Shape { family: Some(Family::V4), ports: false, classes: ALL },
        Shape { family: Some(Family::V6), ports: true, classes: PORTS },
        Shape { family: Some(Family::V6), ports: false, classes: ALL },
    ]
};

/// Refuses a set of which one packet could match too many rules, or fulfil too many clauses.
pub(super) fn check(tables: &Tables, input: &Input) -> Result<(), CompileError> {
    // Few rules cannot be too many.
    let clauses = |rule: &RuleInput| rule.clauses.len().max(1).saturating_add(rule.exclusions.len());
    if input.rules.iter().map(clauses).fold(0, usize::saturating_add) <= MATCHES_MAX {
        return Ok(());
    }
    for shape in SHAPES {
        let dimensions = dimensions(tables, shape);
        let mut search = Search { tables, groups: groups(tables), seen: HashSet::new(), effort: 0 };
        if let Some(words) = search.exceed(&dimensions, &[u64::MAX; SET_WORDS])? {
            return Err(search.refusal(&words, input));
        }
    }
    Ok(())
}

/// The distinct sets of every dimension that packets of a shape meet; those that select least
/// come first.
fn dimensions(tables: &Tables, shape: Shape) -> Vec<Vec<Words>> {
    let header = &tables.header;
    let classes = shape.classes.iter().filter_map(|class| header.class_sets.get(usize::from(class.0)));
    let mut numbers: Vec<BTreeSet<u32>> = vec![
        tables.devices.values().flat_map(|d| [d.sets, d.tagged_sets].concat()).collect(),
        classes.copied().collect(),
        tables.cgroups.values().map(|c| c.own).chain([header.any_cgroup_set]).collect(),
        tables.cgroups.values().map(|c| c.peer).chain([header.any_peer_cgroup_set]).collect(),
    ];
    for (nets, any) in tables.nets.iter().zip(header.any_addr_sets) {
        let meets = |net: &Prefix| shape.family == Some(if net.is_v4() { Family::V4 } else { Family::V6 });
        let named = nets.iter().filter(|(net, _)| meets(net)).map(|(_, number)| *number);
        numbers.push(named.chain([any]).collect());
    }
    for (ports, none) in tables.ports.iter().zip(header.no_port_sets) {
        numbers.push(if shape.ports { ports.values().copied().collect() } else { BTreeSet::from([none]) });
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

/// Clauses that name the same dimensions. One that names only addresses and one that names only
/// ports can always meet, so what matters is how many of each kind can.
fn groups(tables: &Tables) -> Vec<Words> {
    let header = &tables.header;
    let any = [header.any_cgroup_set, header.any_peer_cgroup_set].into_iter();
    let any = any.chain(header.any_addr_sets).chain(header.no_port_sets);
    let mut groups = vec![[u64::MAX; SET_WORDS]];
    for set in any.filter_map(|number| tables.sets.get(number as usize)) {
        groups = groups
            .iter()
            .flat_map(|group| [meet(group, &set.words), meet(group, &set.words.map(|word| !word))])
            .filter(|group| size(group) > 0)
            .collect();
    }
    groups
}

fn size(words: &Words) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

fn meet(words: &Words, others: &Words) -> Words {
    let mut both = *words;
    for (word, other) in both.iter_mut().zip(others) {
        *word &= other;
    }
    both
}

struct Search<'a> {
    tables: &'a Tables,
    groups: Vec<Words>,
    seen: HashSet<(usize, Words)>,
    effort: usize,
}

impl Search<'_> {
    /// A selection that is too large, if there is one among `words` and one set of each dimension.
    fn exceed(&mut self, dimensions: &[Vec<Words>], words: &Words) -> Result<Option<Words>, CompileError> {
        if size(words) <= MATCHES_MAX || !self.seen.insert((dimensions.len(), *words)) {
            return Ok(None);
        }
        if self.at_most(dimensions, words) <= MATCHES_MAX {
            return Ok(None);
        }
        if self.effort > EFFORT {
            return Err(CompileError::TooEntangled(MATCHES_MAX));
        }
        let Some((sets, others)) = dimensions.split_first() else {
            return Ok((self.slots(words).len() > MATCHES_MAX || !self.is_walked(words)).then_some(*words));
        };
        for set in sets {
            if let Some(found) = self.exceed(others, &meet(words, set))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// No more clauses than this meet: of each group at most as many as its narrowest dimension lets.
    fn at_most(&mut self, dimensions: &[Vec<Words>], words: &Words) -> usize {
        let used = self.tables.clauses.len().div_ceil(64);
        let mut sum = 0usize;
        for group in &self.groups {
            let group = meet(group, words);
            let mut most = size(&group);
            for sets in dimensions {
                if most == 0 {
                    break;
                }
                self.effort = self.effort.saturating_add(sets.len());
                let common = |set: &Words| {
                    let pairs = group.iter().zip(set).take(used);
                    pairs.map(|(word, other)| (word & other).count_ones() as usize).sum()
                };
                most = most.min(sets.iter().map(common).max().unwrap_or(0));
            }
            sum = sum.saturating_add(most);
        }
        sum
    }

    /// The program's walk reaches the end: it takes a step for every word that has a clause of
    /// whatever rule, and for every clause.
    fn is_walked(&self, words: &Words) -> bool {
        let used = self.tables.clauses.len().div_ceil(64);
        size(words).saturating_add(used) <= WALK_STEPS
    }

    /// The rules that match: some clause holds and no exclusion.
    fn slots(&self, words: &Words) -> BTreeSet<u32> {
        let of = |excludes: u32| -> BTreeSet<u32> {
            self.chosen(words).filter(|(_, e)| *e == excludes).map(|(slot, _)| slot).collect()
        };
        of(0).difference(&of(1)).copied().collect()
    }

    /// Slot and exclusion of every clause that holds.
    fn chosen(&self, words: &Words) -> impl Iterator<Item = (u32, u32)> {
        let clauses = self.tables.clauses.iter().enumerate();
        let chosen = clauses
            .filter(|(index, _)| words.get(index >> 6).is_some_and(|word| word >> (index & 63) & 1 != 0));
        chosen.map(|(_, clause)| (clause.slot, clause.excludes))
    }

    fn refusal(&self, words: &Words, input: &Input) -> CompileError {
        let names = |slots: &BTreeSet<u32>| {
            let rules = input.rules.iter().filter(|rule| slots.contains(&rule.slot));
            let names: BTreeSet<&str> = rules.map(|rule| rule.name.as_str()).collect();
            let shown = names.len().min(MATCHES_MAX.saturating_add(4));
            names.into_iter().take(shown).collect::<Vec<_>>().join(", ")
        };
        let slots = self.slots(words);
        if slots.len() > MATCHES_MAX {
            return CompileError::TooManyMatches {
                count: slots.len(),
                limit: MATCHES_MAX,
                names: names(&slots),
            };
        }
        CompileError::TooManyAlternatives {
            count: size(words),
            names: names(&self.chosen(words).map(|(slot, _)| slot).collect()),
        }
    }
}
