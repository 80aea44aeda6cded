//! Calls of connect(2) as a program of its own, so that they can come from a namespace and a cgroup:
//! `connect tcp|udp ADDRESS COUNT`.
//!
//! Prints a line a call: the errno (0 = connected) and the microseconds it took. `connect hold ADDRESS`
//! connects once, prints an empty line, and then what reading from the idle connection fails with (0 =
//! it was closed).

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// A call that nobody answers is given up.
const LIMIT: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["hold", to] = parts.as_slice() {
        return hold(to.parse().context("the address")?);
    }
    let [proto, to, count] = parts.as_slice() else { bail!("usage: connect tcp|udp ADDRESS COUNT") };
    let to: SocketAddr = to.parse().context("the address")?;
    let mut out = std::io::stdout().lock();
    for _ in 0..count.parse::<u32>()? {
        let begin = Instant::now();
        let result = match *proto {
            // Without a time limit the call blocks, as a plain program's does.
            "tcp" => TcpStream::connect(to).map(drop),
            "nonblocking" => TcpStream::connect_timeout(&to, LIMIT).map(drop),
            "udp" => connect_udp(to),
            _ => bail!("`{proto}` is not tcp, nonblocking or udp"),
        };
        let took = begin.elapsed();
        let errno = result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        writeln!(out, "{errno} {}", took.as_micros())?;
    }
    Ok(())
}

fn hold(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(to).context("connecting")?;
    let mut out = std::io::stdout().lock();
    writeln!(out)?;
    let errno = stream.read(&mut [0]).err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
    writeln!(out, "{errno}").context("writing the errno")
}

fn connect_udp(to: SocketAddr) -> std::io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))?.connect(to)
}
