//! A BPF file system that is mounted nowhere: reached only through our descriptor, gone with it.
//! Program instances find the tables of the first one there (`fsopen(2)`, Linux 5.2).

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
    ptr,
};

/// The file system; dropping it unpins everything in it.
#[derive(Debug)]
pub(super) struct PrivateBpffs(OwnedFd);

impl PrivateBpffs {
    /// Needs `CAP_SYS_ADMIN`.
    pub(super) fn new() -> io::Result<Self> {
        const FSOPEN_CLOEXEC: u32 = 1;
        const FSMOUNT_CLOEXEC: u32 = 1;
        const FSCONFIG_CMD_CREATE: u32 = 6;
        const TYPE: &CStr = c"bpf";
        // SAFETY: the string ends with a zero; the call returns a new descriptor or -1.
        let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, TYPE.as_ptr(), FSOPEN_CLOEXEC) })?;
        let nothing = ptr::null::<libc::c_void>();
        // SAFETY: this command takes no key, value or auxiliary number.
        let made = unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, nothing, nothing, 0)
        };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain numbers; the call returns a new descriptor or -1.
        owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) }).map(Self)
    }

    /// Where a map of this name is pinned.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: a new descriptor that nobody else has.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
