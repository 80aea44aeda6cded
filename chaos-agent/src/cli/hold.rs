//! Holds armed faults until their time is over or somebody ends them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    report::{self, End, Progress, Reporter, Summary},
    units,
    world::{Wake, World},
};
use crate::engine::{ALARM_AFTER, Event, RuleStats, SUSPECT_AFTER};

/// The engine must hear from us at least this often: lease, restarted targets, stop lever.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// How long an interactive user has to confirm a fault on this host.
pub(crate) const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// How late an agent may be to say why nothing is matched.
const LATE: Duration = Duration::from_secs(1);

/// Armed faults: the engine, an agent that has one, or a fake of it in tests.
pub(crate) trait Armed: Sized {
    fn tick(&mut self) -> Result<Vec<Event>>;
    fn stats(&self) -> Result<Vec<RuleStats>>;
    fn stop(self) -> Result<Vec<RuleStats>>;

    /// Nothing was matched for a while: it is looked for what may have been meant.
    fn suspect(&mut self) -> Result<()> {
        Ok(())
    }

    /// What was found since, in words.
    fn cause(&mut self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Packets that were affected since this was asked last.
    fn told(&mut self) -> Vec<Told> {
        Vec::new()
    }
}

/// A packet that was affected.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// For people.
    pub(crate) line: String,
    /// All that is known of it.
    pub(crate) packet: Value,
}

/// How to hold.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    /// For how long, start delay included.
    pub(crate) duration: Duration,
    /// How long nothing can be matched yet.
    pub(crate) start_delay: Duration,
    /// Ask whether the user still can answer.
    pub(crate) confirm: bool,
    /// Why nothing may have been matched.
    pub(crate) hint: String,
}

/// Holds `faults`, takes them down in any case, and says how it went.
///
/// # Errors
/// The engine could not go on or could not clean up; the summary was reported as far as it is known.
pub(crate) fn hold(
    mut faults: impl Armed,
    holding: &Holding,
    world: &mut impl World,
    reporter: &mut Reporter,
) -> Result<Summary> {
    let armed_at = world.now();
    // A question must be put at once.
    let first_report = if holding.confirm { Duration::ZERO } else { reporter.first_report() };
    let ended = Loop::new(holding, first_report).run(&mut faults, armed_at, world, reporter);
    let stopped = faults.stop().context("the faults ended, but taking them down failed");
    let elapsed = world.now().saturating_sub(armed_at);
    match (ended, stopped) {
        (Ok(end), Ok(rules)) => {
            let summary = Summary::new(end, elapsed, rules);
            reporter.summary(&summary);
            Ok(summary)
        }
        (Err(error), Ok(rules)) => {
            reporter.summary(&Summary::new(End::Failed, elapsed, rules));
            Err(error)
        }
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Err(also)) => Err(error.context(also.to_string())),
    }
}

/// What the loop remembers from one round to the next.
struct Loop<'a> {
    holding: &'a Holding,
    next_report: Duration,
    alarm: Alarm,
    /// None = nothing to confirm, or it was confirmed.
    question: Option<Question>,
}

/// How far the alarm is that nothing is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    /// Its time has not come.
    Quiet,
    /// It is looked for what was meant.
    Suspect,
    /// Something was matched, or it was told.
    Over,
}

/// "Can you still answer?"
struct Question {
    asked: bool,
    /// False once nobody can type any more; then only the time can run out.
    answerable: bool,
}

impl<'a> Loop<'a> {
    fn new(holding: &'a Holding, next_report: Duration) -> Self {
        Self {
            holding,
            next_report,
            alarm: Alarm::Quiet,
            question: holding.confirm.then_some(Question { asked: false, answerable: true }),
        }
    }

