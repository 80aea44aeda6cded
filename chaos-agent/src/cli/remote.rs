//! Faults that an agent holds for us, shown and ended as if we held them.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use chaos_client::{
    Client, Condition, Counters, DEFAULT_SOCKET, Error, Fault, NewFault, Place, Problem, Stats,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    ask_args::{AgentPlace, AskArgs},
    failure::{Exit, Failure},
    hold::{Armed, Told},
    output, units,
};
use crate::{
    engine::{self, AttachMode, Event, Plan, RuleStats, Unmatched},
    flows::Flow,
    targets::Target,
};

/// How long an agent may take to say that it is there. One that holds faults looks after them in between.
const GREETING: Duration = Duration::from_secs(5);
/// The clocks of the agent and ours do not end a fault at the same moment.
const ABOUT_OVER: Duration = Duration::from_secs(2);

/// The agent that is to be asked; none = work alone.
///
/// # Errors
/// It hangs, or this process may not ask it.
pub(crate) fn choose(ask: &AskArgs) -> Result<Option<Client>, Failure> {
    if ask.standalone {
        return Ok(None);
    }
    let client = at(ask)?;
    match client.clone().with_limit(GREETING).status() {
        Ok(_) => Ok(Some(client)),
        // Nobody named it, and nothing is there.
        Err(Error::Absent { error, .. })
            if error.kind() == io::ErrorKind::NotFound && ask.socket.is_none() =>
        {
            Ok(None)
        }
        Err(Error::Absent { place, .. }) => {
            output::note(&format!("chaos: no agent listens at {place}; working alone"));
            Ok(None)
        }
        Err(error) => Err(failure(error)),
    }
}

/// The agent, for what only it can do; `failure` says so when it is not there.
pub(crate) fn must(place: &AgentPlace) -> Result<Client, Failure> {
    let place = match &place.socket {
        Some(path) => Ok(Place::Socket(path.clone())),
        None => Place::from_env(),
    };
    place.and_then(Client::new).map_err(failure)
}

/// The same for what only an engine of our own can do.
pub(crate) fn choose_unless_forced(ask: &AskArgs, attach: AttachMode) -> Result<Option<Client>, Failure> {
    if attach == AttachMode::Auto { choose(ask) } else { Ok(None) }
}

/// The agent, whether it is there or not.
pub(crate) fn at(ask: &AskArgs) -> Result<Client, Failure> {
    let path = ask.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET));
    Client::new(Place::Socket(path.to_owned())).map_err(failure)
}

/// What the agent says, in the words and with the exit code that we would have ourselves.
pub(crate) fn failure(error: Error) -> Failure {
    let what = error.to_string();
    match error {
        Error::Refused(problem) => {
            let Problem { status, mend, .. } = *problem;
            let exit = match status {
                400 | 422 => Exit::Usage,
                500 => Exit::Other,
                _ => Exit::Refused,
            };
            Failure { exit, what, mend }
        }
        Error::Denied { .. } => Failure::refused(what).mend(
            "sudo, or once: `sudo usermod -aG chaos $USER`, where the agent's group is `chaos`, and a new login",
        ),
        Error::Silent { .. } => Failure { exit: Exit::Other, what, mend: Some(ALONE.to_owned()) },
        Error::Absent { .. } => Failure::refused(what).mend("start one: sudo chaos agent"),
        Error::Garbled { .. } | Error::Setting(_) => Failure { exit: Exit::Other, what, mend: None },
    }
}

const ALONE: &str =
    "--standalone with sudo does without it; `sudo chaos stop --all` ends what it holds, and it too";

/// For the words about a fault whose names the agent resolves: any address will do.
#[expect(clippy::unnecessary_wraps, reason = "as those that ask a resolver")]
pub(crate) fn unresolved(_: &str) -> Result<Vec<IpAddr>> {
    Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()])
}

/// A fault that an agent holds.
pub(crate) struct Remote {
    client: Client,
    fault: Fault,
    name: String,
    ends_at: Instant,
    /// Counted so far; the last word about a fault whose agent is gone.
    last: RefCell<RuleStats>,
    /// Packets that the agent tells of.
    packets: Option<Receiver<Told>>,
}

/// The fault as we would have it held.
pub(crate) fn wanted(mut body: Map<String, Value>, duration: Duration, confirmed: bool) -> NewFault {
    body.entry("duration").or_insert_with(|| units::show_duration(duration).into());
    body.entry("lease").or_insert_with(|| units::show_duration(units::DEFAULT_LEASE).into());
    if confirmed {
        body.insert("confirm".to_owned(), "host".into());
    }
    NewFault::from_body(body)
}

/// How long a fault lasts for which nobody named a time: for `wished`, or what the agent allows, if that is less.
pub(crate) fn allowed(client: &Client, wished: Duration) -> Result<Duration, Failure> {
    let most = client.status().map_err(failure)?.max_duration_seconds;
    let most = most.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(most.map_or(wished, |most| most.min(wished)))
}

