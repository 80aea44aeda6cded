//! `chaos agent`: holds the faults of whoever asks for them over its socket.
//!
//! `keeper` is the one thread that touches the engine, `change` how the set of them changes, `book` what it knows about faults, `events` what
//! happened to them, `socket` where it listens, `credentials` what TCP
//! needs, `reload` SIGHUP; `api` speaks HTTP.

mod alarm;
mod book;
mod change;
mod credentials;
mod events;
mod keeper;
mod manager;
mod observe;
mod only;
mod reload;
mod socket;
mod tell;
mod upkeep;
pub(crate) mod why;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};

pub(crate) use self::{
    book::{Fault, NewFault, State},
    credentials::Credentials,
    events::{Event, Hub, Kind, Subscription},
    keeper::{Handle, KeeperError, now},
};
use crate::{
    api::{self, App, Listener},
    cli::Failure,
    config::{ConfigError, Live},
    engine::EngineOptions,
    rights,
    safety::{self, Limits},
};

/// How long open connections may take to end when the agent does.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Where it listens.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Listening {
    /// The Unix socket.
    pub(crate) socket: PathBuf,
    /// TCP, with the port that was chosen for port 0.
    pub(crate) listen: Option<SocketAddr>,
}

/// Listens until SIGTERM or SIGINT, then ends every fault.
///
/// # Errors
/// Another agent listens there; the socket cannot be made; faults could not be taken down.
pub(crate) fn run(live: &Live, engine: EngineOptions, ready: impl FnOnce(&Listening)) -> Result<()> {
    match crate::cgroup::join_machines() {
        Ok(true) => tracing::info!("this is a container: its rules are about the machine's cgroups"),
        Ok(false) => {}
        // Outside of containers nothing is missing; inside, targets that are cgroups will say what they lack.
        Err(error) => tracing::debug!("the machine's cgroup namespace cannot be joined: {error}"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .context("starting the runtime")?;
    let served = runtime.block_on(serve(live, engine, ready));
    // A resolver that does not answer somebody's question is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(live: &Live, engine: EngineOptions, ready: impl FnOnce(&Listening)) -> Result<()> {
    // Before anything can be armed: from here on a signal ends the faults instead of us.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?;
    let hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be awaited")?;
    let config = live.now();
    Limits::from(config.as_ref()).apply();
    let refused = |error: ConfigError| Failure::refused(error.to_string());
    let credentials = Credentials::new(credentials::read(&config).map_err(refused)?);
    let tcp = match config.listen {
        Some(address) => {
            Some(TcpListener::bind(address).await.with_context(|| format!("listening at {address}"))?)
        }
        None => None,
    };
    // Before the socket, which only one may make: of two that start at once the other would remove it.
    let only = only::take(&config.state_dir)?;
    let (socket, listener) = socket::listen(&config.socket, &config.socket_group)?;
    // What a service manager, a port or a group asked for is made. There is no other thread yet: a set is a thread's.
    rights::keep_only_what_is_needed().context("letting go of capabilities")?;
    let begun = safety::begin(&config.state_dir, config.audit_log.as_deref());
    for note in &begun.1.notes {
        tracing::warn!("{note}");
    }
    let hub = Hub::new();
    let (handle, thread, mut gone) =
        keeper::start(engine, live.clone(), hub.clone(), begun).context("starting the keeper's thread")?;
    let reloads =
        tokio::spawn(reload::at(hangup, live.clone(), handle.clone(), credentials.clone(), hub.clone()));
    let listen = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
    ready(&Listening { socket: socket.path().to_owned(), listen });
    manager::ready(&format!("listening at {}", socket.path().display()));
    let watchdog = tokio::spawn(manager::watchdog(handle.clone()));
    let ended = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let app = App { keeper: handle.clone(), hub: hub.clone(), config: live.clone() };
    let listeners = std::iter::once(Listener::Unix(listener)).chain(tcp.map(Listener::Tcp)).collect();
    let (leave, left) = watch::channel(false);
    let mut serving = tokio::spawn(api::serve(listeners, app, credentials, left));
    tokio::select! {
        _ = &mut serving => {}
        () = ended => {}
        // Nobody would keep the faults, or make new ones; whoever manages us starts us again.
        _ = &mut gone => tracing::error!("the thread that keeps the faults has failed; they are over"),
    }
    reloads.abort();
    manager::stopping();
    // Nobody new is let in while the faults end.
    drop(socket);
    let _ = leave.send(true);
    let stopped = handle.end().await;
    drop(handle);
    // Whoever listens hears of the ends, and then the end; who does not read is not waited for.
    hub.close();
    if !serving.is_finished() {
        let _ = timeout(LAST_WORDS, serving).await;
    }
    watchdog.abort();
    // It has nothing more to do; and what others run may keep every thread for such work.
    let joined = thread.join();
    drop(only);
    stopped.context("the faults ended, but taking them down failed")?;
    anyhow::ensure!(joined.is_ok(), "the keeper's thread failed");
    Ok(())
}
