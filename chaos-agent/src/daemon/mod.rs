//! `chaos agent`: holds the faults of whoever asks for them over its socket.
//!
//! `keeper` is the one thread that touches the engine, `book` what it knows about faults, `events` what
//! happened to them, `socket` where it listens; `api` speaks HTTP.

mod book;
mod events;
mod keeper;
mod socket;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use self::{
    book::{Fault, NewFault, State},
    events::Hub,
    keeper::{Handle, KeeperError, now},
};
use crate::{
    api::{self, App},
    engine::EngineOptions,
};

/// How the agent works.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// The group that may ask, besides root.
    pub(crate) group: String,
    /// How the engine goes about its work.
    pub(crate) engine: EngineOptions,
}

/// Listens until SIGTERM or SIGINT, then ends every fault.
///
/// # Errors
/// Another agent listens there; the socket cannot be made; faults could not be taken down.
pub(crate) fn run(config: &Config, ready: impl FnOnce(&Path)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(config, ready))
}

async fn serve(config: &Config, ready: impl FnOnce(&Path)) -> Result<()> {
    // Before anything can be armed: from here on a signal ends the faults instead of us.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?;
    let (socket, listener) = socket::listen(&config.socket, &config.group)?;
    let hub = Hub::new();
    let (handle, thread) =
        keeper::start(config.engine.clone(), hub.clone()).context("starting the keeper's thread")?;
    ready(socket.path());
    let ended = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let app = App { keeper: handle.clone(), hub };
    let served = tokio::select! {
        served = async { axum::serve(listener, api::router(app)).await } => served,
        () = ended => Ok(()),
    };
    // Nobody new is let in while the faults end.
    drop(socket);
    let stopped = handle.end().await;
    drop(handle);
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    served.context("listening failed")?;
    stopped.context("the faults ended, but taking them down failed")?;
    anyhow::ensure!(matches!(joined, Ok(Ok(()))), "the keeper's thread failed");
    Ok(())
}
