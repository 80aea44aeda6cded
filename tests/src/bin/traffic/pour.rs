//! `traffic pour ADDRESS BYTES TIME_NS HASH`, `traffic drain ADDRESS HASH`.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context, Result};
use chaos_tests::measure::pour::{Drained, Poured, WINDOW};
use sha2::{Digest, Sha256};

use crate::{clock, tcp_info::TcpInfo};

/// Bytes of one block.
const BLOCK: usize = 256 << 10;
/// A counter stands at every so many bytes, so that no two packets are alike.
const STAMP: usize = 512;

pub(crate) fn pour(to: SocketAddr, bytes: u64, time_ns: u64, hash: bool) -> Result<()> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
    clock::ready()?;
    let deadline_ns = clock::now_ns()? + time_ns;
    let mut hasher = hash.then(Sha256::new);
    let mut block: Vec<u8> = (0..BLOCK).map(|place| (place * 31 + place / 251).to_le_bytes()[0]).collect();
    let (mut sent, mut stamp) = (0_u64, 0_u64);
    while sent < bytes && clock::now_ns()? < deadline_ns {
        for place in (0..BLOCK).step_by(STAMP) {
            stamp += 1;
            block[place..place + 8].copy_from_slice(&stamp.to_le_bytes());
        }
        let length = usize::try_from(bytes - sent).unwrap_or(BLOCK).min(BLOCK);
        stream.write_all(&block[..length]).context("sending")?;
        sent += length as u64;
        if let Some(hasher) = &mut hasher {
            hasher.update(&block[..length]);
        }
    }
    stream.shutdown(Shutdown::Write).context("ending the connection")?;
    stream.read(&mut [0]).context("waiting for the receiver")?;
    let retransmitted = TcpInfo::of(&stream)?.total_retrans;
    crate::print(&Poured { bytes: sent, sha256: hasher.map(hexadecimal), retransmitted })
}

pub(crate) fn drain(at: SocketAddr, hash: bool) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("listening at {at}"))?;
    clock::ready()?;
    let (mut stream, _) = listener.accept().context("accepting")?;
    let mut hasher = hash.then(Sha256::new);
    let mut drained = Drained { bytes: 0, sha256: None, took_ns: 0, windows: Vec::new(), error: 0 };
    let mut first_ns = None;
    let mut buffer = vec![0; BLOCK];
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => {
                drained.error = clock::errno(&error);
                break;
            }
        };
        let now_ns = clock::now_ns()?;
        drained.took_ns = now_ns - *first_ns.get_or_insert(now_ns);
        let window = usize::try_from(u128::from(drained.took_ns) / WINDOW.as_nanos())?;
        if drained.windows.len() <= window {
            drained.windows.resize(window + 1, 0);
        }
        drained.windows[window] += length as u64;
        drained.bytes += length as u64;
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer[..length]);
        }
    }
    drained.sha256 = hasher.map(hexadecimal);
    crate::print(&drained)
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
