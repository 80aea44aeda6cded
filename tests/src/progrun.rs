//! Packet tables through `BPF_PROG_TEST_RUN`: a row says what goes in and what must come out.
//!
//! Every row runs through each judge it is given (the kernel's program, the host's code).
//! `CHAOS_ROW=name` runs only the rows whose name contains it. A table that runs no row fails.

use std::{collections::BTreeMap, panic::Location};

use anyhow::{Result, bail, ensure};
use chaos_common::{
    abi::{Count, Direction, TestInput},
    verdict::Verdict,
};

use crate::{
    oracle::{Fate, Given, NORMALISING, NOW_NS, PLAIN, build::RuleBuilder, host::Counted},
    packet::Packet,
};

/// Counters by name, such as `dropped_packets`; zeros are left out.
pub type Counters = BTreeMap<String, u64>;

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Names the row; `CHAOS_ROW` selects by it.
    pub name: &'static str,
    /// The rules in force.
    pub rules: Vec<RuleBuilder>,
    /// When their lease ends, nanoseconds after [`NOW_NS`].
    pub lease_ns: u64,
    /// What goes in.
    pub packet: Packet,
    /// What goes in before it, through the same rules.
    pub before: Vec<Packet>,
    /// When that is judged, nanoseconds after [`NOW_NS`]; none = when the packet itself is.
    pub before_ns: Option<u64>,
    /// Which way, when, from which socket.
    pub given: Given,
    /// What must happen to it.
    pub fate: Fate,
    /// How it must look afterwards, where that can be seen; none = as before.
    pub after: Option<Vec<u8>>,
    /// What must be true of the verdict besides.
    pub verdict: Option<fn(&Verdict) -> bool>,
    /// What the first rule must have counted for all packets together.
    pub counters: Vec<(&'static str, u64)>,
}

impl Row {
    /// A row for a packet that leaves; it must pass uncounted unless told otherwise.
    #[must_use]
    pub fn egress(name: &'static str, rule: RuleBuilder, packet: Packet) -> Self {
        let input = TestInput { now_ns: NOW_NS, ..TestInput::default() };
        Self {
            name,
            rules: vec![rule],
            lease_ns: u64::MAX - NOW_NS,
            packet,
            before: Vec::new(),
            before_ns: None,
            given: Given { input, direction: Direction::Egress, ifindex: PLAIN },
            fate: Fate::Pass,
            after: None,
            verdict: None,
            counters: Vec::new(),
        }
    }

    /// A row for a packet that comes.
    #[must_use]
    pub fn ingress(name: &'static str, rule: RuleBuilder, packet: Packet) -> Self {
        let mut row = Self::egress(name, rule, packet);
        row.given.direction = Direction::Ingress;
        row.given.input.direction = Direction::Ingress as u32;
        row
    }

    /// One more rule behind those there.
    #[must_use]
    pub fn and(mut self, rule: RuleBuilder) -> Self {
        self.rules.push(rule);
        self
    }

    /// It is judged this many nanoseconds after [`NOW_NS`].
    #[must_use]
    pub fn at(mut self, offset_ns: u64) -> Self {
        self.given.input.now_ns = NOW_NS + offset_ns;
        self
    }

    /// The lease ends this many nanoseconds after [`NOW_NS`].
    #[must_use]
    pub fn lease(mut self, offset_ns: u64) -> Self {
        self.lease_ns = offset_ns;
        self
    }

    /// Every draw gives this word.
    #[must_use]
    pub fn random(mut self, word: u32) -> Self {
        self.given.input.random = word;
        self
    }

    /// The socket is in the cgroup with these ids from level 1 on.
    #[must_use]
    pub fn from_cgroup(mut self, ids: &[u64]) -> Self {
        self.given.input.cgroups[0] = 1;
        for (place, id) in self.given.input.cgroups[1..].iter_mut().zip(ids) {
            *place = *id;
        }
        self
    }

    /// On the device with a normaliser instead of the one without.
    #[must_use]
    pub fn on_normalising(mut self) -> Self {
        self.given.ifindex = NORMALISING;
        self
    }

    /// On another device of [`crate::oracle::devices`].
    #[must_use]
    pub fn on(mut self, ifindex: u32) -> Self {
        self.given.ifindex = ifindex;
        self
    }

    /// So many packets like it went through before.
    #[must_use]
    pub fn after(mut self, count: usize) -> Self {
        self.before = vec![self.packet.clone(); count];
        self
    }