    fn run(
        mut self,
        faults: &mut impl Armed,
        armed_at: Duration,
        world: &mut impl World,
        reporter: &mut Reporter,
    ) -> Result<End> {
        loop {
            let elapsed = world.now().saturating_sub(armed_at);
            let remaining = self.holding.duration.saturating_sub(elapsed);
            if remaining.is_zero() {
                return Ok(End::TimeOver);
            }
            if self.question.is_some() && elapsed >= CONFIRM_WITHIN {
                return Ok(End::NotConfirmed);
            }
            let ticked = faults.tick().map_err(|error| {
                // It was agreed, and nothing is wrong with the engine.
                let is_agreed = matches!(error.downcast_ref(), Some(crate::engine::EngineError::Aborted(_)));
                if is_agreed { error } else { error.context("the faults cannot be kept up") }
            });
            for event in ticked? {
                reporter.event(&event);
            }
            faults.told().iter().for_each(|told| reporter.packet(told));
            self.look_for_unmatched(faults, elapsed, reporter)?;
            if elapsed >= self.next_report {
                self.next_report = elapsed + reporter.period();
                self.report(faults, elapsed, remaining, reporter)?;
            }
            if reporter.reader_gone() {
                return Ok(End::ReaderGone);
            }
            let listen = self.question.as_ref().is_some_and(|question| question.answerable);
            match world.wait(TICK.min(remaining), listen)? {
                Wake::Timeout => {}
                Wake::Signal(_) => return Ok(End::Interrupted),
                Wake::Enter => self.question = None,
                Wake::InputClosed => {
                    self.question.iter_mut().for_each(|question| question.answerable = false);
                }
            }
        }
    }

    /// "Armed, but nothing matched", as an agent tells it.
    fn look_for_unmatched(
        &mut self,
        faults: &mut impl Armed,
        elapsed: Duration,
        reporter: &mut Reporter,
    ) -> Result<()> {
        let acting = elapsed.saturating_sub(self.holding.start_delay);
        let is_due = match self.alarm {
            Alarm::Quiet => acting >= SUSPECT_AFTER,
            Alarm::Suspect => acting >= ALARM_AFTER,
            Alarm::Over => false,
        };
        if !is_due {
            return Ok(());
        }
        let matched = report::matched(&faults.stats().context("the counters cannot be read")?);
        if self.alarm == Alarm::Quiet && !matched {
            self.alarm = Alarm::Suspect;
            // It is still said what may be the cause.
            faults.suspect().unwrap_or_else(|error| tracing::debug!("nothing else is looked for: {error}"));
            return Ok(());
        }
        let looked = self.alarm == Alarm::Suspect;
        let found = if looked { faults.cause() } else { Ok(None) };
        // An agent's clock may be behind ours.
        if !matched && matches!(found, Ok(None)) && acting < ALARM_AFTER + LATE {
            return Ok(());
        }
        self.alarm = Alarm::Over;
        if !matched {
            let found =
                found.unwrap_or_else(|error| Some(format!("the cause could not be looked for: {error}")));
            let found = found.map_or_else(String::new, |found| format!("{found}; "));
            reporter.note(&format!("no packet was matched so far: {found}{}", self.holding.hint));
        }
        Ok(())
    }

    fn report(
        &mut self,
        faults: &impl Armed,
        elapsed: Duration,
        remaining: Duration,
        reporter: &mut Reporter,
    ) -> Result<()> {
        let rules = faults.stats().context("the counters cannot be read")?;
        if let Some(question) = &mut self.question {
            let left = CONFIRM_WITHIN.saturating_sub(elapsed).as_millis().div_ceil(1000);
            let text =
                format!("this host itself is hit: press Enter within {left}s to keep the fault, or it ends");
            reporter.question(&text, !question.asked);
            question.asked = true;
            return Ok(());
        }
        reporter.progress(&Progress { elapsed, remaining, rules });
        Ok(())
    }
}

/// The sentence for a fault that ended because nobody confirmed it.
pub(crate) fn not_confirmed() -> String {
    format!(
        "the fault was ended: it is on this host itself and was not confirmed within {}",
        units::show_duration(CONFIRM_WITHIN)
    )
}

