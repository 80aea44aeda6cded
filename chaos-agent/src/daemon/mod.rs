//! `chaos agent`: holds the faults of whoever asks for them over its socket.
//!
//! `keeper` is the one thread that touches the engine, `book` what it knows about faults, `events` what
//! happened to them, `socket` where it listens, `reload` SIGHUP; `api` speaks HTTP.

mod book;
mod events;
mod keeper;
mod observe;
mod reload;
mod socket;
pub(crate) mod why;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

pub(crate) use self::{
    book::{Fault, NewFault, State},
    events::{Event, Hub, Kind, Subscription},
    keeper::{Handle, KeeperError, now},
};
use crate::{
    api::{self, App},
    config::Live,
    engine::EngineOptions,
    safety::Limits,
};

/// How long open connections may take to end when the agent does.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Listens until SIGTERM or SIGINT, then ends every fault.
///
/// # Errors
/// Another agent listens there; the socket cannot be made; faults could not be taken down.
pub(crate) fn run(live: &Live, engine: EngineOptions, ready: impl FnOnce(&Path)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(live, engine, ready))
}

async fn serve(live: &Live, engine: EngineOptions, ready: impl FnOnce(&Path)) -> Result<()> {
    // Before anything can be armed: from here on a signal ends the faults instead of us.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?;
    let hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be awaited")?;
    let config = live.now();
    Limits::from(config.as_ref()).apply();
    let (socket, listener) = socket::listen(&config.socket, &config.socket_group)?;
    let hub = Hub::new();
    let (handle, thread) =
        keeper::start(engine, live.clone(), hub.clone()).context("starting the keeper's thread")?;
    let reloads = tokio::spawn(reload::at(hangup, live.clone(), hub.clone()));
    ready(socket.path());
    let ended = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let app = App { keeper: handle.clone(), hub: hub.clone(), config: live.clone() };
    let (leave, left) = oneshot::channel::<()>();
    let serving = axum::serve(listener, api::router(app)).with_graceful_shutdown(async {
        let _ = left.await;
    });
    let mut serving = tokio::spawn(serving.into_future());
    let served = tokio::select! {
        served = &mut serving => served.context("listening failed")?,
        () = ended => Ok(()),
    };
    reloads.abort();
    // Nobody new is let in while the faults end.
    drop(socket);
    let _ = leave.send(());
    let stopped = handle.end().await;
    drop(handle);
    // Whoever listens hears of the ends, and then the end; who does not read is not waited for.
    hub.close();
    if !serving.is_finished() {
        let _ = timeout(LAST_WORDS, serving).await;
    }
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    served.context("listening failed")?;
    stopped.context("the faults ended, but taking them down failed")?;
    anyhow::ensure!(matches!(joined, Ok(Ok(()))), "the keeper's thread failed");
    Ok(())
}
