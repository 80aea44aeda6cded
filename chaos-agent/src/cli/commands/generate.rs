//! `chaos completions` and `chaos man`, by clap's own tools.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::cli::{
    args::{Cli, CompletionsArgs, ManArgs},
    failure::Exit,
    output::{self, Stream},
};

/// Prints the completions for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "chaos", &mut script);
    output::write(Stream::Out, &script)?;
    Ok(Exit::Done.into())
}

/// Prints the page of `chaos`, or writes the page of every command.
pub(crate) fn man(args: &ManArgs) -> Result<ExitCode> {
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        output::write(Stream::Out, &page)?;
        return Ok(Exit::Done.into());
    };
    fs::create_dir_all(directory)
        .with_context(|| format!("the directory {} cannot be made", directory.display()))?;
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("the manual pages cannot be written to {}", directory.display()))?;
    output::note(&format!("manual pages written to {}", directory.display()));
    Ok(Exit::Done.into())
}
