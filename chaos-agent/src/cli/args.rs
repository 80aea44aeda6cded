//! The commands and their flags.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use chaos_client::Client;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::{
    ask_args::{AskArgs, EventsArgs, FlowsArgs, LsArgs, RmArgs, ShowArgs, StopArgs},
    failure::Failure,
    fault_flags::FaultFlags,
    groups::{Group, Wanted},
    match_args::MatchArgs,
    remote, rule,
    setting_flags::SettingFlags,
    units,
};
use crate::{
    config::LogLevel,
    engine::AttachMode,
    rights,
    safety::Abort,
    spec::Connections,
    targets::{ACCEPTED, Target},
};

pub(super) const TARGET_HELP: &str =
    "Who: host, cgroup:/path, unit:name.service, netns:name or pid:1234 (its network namespace)";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 2 wrong usage, 3 refused (no privileges, protected, no such target, not confirmed),
4 nothing matched (exec), 1 anything else. exec ends with its command's own code unless that is 0.

Targets: host, cgroup:/path, unit:name.service, netns:name, pid:1234 (its network namespace).
Every fault ends by itself, at the latest after one hour; `chaos stop --all` ends all of them now.";

/// What the agent keeps of its capabilities.
fn agent_notes() -> String {
    format!(
        "Of its capabilities it keeps these, and lets go of all others when it has started:\n{}",
        rights::lines().join("\n")
    )
}

/// The forms of a target that programs can be attached to.
pub(super) fn target_help() -> String {
    let forms = ACCEPTED.lines().filter(|form| !form.contains("(as a peer)"));
    format!("Who; written as\n{}", forms.collect::<Vec<_>>().join("\n"))
}

/// Breaks the network on purpose, in the kernel, for one command, unit or namespace
#[derive(Debug, Parser)]
#[command(name = "chaos", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct GlobalArgs {
    /// One JSON object per line on stdout (exec: on stderr, stdout is the command's)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How much of its own work chaos logs to stderr [default: warn; agent: info] [env: `CHAOS_LOG_LEVEL`]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command whose network is broken; only it and its children suffer
    Exec(Box<ExecArgs>),
    /// Break the network of a target until the time is over or Ctrl-C
    Inject(Box<InjectArgs>),
    /// Cut two targets, or a target and an address, apart until the time is over or Ctrl-C
    Partition(Box<PartitionArgs>),
    /// Show who a target talks to now, so that a rule can be written from it
    Flows(FlowsArgs),
    /// End every fault of this machine, whoever set it, and remove what is left of it
    Stop(StopArgs),
    /// Hold the faults of whoever asks for them over a socket, until SIGTERM
    Agent(Box<AgentArgs>),
    /// Ask the agent whether it is well; for probes of containers
    Probe(ProbeArgs),
    /// List the faults that an agent holds
    Ls(LsArgs),
    /// Show one fault of an agent: what, whom, since when, its counters
    Show(ShowArgs),
    /// End faults of an agent
    Rm(RmArgs),
    /// Show what happened at an agent, and with --follow what happens
    Events(EventsArgs),
    /// Show what this kernel and machine can do, what is missing, and what mends it
    Doctor,
    /// Print the completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them into a directory
    Man(ManArgs),
}

const EXEC_EXAMPLES: &str = "\
Examples:
  sudo chaos exec --loss 10% --to redis:6379 -- cargo test
  sudo chaos exec --loss every=7 --proto udp --seed 42 -- ./client --verbose

The command runs as the user who called sudo, with that user's environment. It keeps its exit code; when that
is 0 and no packet was hit, chaos ends with 4 (not with --allow-no-match). The summary goes to stderr.";

/// `chaos exec`.
#[derive(Args, Debug)]
#[command(after_help = EXEC_EXAMPLES, override_usage = "chaos exec FAULTS [MATCH] [OPTIONS] -- CMD...")]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) faults: FaultFlags,
    #[command(flatten)]
    pub(crate) matching: MatchArgs,
    /// How long the fault lasts [default: as long as the command; at most 1h]
    #[arg(
        long = "for",
        value_name = "TIME",
        value_parser = units::fault_duration,
        allow_hyphen_values = true,
        help_heading = WHEN
    )]
    pub(crate) duration: Option<Duration>,
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
    #[command(flatten)]
    pub(crate) safety: SafetyArgs,
    /// Do not end with 4 when no packet of the command was hit
    #[arg(long, help_heading = SAFETY)]
    pub(crate) allow_no_match: bool,
    #[command(flatten)]
    pub(crate) planning: PlanningArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

const INJECT_EXAMPLES: &str = "\
Examples:
  sudo chaos inject --loss 10% unit:api.service --peer 10.0.0.0/8 --for 30s
  sudo chaos inject --loss 5% netns:blue --flap 100ms/100ms --for 1m
  sudo chaos inject --loss 1% host --peer db.example:5432 --dry-run --explain";

