//! Offloads of a device, by the ethtool ioctl.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

// include/uapi/linux/ethtool.h and sockios.h, Linux 6.18.
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Features whose name begins so leave the cutting into segments, or the checksum, to whoever comes next.
/// The tunnel and SCTP segmentations are among them: `ethtool -K tso off gso off` leaves those on.
const TRANSMIT_OFFLOADS: [&str; 2] = ["tx-checksum-", "tx-scatter-gather"];

/// Why the offloads could not be switched off.
#[derive(Debug, thiserror::Error)]
pub enum OffloadError {
    /// A device's name is longer than the kernel allows.
    #[error("`{0}` is no device name: it has more than 15 bytes")]
    BadName(String),
    /// The kernel refused.
    #[error("switching the offloads of {device} off: {what}: {source}")]
    Kernel {
        /// The device.
        device: String,
        /// Which step.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// Asked, accepted and still on.
    #[error("the device {device} keeps these offloads on: {}", features.join(", "))]
    StillOn {
        /// The device.
        device: String,
        /// Names as `ethtool -k` shows them.
        features: Vec<String>,
    },
}

/// Switches off everything by which a device puts off segmentation, checksums or linearising, and verifies
/// it, so that each packet it carries is one wire packet with a full checksum.
///
/// For our own devices only: it does not keep what was set. Acts in the calling thread's namespace.
pub fn offloads_off(device: &str) -> Result<(), OffloadError> {
    let ethtool = Ethtool::open(device)?;
    let features = ethtool.features()?;
    ethtool.switch_off(&features)?;
    let still_on: Vec<String> = ethtool
        .features()?
        .into_iter()
        .filter(|feature| feature.active && is_transmit_offload(&feature.name))
        .map(|feature| feature.name)
        .collect();
    if still_on.is_empty() {
        return Ok(());
    }
    Err(OffloadError::StillOn { device: device.to_owned(), features: still_on })
}

/// All features of a device that are on, by their `ethtool -k` names (kernel spelling).
pub fn active_features(device: &str) -> Result<Vec<String>, OffloadError> {
    let features = Ethtool::open(device)?.features()?;
    Ok(features.into_iter().filter(|feature| feature.active).map(|feature| feature.name).collect())
}

fn is_transmit_offload(name: &str) -> bool {
    TRANSMIT_OFFLOADS.iter().any(|prefix| name.starts_with(prefix))
        || (name.starts_with("tx-") && (name.contains("-segmentation") || name.starts_with("tx-gso-")))
}

/// One feature bit.
struct Feature {
    name: String,
    active: bool,
    /// Can be switched.
    available: bool,
}

/// A device and the socket through which the ioctl is made.
struct Ethtool<'a> {
    device: &'a str,
    name: [u8; libc::IFNAMSIZ],
    socket: std::os::fd::OwnedFd,
}

/// `struct ifreq` with its pointer member, and no smaller than the kernel's, which copies the whole of it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u32,
    padding: [u8; 16],
}

const _: () = assert!(size_of::<Request>() >= size_of::<libc::ifreq>());

