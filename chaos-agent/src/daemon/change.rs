//! How the set of faults changes: all or nothing, written down before it is made.

use std::time::Instant;

use serde_json::Value;

use super::{
    book::{Fault, NewFault},
    events::Kind,
    keeper::{Keeper, KeeperError, now},
    why,
};
use crate::{
    cli::RuleSet,
    config::AbortCommands,
    engine::{Engine, EngineError, EngineOptions, Protection},
    safety::{Abort, Deed, Watch, limits},
    spec::RuleSpec,
};

impl Keeper {
    /// Holds these, instead of the faults with the same names, and of all others if `all`. All or nothing.
    pub(crate) fn set(&mut self, news: Vec<NewFault>, all: bool) -> Result<Vec<u64>, KeeperError> {
        if let Some(why) = &self.stopped {
            return Err(KeeperError::Stopped(why.clone()));
        }
        let replaced: Vec<u64> = self
            .book
            .active()
            .filter(|old| all || news.iter().any(|new| new.name.is_some() && new.name == old.new.name))
            .map(|old| old.id)
            .collect();
        let mut slots = self.room(&news, replaced.len())?.into_iter();
        let drafts: Vec<Fault> =
            news.into_iter().map(|new| self.book.draft(new, now(), slots.by_ref())).collect();
        let rules = self.book.rules(&replaced, &drafts);
        let ids: Vec<u64> = drafts.iter().map(|fault| fault.id).collect();
        let watches = drafts.iter().map(|fault| Ok((fault.id, self.watch(&fault.new.set)?)));
        let watches = watches.collect::<Result<Vec<_>, KeeperError>>()?;
        self.records.intend(drafts.iter().map(Fault::written));
        match self.place(&rules) {
            Ok(things) => self.records.made(ids.clone(), things),
            Err(error) => {
                self.records.forsake(ids, &error.to_string());
                return Err(error.into());
            }
        }
        self.watches.extend(watches);
        // After the change: what was counted until then is in the slots as long as nobody else uses them.
        let stats = self.stats_of_faults(&replaced);
        self.note_ends(&replaced, why::REPLACED, &stats);
        self.records.started(Deed::Started, drafts.iter().map(Fault::written));
        for fault in drafts {
            self.ledger.started(fault.id);
            self.hub.name(fault.id, fault.new.name.as_deref());
            self.hub.publish(Kind::Started, Some(fault.id), &fault.new.set.name, Value::Null);
            self.book.add(fault);
        }
        self.name_packets();
        Ok(ids)
    }

    /// Holds a fault in another way, under the same number. `was` is the body that the change was made from; with
    /// `is_anew` its time begins anew. On an error nothing has changed.
    pub(crate) fn amend(
        &mut self,
        id: u64,
        was: Option<&Value>,
        new: NewFault,
        is_anew: bool,
    ) -> Result<(), KeeperError> {
        self.may_begin(new.name.as_deref(), Some(id))?;
        let old = self.book.active_mut(id).ok_or_else(|| KeeperError::Over(id.to_string()))?;
        if was.is_some_and(|was| *was != old.new.body) {
            return Err(KeeperError::Changed);
        }
        let fault = self.book.amend(id, new, now(), is_anew).ok_or_else(|| self.full())?;
        let watches = self.watch(&fault.new.set)?;
        let rules = self.book.rules(&[id], std::slice::from_ref(&fault));
        self.records.intend(std::iter::once(fault.written()));
        match self.place(&rules) {
            Ok(things) => self.records.made(vec![id], things),
            Err(error) => {
                // It stays as it was.
                let was = self.book.active().find(|fault| fault.id == id);
                self.records.intend(was.into_iter().map(Fault::written));
                return Err(error.into());
            }
        }
        self.records.started(Deed::Changed, std::iter::once(fault.written()));
        self.watches.insert(id, watches);
        // After the change, as above.
        let stats = self.stats_of_faults(&[id]);
        self.hub.name(id, fault.new.name.as_deref());
        self.hub.publish(Kind::Changed, Some(id), &fault.new.set.name, Value::Null);
        self.book.change(fault, &stats);
        self.name_packets();
        Ok(())
    }

