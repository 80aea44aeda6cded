//! `traffic answer ADDRESS`, `traffic ask ADDRESS COUNT REST_NS ANSWER fresh|kept LIMIT_NS`,
//! `traffic poke ADDRESS COUNT SIZE`.

use std::{
    io::{Error, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use chaos_tests::measure::dialogue::{Answer, Poked, REQUEST, Step};
use nix::{
    errno::Errno,
    sys::{
        socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, socket, sockopt},
        time::{TimeVal, TimeValLike},
    },
};

use crate::{clock, option::set_option};

/// Answers requests until standard input ends.
pub(crate) fn answer(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("listening at {at}"))?;
    clock::ready()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_all(stream));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn answer_all(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST];
    loop {
        stream.read_exact(&mut request)?;
        let length = u32::from_be_bytes([request[0], request[1], request[2], request[3]]);
        stream.write_all(&vec![0x5a; length as usize])?;
    }
}

pub(crate) fn ask(
    to: SocketAddr,
    count: u32,
    rest: Duration,
    answer: u32,
    keep: bool,
    limit: Duration,
) -> Result<()> {
    let mut kept = None;
    let mut answers = Vec::new();
    for number in 0..=count {
        let given = ask_once(to, answer, &mut kept, limit)?;
        // Over a kept connection the first request made it and is not counted.
        if number > 0 || !keep {
            answers.push(given);
        }
        if !keep {
            kept = None;
            if number + 1 == count {
                break;
            }
        }
        thread::sleep(rest);
    }
    answers.iter().try_for_each(crate::print)
}

fn ask_once(to: SocketAddr, answer: u32, kept: &mut Option<TcpStream>, limit: Duration) -> Result<Answer> {
    let start_ns = clock::now_ns()?;
    let mut connect_ns = None;
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => match connect(to, limit) {
            Ok(stream) => {
                connect_ns = Some(clock::now_ns()? - start_ns);
                stream
            }
            Err(error) => {
                let took_ns = clock::now_ns()? - start_ns;
                return Ok(Answer {
                    took_ns,
                    connect_ns,
                    error: Some((Step::Connect, clock::errno(&error))),
                });
            }
        },
    };
    let talked = talk(&mut stream, answer);
    let took_ns = clock::now_ns()? - start_ns;
    let error = match talked {
        Ok(()) => {
            *kept = Some(stream);
            None
        }
        Err(error) => Some((Step::Talk, clock::errno(&error))),
    };
    Ok(Answer { took_ns, connect_ns, error })
}

/// Waits inside `connect()`. Who polls instead may be told of an ICMP error before it is there: the kernel queues
/// the message (`POLLERR`) before it sets what `SO_ERROR` reads (`tcp_v4_err`, Linux 6.18: `ip_icmp_error`, then
/// `tcp_done_with_error`), and one connect in ten thousand on a busy machine reads 0 in between.
fn connect(to: SocketAddr, limit: Duration) -> Result<TcpStream, Error> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let microseconds = i64::try_from(limit.as_micros()).map_err(Error::other)?;
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::microseconds(microseconds))?;
    let connected = socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
    // EINPROGRESS is what a timeout of the socket makes of it.
    let timed_out = connected == Err(Errno::EINPROGRESS);
    connected.map_err(|errno| if timed_out { Errno::ETIMEDOUT } else { errno })?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    Ok(stream)
}

fn talk(stream: &mut TcpStream, answer: u32) -> Result<(), Error> {
    let mut request = [0; REQUEST];
    request[..4].copy_from_slice(&answer.to_be_bytes());
    stream.write_all(&request)?;
    let mut left = answer as usize;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let room = left.min(buffer.len());
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return Err(Error::other("the server ended the connection")),
            Ok(length) => left -= length,
            // SO_RCVTIMEO says EAGAIN.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                return Err(Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn poke(to: SocketAddr, count: u32, size: usize) -> Result<()> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    do_not_fragment(&socket, to.is_ipv4())?;
    let bytes = vec![0x5a; size];
    for _ in 0..count {
        let start_ns = clock::now_ns()?;
        let heard = socket.send(&bytes).and_then(|_| socket.recv(&mut [0; 2048]));
        let error = heard.map_or_else(|error| clock::errno(&error), |_| 0);
        crate::print(&Poked { took_ns: clock::now_ns()? - start_ns, error })?;
    }
    Ok(())
}

/// Makes the socket respect the path MTU it has learnt (`IP_PMTUDISC_DO`, the same number for both versions).
fn do_not_fragment(socket: &UdpSocket, v4: bool) -> Result<()> {
    let (level, name) = if v4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    };
    set_option(socket, level, name, libc::IP_PMTUDISC_DO)
}