impl<'a> Ethtool<'a> {
    fn open(device: &'a str) -> Result<Self, OffloadError> {
        let mut name = [0; libc::IFNAMSIZ];
        if device.len() >= name.len() {
            return Err(OffloadError::BadName(device.to_owned()));
        }
        name[..device.len()].copy_from_slice(device.as_bytes());
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| error(device, "opening a socket", errno))?;
        Ok(Self { device, name, socket })
    }

    fn call(&self, what: &'static str, words: &mut [u32]) -> Result<(), OffloadError> {
        ioctl(self.socket.as_fd(), self.name, words).map_err(|errno| error(self.device, what, errno))
    }

    fn features(&self) -> Result<Vec<Feature>, OffloadError> {
        let names = self.names()?;
        let blocks = names.len().div_ceil(32);
        // struct ethtool_gfeatures: cmd, size, then {available, requested, active, never_changed} per 32 bits.
        let mut words = vec![0_u32; 2 + 4 * blocks];
        words[0] = ETHTOOL_GFEATURES;
        words[1] = u32::try_from(blocks).unwrap_or(u32::MAX);
        self.call("reading them", &mut words)?;
        let bit = |index: usize, member: usize| {
            words.get(2 + 4 * (index / 32) + member).is_some_and(|block| block >> (index % 32) & 1 != 0)
        };
        Ok(names
            .into_iter()
            .enumerate()
            .map(|(index, name)| Feature { name, available: bit(index, 0), active: bit(index, 2) })
            .collect())
    }

    /// Names in the order of their bits.
    fn names(&self) -> Result<Vec<String>, OffloadError> {
        // struct ethtool_sset_info: cmd, reserved, sset_mask (64 bits), then one count per set asked for.
        let mask = 1_u64 << ETH_SS_FEATURES;
        let mut info = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0];
        info[2..4].copy_from_slice(&halves(mask));
        self.call("counting them", &mut info)?;
        let count = info[4];
        // struct ethtool_gstrings: cmd, string_set, len, then len names of 32 bytes.
        let mut words = vec![0_u32; 3 + count as usize * (ETH_GSTRING_LEN / 4)];
        words[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count]);
        self.call("reading their names", &mut words)?;
        let bytes: Vec<u8> = words[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(bytes.chunks_exact(ETH_GSTRING_LEN).map(c_string).collect())
    }

    fn switch_off(&self, features: &[Feature]) -> Result<(), OffloadError> {
        let blocks = features.len().div_ceil(32);
        // struct ethtool_sfeatures: cmd, size, then {valid, requested} per 32 bits.
        let mut words = vec![0_u32; 2 + 2 * blocks];
        words[0] = ETHTOOL_SFEATURES;
        words[1] = u32::try_from(blocks).unwrap_or(u32::MAX);
        for (index, feature) in features.iter().enumerate() {
            if feature.available && is_transmit_offload(&feature.name) {
                words[2 + 2 * (index / 32)] |= 1 << (index % 32);
            }
        }
        self.call("switching them", &mut words)
    }
}

/// A 64-bit member as the two words it occupies.
fn halves(value: u64) -> [u32; 2] {
    let bytes = value.to_ne_bytes();
    let (low, high) = bytes.split_at(4);
    [low, high].map(|half| half.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word)))
}

fn c_string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn error(device: &str, what: &'static str, errno: Errno) -> OffloadError {
    OffloadError::Kernel { device: device.to_owned(), what, source: errno.into() }
}

/// `words` begins with the command and is as long as that command's structure, which every caller sees to.
fn ioctl(socket: BorrowedFd<'_>, name: [u8; libc::IFNAMSIZ], words: &mut [u32]) -> Result<(), Errno> {
    let mut request = Request { name, data: words.as_mut_ptr(), padding: [0; 16] };
    // SAFETY: `request` is a whole ifreq, and the kernel reads and writes no more of `data` than the sizes
    // that the callers wrote into `words`, which match its length.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_and_sctp_segmentation_count_too() {
        for name in [
            "tx-tcp-segmentation",
            "tx-sctp-segmentation",
            "tx-udp_tnl-csum-segmentation",
            "tx-generic-segmentation",
            "tx-gso-list",
            "tx-checksum-ip-generic",
            "tx-scatter-gather-fraglist",
        ] {
            assert!(is_transmit_offload(name), "{name}");
        }
        for name in ["rx-gro", "tx-vlan-hw-insert", "highdma", "tx-lockless"] {
            assert!(!is_transmit_offload(name), "{name}");
        }
    }

    #[test]
    fn a_name_too_long_is_refused_before_the_kernel_cuts_it() {
        assert!(matches!(offloads_off("sixteen-bytes-xx"), Err(OffloadError::BadName(_))));
    }
}