    /// Refuses what [`Self::set`] would refuse of a new fault, beside the others, before anything is touched.
    pub(crate) fn may_hold(&self, new: &NewFault) -> Result<(), KeeperError> {
        self.may_begin(new.name.as_deref(), None)?;
        self.may_watch(&new.set)?;
        self.room(std::slice::from_ref(new), 0).map(drop)
    }

    /// Free places for the rules of these, when so many others go.
    fn room(&self, news: &[NewFault], going: usize) -> Result<Vec<u32>, KeeperError> {
        let (count, most) = (self.active() - going + news.len(), limits().max_faults);
        if count > most {
            return Err(KeeperError::TooMany(count, most));
        }
        let places = news.iter().map(|new| new.set.rules.len()).sum();
        Ok(self.book.free(places).ok_or_else(|| self.full())?)
    }

    /// Refuses a fault while the lever is pulled, or with the name of another one than `own`.
    pub(crate) fn may_begin(&self, name: Option<&str>, own: Option<u64>) -> Result<(), KeeperError> {
        if let Some(why) = &self.stopped {
            return Err(KeeperError::Stopped(why.clone()));
        }
        let is_other =
            |fault: &&Fault| name.is_some() && fault.new.name.as_deref() == name && Some(fault.id) != own;
        match self.book.active().find(is_other) {
            Some(_) => Err(KeeperError::Taken(name.unwrap_or_default().to_owned())),
            None => Ok(()),
        }
    }

    /// No place is left for a rule.
    fn full(&self) -> EngineError {
        let most = self.options.sizes.rules();
        EngineError::Refused(format!(
            "there are {most} places for rules, and those that are held and the new ones, together, need more: remove a fault first, or start the agent with a larger max_rules"
        ))
    }

    /// How the engine goes about its work.
    pub(crate) fn engine_options(&self) -> EngineOptions {
        self.options.clone()
    }

    /// These settings have changed.
    ///
    /// # Errors
    /// What is protected could not be; faults go on as they were.
    pub(super) fn configure(&mut self, changed: &[&str]) -> Result<(), KeeperError> {
        if changed.iter().any(|name| name.starts_with("events.")) {
            // Whoever listens still does, and is told anew.
            self.engine.as_mut().into_iter().for_each(Engine::hush);
        }
        let protection = Protection::from(self.config.now().as_ref());
        self.options.protection.clone_from(&protection);
        Ok(self.engine.as_mut().map_or(Ok(()), |engine| engine.protect_also(protection))?)
    }

    fn may_watch(&self, set: &RuleSet) -> Result<(), KeeperError> {
        if set.aborts.iter().any(Abort::is_command) {
            match self.config.now().abort_commands {
                AbortCommands::Nobody => return Err(KeeperError::NoCommands),
                AbortCommands::Root if !self.records.caller.is_root() => return Err(KeeperError::NotRoot),
                AbortCommands::Root => {}
            }
        }
        Ok(())
    }

    /// Begins to watch what would abort a fault.
    fn watch(&self, set: &RuleSet) -> Result<Vec<Watch>, KeeperError> {
        self.may_watch(set)?;
        let watches = set.aborts.iter().map(|abort| Watch::start(abort, &set.rules));
        watches.collect::<Result<_, _>>().map_err(KeeperError::Unwatchable)
    }

    /// Ends the faults that did what they must not.
    pub(super) fn end_breached(&mut self) {
        let why = |watches: &Vec<Watch>| watches.iter().find_map(Watch::tripped);
        let breached: Vec<(u64, String)> =
            self.watches.iter().filter_map(|(id, watches)| Some((*id, why(watches)?))).collect();
        for (id, why) in breached {
            let why = format!("{}{why}", why::ABORTED);
            if let Err(error) = self.remove(id, &why) {
                tracing::error!("ending fault {id}: {error}");
                self.ledger.error(&error.to_string());
            }
        }
    }

    /// The engine holds these now, and has this in the kernel.
    fn place(&mut self, rules: &[(u32, RuleSpec)]) -> Result<Vec<String>, EngineError> {
        let mut engine = if let Some(engine) = self.engine.take() {
            engine
        } else {
            self.idle_since = Instant::now();
            self.start_engine()?
        };
        let placed = engine.place(rules);
        let things = engine.things();
        // One that was started in vain lingers, too.
        self.engine = Some(engine);
        placed.map(|()| things)
    }
}