/// What the agent would do.
pub(crate) fn plan(client: &Client, fault: &NewFault) -> Result<Plan, Failure> {
    client.explain(fault).map_err(failure).and_then(|answer| understood(client, answer))
}

/// Who the target talks to, as the agent sees it.
pub(crate) fn flows(client: &Client, target: &Target) -> Result<Vec<Flow>, Failure> {
    let mut answer = client.flows(&target.to_string()).map_err(failure)?;
    understood(client, answer.get_mut("flows").map(Value::take).unwrap_or_default())
}

fn understood<T: DeserializeOwned>(client: &Client, answer: Value) -> Result<T, Failure> {
    let place = client.place().clone();
    serde_json::from_value(answer).map_err(|error| failure(Error::Garbled { place, what: error.to_string() }))
}

/// Asks the agent to hold it, for `duration`, as long as we renew its lease.
pub(crate) fn hold(
    client: &Client,
    fault: NewFault,
    name: &str,
    duration: Duration,
) -> Result<Remote, Failure> {
    let fault = client.hold(fault).map_err(failure)?;
    let ends_at = Instant::now() + duration;
    let last = RuleStats { name: name.to_owned(), ..RuleStats::default() };
    Ok(Remote {
        client: client.clone(),
        fault,
        name: name.to_owned(),
        ends_at,
        last: RefCell::new(last),
        packets: None,
    })
}

impl Remote {
    /// Tells of the packets that it affects from now on.
    ///
    /// # Errors
    /// The agent does not tell.
    pub(crate) fn tell(&mut self) -> Result<(), Failure> {
        let events = self.client.packets(&self.fault.id().to_string()).map_err(failure)?;
        let (sender, packets) = mpsc::channel();
        // It ends with the fault's agent, or with us.
        thread::spawn(move || {
            let told = events.map_while(Result::ok).filter(|event| event.kind == "packet");
            told.map(|event| sender.send(Told { line: event.message, packet: event.data }))
                .find(Result::is_err)
        });
        self.packets = Some(packets);
        Ok(())
    }

    fn note(&self, stats: &Stats) -> RuleStats {
        let now = rule_stats(&self.name, stats);
        self.last.replace(now.clone());
        now
    }

    /// It was over when its time was, whoever noticed first.
    fn is_about_over(&self) -> bool {
        self.ends_at.saturating_duration_since(Instant::now()) < ABOUT_OVER
    }
}

impl Armed for Remote {
    fn tick(&mut self) -> Result<Vec<Event>> {
        match self.fault.condition() {
            Condition::Held => Ok(Vec::new()),
            Condition::Ended(_) if self.is_about_over() => Ok(Vec::new()),
            Condition::Ended(why) => {
                Err(Failure::refused(format!("the agent ended the fault: {why}")).into())
            }
            Condition::Lost(why) => Err(Failure {
                exit: Exit::Other,
                what: format!("the fault ended with its agent: {why}"),
                mend: None,
            }
            .into()),
        }
    }

    fn stats(&self) -> Result<Vec<RuleStats>> {
        match self.fault.stats() {
            Ok(stats) => Ok(vec![self.note(&stats)]),
            // `tick` says what became of it.
            Err(Error::Absent { .. }) => Ok(vec![self.last.borrow().clone()]),
            Err(error) => Err(failure(error).into()),
        }
    }

    fn cause(&mut self) -> Result<Option<String>> {
        let view = self.client.show(&self.fault.id().to_string()).map_err(failure)?;
        let cause = view.more.get("unmatched").and_then(|unmatched| unmatched.get("cause")).cloned();
        let cause: Option<Unmatched> = cause.and_then(|cause| serde_json::from_value(cause).ok());
        Ok(cause.map(|cause| cause.sentence()))
    }

    fn told(&mut self) -> Vec<Told> {
        self.packets.iter().flat_map(Receiver::try_iter).collect()
    }

    fn stop(self) -> Result<Vec<RuleStats>> {
        let Self { fault, name, last, .. } = self;
        match fault.heal() {
            Ok(view) => Ok(vec![rule_stats(&name, &view.stats)]),
            Err(Error::Absent { .. }) => Ok(vec![last.into_inner()]),
            Err(error) => Err(failure(error).into()),
        }
    }
}

/// What an agent counted, as we would have.
pub(crate) fn rule_stats(name: &str, stats: &Stats) -> RuleStats {
    RuleStats { name: name.to_owned(), egress: counters(&stats.egress), ingress: counters(&stats.ingress) }
}

/// A counter that this version does not know is not shown.
fn counters(answer: &Counters) -> engine::Counters {
    serde_json::to_value(answer).and_then(serde_json::from_value).unwrap_or_default()
}
