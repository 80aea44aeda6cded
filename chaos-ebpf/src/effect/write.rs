//! The writes themselves.

use aya_ebpf::{bindings::BPF_F_RECOMPUTE_CSUM, helpers::bpf_skb_store_bytes};
use chaos_common::job::Job;

use crate::{error::Error, frame::Skb};

/// A MAC header as 16-bit numbers: destination, source, type.
pub(super) type MacHeader = [u16; 7];

impl Skb {
    /// Writes what `data` holds, as it stands, at `offset`. None = it does not fit.
    #[inline(always)]
    pub(crate) fn put<T: Copy, const N: usize>(self, offset: u32, data: &[T; N]) -> Option<()> {
        let len = size_of::<[T; N]>() as u32;
        // The sum that a device has made of the whole packet (`CHECKSUM_COMPLETE`) must stay true.
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        // SAFETY: the helper reads exactly `len` bytes; the verifier checks the length.
        let result = unsafe { bpf_skb_store_bytes(self.0, offset, data.as_ptr().cast(), len, flags) };
        (result == 0).then_some(())
    }

    /// The MAC header.
    #[inline(always)]
    pub(super) fn mac_header(self) -> Option<MacHeader> {
        self.raw(0)
    }

    /// Writes a MAC header for the way back.
    #[inline(always)]
    pub(super) fn put_reversed(self, header: &MacHeader) -> Result<(), Error> {
        let [to0, to1, to2, from0, from1, from2, kind] = *header;
        self.put(0, &[from0, from1, from2, to0, to1, to2, kind]).ok_or(Error::Effect)
    }

    /// Swaps the MAC addresses, if there are any.
    #[inline(always)]
    pub(super) fn swap_macs(self, job: &Job) -> Result<(), Error> {
        if job.packet.network_offset == 0 {
            return Ok(());
        }
        let header = self.mac_header().ok_or(Error::Effect)?;
        self.put_reversed(&header)
    }
}
