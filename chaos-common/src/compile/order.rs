//! In which order clauses stand: the program looks at words of 64, and only at those where every dimension may have
//! one. Clauses of the same kind stand together, so that of a thousand rules few words are looked at.

use super::{ClauseInput, EVERY, Input, Ports, Prefix, RuleInput};
use crate::abi::RULES_MAX;

/// One clause of a rule, in the order of their indices.
pub(super) struct Flat<'a> {
    pub(super) index: usize,
    /// Clauses of rules that name the same dimensions have the same.
    pub(super) kind: usize,
    pub(super) rule: &'a RuleInput,
    pub(super) clause: &'a ClauseInput,
    pub(super) excludes: bool,
}

/// Clauses of one rule stand together, exclusions first. A kind begins a word of its own, as long as there is room.
pub(super) fn flatten(input: &Input) -> Vec<Flat<'_>> {
    let mut rules: Vec<&RuleInput> = input.rules.iter().collect();
    rules.sort_by_cached_key(|rule| (kind(rule), likeness(rule)));
    let kinds = rules.chunk_by(|a, b| kind(a) == kind(b)).count();
    let clauses: usize = rules.iter().map(|rule| clauses_of(rule).count()).sum();
    let is_roomy = clauses.saturating_add(kinds.saturating_mul(63)) <= RULES_MAX;
    let mut flat: Vec<Flat<'_>> = Vec::with_capacity(clauses);
    let mut next = 0;
    for (kind, alike) in (0..).zip(rules.chunk_by(|a, b| kind(a) == kind(b))) {
        if is_roomy {
            next = usize::next_multiple_of(next, 64);
        }
        for (rule, clause, excludes) in alike.iter().flat_map(|rule| clauses_of(rule)) {
            flat.push(Flat { index: next, kind, rule, clause, excludes });
            next = next.saturating_add(1);
        }
    }
    flat
}

fn clauses_of(rule: &RuleInput) -> impl Iterator<Item = (&RuleInput, &ClauseInput, bool)> {
    let every = rule.clauses.is_empty().then_some(&EVERY);
    let exclusions = rule.exclusions.iter().map(move |clause| (rule, clause, true));
    exclusions.chain(rule.clauses.iter().chain(every).map(move |clause| (rule, clause, false)))
}

/// Which dimensions a rule names.
fn kind(rule: &RuleInput) -> [bool; 6] {
    let names = |is: fn(&ClauseInput) -> bool| rule.clauses.iter().any(is);
    [
        !rule.cgroups.is_empty(),
        !rule.peer_cgroups.is_empty(),
        names(|clause| !clause.peers.is_empty()),
        names(|clause| !clause.locals.is_empty()),
        names(|clause| !clause.peer_ports.is_empty()),
        names(|clause| !clause.local_ports.is_empty()),
    ]
}

type Likeness = (Option<u64>, [Option<u64>; 2], [Option<Prefix>; 2], [Option<Ports>; 2]);

/// Where and what a rule is about: ranges that overlap stand near each other.
fn likeness(rule: &RuleInput) -> Likeness {
    let clause = rule.clauses.first().unwrap_or(&EVERY);
    (
        rule.places.first().map(|place| place.netns),
        [rule.cgroups.first().copied(), rule.peer_cgroups.first().copied()],
        [clause.peers.first().copied(), clause.locals.first().copied()],
        [clause.peer_ports.first().copied(), clause.local_ports.first().copied()],
    )
}