    /// This packet went through before.
    #[must_use]
    pub fn after_packet(mut self, packet: Packet) -> Self {
        self.before.push(packet);
        self
    }

    /// What goes through before is judged this many nanoseconds after [`NOW_NS`].
    #[must_use]
    pub const fn earlier_at(mut self, offset_ns: u64) -> Self {
        self.before_ns = Some(offset_ns);
        self
    }

    /// What the packets that go through before meet.
    #[must_use]
    pub fn given_before(&self) -> Given {
        let mut given = self.given;
        given.input.now_ns = self.before_ns.map_or(given.input.now_ns, |offset| NOW_NS + offset);
        given
    }

    /// It must vanish: matched and dropped once.
    #[must_use]
    pub fn drops(self) -> Self {
        let dropped = self.fate(Fate::Drop);
        dropped.counts(&[("matched_packets", 1), ("dropped_packets", 1)])
    }

    /// It must pass, and the rule must have matched it.
    #[must_use]
    pub fn matches_only(self) -> Self {
        self.counts(&[("matched_packets", 1)])
    }

    /// It must become this: the packet that comes back, or the one that goes on.
    #[must_use]
    pub fn becomes(mut self, packet: &Packet) -> Self {
        self.after = Some(packet.bytes());
        self
    }

    /// This must be true of the verdict.
    #[must_use]
    pub const fn verdict(mut self, holds: fn(&Verdict) -> bool) -> Self {
        self.verdict = Some(holds);
        self
    }

    /// What must happen to it.
    #[must_use]
    pub const fn fate(mut self, fate: Fate) -> Self {
        self.fate = fate;
        self
    }

    /// What the first rule must have counted. Counters of bytes are compared only if named.
    #[must_use]
    pub fn counts(mut self, counters: &[(&'static str, u64)]) -> Self {
        self.counters = counters.to_vec();
        self
    }
}

/// What a judge said about a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// About the last packet.
    pub fate: Fate,
    /// What the rules want.
    pub verdict: Verdict,
    /// The last packet afterwards; none = the judge cannot change it.
    pub bytes: Option<Vec<u8>>,
    /// Counters of the first rule, both directions together, for all packets.
    pub counters: Counters,
}

/// Somebody who judges packets.
pub trait Subject {
    /// What errors call it.
    fn name(&self) -> &'static str;

    /// Puts exactly the row's rules in force, state and counters zeroed, and judges its packets.
    /// None = such a packet cannot be put to this judge.
    ///
    /// # Errors
    /// When the rules or the packet are refused.
    fn judge(&mut self, row: &Row) -> Result<Option<Outcome>>;
}

/// The first rule's counters, both directions together.
#[must_use]
pub fn first_rule(counted: &Counted) -> Counters {
    let mut counters = Counters::new();
    for what in Count::ALL {
        let of_rule = counted.iter().filter(|((slot, _, reason), _)| *slot == 0 && *reason == *what as u8);
        for (_, (packets, bytes)) in of_rule {
            *counters.entry(format!("{}_packets", what.label())).or_default() += packets;
            *counters.entry(format!("{}_bytes", what.label())).or_default() += bytes;
        }
    }
    counters
}

/// Runs every selected row through every subject and reports all that fail.
///
/// # Errors
/// When a row fails, two rows have one name, or no row ran.
#[track_caller]
pub fn run_table(subjects: &mut [&mut dyn Subject], rows: &[Row]) -> Result<()> {
    let place = Location::caller();
    let selected = std::env::var("CHAOS_ROW").unwrap_or_default();
    run_selected(subjects, rows, &selected).map_err(|error| error.context(format!("table at {place}")))
}

fn run_selected(subjects: &mut [&mut dyn Subject], rows: &[Row], selected: &str) -> Result<()> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        ensure!(pair[0] != pair[1], "two rows are called `{}`", pair[0]);
    }
    let mut failures = Vec::new();
    let mut ran = 0;
    for row in rows.iter().filter(|row| row.name.contains(selected)) {
        let mut judged = false;
        for subject in subjects.iter_mut() {
            let result = subject.judge(row).and_then(|outcome| {
                judged |= outcome.is_some();
                outcome.map_or(Ok(()), |outcome| check(outcome, row))
            });
            if let Err(error) = result {
                let rules: Vec<_> = row.rules.iter().map(|rule| &rule.0).collect();
                let who = subject.name();
                failures
                    .push(format!("`{}`, {who}: {error:#}\n  {}\n  rules {rules:?}", row.name, row.packet));
                judged = true;
            }
        }
        ensure!(judged, "nobody could judge the row `{}`", row.name);
        ran += 1;
    }
    ensure!(ran > 0, "no row ran: the table has {}, CHAOS_ROW is `{selected}`", rows.len());
    if !failures.is_empty() {
        let count = failures.len();
        bail!("{count} failures in {ran} rows (CHAOS_ROW=name runs one):\n{}", failures.join("\n"));
    }
    Ok(())
}

