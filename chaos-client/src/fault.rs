//! A fault that is held as long as its handle lives.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{Client, Error, FaultView, NewFault, State, Stats};

/// The lease of a fault that was not given one.
const LEASE: Duration = Duration::from_secs(5);
/// How long one lasts that was not told.
const DURATION: Duration = Duration::from_mins(1);
/// The longest time between two renewals.
const RENEW: Duration = Duration::from_secs(1);
/// Healing because the handle went does not hold its thread longer than this: the lease does the rest.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a held fault is, as far as its last renewal knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The agent holds it.
    Held,
    /// It is over, and why: somebody removed it, its time is over, faults were stopped.
    Ended(String),
    /// The agent cannot be asked for longer than the lease lasts, so the fault is over; and why it cannot.
    Lost(String),
}

/// A fault that the agent holds for us. Dropping it heals it.
///
/// A thread renews its lease. Should the process be killed, the fault ends when the lease runs out.
#[derive(Debug)]
pub struct Fault {
    client: Client,
    view: FaultView,
    condition: Arc<Mutex<Condition>>,
    /// Dropped, it ends the thread.
    end: Option<mpsc::Sender<()>>,
    renewing: Option<JoinHandle<()>>,
    is_healed: bool,
}

impl Fault {
    pub(crate) fn hold(client: &Client, fault: NewFault) -> Result<Self, Error> {
        let fault = if fault.body().contains_key("lease") { fault } else { fault.lease(LEASE) };
        let fault = if fault.body().contains_key("duration") { fault } else { fault.duration(DURATION) };
        let view = client.create(&fault)?;
        // What the agent says is left of it is the lease in its own words.
        let lease = view.lease_remaining_seconds.and_then(|left| Duration::try_from_secs_f64(left).ok());
        let condition = Arc::new(Mutex::new(Condition::Held));
        let (end, ended) = mpsc::channel();
        let mut held = Self {
            client: client.clone(),
            view,
            condition: Arc::clone(&condition),
            end: Some(end),
            renewing: None,
            is_healed: false,
        };
        let renewal = Renewal {
            client: client.clone().with_limit(PATIENCE),
            id: held.view.id.to_string(),
            lease: lease.unwrap_or(LEASE),
            condition,
        };
        let thread = thread::Builder::new().name("chaos-lease".to_owned()).spawn(move || renewal.run(&ended));
        // Dropping `held` takes the fault back.
        let setting = |error| Error::Setting(format!("no thread for the lease of the fault: {error}"));
        held.renewing = Some(thread.map_err(setting)?);
        Ok(held)
    }

    /// Its number at the agent.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.view.id
    }

    /// What the agent said when it was made.
    #[must_use]
    pub const fn view(&self) -> &FaultView {
        &self.view
    }

    /// Whether it is still held. Asks nobody.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its counters now.
    ///
    /// # Errors
    /// Those of [`Client::ask`].
    pub fn stats(&self) -> Result<Stats, Error> {
        self.client.stats(&self.view.id.to_string())
    }

    /// What it does, in words and places.
    ///
    /// # Errors
    /// Those of [`Client::ask`].
    pub fn explain(&self) -> Result<Value, Error> {
        let body = self.view.request.as_object().cloned().unwrap_or_default();
        self.client.explain(&NewFault::from_body(body))
    }

    /// Ends it; what it was, with its last counters. Unlike a drop it says when that failed.
    ///
    /// # Errors
    /// Those of [`Client::ask`]; then the fault ends when its lease runs out.
    pub fn heal(mut self) -> Result<FaultView, Error> {
        self.stop_renewing();
        self.is_healed = true;
        self.client.remove(&self.view.id.to_string())
    }

    fn stop_renewing(&mut self) {
        self.end = None;
        // The thread may be waiting for an agent that is silent; without the handle it ends by itself.
        self.renewing = None;
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.stop_renewing();
        if !self.is_healed {
            // There is nobody to tell; the lease ends what could not be healed.
            let _ = self.client.clone().with_limit(PATIENCE).remove(&self.view.id.to_string());
        }
    }
}

/// What the thread knows.
struct Renewal {
    client: Client,
    id: String,
    lease: Duration,
    condition: Arc<Mutex<Condition>>,
}

impl Renewal {
    fn run(&self, ended: &mpsc::Receiver<()>) {
        let period = RENEW.min(self.lease / 3);
        let mut renewed = Instant::now();
        while ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
            match self.client.renew(&self.id) {
                Ok(view) if view.state == State::Ended => return self.note(ended_because(view)),
                Ok(_) => renewed = Instant::now(),
                Err(error) if error.is_gone() => {
                    let last = self.client.show(&self.id);
                    return self
                        .note(last.map_or_else(|_| Condition::Ended(error.to_string()), ended_because));
                }
                // Whoever made the fault is gone, and it with him.
                Err(error @ Error::Absent { .. }) => return self.note(Condition::Lost(error.to_string())),
                Err(error) if renewed.elapsed() > self.lease => {
                    return self.note(Condition::Lost(error.to_string()));
                }
                Err(_) => {}
            }
        }
    }

    fn note(&self, condition: Condition) {
        *self.condition.lock().unwrap_or_else(PoisonError::into_inner) = condition;
    }
}

fn ended_because(view: FaultView) -> Condition {
    Condition::Ended(view.why.unwrap_or_else(|| "the agent does not say why".to_owned()))
}
