//! A fault that was not typed but came in another form, as the words of a command line: one grammar, one set of
//! checks, one wording.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::Result;
use clap::{Arg, Args as _, Command as Grammar, CommandFactory as _, FromArgMatches as _};

use super::{
    args::{Cli, Command},
    commands::holding,
    match_args::MatchArgs,
    resolve, rule,
    ruleset::RuleSet,
};
use crate::{
    flows::{self, Flow},
    safety::{Risk, risk},
    targets::{self, Target},
};

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Requested {
    /// Its rules.
    pub(crate) set: RuleSet,
    /// How long.
    pub(crate) duration: Duration,
    /// The machine that we are on may be taken away.
    pub(crate) risk: Option<Risk>,
}

/// Why not.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// A word is wrong.
    Words(clap::Error),
    /// The words are right, and make no sense or cannot be done here.
    Rules(anyhow::Error),
}

/// Reads the words of `chaos inject` or `chaos partition`. May ask the resolver: not for a thread that others
/// wait for.
pub(crate) fn read(words: &[String]) -> Result<Requested, RequestError> {
    let cli = parse(words).map_err(RequestError::Words)?;
    let (set, holding) = match &cli.command {
        Command::Inject(args) => {
            let set = rule::inject(args, &|name| resolve::addresses(&args.target, name));
            (set.map_err(RequestError::Rules)?, &args.holding)
        }
        Command::Partition(args) => (rule::partition(args).map_err(RequestError::Rules)?, &args.holding),
        Command::Exec(_)
        | Command::Flows(_)
        | Command::Ls(_)
        | Command::Show(_)
        | Command::Rm(_)
        | Command::Events(_)
        | Command::Stop(_)
        | Command::Agent(_)
        | Command::Probe(_)
        | Command::Doctor
        | Command::Completions(_)
        | Command::Man(_) => return Err(RequestError::Rules(anyhow::anyhow!("this is no fault"))),
    };
    holding::require(&set).map_err(|failure| RequestError::Rules(failure.into()))?;
    Ok(Requested { duration: holding.duration(), risk: risk(&set.rules), set })
}

/// The grammar is kept: making it takes many times what reading a line does. There are as many as were needed at once.
fn parse(words: &[String]) -> Result<Cli, clap::Error> {
    static FREE: Mutex<Vec<Grammar>> = Mutex::new(Vec::new());
    let free = || FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = free().pop();
    let mut grammar = kept.unwrap_or_else(Cli::command);
    let read = grammar.try_get_matches_from_mut(words).and_then(|mut matches| {
        // What reads them without taking copies them all first.
        Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut grammar))
    });
    free().push(grammar);
    read
}

/// What `chaos flows` lists. Enters namespaces: not for a thread that others wait for.
pub(crate) fn flows(target: &Target) -> Result<Vec<Flow>> {
    rule::refuse_remote(target, "chaos flows host")?;
    Ok(flows::list(&targets::resolve(target)?)?)
}

/// The long names of the flags that say which packets.
pub(crate) fn match_flags() -> &'static [String] {
    static FLAGS: OnceLock<Vec<String>> = OnceLock::new();
    FLAGS.get_or_init(|| {
        let grammar = MatchArgs::augment_args(Grammar::new("match"));
        grammar.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
    })
}

/// The grammar of the flags of a command that sets a fault.
pub(crate) fn flags(command: &str) -> Vec<Arg> {
    let grammar = Cli::command();
    let found = grammar.find_subcommand(command);
    found.into_iter().flat_map(|command| command.get_arguments().cloned()).collect()
}
