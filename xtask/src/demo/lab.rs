//! The half of the demo that is root: namespaces, servers, client, and `chaos` itself.
//!
//! It owns everything it makes and removes it when it is told to finish, when the other half's pipe
//! ends for whatever reason, and when a signal asks it to end.

use std::{
    fs::File,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::{
        fd::AsFd as _,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
    },
    unistd::{Gid, Pid, Uid, setgid, setgroups, setuid},
};

use super::{
    machine,
    wire::{self, News, Order, Sample},
};
use crate::process;

/// The port that is hit, and the one that must not be.
pub(crate) const PORTS: [u16; 2] = [6379, 6380];
const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const PREFIX: &str = "chaos-demo-";

/// Arguments of the hidden command `demo-lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The command `chaos`
    chaos: PathBuf,
    /// The command `redis-server`
    redis: PathBuf,
    /// User the servers and the client run as
    uid: u32,
    /// Group they run as
    gid: u32,
}

static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_: i32) {
    ENDED.store(true, Ordering::Relaxed);
}

/// From now on these signals set a flag instead of ending the process.
pub(crate) fn catch_signals() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe (signal-safety(7)).
        unsafe { sigaction(signal, &action) }.with_context(|| format!("handler of {signal}"))?;
    }
    Ok(())
}

/// Has one of those signals come?
pub(crate) fn ended() -> bool {
    ENDED.load(Ordering::Relaxed)
}

