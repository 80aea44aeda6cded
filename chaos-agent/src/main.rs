//! The command `chaos`.

use std::process::ExitCode;

fn main() -> ExitCode {
    chaos_agent::cli::run()
}
