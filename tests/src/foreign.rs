//! A foreign program in the tc chain: two instructions that say one verdict for every packet.

use std::{
    ffi::CString,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result, ensure};
use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    tc::{NlOptions, TcAttachOptions, qdisc_add_clsact},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::lab::netns::Netns;

/// Ends the chain, the packet goes its way (`TC_ACT_OK`, `include/uapi/linux/pkt_cls.h`).
pub const OK: i32 = 0;
/// Drops the packet (`TC_ACT_SHOT`).
pub const SHOT: i32 = 2;

/// bpf(2) commands and the program type, `include/uapi/linux/bpf.h`.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// Where the foreign program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// tcx, before all others at the time.
    TcxFirst,
    /// tcx, after all others at the time.
    TcxLast,
    /// A clsact filter of this priority.
    Clsact(u16),
}

/// A foreign program, attached until dropped.
#[derive(Debug)]
pub struct Foreign<'a> {
    program: SchedClassifier,
    netns: &'a Netns,
}

impl<'a> Foreign<'a> {
    /// Attaches a program that returns `verdict` to a device of `netns`.
    ///
    /// # Errors
    /// Without root, or without tcx where it is asked for.
    pub fn attach(
        netns: &'a Netns,
        device: &str,
        direction: TcAttachType,
        place: Place,
        verdict: i32,
    ) -> Result<Self> {
        let mut program = load(verdict)?;
        let options = match place {
            Place::TcxFirst => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Place::TcxLast => TcAttachOptions::TcxOrder(LinkOrder::last()),
            Place::Clsact(priority) => {
                TcAttachOptions::Netlink(NlOptions { priority, ..NlOptions::default() })
            }
        };
        let attached = netns.enter(|| {
            if matches!(place, Place::Clsact(_)) {
                // It may be there already; attaching tells whether it is.
                let _ = qdisc_add_clsact(device);
            }
            program.attach_with_options(device, direction, options).map(drop)
        })?;
        attached.with_context(|| format!("attaching to {device}"))?;
        Ok(Self { program, netns })
    }
}

impl Drop for Foreign<'_> {
    fn drop(&mut self) {
        // aya removes a clsact filter by interface index in the namespace of the calling thread.
        let _ = self.netns.enter(|| self.program.unload());
    }
}

#[repr(C, align(8))]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    rest: [u64; 13],
}

#[repr(C, align(8))]
struct PinAttributes {
    path: u64,
    descriptor: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of attributes, and what they point to lives
    // in the callers' frames until the call returns.
    let code =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    ensure!(code >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    Ok(i32::try_from(code)?)
}

/// `r0 = verdict; exit`, as a program that aya can attach. aya adopts foreign programs only from
/// a BPF file system, so one is mounted where only a short-lived thread sees it.
fn load(verdict: i32) -> Result<SchedClassifier> {
    let value = u64::from(verdict.cast_unsigned());
    let instructions = [value << 32 | 0xb7, 0x95];
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_SCHED_CLS,
        instruction_count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 13],
    };
    let descriptor = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    let program = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let directory = tempfile::tempdir()?;
    std::thread::scope(|scope| {
        let adopt = scope.spawn(|| adopt(&program, directory.path()));
        adopt.join().map_err(|_| anyhow::anyhow!("the adopting thread panicked"))?
    })
}

fn adopt(program: &OwnedFd, directory: &Path) -> Result<SchedClassifier> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("private mounts")?;
    mount(Some("bpf"), directory, Some("bpf"), MsFlags::empty(), none).context("a BPF file system")?;
    let path = directory.join("foreign");
    let name = CString::new(path.as_os_str().as_bytes())?;
    let descriptor = program.as_raw_fd().try_into()?;
    bpf(BPF_OBJ_PIN, &PinAttributes { path: name.as_ptr() as u64, descriptor, flags: 0 })?;
    SchedClassifier::from_pin(&path).context("adopting the program")
}

#[cfg(test)]
mod tests {
    use aya::programs::TcAttachType;

    use super::{Foreign, OK, Place, SHOT};
    use crate::lab::shapes::{B4, Pair};

    #[test]
    fn the_verdict_acts_until_it_is_dropped() {
        crate::require_root!();
        let pair = Pair::new().unwrap();
        let ping = format!("ping -c 1 -W 1 -q {B4}");
        pair.a.run(&ping).unwrap();
        for place in [Place::TcxFirst, Place::TcxLast, Place::Clsact(7)] {
            let direction = TcAttachType::Egress;
            let foreign = Foreign::attach(&pair.a, "va", direction, place, SHOT).unwrap();
            assert!(pair.a.run(&ping).is_err(), "{place:?}");
            drop(foreign);
            let foreign = Foreign::attach(&pair.a, "va", direction, place, OK).unwrap();
            pair.a.run(&ping).unwrap();
            drop(foreign);
        }
    }
}