/// `chaos inject`.
#[derive(Args, Debug)]
#[command(after_help = INJECT_EXAMPLES, override_usage = "chaos inject FAULTS TARGET [MATCH] [--for TIME] [OPTIONS]")]
pub(crate) struct InjectArgs {
    #[arg(value_name = "TARGET", help = TARGET_HELP, long_help = target_help())]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) faults: FaultFlags,
    #[command(flatten)]
    pub(crate) matching: MatchArgs,
    #[command(flatten)]
    pub(crate) holding: HoldingArgs,
}

const PARTITION_EXAMPLES: &str = "\
Examples:
  sudo chaos partition unit:api.service netns:redis --for 30s
  sudo chaos partition host 10.0.0.5 --one-way --for 10s
  sudo chaos partition netns:a,netns:b netns:c,netns:d,netns:e --connections new
  sudo chaos partition --isolate netns:a netns:a,netns:b,netns:c
  sudo chaos partition --bridge netns:e netns:a,netns:b,netns:c,netns:d
  sudo chaos partition --ring netns:a,netns:b,netns:c,netns:d,netns:e

A group is a,b or '{a,b}', quoted for the shell. Groups are cut in one change and counted as one fault. Connections that exist stop and go on afterwards; new ones are not made. With --one-way only
what A sends to B vanishes. Of every two that are cut at least one must be on this machine.";

const PARTITION_USAGE: &str = "\
chaos partition A B [--one-way] [--for TIME] [OPTIONS]
       chaos partition <--isolate X | --bridge X | --ring> GROUP [--for TIME] [OPTIONS]";

/// `chaos partition`.
#[derive(Args, Debug)]
#[command(after_help = PARTITION_EXAMPLES, override_usage = PARTITION_USAGE)]
pub(crate) struct PartitionArgs {
    /// Two sides: targets, addresses, CIDRs, host:port, or groups of them ('{a,b}'); one group with the flags below
    #[arg(value_name = "A B", required = true, num_args = 1.., long_help = format!("Two sides, or one group with --isolate, --bridge or --ring; a group is '{{a,b}}' or a,b. Written as\n{ACCEPTED}"))]
    pub(crate) sides: Vec<Group>,
    /// Cut this one off from all the others of the group
    #[arg(long, value_name = "X", group = "shape")]
    isolate: Option<Target>,
    /// Cut the others of the group in two halves that cannot see each other; this one sees both
    #[arg(long, value_name = "X", group = "shape")]
    bridge: Option<Target>,
    /// Each of the group sees only its two neighbours, in the order given; the last is the first one's
    #[arg(long, group = "shape")]
    ring: bool,
    /// Only what A sends to B vanishes; with --isolate what X sends, with --bridge what the first half does
    #[arg(long)]
    pub(crate) one_way: bool,
    /// What happens to the packets between them, as the value of inject --partition [default: drop]
    #[arg(long, value_name = "MODE", value_parser = partition_mode, default_value = "drop", hide_default_value = true)]
    pub(crate) mode: String,
    /// Which connections: all, those made since the fault began, or those that were there before
    #[arg(long, value_name = "WHICH", default_value = "all")]
    pub(crate) connections: Connections,
    #[command(flatten)]
    pub(crate) holding: HoldingArgs,
}

impl PartitionArgs {
    /// Which pairs the flags ask for.
    pub(crate) fn wanted(&self) -> Wanted {
        match (&self.isolate, &self.bridge, self.ring) {
            (Some(alone), ..) => Wanted::Isolate(alone.clone()),
            (None, Some(bridge), _) => Wanted::Bridge(bridge.clone()),
            (None, None, true) => Wanted::Ring,
            (None, None, false) => Wanted::Sides,
        }
    }
}

fn partition_mode(text: &str) -> Result<String, String> {
    rule::parting(text).map(|_| text.to_owned())
}

const WHEN: &str = "When and how far";
const ABORT: &str = "End the fault at once when this is breached: http=URL[,within=1s][,status=200-399], \
    tcp=HOST:PORT, command=WORDS, handshakes=SHARE or retransmits=+SHARE; \
    with [,every=1s][,fails=3/5][,in=target]";
const SAFETY: &str = "Safety";

