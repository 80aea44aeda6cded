//! Two namespaces joined by L3 devices: packets without a MAC header.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::OpenOptionsExt,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, poll},
};

use super::{
    netns::Netns,
    shapes::{A4, A6, B4, B6, Pair, address},
};

mod ioctl {
    nix::ioctl_write_int!(tunsetiff, b'T', 202);
}

/// A pair whose devices are tuns (`va` in A, `vb` in B), joined by a thread that copies.
#[derive(Debug)]
pub struct TunPair {
    /// The namespaces, with the addresses of [`Pair`].
    pub pair: Pair,
    stop: Arc<AtomicBool>,
    copier: Option<JoinHandle<()>>,
}

impl TunPair {
    /// Makes the pair.
    ///
    /// # Errors
    /// Without root or `/dev/net/tun`.
    pub fn new() -> Result<Self> {
        let pair = Pair { a: Netns::new()?, b: Netns::new()? };
        let near = open_tun(&pair.a, "va")?;
        let far = open_tun(&pair.b, "vb")?;
        for (netns, device, v4, v6) in [(&pair.a, "va", A4, A6), (&pair.b, "vb", B4, B6)] {
            netns.run(&format!("ip link set {device} txqueuelen 10000 up"))?;
            address(netns, device, v4, v6)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let copier = std::thread::spawn(move || copy_until(&near, &far, &seen));
        Ok(Self { pair, stop, copier: Some(copier) })
    }
}

impl Drop for TunPair {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(copier) = self.copier.take() {
            let _ = copier.join();
        }
    }
}

/// A tun device without the packet information header (Documentation/networking/tuntap.rst).
fn open_tun(netns: &Netns, name: &str) -> Result<File> {
    netns.enter(|| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open("/dev/net/tun")
            .context("opening /dev/net/tun")?;
        // SAFETY: ifreq is plain data for which all zero is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = libc::c_char::from_ne_bytes([byte]);
        }
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?;
        let pointer = std::ptr::from_ref(&request) as libc::c_ulong;
        // SAFETY: the kernel reads one ifreq at the pointer, which lives until the call returns.
        unsafe { ioctl::tunsetiff(file.as_raw_fd(), pointer) }.context("TUNSETIFF")?;
        Ok(file)
    })?
}

fn copy_until(near: &File, far: &File, stop: &AtomicBool) {
    let mut buffer = vec![0; 65536];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [near, far].map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut ready, 50_u16);
        for (mut from, mut to) in [(near, far), (far, near)] {
            while let Ok(length) = from.read(&mut buffer) {
                let _ = to.write(&buffer[..length]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TunPair;
    use crate::lab::shapes::{B4, B6};

    #[test]
    fn packets_without_a_mac_header_arrive() {
        crate::require_root!();
        let tun = TunPair::new().unwrap();
        tun.pair.a.run(&format!("ping -c 2 -i 0.1 -W 2 -q {B4}")).unwrap();
        tun.pair.a.run(&format!("ping -c 2 -i 0.1 -W 2 -q {B6}")).unwrap();
    }
}
