//! The kernel side: a thin shell around `chaos-common`. Entry points only.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the only way to an atomic add on bpf: core::intrinsics::atomic_xadd")]

mod classify;
mod connect;
mod effect;
mod enter;
mod error;
mod events;
mod frame;
mod gate;
mod globals;
mod maps;
mod owner;
mod question;
mod source;
mod steps;
mod world;

use aya_ebpf::{
    helpers::bpf_redirect_peer,
    macros::{cgroup_sock, cgroup_sock_addr, classifier},
    programs::{SockAddrContext, SockContext, TcContext},
};
use chaos_common::{abi::Direction, job::places, packet::mapped};

/// Packets that leave a device.
#[classifier]
pub(crate) fn chaos_egress(ctx: TcContext) -> i32 {
    enter::device(&ctx, Direction::Egress)
}

/// Packets that come to a device.
#[classifier]
pub(crate) fn chaos_ingress(ctx: TcContext) -> i32 {
    enter::device(&ctx, Direction::Ingress)
}

/// Wire packets at the normaliser's near end.
#[classifier]
pub(crate) fn chaos_return(ctx: TcContext) -> i32 {
    enter::private(&ctx, places::RETURN)
}

/// Packets whose time in the delay line is over.
#[classifier]
pub(crate) fn chaos_due(ctx: TcContext) -> i32 {
    enter::private(&ctx, places::DUE)
}

/// Judges what the others hand over.
#[classifier]
pub(crate) fn chaos_core(ctx: TcContext) -> i32 {
    let _ = globals::CHAOS_ABI.load();
    classify::judged(&ctx)
}

/// Wire packets at the normaliser's far end: back to the near end's namespace.
#[classifier]
pub(crate) fn chaos_bounce(ctx: TcContext) -> i32 {
    // SAFETY: plain values; the helper only notes them.
    unsafe { bpf_redirect_peer(frame::Skb::new(&ctx).ifindex(), 0) as i32 }
}

/// A socket of a target cgroup has bound to an IPv4 port.
#[cgroup_sock(post_bind4)]
pub(crate) fn chaos_bind4(ctx: SockContext) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier checks the access.
    let addr = unsafe { (*ctx.sock).src_ip4 };
    owner::bound(&ctx, mapped(addr));
    1
}

/// A socket of a target cgroup has bound to an IPv6 port.
#[cgroup_sock(post_bind6)]
pub(crate) fn chaos_bind6(ctx: SockContext) -> i32 {
    let sock = ctx.sock;
    // SAFETY: the kernel passes a valid context; the verifier checks the access.
    let a = unsafe { (*sock).src_ip6[0] };
    // SAFETY: as above.
    let b = unsafe { (*sock).src_ip6[1] };
    // SAFETY: as above.
    let c = unsafe { (*sock).src_ip6[2] };
    // SAFETY: as above.
    let d = unsafe { (*sock).src_ip6[3] };
    owner::bound(&ctx, [a, b, c, d]);
    1
}

/// A socket of a target cgroup is closed.
#[cgroup_sock(sock_release)]
pub(crate) fn chaos_release(ctx: SockContext) -> i32 {
    owner::released(&ctx);
    1
}

/// A process of a target cgroup connects to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub(crate) fn chaos_connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier checks the access.
    let addr = unsafe { (*ctx.sock_addr).user_ip4 };
    connect::called(&ctx, mapped(addr))
}

/// A process of a target cgroup connects to an IPv6 address, or to an IPv4 address written as one.
#[cgroup_sock_addr(connect6)]
pub(crate) fn chaos_connect6(ctx: SockAddrContext) -> i32 {
    let sock_addr = ctx.sock_addr;
    // SAFETY: the kernel passes a valid context; the verifier checks the access.
    let a = unsafe { (*sock_addr).user_ip6[0] };
    // SAFETY: as above.
    let b = unsafe { (*sock_addr).user_ip6[1] };
    // SAFETY: as above.
    let c = unsafe { (*sock_addr).user_ip6[2] };
    // SAFETY: as above.
    let d = unsafe { (*sock_addr).user_ip6[3] };
    connect::called(&ctx, [a, b, c, d])
}

/// `loop {}`, not `unreachable`: a panic that survives makes the verifier refuse the program.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
