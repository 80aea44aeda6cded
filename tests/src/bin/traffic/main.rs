//! The traffic of the tests as a program of its own, so that it can live in a namespace and a
//! cgroup. Each part prints JSON records; what it takes and prints is described where it is started from,
//! in `chaos_tests::measure`.
//!
//! `traffic sink ADDRESS` and `traffic bulk ADDRESS STREAMS SEGMENTS CONGESTION` print one record a connection,
//! with the counts of wire segments from `TCP_INFO`; `traffic resolve NAME` prints what a name leads to.

mod clock;
mod datagrams;
mod dialogue;
mod echo;
mod held;
mod names;
mod option;
mod pour;
mod resolve;
mod tcp_info;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use chaos_tests::measure::bulk::{Received, Sent};
use nix::sys::socket::{setsockopt, sockopt};
use tcp_info::TcpInfo;

/// After the last byte, a spurious retransmission may still be on its way.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the sender waits for the last acknowledgement.
const DRAIN_LIMIT: Duration = Duration::from_mins(1);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if matches!(parts.first(), Some(part) if !["sink", "bulk", "pour", "drain"].contains(part)) {
        clock::prefer();
    }
    match parts.as_slice() {
        ["sink", at] => sink(at.parse()?),
        ["bulk", to, streams, segments, congestion] => {
            bulk(to.parse()?, streams.parse()?, segments.parse()?, congestion)
        }
        ["resolve", name] => resolve::resolve(name),
        ["datagrams-in", at] => datagrams::receive(at.parse()?),
        ["datagrams-out", to, count, interval_ns, size, flows, ecn] => datagrams::send(
            to.parse()?,
            count.parse()?,
            interval_ns.parse()?,
            size.parse()?,
            flows.parse()?,
            *ecn == "1",
        ),
        ["echo", at] => echo::datagrams(at.parse()?),
        ["answer", at] => dialogue::answer(at.parse()?),
        ["ask", to, count, rest, answer, how, limit] => dialogue::ask(
            to.parse()?,
            count.parse()?,
            nanoseconds(rest)?,
            answer.parse()?,
            *how == "kept",
            nanoseconds(limit)?,
        ),
        ["poke", to, count, size] => dialogue::poke(to.parse()?, count.parse()?, size.parse()?),
        ["hold", to, chunk, period_ns] => held::hold(to.parse()?, chunk.parse()?, period_ns.parse()?),
        ["accept", at] => held::accept(at.parse()?),
        ["pour", to, bytes, time_ns, hash] => {
            pour::pour(to.parse()?, bytes.parse()?, time_ns.parse()?, *hash == "1")
        }
        ["drain", at, hash] => pour::drain(at.parse()?, *hash == "1"),
        ["names", at] => names::serve(at.parse()?),
        ["getaddrinfo", name, folder] => names::resolve(name, folder.as_ref()),
        other => bail!("`traffic {}` is none of what main.rs lists", other.join(" ")),
    }
}

fn nanoseconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_nanos(text.parse()?))
}

fn print(record: &impl serde::Serialize) -> Result<()> {
    let line = serde_json::to_string(record)?;
    writeln!(std::io::stdout().lock(), "{line}").context("writing a record")
}

/// Reads every connection to its end; prints an empty line when it listens, and ends when
/// stdin is closed (the sender waits until its connections are done).
fn sink(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("listening at {at}"))?;
    writeln!(std::io::stdout().lock())?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || swallow(stream));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn swallow(mut stream: TcpStream) -> Result<()> {
    let port = stream.peer_addr()?.port();
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        bytes += length as u64;
    }
    thread::sleep(SETTLE);
    let info = TcpInfo::of(&stream)?;
    print(&Received { port, segments: info.data_segs_in.into(), bytes })
    // Only now is the connection closed, which the sender waits for.
}

fn bulk(to: SocketAddr, streams: u32, segments: u64, congestion: &str) -> Result<()> {
    let counts: Vec<AtomicU64> = (0..streams).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let senders: Vec<_> =
            counts.iter().map(|own| scope.spawn(|| send(to, segments, congestion, own, &counts))).collect();
        senders.into_iter().try_for_each(|sender| match sender.join() {
            Ok(Ok(record)) => print(&record),
            Ok(Err(error)) => Err(error),
            Err(_) => bail!("a sender panicked"),
        })
    })
}

/// Sends until all connections together have sent `segments`, waits until all is acknowledged.
fn send(to: SocketAddr, segments: u64, congestion: &str, own: &AtomicU64, all: &[AtomicU64]) -> Result<Sent> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
    setsockopt(&stream, sockopt::TcpCongestion, &congestion.into()).context("TCP_CONGESTION")?;
    let block = vec![0x5a; 64 << 10];
    while all.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>() < segments {
        stream.write_all(&block).context("sending")?;
        own.store(TcpInfo::of(&stream)?.data_segs_out.into(), Ordering::Relaxed);
    }
    let deadline = Instant::now() + DRAIN_LIMIT;
    loop {
        let info = TcpInfo::of(&stream)?;
        if info.unacked == 0 && info.notsent_bytes == 0 {
            break;
        }
        if Instant::now() > deadline {
            bail!("{} segments are still not acknowledged", info.unacked);
        }
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(SETTLE);
    let info = TcpInfo::of(&stream)?;
    stream.shutdown(Shutdown::Write).context("ending the connection")?;
    stream.set_read_timeout(Some(DRAIN_LIMIT))?;
    stream.read(&mut [0]).context("waiting for the receiver to end the connection")?;
    Ok(Sent {
        port: stream.local_addr()?.port(),
        segments: info.data_segs_out.into(),
        retransmitted: info.total_retrans.into(),
        mss: info.snd_mss,
    })
}
