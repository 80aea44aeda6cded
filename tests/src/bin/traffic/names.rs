//! `traffic names ADDRESS`: a name server that knows every name. `traffic getaddrinfo NAME FOLDER`.

use std::{
    ffi::CString,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use anyhow::{Context, Result};
use chaos_tests::measure::names::{ANSWER4, ANSWER6, Asked, Resolved};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::clock;

static UDP: AtomicU64 = AtomicU64::new(0);
static TCP: AtomicU64 = AtomicU64::new(0);

/// Answers questions until standard input ends.
pub(crate) fn serve(at: SocketAddr) -> Result<()> {
    let datagrams = UdpSocket::bind(at).with_context(|| format!("UDP at {at}"))?;
    let listener = TcpListener::bind(at).with_context(|| format!("TCP at {at}"))?;
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length]) {
                UDP.fetch_add(1, Ordering::Relaxed);
                let _ = datagrams.send_to(&answer, from);
            }
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve_stream(stream));
        }
    });
    clock::ready()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    crate::print(&Asked { udp: UDP.load(Ordering::Relaxed), tcp: TCP.load(Ordering::Relaxed) })
}

/// Over TCP each message has its length in front (RFC 1035, section 4.2.2).
fn serve_stream(mut stream: TcpStream) -> Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut question)?;
        let answer = answer(&question).context("not a question")?;
        TCP.fetch_add(1, Ordering::Relaxed);
        let mut message = u16::try_from(answer.len())?.to_be_bytes().to_vec();
        message.extend(answer);
        stream.write_all(&message)?;
    }
}

/// The answer to a message with one question for an address (RFC 1035, section 4.1).
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let mut end = HEADER;
    while *question.get(end)? != 0 {
        end += usize::from(*question.get(end)?) + 1;
    }
    let kind = u16::from_be_bytes([*question.get(end + 1)?, *question.get(end + 2)?]);
    let question_end = end + 5;
    let data: Vec<u8> = match kind {
        1 => ANSWER4.octets().to_vec(),
        28 => ANSWER6.octets().to_vec(),
        _ => Vec::new(),
    };
    let answers = u8::from(!data.is_empty());
    let mut message = question.get(..2)?.to_vec();
    // A response, recursion desired and available, no error; one question; no authority, nothing more.
    message.extend([0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
    message.extend(question.get(HEADER..question_end)?);
    if !data.is_empty() {
        // The name is the one at the beginning of the question; class IN, ten seconds to live.
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 10, 0, u8::try_from(data.len()).ok()?]);
        message.extend(data);
    }
    Some(message)
}

/// Resolves with the configuration in `folder`, laid over the machine's in a mount namespace of our own.
pub(crate) fn resolve(name: &str, folder: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("making it private")?;
    for file in ["resolv.conf", "nsswitch.conf"] {
        let over = Path::new("/etc").join(file);
        mount(Some(&folder.join(file)), &over, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("laying {file} over the machine's"))?;
    }
    // A cache daemon would answer from what it knows of the machine's own servers.
    if Path::new("/run/nscd").is_dir() {
        mount(Some("none"), "/run/nscd", Some("tmpfs"), MsFlags::empty(), none).context("hiding nscd")?;
    }
    let start_ns = clock::now_ns()?;
    let (code, addresses) = addresses_of(name)?;
    crate::print(&Resolved { code, addresses, took_ns: clock::now_ns()? - start_ns })
}

fn addresses_of(name: &str) -> Result<(i32, Vec<IpAddr>)> {
    let name = CString::new(name)?;
    // SAFETY: an addrinfo of zeroes is a valid set of hints: any family, any type.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = std::ptr::null_mut();
    // SAFETY: name ends in a zero; hints and list live until the call returns.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), std::ptr::null(), &raw const hints, &raw mut list) };
    let mut addresses = Vec::new();
    let mut entry = list;
    // SAFETY: entry is null or a node of the list that getaddrinfo made, which is freed only below.
    while let Some(node) = unsafe { entry.as_ref() } {
        addresses.extend(address_of(node));
        entry = node.ai_next;
    }
    if !list.is_null() {
        // SAFETY: the list comes from getaddrinfo and is not used after this.
        unsafe { libc::freeaddrinfo(list) };
    }
    Ok((code, addresses))
}

fn address_of(node: &libc::addrinfo) -> Option<IpAddr> {
    if node.ai_addr.is_null() {
        return None;
    }
    match node.ai_family {
        libc::AF_INET => {
            // SAFETY: the pointer is not null, and the family says that a sockaddr_in is there.
            let address = unsafe { node.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the pointer is not null, and the family says that a sockaddr_in6 is there.
            let address = unsafe { node.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}
