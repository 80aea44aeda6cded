//! The one thread that touches the engine. Others send it what to do and wait for the answer.

use std::{
    collections::BTreeMap,
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    book::{Book, Fault, State},
    events::{Data, Hub, Kind},
    tell::Telling,
    upkeep::Upkeep,
    why,
};
use crate::{
    config::Live,
    engine::{Engine, EngineError, EngineOptions, Prepared, RuleStats},
    safety::{Caller, Deed, Records, Recovered, Watch},
    telemetry::Ledger,
};

/// The engine wants to be heard so often, where upkeep leaves the time.
const TICK: Duration = Duration::from_millis(50);
/// The engine stays loaded so long after the last fault, so that the next one is quick.
const LINGER: Duration = Duration::from_secs(10);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    /// No such fault.
    #[error("there is no fault `{0}`")]
    Unknown(String),
    /// It is over.
    #[error("the fault `{0}` has ended")]
    Over(String),
    /// Another fault has the name.
    #[error("there is a fault `{0}` already")]
    Taken(String),
    /// It was changed by somebody else in the meantime.
    #[error("the fault was changed by somebody else at the same time")]
    Changed,
    /// The safety lever is engaged.
    #[error("faults are stopped: {0}")]
    Stopped(String),
    /// A condition that runs a command was not root's.
    #[error(
        "a command of an abort condition runs as root, so only root may ask for one, over the Unix socket or on the command line"
    )]
    NotRoot,
    /// No condition may run a command.
    #[error(
        "this agent runs no commands for abort conditions (setting abort.commands): use http=, tcp= or a counter"
    )]
    NoCommands,
    /// What would abort a fault cannot be watched.
    #[error("what would abort the fault cannot be watched: {0:#}")]
    Unwatchable(anyhow::Error),
    /// So many are held already.
    #[error("{0} faults are held or asked for, and {1} at once are allowed: remove one first")]
    TooMany(usize, usize),
    /// The engine said no.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The agent is about to end.
    #[error("the agent is ending")]
    Ending,
}

type Order = Box<dyn FnOnce(&mut Keeper) + Send>;

/// How to reach the keeper.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Sender<Order>);

/// What the thread knows.
pub(crate) struct Keeper {
    pub(super) options: EngineOptions,
    /// What was configured; ask it each time, for it changes.
    pub(super) config: Live,
    pub(super) engine: Option<Engine>,
    /// What takes long, done ahead in the background while there is no engine.
    prepared: Option<JoinHandle<Result<Prepared, EngineError>>>,
    pub(super) book: Book,
    pub(super) hub: Hub,
    pub(super) ledger: Ledger,
    pub(super) alarms_at: Instant,
    pub(super) alarms: Upkeep,
    upkeep: Upkeep,
    pub(super) telling: Telling,
    pub(super) records: Records,
    /// What ends faults at once, by the fault.
    pub(super) watches: BTreeMap<u64, Vec<Watch>>,
    /// The safety lever, and why.
    pub(super) stopped: Option<String>,
    pub(super) idle_since: Instant,
    is_ending: bool,
}

/// The time that faults end by: suspend counts, as in the kernel.
pub(crate) fn now() -> Duration {
    // It fails for a clock the kernel does not have, which this is not.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Starts the thread; what is returned last is closed when it ends, however it does.
pub(super) fn start(
    options: EngineOptions,
    config: Live,
    hub: Hub,
    (records, former): (Records, Recovered),
) -> io::Result<(Handle, JoinHandle<()>, oneshot::Receiver<()>)> {
    for fault in &former.ended {
        hub.publish(Kind::Ended, Some(fault.id), &former.why, Value::Null);
    }
    let (sender, inbox) = mpsc::channel();
    let (lives, gone) = oneshot::channel();
    let thread = thread::Builder::new().name("chaos-keeper".to_owned()).spawn(move || {
        let _lives: oneshot::Sender<()> = lives;
        Keeper {
            book: Book::after(&former, options.sizes.rules()),
            options: EngineOptions { linger: LINGER, protection: config.now().as_ref().into(), ..options },
            config,
            engine: None,
            prepared: None,
            hub,
            ledger: Ledger::default(),
            alarms_at: Instant::now(),
            alarms: Upkeep::default(),
            upkeep: Upkeep::default(),
            telling: Telling::default(),
            records,
            watches: BTreeMap::new(),
            stopped: None,
            idle_since: Instant::now(),
            is_ending: false,
        }
        .run(&inbox);
    })?;
    Ok((Handle(sender), thread, gone))
}

impl Handle {
    /// Lets the keeper do something.
    ///
    /// # Errors
    /// [`KeeperError::Ending`], or what it said itself.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Keeper) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, KeeperError> {
        let (sender, answer) = oneshot::channel();
        let caller = Caller::current();
        let order: Order = Box::new(move |keeper| {
            keeper.records.caller = caller;
            // Whoever asked may have gone.
            let _ = sender.send(what(keeper));
            keeper.records.caller = Caller::Agent;
        });
        self.0.send(order).map_err(|_| KeeperError::Ending)?;
        answer.await.map_err(|_| KeeperError::Ending)?
    }

    /// Ends every fault and the thread.
    pub(super) async fn end(&self) -> Result<(), KeeperError> {
        self.ask(|keeper| {
            keeper.is_ending = true;
            let cleared = keeper.clear(why::AGENT_ENDED);
            keeper.records.close();
            cleared
        })
        .await
    }
}

