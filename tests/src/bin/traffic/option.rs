//! Options of sockets that nix does not know.

use std::os::fd::AsRawFd;

use anyhow::{Context as _, Result};
use nix::errno::Errno;

/// Sets an option whose value is one number.
pub(crate) fn set_option(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> Result<()> {
    // SAFETY: the kernel reads one int at the pointer, which lives until the call returns.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of::<i32>())?,
        )
    };
    Errno::result(code).map(drop).with_context(|| format!("option {name} of level {level}"))
}
