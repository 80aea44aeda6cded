//! One packet's way through the rules: which match, are they alive, what do they want.

use crate::{
    abi::{CLAUSES_PER_PACKET, Direction, MATCHES_MAX, SET_WORDS, rule_flags},
    job::{Job, Walk, job_flags},
    life::{Life, concerns, life},
    lookup::{candidates, find_owners, summary, word, word_of},
    mask::masked,
    packet::{Class, Packet, tcp},
    world::World,
};

/// What shall be done with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: no rule wants anything.
    Pass,
    /// As [`Job::verdict`] says.
    Apply,
    /// A rule must see single wire packets: send it through the normaliser, judge it there.
    Normalise,
}

/// The steps of [`judge`]. On the host each is a call; in the kernel each is a function that the
/// verifier proves alone.
pub trait Steps {
    /// [`prepare`]
    fn prepare(&mut self) -> bool;
    /// [`gather`]
    fn gather(&mut self) -> bool;
    /// [`advance`]
    fn advance(&mut self) -> bool;
    /// How many rules match.
    fn matches(&self) -> u32;
    /// [`crate::protect::is_protected`]
    fn is_protected(&self) -> bool;
    /// [`wants_wire`]
    fn wants_wire(&self) -> bool;
    /// [`crate::wish::judge_rule`]; true = the rule wants something.
    fn judge_match(&mut self, index: u32) -> bool;
    /// [`crate::wish::settle`]
    fn settle(&mut self);
}

/// Steps of one walk over candidates: every word once, and every clause.
pub(crate) const WALK_STEPS: usize = SET_WORDS + CLAUSES_PER_PACKET;

/// A packet that comes back by loopback is walked twice, with one step between.
const STEPS: usize = WALK_STEPS + WALK_STEPS + 1;

/// Everything about one packet: lookup, protection, life, verdict, counters.
#[inline(always)]
pub fn judge<S: Steps>(steps: &mut S) -> Action {
    if !steps.prepare() || !steps.gather() {
        return Action::Pass;
    }
    for _ in 0..STEPS {
        if !steps.advance() {
            break;
        }
    }
    let count = steps.matches();
    if count == 0 || steps.is_protected() {
        return Action::Pass;
    }
    if steps.wants_wire() {
        return Action::Normalise;
    }
    let mut wanted = false;
    for index in 0..MATCHES_MAX as u32 {
        if index >= count {
            break;
        }
        wanted |= steps.judge_match(index);
    }
    if !wanted {
        return Action::Pass;
    }
    steps.settle();
    Action::Apply
}

/// Notes the time and who owns both ends. False = nothing is armed.
#[inline(always)]
pub fn prepare<W: World>(world: &W, job: &mut Job) -> bool {
    let Some(header) = world.header() else { return false };
    job.now_ns = world.now_ns();
    job.matches.count = 0;
    job.verdict.clear();
    let mut view = job.view;
    view.direction = job.direction;
    find_owners(world, header, job, &mut view);
    job.view = view;
    if job.comes_back() {
        let mut before = job.before;
        before.direction = Direction::Egress as u32;
        find_owners(world, header, job, &mut before);
        job.before = before;
    }
    true
}

/// Looks every dimension up and begins the walk. False = no rule can match.
///
/// A packet that comes back by loopback is first looked at as it was when it left: the rules for
/// both directions that matched then have judged it.
#[inline(always)]
pub fn gather<W: World>(world: &W, job: &mut Job) -> bool {
    let Some(header) = world.header() else { return false };
    let Some(now) = candidates(world, header, job, &job.view) else { return false };
    job.candidates = now;
    job.judged.count = 0;
    job.looks_back = 0;
    let mut words = summary(world, &now);
    if words != 0
        && job.comes_back()
        && let Some(before) = candidates(world, header, job, &job.before)
    {
        job.candidates_before = before;
        job.looks_back = 1;
        words = summary(world, &before) & world.set(header.both_set).map_or(0, |both| both.summary);
    }
    job.walk = Walk::over(words);
    true
}

/// One step of the walk: the next word of the intersection, or the next clause of the word.
/// False = done.
#[inline(always)]
pub fn advance<W: World>(world: &W, job: &mut Job) -> bool {
    if job.walk.bits != 0 {
        clause(world, job);
        return true;
    }
    if job.walk.words == 0 {
        return turn(world, job);
    }
    let index = lowest(job.walk.words);
    job.walk.words &= job.walk.words.wrapping_sub(1);
    job.walk.base = index << 6;
    job.walk.bits = if job.looks_back == 0 {
        word(world, &job.candidates, index as usize)
    } else {
        let both = world.header().and_then(|header| world.set(header.both_set));
        let both = both.map_or(0, |set| word_of(set, index as usize));
        word(world, &job.candidates_before, index as usize) & both
    };
    true
}

/// Ends the look back and begins the walk that counts. False = that one is done, too.
#[inline(always)]
fn turn<W: World>(world: &W, job: &mut Job) -> bool {
    if job.looks_back == 0 {
        return false;
    }
    job.looks_back = 0;
    job.judged = job.matches;
    job.matches.count = 0;
    job.walk = Walk::over(summary(world, &job.candidates));
    true
}

/// Index of the lowest bit, below [`SET_WORDS`].
#[inline(always)]
fn lowest(bits: u64) -> u32 {
    const { assert!(SET_WORDS == 64, "as many words as a summary has bits") };
    masked::<SET_WORDS>(bits.trailing_zeros()) as u32
}

/// Looks at the next clause of the current word.
#[inline(always)]
fn clause<W: World>(world: &W, job: &mut Job) {
    let Job { walk, matches, judged, .. } = job;
    let bit = walk.bits.trailing_zeros();
    walk.bits &= walk.bits.wrapping_sub(1);
    let Some(clause) = world.clause(walk.base | bit) else { return };
    if clause.slot == walk.decided {
        return;
    }
    walk.decided = clause.slot;
    if clause.excludes != 0 || judged.contains(clause.slot) {
        return;
    }
    if let Some(place) = matches.slots.get_mut(matches.count as usize) {
        *place = clause.slot;
        matches.count = matches.count.wrapping_add(1);
    }
}

/// Some rule that is alive must see single wire packets, and this one may have to be cut, or
/// must not overtake one that is.
#[inline(always)]
pub fn wants_wire<W: World>(world: &W, job: &Job) -> bool {
    if job.has(job_flags::FINAL) || !matches!(job.packet.class, Class::TCP | Class::UDP) {
        return false;
    }
    for index in 0..MATCHES_MAX {
        if index >= job.matches.count as usize {
            break;
        }
        let Some(slot) = job.matches.slots.get(index) else { break };
        let (Some(rule), Some(state)) = (world.rule(*slot), world.state(*slot)) else { continue };
        if rule.flags & (rule_flags::WIRE | rule_flags::SHADOW) == rule_flags::WIRE
            // What is one wire packet already is judged in place on loopback, unless its checksum is missing.
            && (!job.has(job_flags::WHOLE) || rule.flags & rule_flags::CHECKSUM != 0)
            && concerns(world, rule, job)
            // In the off part of a period too: packets that took the short way then would
            // overtake those that are still in the normaliser, at every beginning of it.
            && matches!(life(world, rule, state, job.now_ns), Life::Active | Life::Resting)
        {
            return true;
        }
    }
    false
}

/// The SYN that opens a TCP connection, and not its answer.
#[must_use]
pub const fn opens_connection(packet: &Packet) -> bool {
    packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}