fn check(outcome: Outcome, row: &Row) -> Result<()> {
    ensure!(outcome.fate == row.fate, "expected {:?}, got {:?}", row.fate, outcome.fate);
    if let Some(holds) = row.verdict {
        ensure!(holds(&outcome.verdict), "the verdict is not as expected: {:?}", outcome.verdict);
    }
    match (&outcome.bytes, &row.after) {
        (Some(bytes), Some(after)) => check_bytes(after, bytes, is_away(row.fate, &outcome.verdict))?,
        // An answer that no row describes is judged by others.
        (Some(bytes), None) if row.fate != Fate::Answer && outcome.verdict.corrupt_by == 0 => {
            check_bytes(&row.packet.bytes(), bytes, is_away(row.fate, &outcome.verdict))?;
        }
        _ => {}
    }
    let expected: Counters = row.counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let named = |name: &str| name.ends_with("_packets") || expected.contains_key(name);
    let counted: Counters = outcome.counters.into_iter().filter(|(name, _)| named(name)).collect();
    ensure!(counted == expected, "counters: expected {expected:?}, got {counted:?}");
    Ok(())
}

/// It went into a private device, or the answer to it did.
fn is_away(fate: Fate, verdict: &Verdict) -> bool {
    matches!(fate, Fate::Normalise | Fate::Hold) || (fate == Fate::Answer && verdict.hold_by != 0)
}

/// The packet must be as it was; on its way to a private device the addresses of its MAC header
/// carry our number.
fn check_bytes(before: &[u8], after: &[u8], away: bool) -> Result<()> {
    let from = if away { 12 } else { 0 };
    let differs = before.iter().zip(after).skip(from).position(|(before, after)| before != after);
    if let Some(place) = differs {
        bail!("the packet changed at offset {}: {after:02x?}", from + place);
    }
    ensure!(before.len() == after.len(), "the packet was {} bytes and has {}", before.len(), after.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::{Fate, Outcome, Row, Subject, run_selected};
    use chaos_common::verdict::Verdict;

    use crate::{oracle::build::loss, packet::Packet};

    /// Drops what has a payload.
    struct Fake;

    impl Subject for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn judge(&mut self, row: &Row) -> Result<Option<Outcome>> {
            let dropped = !row.packet.payload.is_empty();
            let counted = if dropped { &["matched_packets", "dropped_packets"][..] } else { &[] };
            let counters = counted.iter().map(|name| ((*name).to_owned(), 1)).collect();
            let fate = if dropped { Fate::Drop } else { Fate::Pass };
            Ok(Some(Outcome { fate, verdict: Verdict::PASS, bytes: Some(row.packet.bytes()), counters }))
        }
    }

    fn row(name: &'static str, payload: &[u8]) -> Row {
        let packet = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(payload);
        Row::egress(name, loss("100%"), packet).drops()
    }

    #[test]
    fn rows_pass_fail_and_are_selected() {
        let (good, bad) = (row("with data", b"x"), row("empty", b""));
        run_selected(&mut [&mut Fake], std::slice::from_ref(&good), "").unwrap();
        let error = run_selected(&mut [&mut Fake], &[good.clone(), bad.clone()], "").unwrap_err().to_string();
        assert!(error.contains("`empty`, fake") && !error.contains("`with data`"), "{error}");
        run_selected(&mut [&mut Fake], &[good, bad], "with").unwrap();
    }

    #[test]
    fn an_empty_table_fails() {
        assert!(run_selected(&mut [&mut Fake], &[], "").is_err());
        assert!(run_selected(&mut [&mut Fake], &[row("a", b"x")], "b").is_err());
        assert!(run_selected(&mut [&mut Fake], &[row("a", b"x"), row("a", b"x")], "").is_err());
    }
}
