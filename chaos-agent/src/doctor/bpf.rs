//! The bpf(2) system call, as far as probing goes: tiny maps and programs, closed at once.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::errno::Errno;

// include/uapi/linux/bpf.h, Linux 6.18.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;
const BPF_TCX_INGRESS: u32 = 46;
/// `bpf_set_retval`, from Linux 5.18.
const SET_RETVAL: i32 = 187;
const LICENSE: &CStr = c"GPL";

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        // A bit field: the destination comes first, which is the low half on little-endian machines only.
        let registers = if cfg!(target_endian = "little") {
            source << 4 | destination
        } else {
            destination << 4 | source
        };
        Self { code, registers, offset, immediate }
    }

    /// `register = value`.
    pub(super) fn set(register: u8, value: i32) -> Self {
        Self::new(0xb7, register, 0, 0, value)
    }

    /// `*(u64 *)(r10 - 8) = 0`.
    pub(super) fn clear_stack() -> Self {
        Self::new(0x7a, 10, 0, -8, 0)
    }

    /// `r1 = atomic_fetch_add((u64 *)(r10 - 8), r1)`, from Linux 5.12.
    pub(super) fn fetch_add() -> Self {
        Self::new(0xdb, 10, 1, -8, 1)
    }

    /// Calls a helper by its number.
    pub(super) fn call(helper: i32) -> Self {
        Self::new(0x85, 0, 0, 0, helper)
    }

    /// Returns r0.
    pub(super) fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    padding: u32,
    expected_revision: u64,
}

/// Makes a map of this type (`enum bpf_map_type`).
pub(super) fn create_map(
    map_type: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
) -> Result<OwnedFd, Errno> {
    let attr =
        MapCreate { map_type, key_size: key, value_size: value, max_entries: entries, map_flags: flags };
    // SAFETY: the command reads a `MapCreate`.
    unsafe { bpf(BPF_MAP_CREATE, &attr) }
}

/// Loads a tc program.
pub(super) fn load_classifier(instructions: &[Instruction]) -> Result<OwnedFd, Errno> {
    load(BPF_PROG_TYPE_SCHED_CLS, 0, instructions)
}

/// Loads a program that refuses `connect(2)` with an errno of its own; attached nowhere.
pub(super) fn load_connect_hook() -> Result<OwnedFd, Errno> {
    let refuse = [
        Instruction::set(1, -libc::ECONNREFUSED),
        Instruction::call(SET_RETVAL),
        Instruction::set(0, 0),
        Instruction::exit(),
    ];
    load(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT, &refuse)
}

fn load(prog_type: u32, attach_type: u32, instructions: &[Instruction]) -> Result<OwnedFd, Errno> {
    let attr = ProgLoad {
        prog_type,
        insn_count: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        insns: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        expected_attach_type: attach_type,
        ..ProgLoad::default()
    };
    // SAFETY: the command reads a `ProgLoad`, and what it points to outlives the call.
    unsafe { bpf(BPF_PROG_LOAD, &attr) }
}

/// A tc program that lets everything go on to the next one.
pub(super) fn load_pass() -> Result<OwnedFd, Errno> {
    load_classifier(&[Instruction::set(0, -1), Instruction::exit()])
}

/// Attaches a tc program to a device's ingress by a tcx link, from Linux 6.6; closing the link detaches it.
pub(super) fn link_tcx(program: &OwnedFd, device: u32) -> Result<OwnedFd, Errno> {
    let attr = LinkCreate {
        prog_fd: u32::try_from(program.as_raw_fd()).map_err(|_| Errno::EBADF)?,
        target_ifindex: device,
        attach_type: BPF_TCX_INGRESS,
        flags: 0,
        relative_fd: 0,
        padding: 0,
        expected_revision: 0,
    };
    // SAFETY: the command reads a `LinkCreate`.
    unsafe { bpf(BPF_LINK_CREATE, &attr) }
}

/// A command that makes a descriptor.
///
/// # Safety
///
/// `attr` is what `command` reads, padding included, and its pointers are good for the call.
unsafe fn bpf<A>(command: libc::c_long, attr: &A) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller vouches for `attr`; its size is given, and the kernel takes the rest as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<A>()) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
