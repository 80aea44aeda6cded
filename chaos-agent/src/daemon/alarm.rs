//! "Armed, but nothing matched": a fault that does nothing is worse than none, because it is believed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{book::Fault, events::Kind, keeper::Keeper, now};
use crate::engine::{ALARM_AFTER, Conversations, SUSPECT_AFTER};

/// How often counters are looked at for it.
const PERIOD: Duration = Duration::from_millis(250);

/// For so long, once one is raised, more are raised each time: looking for a cause can take milliseconds, and changes
/// wait.
const RAISING: Duration = Duration::from_millis(10);

/// How far the alarm of a fault is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// Its time has not come.
    #[default]
    Quiet,
    /// It is looked for what it may have meant.
    Suspect,
    /// Raised: the cause and a sentence.
    Raised(Value, String),
    /// It has matched something; it is not asked again.
    Matched,
}

impl Keeper {
    /// Raises and clears the alarms.
    pub(super) fn look_for_unmatched(&mut self) {
        if self.alarms_at.elapsed() < self.alarms.pause(PERIOD) {
            return;
        }
        self.alarms_at = Instant::now();
        self.look_at_all();
        self.alarms.took(self.alarms_at.elapsed());
    }

    fn look_at_all(&mut self) {
        let now = now();
        // Counters are read for whom they can change something: each takes several system calls.
        let is_asked = |fault: &&Fault| match fault.alarm {
            Alarm::Matched => false,
            Alarm::Quiet => fault.acting_for(now) >= SUSPECT_AFTER,
            Alarm::Suspect | Alarm::Raised(..) => true,
        };
        let ids: Vec<u64> = self.book.active().filter(is_asked).map(|fault| fault.id).collect();
        if ids.is_empty() {
            return;
        }
        let by_slot = self.stats_of_faults(&ids);
        let (mut suspects, mut raised) = (Vec::new(), Vec::new());
        let (begun, mut conversations) = (Instant::now(), Conversations::default());
        for id in ids {
            let Some(fault) = self.book.active_mut(id) else { continue };
            let age = fault.acting_for(now);
            if !Fault::is_unmatched(&fault.stats(&by_slot)) {
                let was = std::mem::replace(&mut fault.alarm, Alarm::Matched);
                if let Alarm::Raised(..) = was {
                    let words = "packets are matched now";
                    self.hub.publish(Kind::Unmatched, Some(id), words, json!({"cause": null}));
                }
            } else if fault.alarm == Alarm::Quiet {
                fault.alarm = Alarm::Suspect;
                suspects.extend_from_slice(fault.slots());
            } else if fault.alarm == Alarm::Suspect
                && age >= ALARM_AFTER
                && (raised.is_empty() || begun.elapsed() < RAISING)
            {
                raised.extend_from_slice(fault.slots());
                self.raise(id, &mut conversations);
            }
        }
        if let Some(engine) = &mut self.engine
            && let Err(error) = engine.end_looking(&raised)
        {
            tracing::debug!("what was looked for is still looked for: {error}");
        }
        if let (Some(engine), false) = (&mut self.engine, suspects.is_empty())
            && let Err(error) = engine.suspect(&suspects)
        {
            tracing::debug!("why nothing is matched cannot be looked into: {error}");
        }
    }

    fn raise(&mut self, id: u64, among: &mut Conversations) {
        let Some(fault) = self.book.active_mut(id) else { return };
        let slots = fault.slots().to_vec();
        let Some(engine) = &self.engine else { return };
        let (cause, sentence) = match engine.findings(&slots, among) {
            Ok(found) => (serde_json::to_value(&found).unwrap_or_default(), found.sentence()),
            Err(error) => (Value::Null, format!("the cause could not be looked for: {error}")),
        };
        let likely = fault.new.set.rules.first().map(crate::cli::causes).unwrap_or_default();
        let sentence = format!("armed, but no packet was matched so far: {sentence}; {likely}");
        tracing::warn!("fault {id}: {sentence}");
        self.hub.publish(Kind::Unmatched, Some(id), &sentence, cause.clone());
        fault.alarm = Alarm::Raised(cause, sentence);
    }
}
