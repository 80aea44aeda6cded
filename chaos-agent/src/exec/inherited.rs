//! What the caller gave us and the Rust runtime changes before `main`: the disposition of SIGPIPE.
//!
//! The runtime ignores SIGPIPE (library/std/src/sys/pal/unix/mod.rs, `reset_sigpipe`), and an ignored signal
//! stays ignored across execve(2). A command must find what it would find without us, so the disposition is
//! read before the runtime starts.

use std::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const DEFAULT: u8 = 1;
const IGNORED: u8 = 2;

static SIGPIPE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Run by the loader before `main` (System V ABI, `DT_INIT_ARRAY`); needs nothing of the runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    let seen = if is_ignored(libc::SIGPIPE) { IGNORED } else { DEFAULT };
    SIGPIPE.store(seen, Ordering::Relaxed);
}

/// Whether SIGPIPE was ignored when this process was started. Not known means not ignored: the kernel's
/// default, which nearly every caller has.
pub(super) fn sigpipe_was_ignored() -> bool {
    // Naming the entry keeps the linker from dropping it with an unused object file.
    std::hint::black_box(&RECORD);
    SIGPIPE.load(Ordering::Relaxed) == IGNORED
}

/// Whether a signal is ignored now.
pub(super) fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks; the kernel writes the old one into memory of the right size.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeroes are a valid sigaction (SIG_DFL, no flags, no restorer), and the call may have filled it.
    let action = unsafe { action.assume_init() };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}
