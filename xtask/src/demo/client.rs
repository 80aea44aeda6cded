//! The client: connections to two redis servers, each asking at a steady pace and checking the reply.
//!
//! A connection has one request under way. When the reply is late it says so once a second and goes on
//! waiting: whether an established connection survives a partition is one of the things shown.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::wire::{PortSample, Sample};

/// A reply that takes longer is an error (and is still waited for).
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Connections to each server.
pub(crate) const CONNECTIONS: usize = 32;
/// Time between two requests of a connection, if the reply comes sooner.
const PACE: Duration = Duration::from_millis(20);
/// Time between two samples.
pub(crate) const SAMPLE_PERIOD: Duration = Duration::from_millis(200);

/// Changes what was seen of the server.
type Count<'a> = dyn Fn(&dyn Fn(&mut PortSample)) + 'a;

/// Arguments of the hidden command `demo-client`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Address of the servers
    address: Ipv4Addr,
    /// Their ports
    #[arg(required = true)]
    ports: Vec<u16>,
}

/// Asks until standard input ends; a sample goes to standard output every [`SAMPLE_PERIOD`].
pub(crate) fn run(options: &Options) -> Result<()> {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    let mut shared = Vec::new();
    for &port in &options.ports {
        let stats = Arc::new(Mutex::new(PortSample { port, ..PortSample::default() }));
        for number in 0..CONNECTIONS {
            let (stats, server) = (Arc::clone(&stats), SocketAddr::from((options.address, port)));
            let builder = thread::Builder::new().stack_size(128 * 1024);
            builder.spawn(move || talk(server, number, &stats)).context("a thread for a connection")?;
        }
        shared.push(stats);
    }
    let mut next = Instant::now();
    loop {
        next += SAMPLE_PERIOD;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let take = |stats: &Arc<Mutex<PortSample>>| {
            let mut stats = stats.lock().unwrap_or_else(PoisonError::into_inner);
            let port = stats.port;
            std::mem::replace(&mut *stats, PortSample { port, ..PortSample::default() })
        };
        let sample = Sample { ports: shared.iter().map(take).collect() };
        writeln!(io::stdout(), "{}", serde_json::to_string(&sample)?).context("nobody reads the samples")?;
    }
}

/// One connection, for ever; it is made again if it breaks.
fn talk(server: SocketAddr, number: usize, stats: &Mutex<PortSample>) {
    let count =
        |change: &dyn Fn(&mut PortSample)| change(&mut stats.lock().unwrap_or_else(PoisonError::into_inner));
    let mut round = 0_u64;
    loop {
        let connected = TcpStream::connect_timeout(&server, PATIENCE);
        let result = connected.and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // Spread over the pace, so that the requests of all connections do not come at once.
            thread::sleep(PACE.mul_f64(fraction(number)));
            ask(stream, number, &mut round, &count)
        });
        if result.is_err() {
            count(&|stats| stats.broken += 1);
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Requests on one connection until it breaks.
fn ask(mut stream: TcpStream, number: usize, round: &mut u64, count: &Count<'_>) -> io::Result<()> {
    let key = format!("demo:{number}");
    loop {
        *round += 1;
        let value = format!("{:064}", *round / 2);
        let (request, expected) = if round.is_multiple_of(2) {
            (command(&["SET", &key, &value]), "+OK\r\n".to_owned())
        } else if *round == 1 {
            // What an earlier run left there is unknown.
            (command(&["DEL", &key]), String::new())
        } else {
            (command(&["GET", &key]), format!("${}\r\n{value}\r\n", value.len()))
        };
        let start = Instant::now();
        stream.write_all(request.as_bytes())?;
        let reply = reply(&mut stream, expected.len().max(4), &|| count(&|stats| stats.timeouts += 1))?;
        let took = start.elapsed();
        let right = expected.is_empty() || reply == expected.as_bytes();
        count(&|stats| {
            if right {
                stats.replies += 1;
                stats.latency.add(took);
            } else {
                stats.wrong += 1;
            }
        });
        thread::sleep(PACE.saturating_sub(start.elapsed()));
    }
}

/// Reads until `length` bytes ending in a line feed are there; `late` is called for each second that takes.
fn reply(stream: &mut TcpStream, length: usize, late: &dyn Fn()) -> io::Result<Vec<u8>> {
    let mut reply = Vec::with_capacity(128);
    let mut buffer = [0; 512];
    while reply.len() < length || !reply.ends_with(b"\n") {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => reply.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => late(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // An error reply may be shorter than what was expected.
        if reply.starts_with(b"-") && reply.ends_with(b"\n") {
            break;
        }
    }
    Ok(reply)
}

/// A command as redis takes it (RESP array of bulk strings).
fn command(words: &[&str]) -> String {
    let bulk = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), bulk.collect::<String>())
}

/// Where in the pace a connection begins, 0..1.
#[expect(clippy::cast_precision_loss, reason = "there are a few dozen connections")]
fn fraction(number: usize) -> f64 {
    number as f64 / CONNECTIONS as f64
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn commands_are_resp_arrays() {
        assert_eq!(command(&["GET", "a"]), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    }
}