impl Keeper {
    fn run(mut self, inbox: &Receiver<Order>) {
        while !self.is_ending {
            self.prepare();
            // Without a fault nothing wakes us but an order.
            let order = match &self.engine {
                Some(_) => inbox.recv_timeout(self.upkeep.pause(TICK)),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(order) => order(&mut self),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let began = Instant::now();
            self.look_after();
            self.upkeep.took(began.elapsed());
            self.tell();
        }
        // What it prepares has a file in /run/chaos, which only its end removes.
        drop(self.prepared.take().map(JoinHandle::join));
    }

    /// Without an engine the next one is prepared, so that a fault need not wait for the verifier.
    fn prepare(&mut self) {
        if self.engine.is_none() && self.prepared.is_none() {
            let options = self.options.clone();
            let thread = thread::Builder::new().name("chaos-prepare".to_owned());
            self.prepared = thread.spawn(move || Prepared::new(&options)).ok();
        }
    }

    pub(super) fn start_engine(&mut self) -> Result<Engine, EngineError> {
        let prepared = self.prepared.take().and_then(|thread| thread.join().ok());
        // What went wrong then is told if it goes wrong now.
        let prepared = prepared.and_then(|result| {
            result.inspect_err(|error| tracing::warn!("nothing could be prepared: {error}")).ok()
        });
        Engine::start_with(prepared, &[], &self.options)
    }

    fn look_after(&mut self) {
        for trouble in self.records.troubles() {
            tracing::error!("{trouble}");
            self.ledger.error(&trouble);
            self.hub.publish(Kind::Error, None, trouble, Value::Null);
        }
        let Some(engine) = &mut self.engine else { return };
        match engine.tick() {
            Ok(events) => {
                for event in events {
                    tracing::info!("{event}");
                    self.hub.publish(Kind::Target, None, &event.message, json!({"what": event.kind}));
                }
            }
            Err(EngineError::Stopped) => {
                self.forget(why::STOP_ALL);
                return;
            }
            Err(error) => {
                tracing::error!("the faults cannot be kept up: {error}");
                self.ledger.error(&error.to_string());
                self.hub.publish(Kind::Error, None, error.to_string(), Value::Null);
            }
        }
        self.end_breached();
        let now = now();
        let is_over =
            |fault: &&Fault| fault.ends_at <= now || fault.lease_until.is_some_and(|until| until <= now);
        let over: Vec<(u64, &str)> = self
            .book
            .active()
            .filter(is_over)
            .map(|fault| (fault.id, if fault.ends_at <= now { why::TIME_OVER } else { why::LEASE }))
            .collect();
        for (id, why) in over {
            if let Err(error) = self.remove(id, why) {
                tracing::error!("ending fault {id}: {error}");
                self.ledger.error(&error.to_string());
            }
        }
        self.look_for_unmatched();
        if self.book.active().next().is_some() {
            self.idle_since = Instant::now();
        } else if self.idle_since.elapsed() >= LINGER {
            self.let_go();
        }
    }

    /// Takes the engine; what its delay line counted stays known.
    pub(super) fn let_go(&mut self) -> Option<Engine> {
        self.book_lost();
        let engine = self.engine.take();
        self.ledger.line_gone(engine.as_ref().and_then(Engine::line_stats));
        engine
    }

    /// Ends one.
    pub(crate) fn remove(&mut self, id: u64, why: &str) -> Result<(), KeeperError> {
        self.remove_all(&[id], why)
    }

    fn remove_all(&mut self, ids: &[u64], why: &str) -> Result<(), KeeperError> {
        let rules = self.book.rules(ids, &[]);
        let removed = self.engine.as_mut().map_or(Ok(()), |engine| engine.place(&rules));
        if let (Some(engine), Err(_)) = (&mut self.engine, &removed) {
            // They are over all the same; the next change takes them away.
            let faults = ids.iter().filter_map(|id| self.book.held(*id));
            let slots: Vec<u32> = faults.flat_map(Fault::slots).copied().collect();
            engine.end_in_place(&slots);
        }
        let stats = self.stats_of_faults(ids);
        self.note_ends(ids, why, &stats);
        Ok(removed?)
    }

    /// Ends all as a change, so that the next fault is quick; how many there were.
    pub(crate) fn delete_all(&mut self, why: &str) -> Result<usize, KeeperError> {
        let ids: Vec<u64> = self.book.active().map(|fault| fault.id).collect();
        if self.remove_all(&ids, why).is_err() {
            self.clear(why)?;
        }
        Ok(ids.len())
    }

    /// Ends all, and the engine.
    pub(crate) fn clear(&mut self, why: &str) -> Result<(), KeeperError> {
        let ids: Vec<u64> = self.book.active().map(|fault| fault.id).collect();
        let mut slots: Vec<u32> = self.book.slots().collect();
        slots.sort_unstable();
        let stopped = self.let_go().map_or(Ok(Vec::new()), Engine::stop);
        // One for each rule, in the order of their slots.
        let last = stopped.as_deref().unwrap_or_default().iter().cloned();
        let stats = slots.into_iter().zip(last).collect();
        self.note_ends(&ids, why, &stats);
        Ok(stopped.map(drop)?)
    }

    /// Pulls the safety lever: every fault ends, and new ones are refused.
    pub(crate) fn stop(&mut self, why: String) -> Result<(), KeeperError> {
        let cleared = self.clear(&format!("{}{why}", why::STOPPED));
        self.hub.publish(Kind::Stopped, None, &why, Value::Null);
        self.records.deed(Deed::Stopped, Some(&why));
        self.stopped = Some(why);
        cleared
    }

    /// Lets the safety lever go.
    pub(crate) fn resume(&mut self) {
        if self.stopped.take().is_some() {
            self.records.deed(Deed::Resumed, None);
            self.hub.publish(Kind::Resumed, None, "new faults are accepted again", Value::Null);
        }
    }

    /// Why faults are stopped, if they are.
    pub(crate) fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// The fault with this number or name, and its counters.
    pub(crate) fn show(&self, word: &str) -> Result<(Fault, RuleStats), KeeperError> {
        let fault = self.book.find(word).ok_or_else(|| KeeperError::Unknown(word.to_owned()))?;
        let slots = if fault.state == State::Active { fault.slots() } else { &[] };
        Ok((fault.clone(), fault.stats(&self.stats_of(slots.iter().copied()))))
    }

    /// Records that could not be written: of the audit log, of the journal.
    pub(crate) const fn unwritten(&self) -> (u64, u64) {
        self.records.failures()
    }

    /// How many faults are held.
    pub(crate) fn active(&self) -> usize {
        self.book.active().count()
    }

    /// Every fault that is known, with its counters.
    pub(crate) fn list(&self) -> Vec<(Fault, RuleStats)> {
        let stats = self.by_slot();
        self.book.all().map(|fault| (fault.clone(), fault.stats(&stats))).collect()
    }

    /// Its lease begins anew.
    pub(crate) fn renew(&mut self, word: &str) -> Result<(), KeeperError> {
        let (fault, _) = self.show(word)?;
        let over = || KeeperError::Over(word.to_owned());
        let fault = self.book.active_mut(fault.id).ok_or_else(over)?;
        fault.lease_until = fault.new.lease.map(|lease| now().saturating_add(lease));
        Ok(())
    }

    /// The engine has gone by itself.
    fn forget(&mut self, why: &str) {
        let ids: Vec<u64> = self.book.active().map(|fault| fault.id).collect();
        let stats = self.by_slot();
        self.let_go();
        self.note_ends(&ids, why, &stats);
    }

    /// These are over. They are written down at once for all, because there may be thousands.
    pub(super) fn note_ends(&mut self, ids: &[u64], why: &str, by_slot: &BTreeMap<u32, RuleStats>) {
        let ending = || ids.iter().filter_map(|id| self.book.held(*id));
        self.records.ended(ending().map(Fault::written), why);
        let lasts: Vec<(u64, RuleStats)> = ending().map(|fault| (fault.id, fault.stats(by_slot))).collect();
        for (id, last) in lasts {
            self.watches.remove(&id);
            tracing::info!("fault {id} ended: {why}");
            let data = Data::Last(Box::new([last.egress, last.ingress]));
            self.hub.publish(Kind::Ended, Some(id), why, data);
            self.ledger.ended(id, why::label(why), &last);
            self.book.end(id, why, last);
        }
    }
}
