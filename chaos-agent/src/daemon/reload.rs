//! SIGHUP: the configuration is read again.

use serde_json::json;
use tokio::signal::unix::Signal;

use super::{
    credentials::{self, Credentials},
    events::{Hub, Kind},
    keeper::Handle,
    manager,
};
use crate::{
    cli::log,
    config::{Live, Reloaded},
    safety::Limits,
};

/// Reads it again at every signal. A wrong one changes nothing.
pub(super) async fn at(mut hangup: Signal, live: Live, keeper: Handle, held: Credentials, hub: Hub) {
    while hangup.recv().await.is_some() {
        manager::reloading();
        let mut fresh = None;
        // Files are read again even where their names are the same: keys and certificates are renewed in place.
        match live.reload(|config| {
            fresh = Some(credentials::read(config)?);
            Ok(())
        }) {
            Ok(reloaded) => {
                Limits::from(live.now().as_ref()).apply();
                if let Some(fresh) = fresh {
                    held.replace(fresh);
                }
                log::set_level(live.now().log_level);
                let what = told(&reloaded);
                tracing::info!("{what}");
                let data = json!({"changed": reloaded.changed, "waiting": reloaded.waiting});
                hub.publish(Kind::Configured, None, what, data);
                if let Err(error) = keeper.ask(move |keeper| keeper.configure(&reloaded.changed)).await {
                    let what = format!("what is to be protected from now on is not: {error}");
                    tracing::error!("{what}");
                    hub.publish(Kind::Error, None, what, serde_json::Value::Null);
                }
            }
            Err(error) => {
                let what = format!("the configuration stays as it was: {error}");
                tracing::error!("{what}");
                hub.publish(Kind::Error, None, what, serde_json::Value::Null);
            }
        }
        manager::ready("the settings were read again");
    }
}

fn told(reloaded: &Reloaded) -> String {
    let changed = match reloaded.changed.as_slice() {
        [] => "nothing changed".to_owned(),
        changed => format!("{} changed", changed.join(", ")),
    };
    match reloaded.waiting.as_slice() {
        [] => format!("the configuration was read again: {changed}"),
        waiting => format!(
            "the configuration was read again: {changed}; {} cannot change while the agent runs: start it again",
            waiting.join(", ")
        ),
    }
}
