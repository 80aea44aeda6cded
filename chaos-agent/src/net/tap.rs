//! A TAP: a device whose packets a program reads and writes. It ends with its descriptor.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

use nix::errno::Errno;

use super::{
    link,
    netlink::{Netlink, NetlinkError},
};

/// The virtio header in front of each frame (`struct virtio_net_hdr`, `include/uapi/linux/virtio_net.h`).
pub const VNET_HEADER_BYTES: usize = 10;

/// The largest MTU a TAP takes: 65,535 less the Ethernet header (`tun_net_initialize`, drivers/net/tun.c, 6.18).
/// A redirect does not look at it, so loopback's packets, which are longer, get through as well.
pub const MAX_MTU: u32 = 65_521;

const DEVICE: &str = "/dev/net/tun";

// include/uapi/linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8;
/// A name that is taken is an error; else we would be given somebody's persistent device.
const IFF_TUN_EXCL: libc::c_int = 0x8000;
const CSUM_TSO4_TSO6_ECN: u32 = 0x0f;
const USO4_USO6: u32 = 0x60;
/// `struct ifreq`: a name, then a union.
const IFREQ_BYTES: usize = 40;

/// What a TAP leaves to whoever reads it: `TUN_F_*` bits of `TUNSETOFFLOAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads(u32);

impl Offloads {
    /// From the most to nothing. UDP segmentation came with Linux 6.2; a kernel that does not know a bit
    /// refuses the whole mask.
    const TRIED: [Self; 3] = [Self(CSUM_TSO4_TSO6_ECN | USO4_USO6), Self(CSUM_TSO4_TSO6_ECN), Self(0)];

    /// The mask.
    #[must_use]
    pub const fn mask(self) -> u32 {
        self.0
    }

    /// In words, for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self.0 {
            0 => "without segmentation, so bulk transfers are slow",
            CSUM_TSO4_TSO6_ECN => "with TCP segmentation",
            _ => "with TCP and UDP segmentation",
        }
    }
}

/// How to make one.
#[derive(Clone, Copy, Debug)]
pub struct TapSpec<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    /// Packets that may wait to be read.
    pub queue_len: u32,
    /// Bytes without the Ethernet header; at most [`MAX_MTU`].
    pub mtu: u32,
}

/// An open TAP. Its device is gone when `fd` (and every copy) is closed.
#[derive(Debug)]
pub struct Tap {
    /// Reads and writes one frame a call, [`VNET_HEADER_BYTES`] in front; does not block.
    pub fd: OwnedFd,
    /// Interface index in the namespace where it was made.
    pub index: u32,
    /// What the kernel agreed to.
    pub offloads: Offloads,
}

/// Why there is no TAP.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name does not fit.
    #[error("`{0}` is no device name: it must have 1 to 15 bytes")]
    BadName(String),
    /// `/dev/net/tun` could not be opened.
    #[error("{DEVICE} cannot be opened: {source}; {}", mend_open(source))]
    Open {
        /// The system call's answer.
        source: io::Error,
    },
    /// The kernel refused one of the steps.
    #[error("making the private device `{name}`: {step}: {source}")]
    Refused {
        /// The device.
        name: String,
        /// Which step.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It was made, and could not be set up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Made, but gone before it could be set up.
    #[error("the private device `{0}` vanished while it was made; try again")]
    Vanished(String),
}

/// What to do when [`DEVICE`] does not open: no module, or a container that was not given the device.
fn mend_open(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "run it with sudo or as root, a container with `--device /dev/net/tun`"
        }
        _ => "`sudo modprobe tun`, or in a container `--device /dev/net/tun`",
    }
}

/// Makes a TAP in the calling thread's namespace: virtio headers, NOARP, no IPv6 address, up.
///
/// A device of that name is deleted first: give a name that only we use. Needs `CAP_NET_ADMIN`. On an error
/// nothing is left.
pub fn create(netlink: &mut Netlink, spec: &TapSpec<'_>) -> Result<Tap, TapError> {
    link::delete_by_name(netlink, spec.name)?;
    let (fd, offloads) = open(spec.name)?;
    let found = link::by_name(netlink, spec.name)?;
    let index = found.ok_or_else(|| TapError::Vanished(spec.name.to_owned()))?.index;
    // The ring is as long as the queue; both before it is up, so that nothing has to be copied.
    link::prepare(netlink, index, spec.queue_len, spec.mtu)?;
    link::no_ipv6_address(netlink, index)?;
    link::set_up(netlink, index)?;
    Ok(Tap { fd, index, offloads })
}

fn open(name: &str) -> Result<(OwnedFd, Offloads), TapError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)
        .map_err(|source| TapError::Open { source })?;
    let refused =
        |step| move |errno: Errno| TapError::Refused { name: name.to_owned(), step, source: errno.into() };
    let mut request = interface_request(name)?;
    // SAFETY: `request` is as long as an ifreq, which this command reads and writes.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    Errno::result(made).map_err(refused("TUNSETIFF"))?;
    let bytes = (VNET_HEADER_BYTES as u32).cast_signed();
    // SAFETY: this command reads an int, which lives until the call returns.
    let sized = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETVNETHDRSZ, &raw const bytes) };
    Errno::result(sized).map_err(refused("TUNSETVNETHDRSZ"))?;
    let mut last = Ok(());
    for offloads in Offloads::TRIED {
        last = set_offloads(&device, offloads);
        if last.is_ok() {
            return Ok((device.into(), offloads));
        }
    }
    last.map_err(refused("TUNSETOFFLOAD"))?;
    Ok((device.into(), Offloads(0)))
}

/// A name, then the flags.
fn interface_request(name: &str) -> Result<[u8; IFREQ_BYTES], TapError> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(TapError::BadName(name.to_owned()));
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | IFF_TUN_EXCL;
    let mut request = [0; IFREQ_BYTES];
    request[..name.len()].copy_from_slice(name.as_bytes());
    // All of them fit into the low 16 bits, which is the width of `ifr_flags`.
    request[libc::IFNAMSIZ..libc::IFNAMSIZ + 2]
        .copy_from_slice(&(flags.cast_unsigned() as u16).to_ne_bytes());
    Ok(request)
}

fn set_offloads(device: &File, offloads: Offloads) -> Result<(), Errno> {
    // SAFETY: this command takes an integer.
    let set = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(offloads.mask())) };
    Errno::result(set).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(matches!(interface_request(""), Err(TapError::BadName(_))));
        assert!(matches!(interface_request("chaos-0123456789"), Err(TapError::BadName(_))));
        let request = interface_request("chaos-d1").unwrap();
        assert_eq!(&request[..9], b"chaos-d1\0");
        assert_eq!(u16::from_ne_bytes([request[16], request[17]]), 0xd002);
    }

    #[test]
    fn what_mends_it_is_said() {
        let error = |code| TapError::Open { source: io::Error::from_raw_os_error(code) }.to_string();
        assert!(error(libc::ENOENT).contains("modprobe tun"));
        assert!(error(libc::ENODEV).contains("--device /dev/net/tun"));
        assert!(error(libc::EPERM).contains("--device /dev/net/tun"));
    }
}
