//! What can go wrong between the agent and the kernel, in the user's terms.

use std::io;

use aya::{EbpfError, maps::MapError, programs::ProgramError};

use crate::{net::NetlinkError, netns::NetnsError};

/// Why the kernel side could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The embedded object is not understood.
    #[error(
        "the embedded eBPF object cannot be loaded: {0}; this is a fault of this build, rebuild it with `cargo xtask build-ebpf`"
    )]
    Object(String),
    /// The kernel's verifier or the bpf system call refused a program.
    #[error("the kernel refused the program `{program}`: {reason}")]
    Load {
        /// Which program.
        program: String,
        /// In words, with the command that mends it where there is one.
        reason: String,
    },
    /// A map could not be made or changed.
    #[error("the kernel's table `{table}`: {reason}")]
    Table {
        /// Which map.
        table: String,
        /// In words.
        reason: String,
    },
    /// A program could not be attached.
    #[error("attaching to `{device}` ({direction}): {reason}")]
    Attach {
        /// Interface or cgroup.
        device: String,
        /// Which way.
        direction: &'static str,
        /// In words.
        reason: String,
    },
    /// A system call failed.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// Too many of something for the tables.
    #[error("{what}: {count} needed, {limit} are possible")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many are needed.
        count: usize,
        /// How many fit.
        limit: usize,
    },
    /// A namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel's network configuration could not be read or changed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl DatapathError {
    /// A failed system call.
    pub(crate) const fn io(doing: &'static str, error: io::Error) -> Self {
        Self::Io { doing, error }
    }

    pub(crate) fn table(table: &str, error: &MapError) -> Self {
        Self::Table { table: table.to_owned(), reason: mend(&chain(error)) }
    }

    pub(crate) fn load(program: &str, error: &ProgramError) -> Self {
        Self::Load { program: program.to_owned(), reason: mend(&chain(error)) }
    }

    pub(crate) fn object(error: &EbpfError) -> Self {
        if let EbpfError::MapError(error) = error {
            return Self::table("(making it)", error);
        }
        Self::Object(explain(error))
    }

    pub(crate) fn attach(device: &str, direction: &'static str, error: &ProgramError) -> Self {
        Self::Attach { device: device.to_owned(), direction, reason: explain(error) }
    }
}

/// An error in the user's terms, with the command that mends it.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    mend(&chain(error))
}

/// An error and everything behind it, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

/// Adds the command that mends it, where the kernel's answer is known to have one.
fn mend(text: &str) -> String {
    let advice = if text.contains("os error 1)") {
        "; run it with sudo, or give it the capabilities: `sudo setcap cap_bpf,cap_net_admin,cap_sys_admin,cap_perfmon+ep $(command -v chaos)`; `chaos doctor` shows what is missing"
    } else if text.contains("os error 13)") {
        "; the verifier of this kernel does not accept the program: please report it with the output of `chaos doctor`"
    } else if text.contains("os error 12)") {
        "; memory or the memlock limit is used up: `ulimit -l unlimited`"
    } else if text.contains("os error 2)") {
        "; something this needs is not there: `chaos doctor` shows what this kernel has"
    } else if text.contains("os error 22)") {
        "; this kernel does not know it: `chaos doctor` shows what it has"
    } else {
        ""
    };
    format!("{text}{advice}")
}