/// Flags of the commands that hold a fault by themselves.
#[derive(Args, Clone, Debug)]
pub(crate) struct HoldingArgs {
    /// How long the fault lasts [default: 60s; at most 1h]
    #[arg(
        long = "for",
        value_name = "TIME",
        value_parser = units::fault_duration,
        allow_hyphen_values = true,
        help_heading = WHEN
    )]
    duration: Option<Duration>,
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
    #[command(flatten)]
    pub(crate) safety: SafetyArgs,
    /// Yes, this host itself is meant: do not ask, and do not refuse where nobody can be asked
    #[arg(long, visible_alias = "no-confirm", help_heading = SAFETY)]
    pub(crate) yes_whole_host: bool,
    /// Tell of packets that are hit: the first 100 a second, then one in 100; whole with --json
    #[arg(long, help_heading = "Output")]
    pub(crate) events: bool,
    #[arg(long, value_name = "CONDITION", value_parser = abort, help_heading = SAFETY, help = ABORT)]
    pub(crate) abort: Vec<Abort>,
    #[command(flatten)]
    pub(crate) planning: PlanningArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

fn abort(text: &str) -> Result<Abort, String> {
    text.parse()
}

impl HoldingArgs {
    /// How long the fault lasts.
    pub(crate) fn duration(&self) -> Duration {
        self.duration.unwrap_or(units::DEFAULT_DURATION)
    }

    /// The same where an agent may allow less.
    pub(crate) fn duration_at(&self, client: &Client) -> Result<Duration, Failure> {
        self.duration.map_or_else(|| remote::allowed(client, units::DEFAULT_DURATION), Ok)
    }
}

/// When a rule acts and how far it goes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = WHEN)]
pub(crate) struct ScheduleArgs {
    /// Wait this long before acting; part of the whole time
    #[arg(long, value_name = "TIME", value_parser = units::start_delay, allow_hyphen_values = true)]
    pub(crate) start_after: Option<Duration>,
    /// Act for the first time, rest for the second, again and again (100ms/100ms)
    #[arg(long, value_name = "ON/OFF", value_parser = units::flap, allow_hyphen_values = true)]
    pub(crate) flap: Option<(Duration, Duration)>,
    /// End after this many packets were hit
    #[arg(long, value_name = "N", value_parser = units::packets, allow_hyphen_values = true)]
    pub(crate) max_packets: Option<u64>,
    /// End before more than this many bytes were hit (10kB, 1MiB)
    #[arg(long, value_name = "SIZE", value_parser = units::bytes, allow_hyphen_values = true)]
    pub(crate) max_bytes: Option<u64>,
    /// Refuse what the target comes to beyond so many namespaces, cgroups or devices, now and later [default: 256]
    #[arg(long, value_name = "N", value_parser = units::targets, allow_hyphen_values = true)]
    pub(crate) max_targets: Option<u32>,
    /// Hit only the first so many connections that the fault meets (--refuse: calls)
    #[arg(long, value_name = "N", value_parser = units::packets, allow_hyphen_values = true)]
    pub(crate) max_flows: Option<u64>,
    /// Same seed, same fate for each packet
    #[arg(long, value_name = "NUMBER", value_parser = units::seed, allow_hyphen_values = true)]
    pub(crate) seed: Option<u64>,
}

/// What keeps a fault from doing more than is meant.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = SAFETY)]
pub(crate) struct SafetyArgs {
    /// Count what would be hit, touch nothing
    #[arg(long)]
    pub(crate) shadow: bool,
    /// The kernel forgets the fault when it has not heard from chaos for this long [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = units::lease, allow_hyphen_values = true)]
    pub(crate) lease: Option<Duration>,
}

/// Looking before leaping.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = SAFETY)]
pub(crate) struct PlanningArgs {
    /// Print what would be attached where, touch nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the rule in plain words, what is protected and what it will not hit; touch nothing
    #[arg(long)]
    pub(crate) explain: bool,
    /// Force one way of attaching, for tests
    #[arg(long, hide = true, value_name = "MODE", default_value = "auto")]
    pub(crate) attach: AttachMode,
}

/// `chaos agent`.
#[derive(Args, Debug)]
#[command(after_help = agent_notes())]
pub(crate) struct AgentArgs {
    /// The file with its settings, TOML; SIGHUP reads it again [default: /etc/chaos/agent.toml, if it is there] [env: `CHAOS_CONFIG`]
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Print the settings as such a file, each with where it came from, and end
    #[arg(long)]
    pub(crate) print_config: bool,
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
    /// Force one way of attaching, for tests
    #[arg(long, hide = true, value_name = "MODE", default_value = "auto")]
    pub(crate) attach: AttachMode,
}

/// `chaos probe`.
#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// What is asked for
    #[arg(value_name = "PATH", default_value = "/healthz")]
    pub(crate) path: String,
    /// Where the agent listens
    #[arg(long, value_name = "PATH", env = "CHAOS_SOCKET", default_value = "/run/chaos/agent.sock")]
    pub(crate) socket: PathBuf,
}

/// `chaos completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// `chaos man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Write the page of every command into this directory
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
}

impl ValueEnum for AttachMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Tcx, Self::Clsact]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }))
    }
}
