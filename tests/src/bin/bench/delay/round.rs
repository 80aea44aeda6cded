//! What is measured in one round, of one delay made by one of them.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use chaos_tests::{
    bench::Options,
    lab::shapes::{B4, Pair},
    measure::{
        datagrams::{self, Stream},
        distribution::Samples,
        helper::End,
        pour::{Load, Pour},
    },
};

use super::{by::By, line::How};

const PORT: u16 = 5400;
/// Seldom enough that an emulated machine is not busy with them.
const INTERVAL: Duration = Duration::from_millis(4);
/// Arrivals count for so much longer than the delay.
const GRACE: Duration = Duration::from_millis(200);
/// How long a transfer may take to end, beyond its time.
const END: Duration = Duration::from_mins(1);
const SEVERAL: u16 = 4;

/// What it says; see [`super::Row`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) mean_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) lost: f64,
    pub(super) reordered: f64,
    pub(super) mbit_s: f64,
    pub(super) several_mbit_s: f64,
    pub(super) direct_mbit_s: f64,
}

/// Datagrams from end A to end B.
struct Datagrams {
    took_us: Samples,
    lost: u64,
    reordered: u64,
}

/// Measures it, and the direct way just before.
pub(super) fn measure(pair: &Pair, options: &Options, ms: u32, by: By) -> Result<Round> {
    let second = Duration::from_secs(1);
    let direct = datagrams(pair, options, 0)?;
    anyhow::ensure!(direct.lost == 0, "{} datagrams were lost without a delay", direct.lost);
    let direct_mbit_s = megabits(pair, 1, second)?;
    let armed = by.arm(pair, ms)?;
    let late = datagrams(pair, options, ms)?;
    let mbit_s = megabits(pair, 1, second * options.pick(6, 3))?;
    let several_mbit_s = megabits(pair, SEVERAL, second * options.pick(4, 3))?;
    armed.disarm(pair)?;
    // What the way itself takes is not the delay's error.
    let asked_us = f64::from(ms) * 1e3 + direct.took_us.median();
    Ok(Round {
        mean_us: late.took_us.mean() - asked_us,
        p50_us: late.took_us.median() - asked_us,
        p99_us: late.took_us.quantile(0.99) - asked_us,
        lost: late.lost as f64,
        reordered: late.reordered as f64,
        mbit_s,
        several_mbit_s,
        direct_mbit_s,
    })
}

/// Mbit/s of one stream and of several: direct, then through a line where nothing waits.
pub(super) fn ways(pair: &Pair, options: &Options) -> Result<[f64; 4]> {
    let time = Duration::from_secs(options.pick(4, 2));
    let (one, several) = (megabits(pair, 1, time)?, megabits(pair, SEVERAL, time)?);
    let line = By::Line(How::Never).arm(pair, 0)?;
    let through = (megabits(pair, 1, time)?, megabits(pair, SEVERAL, time)?);
    line.disarm(pair)?;
    Ok([one, several, through.0, through.1])
}

fn datagrams(pair: &Pair, options: &Options, ms: u32) -> Result<Datagrams> {
    let to = SocketAddr::from((B4, PORT));
    let stream = Stream::new(to, options.pick(1000, 250), INTERVAL);
    let grace = Duration::from_millis(ms.into()) + GRACE;
    let seen = datagrams::send(End::plain(&pair.a), End::plain(&pair.b), &stream, grace)?;
    let took_us = Samples::new(seen.delays_ns().into_iter().map(|ns| ns as f64 / 1e3))?;
    Ok(Datagrams { took_us, lost: seen.lost(), reordered: seen.reordered() })
}

/// Of the second half of transfers at the same time: the first is TCP's slow start.
fn megabits(pair: &Pair, streams: u16, time: Duration) -> Result<f64> {
    let start = |number| {
        let load = Load { to: SocketAddr::from((B4, PORT + number)), bytes: u64::MAX, time, hash: false };
        Pour::start(End::plain(&pair.a), End::plain(&pair.b), &load)
    };
    let running: Vec<Pour> = (0..streams).map(start).collect::<Result<_>>()?;
    let of = |pour: Pour| Ok(pour.finish(END)?.1.bytes_per_second(time / 2, time) * 8.0 / 1e6);
    running.into_iter().map(of).sum()
}
