//! A server that answers every request of a connection with the same page.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context as _, Result};
use chaos_tests::lab::netns::Netns;

/// Bytes of the page.
const PAGE: usize = 1024;

/// Starts it inside `netns`; it ends with this process.
pub(super) fn serve(netns: &Netns, at: SocketAddr) -> Result<()> {
    let listener = netns.enter(|| TcpListener::bind(at))?.with_context(|| format!("listening at {at}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever ends a connection in the middle has its reasons.
            thread::spawn(move || answer(&stream));
        }
    });
    Ok(())
}

fn answer(mut stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let page = "x".repeat(PAGE);
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {PAGE}\r\n\r\n{page}");
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        // A request without a body ends with an empty line.
        if line == "\r\n" {
            stream.write_all(answer.as_bytes())?;
        }
        line.clear();
    }
    Ok(())
}
