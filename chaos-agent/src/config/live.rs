//! The configuration of a running agent, which SIGHUP changes.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Config, ConfigError, SETTINGS, Sources, When};

/// What is in effect now. Clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    sources: Arc<Sources>,
    sender: watch::Sender<Arc<Config>>,
}

/// What reading it again brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// Settings that are different from now on.
    pub(crate) changed: Vec<&'static str>,
    /// Settings that are different in the file, and take effect when the agent is started again.
    pub(crate) waiting: Vec<&'static str>,
}

impl Live {
    pub(crate) fn new(config: Config, sources: Sources) -> Self {
        Self { sources: Arc::new(sources), sender: watch::Sender::new(Arc::new(config)) }
    }

    /// What is in effect. Ask again rather than keep it.
    pub(crate) fn now(&self) -> Arc<Config> {
        Arc::clone(&self.sender.borrow())
    }

    /// Tells of each change.
    #[cfg_attr(not(test), expect(dead_code, reason = "for who must act on a change"))]
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Config>> {
        self.sender.subscribe()
    }

    /// Reads everything again; `check` has the last word.
    ///
    /// # Errors
    /// What is wrong; nothing changed then.
    pub(crate) fn reload(
        &self,
        check: impl FnOnce(&Config) -> Result<(), ConfigError>,
    ) -> Result<Reloaded, ConfigError> {
        let loaded = self.sources.load()?;
        let mut next = Config::clone(&self.now());
        let mut reloaded = Reloaded::default();
        for setting in SETTINGS {
            match setting.when {
                When::Reload if (setting.take)(&mut next, &loaded.config) => {
                    reloaded.changed.push(setting.name);
                }
                When::Start if (setting.take)(&mut next.clone(), &loaded.config) => {
                    reloaded.waiting.push(setting.name);
                }
                When::Reload | When::Start => {}
            }
        }
        check(&next)?;
        self.sender.send_replace(Arc::new(next));
        Ok(reloaded)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_can_change_changes_and_a_wrong_file_changes_nothing() {
        let file = std::env::temp_dir().join(format!("chaos-live-{}", std::process::id()));
        fs::write(&file, "max_faults = 5\n").unwrap();
        let sources = Sources { file: Some(file.clone()), flags: Vec::new(), variables: |_| None };
        let live = Live::new(sources.load().unwrap().config, sources);
        let mut watch = live.watch();
        assert_eq!(live.now().max_faults, 5);
        fs::write(&file, "max_faults = 6\nsocket = \"/run/other\"\n").unwrap();
        let reloaded = live.reload(|_| Ok(())).unwrap();
        assert_eq!(reloaded, Reloaded { changed: vec!["max_faults"], waiting: vec!["socket"] });
        assert_eq!((live.now().max_faults, &live.now().socket), (6, &Config::default().socket));
        assert!(watch.has_changed().unwrap() && watch.borrow_and_update().max_faults == 6);
        fs::write(&file, "max_faults = 7\nnonsense = 1\n").unwrap();
        assert!(live.reload(|_| Ok(())).is_err());
        fs::write(&file, "max_faults = 7\n").unwrap();
        assert!(live.reload(|_| Err(ConfigError::Together("no".to_owned()))).is_err());
        assert_eq!(live.now().max_faults, 6);
        fs::remove_file(&file).unwrap();
    }
}
