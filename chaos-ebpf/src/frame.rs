//! The only reads of packet bytes and of the fields of `__sk_buff`.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes, programs::TcContext};
use chaos_common::packet::{Bytes, Frame};

/// Bits of `skb->tc_index` that are ours; the others belong to others (Cilium uses low ones).
const MARKER_SHIFT: u16 = 12;
const MARKER_MASK: u16 = 0xf000;

/// A packet in the kernel's hands.
#[derive(Clone, Copy)]
pub(crate) struct Skb(pub(crate) *mut __sk_buff);

macro_rules! field {
    ($(#[$doc:meta])* $name:ident: $ty:ty) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(self) -> $ty {
            // SAFETY: the kernel passes a valid context; the verifier checks the access.
            unsafe { (*self.0).$name }
        }
    };
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self(ctx.skb.skb)
    }

    field! {
        /// Bytes, from the MAC header on.
        len: u32
    }
    field! {
        /// The device it is on.
        ifindex: u32
    }
    field! {
        /// The device it came in by; 0 = made here.
        ingress_ifindex: u32
    }
    field! {
        /// Wire packets in it; 0 or 1 = it is one.
        gso_segs: u32
    }
    field! {
        /// 1 = the kernel holds a VLAN tag beside the bytes.
        vlan_present: u32
    }
    field! {
        /// The application's mark.
        mark: u32
    }
    field! {
        /// When the sender wants it to leave; `CLOCK_MONOTONIC` for TCP.
        tstamp: u64
    }
    field! {
        /// `PACKET_HOST` 0, `PACKET_BROADCAST` 1, `PACKET_MULTICAST` 2, ...
        pkt_type: u32
    }

    /// Where its bytes in memory begin and end.
    #[inline(always)]
    pub(crate) fn bounds(self) -> (usize, usize) {
        // SAFETY: the kernel passes a valid context; the verifier checks the access.
        let data = unsafe { (*self.0).data };
        // SAFETY: as above.
        let end = unsafe { (*self.0).data_end };
        (data as usize, end as usize)
    }

    /// A socket of this machine sent it.
    #[inline(always)]
    pub(crate) fn has_socket(self) -> bool {
        // SAFETY: the kernel passes a valid context; the verifier checks the access.
        let place = unsafe { &(*self.0).__bindgen_anon_2 };
        // SAFETY: the union has no other member than this pointer.
        !unsafe { place.sk }.is_null()
    }

    #[inline(always)]
    fn tc_index(self) -> u16 {
        // SAFETY: the kernel passes a valid context; the verifier checks the access.
        unsafe { (*self.0).tc_index as u16 }
    }

    #[inline(always)]
    fn set_tc_index(self, value: u16) {
        // SAFETY: the kernel passes a valid context; `tc_index` may be written at tc hooks.
        unsafe { (*self.0).tc_index = u32::from(value) }
    }

    /// Whose normaliser or line it comes from; 0 = none.
    #[inline(always)]
    pub(crate) fn marker(self) -> u32 {
        u32::from(self.tc_index() >> MARKER_SHIFT)
    }

    #[inline(always)]
    pub(crate) fn set_marker(self, tag: u32) {
        self.set_tc_index(self.tc_index() & !MARKER_MASK | (tag as u16) << MARKER_SHIFT);
    }

    #[inline(always)]
    pub(crate) fn set_mark(self, mark: u32) {
        // SAFETY: the kernel passes a valid context; `mark` may be written at tc hooks.
        unsafe { (*self.0).mark = mark }
    }

    /// Where the frame begins and what the kernel took out of it.
    #[inline(always)]
    pub(crate) fn frame(self, l3: bool) -> Frame {
        Frame { l3, tag_beside: self.vlan_present() != 0, len: self.len() }
    }
}

impl Skb {
    /// `N` words as they stand at `offset`.
    #[inline(always)]
    pub(crate) fn raw<T: Copy, const N: usize>(self, offset: u32) -> Option<[T; N]> {
        let mut out = MaybeUninit::<[T; N]>::uninit();
        let len = size_of::<[T; N]>() as u32;
        // SAFETY: the helper writes exactly `len` bytes or fails; the verifier checks the length.
        let result = unsafe { bpf_skb_load_bytes(self.0.cast(), offset, out.as_mut_ptr().cast(), len) };
        // SAFETY: on success every byte was written; `T` is only ever an integer.
        (result == 0).then(|| unsafe { out.assume_init() })
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.raw(offset)
    }

    #[inline(always)]
    fn half(&self, offset: u32) -> Option<u16> {
        self.raw::<u16, 1>(offset).map(|[half]| u16::from_be(half))
    }

    #[inline(always)]
    fn byte(&self, offset: u32) -> Option<u8> {
        self.raw::<u8, 1>(offset).map(|[byte]| byte)
    }
}
