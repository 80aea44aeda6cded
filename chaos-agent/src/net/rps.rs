//! Receive packet steering: lets every CPU take a share of a device's packets.
//!
//! A packet redirected into a veth is received on the CPU that sent it; with RPS the flow's hash chooses the
//! CPU, so that packets of one flow stay in order when the sender moves.

use std::{
    ffi::CStr,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use crate::netns::{Netns, NetnsError};

/// Why RPS could not be set.
#[derive(Debug, thiserror::Error)]
pub enum RpsError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel refused.
    #[error("letting all CPUs receive for {device}: {source}")]
    Io {
        /// The device.
        device: String,
        /// Its answer.
        source: io::Error,
    },
}

/// Lets every online CPU receive for the first queue of `device` in `netns`. False if the kernel has no RPS
/// or no detached mounts (before Linux 5.2).
///
/// The file lies in sysfs, which shows the devices of the namespace it was mounted in. So sysfs is mounted
/// once more inside the namespace, detached: nobody sees that mount, and it ends with its descriptor.
pub fn set_rps(netns: &Netns, device: &str) -> Result<bool, RpsError> {
    let done = netns.run(|| steer_to_all(device))?;
    match done {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOSYS | libc::ENODEV)) => {
            Ok(false)
        }
        Err(source) => Err(RpsError::Io { device: device.to_owned(), source }),
    }
}

fn steer_to_all(device: &str) -> io::Result<()> {
    let sysfs = mount_sysfs()?;
    let mut online = String::new();
    open(&sysfs, Path::new("devices/system/cpu/online"), OFlag::O_RDONLY)?.read_to_string(&mut online)?;
    let mask = cpu_mask(online.trim()).ok_or_else(|| io::Error::other(format!("CPU list `{online}`")))?;
    let file = format!("class/net/{device}/queues/rx-0/rps_cpus");
    open(&sysfs, Path::new(&file), OFlag::O_WRONLY)?.write_all(mask.as_bytes())
}

fn open(directory: &OwnedFd, path: &Path, mode: OFlag) -> io::Result<std::fs::File> {
    let fd = openat(directory.as_fd(), path, mode | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(fd.into())
}

/// A CPU list such as `0-3,8` as the hexadecimal words of a mask, highest first (`bitmap_parse`, lib/bitmap-str.c).
fn cpu_mask(online: &str) -> Option<String> {
    let mut words = vec![0_u32];
    for range in online.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        for cpu in first.parse::<usize>().ok()?..=last.parse::<usize>().ok()? {
            if words.len() <= cpu / 32 {
                words.resize(cpu / 32 + 1, 0);
            }
            words[cpu / 32] |= 1 << (cpu % 32);
        }
    }
    Some(words.iter().rev().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(","))
}

/// Mounts sysfs without a place in the tree (`fsopen(2)`, `fsmount(2)`), for the calling thread's namespace.
fn mount_sysfs() -> io::Result<OwnedFd> {
    // include/uapi/linux/mount.h, Linux 6.18.
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    const MOUNT_ATTR_NOSUID_NODEV_NOEXEC: libc::c_uint = 0x2 | 0x4 | 0x8;
    const SYSFS: &CStr = c"sysfs";

    // SAFETY: the name is a C string that outlives the call; the flags are integers.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, SYSFS.as_ptr(), FSOPEN_CLOEXEC) };
    let context = owned(context)?;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes no key and no value, so both pointers are null.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    Errno::result(created)?;
    // SAFETY: three integers; the descriptor is open.
    let mount = unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID_NODEV_NOEXEC)
    };
    owned(mount)
}

/// The descriptor a raw system call returned, or its error.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_list_becomes_a_mask() {
        assert_eq!(cpu_mask("0"), Some("00000001".to_owned()));
        assert_eq!(cpu_mask("0-1"), Some("00000003".to_owned()));
        assert_eq!(cpu_mask("0,2-3,32"), Some("00000001,0000000d".to_owned()));
        assert_eq!(cpu_mask("x"), None);
    }
}
