//! The service manager (systemd, or another that speaks `sd_notify(3)`): told when we are ready, read our settings
//! again, and end; and its watchdog, which hears from us only while the keeper does its work.

use std::time::Duration;

use sd_notify::NotifyState;

use super::Handle;

/// We listen.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The settings are read again; `ready` follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("the clock for the service manager: {error}"),
    }
}

/// The faults are taken down.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("taking the faults down")]);
}

/// Does nothing where nobody listens (`NOTIFY_SOCKET` is not set).
fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

/// Pings the watchdog three times in its interval, as long as the keeper answers. Ends at once when there is none, so
/// that nothing wakes us.
pub(super) async fn watchdog(keeper: Handle) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    let beat = (interval / 3).max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval(beat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match tokio::time::timeout(interval, keeper.ask(|_| Ok(()))).await {
            Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
            // It is ending, and takes the time that it takes.
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::error!("the keeper has not answered for {}", humantime::format_duration(interval));
            }
        }
    }
}
