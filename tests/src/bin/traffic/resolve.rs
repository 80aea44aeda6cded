//! `traffic resolve NAME`: what the C library's resolver says.

use std::{
    ffi::CString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
    time::Instant,
};

use anyhow::Result;
use chaos_tests::dns::Resolved;

/// Asks for both families with `getaddrinfo` and prints one JSON record.
pub(crate) fn resolve(name: &str) -> Result<()> {
    let name = CString::new(name)?;
    // SAFETY: all zero is a valid value: no flags, any family.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    let start = Instant::now();
    // SAFETY: the strings end with zero, `hints` and `list` outlive the call.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
    let micros = u64::try_from(start.elapsed().as_micros())?;
    let mut addresses = Vec::new();
    let mut next = list;
    while let Some(info) = if code == 0 { entry(next) } else { None } {
        addresses.extend(address(info));
        next = info.ai_next;
    }
    addresses.sort_unstable();
    if code == 0 {
        // SAFETY: the list is from `getaddrinfo` and not used any more.
        unsafe { libc::freeaddrinfo(list) };
    }
    crate::print(&Resolved { code, micros, addresses })
}

fn entry<'a>(at: *mut libc::addrinfo) -> Option<&'a libc::addrinfo> {
    // SAFETY: null or an entry of a list that is freed only after its last use.
    unsafe { at.as_ref() }
}

fn address(info: &libc::addrinfo) -> Option<IpAddr> {
    let at: *const u8 = info.ai_addr.cast();
    match info.ai_family {
        libc::AF_INET => {
            // SAFETY: entries of this family have such an address; it is read byte by byte.
            let socket = unsafe { ptr::read_unaligned(at.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(u32::from_be(socket.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: entries of this family have such an address; it is read byte by byte.
            let socket = unsafe { ptr::read_unaligned(at.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(socket.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}