/// Runs until told to finish.
pub(crate) fn run(options: &Options) -> Result<()> {
    catch_signals()?;
    let root = crate::root();
    let before = machine::ours(&root);
    let outcome = Lab::new(options).and_then(|mut lab| lab.serve());
    // Dropped with the lab: everything. A moment is given to the kernel, which frees in its own time.
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut left: Vec<String>;
    loop {
        left = machine::ours(&root).difference(&before).cloned().collect();
        if left.is_empty() || Instant::now() > deadline {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    if let Err(error) = outcome {
        tell(&News::Failed { why: format!("{error:#}") });
    }
    tell(&News::Finished { left });
    Ok(())
}

fn tell(news: &News) {
    if let Ok(line) = serde_json::to_string(news) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// A named network namespace that goes with the value.
struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    fn new(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let file = File::open(format!("/run/netns/{name}"));
        match file {
            Ok(file) => Ok(Self { name, file }),
            Err(error) => {
                let _ = ip(&["netns", "del", &name]);
                Err(error).with_context(|| format!("/run/netns/{name}"))
            }
        }
    }

    /// A command inside, as the user, that dies with us.
    fn command(&self, program: &std::path::Path, options: &Options) -> Result<Command> {
        let namespace = self.file.as_fd().try_clone_to_owned()?;
        let (uid, gid) = (Uid::from_raw(options.uid), Gid::from_raw(options.gid));
        let mut command = Command::new(program);
        command.current_dir("/").process_group(0);
        let enter = move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            setgroups(&[])?;
            setgid(gid)?;
            setuid(uid)?;
            // Last: a change of credentials clears it (prctl(2), PR_SET_PDEATHSIG).
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made; nothing allocates or takes a lock.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<()> {
    process::capture(Command::new("ip").args(args)).map(drop)
}

/// A child that is ended with the value: asked first, then made to.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.0.id()) else { return };
        for (signal, patience) in [(Signal::SIGTERM, 30), (Signal::SIGKILL, 10)] {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            let _ = kill(Pid::from_raw(pid), signal);
            for _ in 0..patience {
                if matches!(self.0.try_wait(), Ok(Some(_))) {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

enum Input {
    Order(Order),
    PipeEnded,
    ChaosEnded,
}

/// Everything the demo made. The order of the fields is the order in which it goes.
struct Lab<'a> {
    options: &'a Options,
    chaos: Option<Running>,
    _client_stdin: ChildStdin,
    _client: Running,
    _servers: Vec<Running>,
    _server_side: Namespace,
    _client_side: Namespace,
}

impl<'a> Lab<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        remove_stale();
        let name = |side: &str| format!("{PREFIX}{}-{side}", std::process::id());
        let server_side = Namespace::new(name("redis"))?;
        let client_side = Namespace::new(name("app"))?;
        let (a, b) = (server_side.name.as_str(), client_side.name.as_str());
        // Made inside the two namespaces: the host never sees these links.
        ip(&["link", "add", "app0", "netns", b, "type", "veth", "peer", "name", "redis0", "netns", a])?;
        for (namespace, link, address) in [(a, "redis0", SERVER_ADDRESS), (b, "app0", CLIENT_ADDRESS)] {
            ip(&["-n", namespace, "address", "add", &format!("{address}/30"), "dev", link])?;
            ip(&["-n", namespace, "link", "set", link, "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        let mut servers = Vec::new();
        for port in PORTS {
            let mut command = server_side.command(&options.redis, options)?;
            command.args(["--port", &port.to_string(), "--bind", &SERVER_ADDRESS.to_string()]);
            command.args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--protected-mode",
                "no",
                "--loglevel",
                "warning",
            ]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            servers.push(Running(command.spawn().context("redis-server")?));
        }
        wait_for_servers(&client_side)?;
        let own = std::env::current_exe().context("own path")?;
        let mut command = client_side.command(&own, options)?;
        command.args(["demo-client", &SERVER_ADDRESS.to_string()]).args(PORTS.map(|port| port.to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = command.spawn().context("the client")?;
        let (stdin, stdout) = (client.stdin.take(), client.stdout.take());
        let stdout = stdout.context("the client's output")?;
        thread::spawn(move || {
            wire::read(stdout, |sample: Sample| {
                tell(&News::Sample(sample));
                true
            });
        });
        let client = Running(client);
        tell(&News::Ready { servers: server_side.name.clone(), client: client_side.name.clone() });
        Ok(Self {
            options,
            chaos: None,
            _client_stdin: stdin.context("the client's input")?,
            _client: client,
            _servers: servers,
            _server_side: server_side,
            _client_side: client_side,
        })
    }

    /// Does what it is told until the end.
    fn serve(&mut self) -> Result<()> {
        let (sender, inputs) = mpsc::channel();
        let orders = sender.clone();
        thread::spawn(move || {
            wire::read(std::io::stdin(), |order: Order| orders.send(Input::Order(order)).is_ok());
            let _ = orders.send(Input::PipeEnded);
        });
        while !ended() {
            match inputs.recv_timeout(Duration::from_millis(100)) {
                Ok(Input::Order(Order::Chaos { args })) => self.start_chaos(&args, &sender)?,
                Ok(Input::Order(Order::Finish) | Input::PipeEnded) => break,
                Ok(Input::ChaosEnded) => {
                    if let Some(mut chaos) = self.chaos.take() {
                        let status = chaos.0.wait().context("chaos")?;
                        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                        tell(&News::ChaosEnded { code: code.unwrap_or(1) });
                    }
                }
                // The channel cannot end before this function does: it holds a sender.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn start_chaos(&mut self, args: &[String], sender: &mpsc::Sender<Input>) -> Result<()> {
        if self.chaos.is_some() {
            bail!("one fault at a time");
        }
        let mut command = Command::new(&self.options.chaos);
        command.args(args).current_dir("/").process_group(0);
        command.env(machine::MARK, std::process::id().to_string()).env("CHAOS_STANDALONE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| process::line(&command))?;
        let stdout = child.stdout.take().context("output of chaos")?;
        let stderr = child.stderr.take().context("messages of chaos")?;
        self.chaos = Some(Running(child));
        let sender = sender.clone();
        let says = thread::spawn(move || {
            for text in std::io::BufRead::lines(std::io::BufReader::new(stderr)).map_while(Result::ok) {
                tell(&News::ChaosSays { text });
            }
        });
        thread::spawn(move || {
            wire::read(stdout, |line| {
                tell(&News::Chaos { line });
                true
            });
            let _ = says.join();
            let _ = sender.send(Input::ChaosEnded);
        });
        Ok(())
    }
}

/// Waits until both servers take connections, seen from the client's side.
fn wait_for_servers(client_side: &Namespace) -> Result<()> {
    let namespace = client_side.file.as_fd().try_clone_to_owned()?;
    // A thread of its own: its namespace is not ours.
    let wait = thread::spawn(move || -> Result<()> {
        setns(&namespace, CloneFlags::CLONE_NEWNET).context("the client's namespace")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        for port in PORTS {
            let server = SocketAddr::from((SERVER_ADDRESS, port));
            while let Err(error) = TcpStream::connect_timeout(&server, Duration::from_secs(1)) {
                if Instant::now() > deadline {
                    bail!("redis-server does not answer at {server}: {error}");
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    });
    wait.join().unwrap_or_else(|_| bail!("waiting for redis-server failed"))
}

/// Removes namespaces of demos whose process is gone (killed before it could).
fn remove_stale() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| kill(Pid::from_raw(pid), None).is_err()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}
