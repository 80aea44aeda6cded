//! The counters of `struct tcp_info` that the C library's version of it lacks.

use std::{net::TcpStream, os::fd::AsRawFd};

use anyhow::{Result, ensure};

/// What the tests use of it; offsets from `include/uapi/linux/tcp.h`, Linux 4.6 and later.
pub(crate) struct TcpInfo {
    /// Bytes a full segment carries.
    pub(crate) snd_mss: u32,
    /// Segments in flight.
    pub(crate) unacked: u32,
    /// Segments sent again.
    pub(crate) total_retrans: u32,
    /// Bytes not yet sent.
    pub(crate) notsent_bytes: u32,
    /// Wire segments with data received (RFC 4898 tcpEStatsDataSegsIn).
    pub(crate) data_segs_in: u32,
    /// Wire segments with data sent, retransmissions included (RFC 4898 tcpEStatsDataSegsOut).
    pub(crate) data_segs_out: u32,
}

impl TcpInfo {
    pub(crate) fn of(stream: &TcpStream) -> Result<Self> {
        let mut bytes = [0_u8; 256];
        let mut length = libc::socklen_t::try_from(bytes.len())?;
        // SAFETY: the kernel writes at most `length` bytes into `bytes`, which is that long.
        let code = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                bytes.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        ensure!(code == 0, "TCP_INFO: {}", std::io::Error::last_os_error());
        ensure!(length >= 160, "TCP_INFO has only {length} bytes: the kernel is older than 4.6");
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(Self {
            snd_mss: word(16),
            unacked: word(24),
            total_retrans: word(100),
            notsent_bytes: word(144),
            data_segs_in: word(152),
            data_segs_out: word(156),
        })
    }
}
