//! A small name server, and a real resolver (the C library's `getaddrinfo`) that asks it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use chaos_common::dns::query::Query;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{
    lab::{cgroup::Cgroup, netns::Netns, process},
    measure::bulk::helper,
};

/// The IPv4 address that the server gives every name.
pub const TRUE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The IPv6 address that the server gives every name.
pub const TRUE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// How often the server looks whether it shall end.
const TICK: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(30);

/// What a resolver got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// What `getaddrinfo` returned: 0, or `EAI_NONAME` and its like.
    pub code: i32,
    /// How long it took, microseconds.
    pub micros: u64,
    /// The addresses, sorted.
    pub addresses: Vec<IpAddr>,
}

impl Resolved {
    /// How long it took.
    #[must_use]
    pub const fn time(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

/// A server that gives every name [`TRUE4`] and [`TRUE6`], over UDP and TCP; ends when dropped.
#[derive(Debug)]
pub struct Server {
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts one at `at` in `netns`.
    ///
    /// # Errors
    /// When the address is not there or taken.
    pub fn start(netns: &Netns, at: SocketAddr) -> Result<Self> {
        let bound =
            netns.enter(|| -> std::io::Result<_> { Ok((UdpSocket::bind(at)?, TcpListener::bind(at)?)) });
        let (udp, tcp) = bound?.with_context(|| format!("a name server at {at}"))?;
        udp.set_read_timeout(Some(TICK))?;
        tcp.set_nonblocking(true)?;
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (log, end) = (Arc::clone(&asked), Arc::clone(&stop));
        let by_udp = thread::spawn(move || serve_udp(&udp, &log, &end));
        let (log, end) = (Arc::clone(&asked), Arc::clone(&stop));
        let by_tcp = thread::spawn(move || serve_tcp(&tcp, &log, &end));
        Ok(Self { asked, stop, threads: vec![by_udp, by_tcp] })
    }

    /// The names that reached it since the last call: `udp NAME` or `tcp NAME`.
    #[must_use]
    pub fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, asked: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer)
            && let Some(answer) = answer(&buffer[..length], "udp", asked)
        {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn serve_tcp(listener: &TcpListener, asked: &Mutex<Vec<String>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => while serve_stream(&stream, asked).is_some() {},
            Err(_) => thread::sleep(TICK),
        }
    }
}

fn serve_stream(mut stream: &TcpStream, asked: &Mutex<Vec<String>>) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).ok()?;
    let answer = answer(&message, "tcp", asked)?;
    let length = u16::try_from(answer.len()).ok()?.to_be_bytes();
    stream.write_all(&[&length, &answer[..]].concat()).ok()
}

fn answer(message: &[u8], by: &str, asked: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let query = Query::read(message)?;
    let name = String::from_utf8_lossy(query.text()).into_owned();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{by} {name}"));
    let address = match query.qtype {
        1 => TRUE4.octets().to_vec(),
        28 => TRUE6.octets().to_vec(),
        _ => return None,
    };
    let mut out = message[..query.end as usize].to_vec();
    out[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    out.extend([0xc0, 12]);
    out.extend(u16::try_from(query.qtype).ok()?.to_be_bytes());
    out.extend([0, 1, 0, 0, 0, 60, 0, u8::try_from(address.len()).ok()?]);
    out.extend(address);
    Some(out)
}

/// The beginning of a command that finds the name servers of `resolv.conf` and `nsswitch.conf` in this folder, which
/// only it sees.
#[must_use]
pub fn resolving(folder: &Path) -> Command {
    let mounts = "for file in resolv.conf nsswitch.conf; do mount --bind \"$0/$file\" \"/etc/$file\" || exit 9; done; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mounts]).arg(folder);
    command
}

/// Asks one server through the C library, with a `resolv.conf` that only the asking process sees.
#[derive(Debug)]
pub struct Resolver<'a> {
    netns: &'a Netns,
    cgroup: Option<&'a Cgroup>,
    folder: TempDir,
}

impl<'a> Resolver<'a> {
    /// A resolver in `netns` that asks `server` once and waits a second.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn new(netns: &'a Netns, server: IpAddr) -> Result<Self> {
        let folder = TempDir::new()?;
        let lines = format!("nameserver {server}\noptions timeout:1 attempts:1\n");
        fs::write(folder.path().join("resolv.conf"), lines)?;
        fs::write(folder.path().join("nsswitch.conf"), "hosts: dns\n")?;
        Ok(Self { netns, cgroup: None, folder })
    }

    /// It asks over TCP.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn over_tcp(self) -> Result<Self> {
        let path = self.folder.path().join("resolv.conf");
        let lines = fs::read_to_string(&path)? + "options use-vc\n";
        fs::write(path, lines)?;
        Ok(self)
    }

    /// It asks from within a cgroup.
    #[must_use]
    pub const fn within(mut self, cgroup: &'a Cgroup) -> Self {
        self.cgroup = Some(cgroup);
        self
    }

    /// A command that asks for `name`, run by `before` (such as `chaos exec ... --`).
    ///
    /// # Errors
    /// When the helper program is not built.
    pub fn command(&self, before: &[&str], name: &str) -> Result<Command> {
        let mut command = resolving(self.folder.path());
        command.args(before).arg(helper()?).args(["resolve", name]);
        let command = match self.cgroup {
            Some(cgroup) => cgroup.inside(command),
            None => command,
        };
        Ok(self.netns.inside(command))
    }

    /// Asks for both addresses of `name`.
    ///
    /// # Errors
    /// When the program fails, not when the name has no address.
    pub fn ask(&self, name: &str) -> Result<Resolved> {
        let output = process::output(self.command(&[], name)?, LIMIT)?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .with_context(|| format!("asking for {name}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}
