//! Several rules that the user sees as one fault: one name, one set of counters, one change.

use anyhow::Result;

use super::hold::{Armed, Told};
use crate::{
    engine::{EngineError, Event, RuleStats},
    safety::{Abort, Watch},
    spec::RuleSpec,
};

/// The rules of one command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleSet {
    /// What the user sees, such as `partition {a,b} <-> {c,d}`.
    pub(crate) name: String,
    /// One or more; all go to one engine at once.
    pub(crate) rules: Vec<RuleSpec>,
    /// What ends it at once.
    pub(crate) aborts: Vec<Abort>,
}

impl RuleSet {
    /// Whom the rules are for, each once.
    pub(crate) fn targets(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        for rule in &self.rules {
            let name = rule.target.to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(", ")
    }
}

/// Armed rules that are watched: a condition that is breached ends them.
pub(crate) struct Watched<A> {
    pub(crate) armed: A,
    pub(crate) watches: Vec<Watch>,
}

impl<A: Armed> Armed for Watched<A> {
    fn tick(&mut self) -> Result<Vec<Event>> {
        match self.watches.iter().find_map(Watch::tripped) {
            Some(why) => Err(EngineError::Aborted(why).into()),
            None => self.armed.tick(),
        }
    }

    fn stats(&self) -> Result<Vec<RuleStats>> {
        self.armed.stats()
    }

    fn suspect(&mut self) -> Result<()> {
        self.armed.suspect()
    }

    fn cause(&mut self) -> Result<Option<String>> {
        self.armed.cause()
    }

    fn told(&mut self) -> Vec<Told> {
        self.armed.told()
    }

    fn stop(self) -> Result<Vec<RuleStats>> {
        self.armed.stop()
    }
}

/// The counters of all rules as those of one.
pub(super) fn total(name: &str, rules: &[RuleStats]) -> RuleStats {
    let mut all = RuleStats { name: name.to_owned(), ..RuleStats::default() };
    for rule in rules {
        all.egress = all.egress.plus(&rule.egress);
        all.ingress = all.ingress.plus(&rule.ingress);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Counters;

    #[test]
    fn the_counters_of_all_rules_are_one() {
        let rule = |matched_packets, dropped_bytes| RuleStats {
            name: "a part".to_owned(),
            egress: Counters { matched_packets, ..Counters::default() },
            ingress: Counters { dropped_bytes, ..Counters::default() },
        };
        let all = total("the whole", &[rule(1, 20), rule(2, 30)]);
        assert_eq!(
            (all.name.as_str(), all.egress.matched_packets, all.ingress.dropped_bytes),
            ("the whole", 3, 50)
        );
        assert_eq!(total("nothing", &[]), RuleStats { name: "nothing".to_owned(), ..RuleStats::default() });
    }
}
