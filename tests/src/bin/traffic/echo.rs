//! `traffic echo ADDRESS`.

use std::{
    io::Write as _,
    net::{SocketAddr, UdpSocket},
};

use anyhow::{Context as _, Result};

/// Sends every datagram back to where it came from; prints an empty line when it can, and ends when it is killed.
pub(crate) fn datagrams(at: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(at).with_context(|| format!("binding {at}"))?;
    writeln!(std::io::stdout().lock())?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        // Whoever asked may be cut off; that is what is measured.
        let _ = socket.send_to(&buffer[..length], from);
    }
}
