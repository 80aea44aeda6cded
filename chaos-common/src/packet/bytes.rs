//! Where a packet's bytes come from.

/// Packet bytes, as the kernel's `bpf_skb_load_bytes` or a slice gives them.
pub trait Bytes {
    /// `N` 32-bit words in network byte order at `offset`; none when the packet is shorter.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// A 16-bit number at `offset`.
    fn half(&self, offset: u32) -> Option<u16>;

    /// A byte at `offset`.
    fn byte(&self, offset: u32) -> Option<u8>;
}

impl Bytes for &[u8] {
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        let tail = self.get(offset as usize..)?;
        for (index, word) in words.iter_mut().enumerate() {
            let start = index.checked_mul(4)?;
            *word = u32::from_ne_bytes(tail.get(start..start.checked_add(4)?)?.try_into().ok()?);
        }
        Some(words)
    }

    fn half(&self, offset: u32) -> Option<u16> {
        let start = offset as usize;
        Some(u16::from_be_bytes(self.get(start..start.checked_add(2)?)?.try_into().ok()?))
    }

    fn byte(&self, offset: u32) -> Option<u8> {
        self.get(offset as usize).copied()
    }
}