/// Any error of the engine, for the tests of what is made of it.
#[cfg(test)]
pub(crate) fn some_engine_error() -> crate::engine::EngineError {
    crate::engine::EngineError::Stopped
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::VecDeque, io, rc::Rc};

    use nix::sys::signal::Signal;

    use super::{super::output::Stream, *};
    use crate::engine::Counters;

    /// A clock that only moves when it is waited for, and a script of what happens when.
    struct Script {
        now: Duration,
        wakes: VecDeque<(Duration, Wake)>,
    }

    impl Script {
        fn new(wakes: impl IntoIterator<Item = (u64, Wake)>) -> Self {
            let wakes = wakes.into_iter().map(|(ms, wake)| (Duration::from_millis(ms), wake)).collect();
            Self { now: Duration::ZERO, wakes }
        }
    }

    impl World for Script {
        fn now(&self) -> Duration {
            self.now
        }

        fn wait(&mut self, timeout: Duration, input: bool) -> io::Result<Wake> {
            assert!(timeout <= TICK, "the engine must be heard every {TICK:?}");
            self.now += timeout;
            match self.wakes.front() {
                Some((at, wake)) if *at <= self.now => {
                    assert!(
                        input || !matches!(wake, Wake::Enter | Wake::InputClosed),
                        "nobody looks at the input"
                    );
                    let wake = *wake;
                    self.wakes.pop_front();
                    Ok(wake)
                }
                _ => Ok(Wake::Timeout),
            }
        }
    }

    #[derive(Clone, Default)]
    struct Fake {
        ticks: Rc<Cell<u32>>,
        stopped: Rc<Cell<bool>>,
        fail_at: Option<u32>,
    }

    impl Armed for Fake {
        fn tick(&mut self) -> Result<Vec<Event>> {
            self.ticks.set(self.ticks.get() + 1);
            if self.fail_at == Some(self.ticks.get()) {
                Err(some_engine_error().into())
            } else {
                Ok(Vec::new())
            }
        }

        fn stats(&self) -> Result<Vec<RuleStats>> {
            let egress = Counters { matched_packets: u64::from(self.ticks.get()), ..Counters::default() };
            Ok(vec![RuleStats { name: "fake".to_owned(), egress, ..RuleStats::default() }])
        }

        fn stop(self) -> Result<Vec<RuleStats>> {
            self.stopped.set(true);
            self.stats()
        }
    }

    fn run(holding: &Holding, wakes: &[(u64, Wake)], fake: &Fake) -> Result<Summary> {
        let mut reporter = Reporter::new(false, Stream::Err, false);
        hold(fake.clone(), holding, &mut Script::new(wakes.iter().copied()), &mut reporter)
    }

    fn holding(secs: u64, confirm: bool) -> Holding {
        Holding {
            duration: Duration::from_secs(secs),
            start_delay: Duration::ZERO,
            confirm,
            hint: "a hint".to_owned(),
        }
    }

    #[test]
    fn ends_when_the_time_is_over() {
        let fake = Fake::default();
        let summary = run(&holding(2, false), &[], &fake).unwrap();
        assert_eq!((summary.end, summary.elapsed), (End::TimeOver, Duration::from_secs(2)));
        assert!(fake.stopped.get());
        let wanted = Duration::from_secs(2).as_millis() / TICK.as_millis();
        assert_eq!(u128::from(fake.ticks.get()), wanted, "every {TICK:?}");
    }

    #[test]
    fn a_signal_ends_it() {
        let fake = Fake::default();
        let summary = run(&holding(60, false), &[(300, Wake::Signal(Signal::SIGTERM))], &fake).unwrap();
        assert_eq!((summary.end, summary.elapsed), (End::Interrupted, Duration::from_millis(300)));
        assert!(fake.stopped.get());
    }

    #[test]
    fn unconfirmed_it_ends_after_fifteen_seconds() {
        let summary = run(&holding(60, true), &[], &Fake::default()).unwrap();
        assert_eq!((summary.end, summary.elapsed), (End::NotConfirmed, CONFIRM_WITHIN));
        let closed = [(1000, Wake::InputClosed)];
        let summary = run(&holding(60, true), &closed, &Fake::default()).unwrap();
        assert_eq!(summary.end, End::NotConfirmed);
    }

    #[test]
    fn confirmed_it_goes_on() {
        let summary = run(&holding(60, true), &[(14_000, Wake::Enter)], &Fake::default()).unwrap();
        assert_eq!((summary.end, summary.elapsed), (End::TimeOver, Duration::from_mins(1)));
    }

    #[test]
    fn an_engine_that_fails_is_still_taken_down() {
        let fake = Fake { fail_at: Some(3), ..Fake::default() };
        let error = run(&holding(60, false), &[], &fake).expect_err("the engine failed");
        assert!(error.to_string().contains("cannot be kept up"), "{error}");
        assert!(fake.stopped.get());
    }
}
