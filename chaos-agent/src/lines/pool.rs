//! Memory for frames, in four sizes, used again.

/// Bytes of a buffer of each size: a small packet, one of a usual MTU, a jumbo frame, and the largest there
/// is (64 KiB of payload, headers, the virtio header).
const SIZES: [usize; 4] = [256, 2_048, 16_384, LARGEST];

/// Longer than any frame: a device's longest packet is loopback's, 65,536 bytes without its Ethernet header.
pub(super) const LARGEST: usize = 66_048;

/// Longer frames stay in the buffer they were read into; copying shorter ones is cheap.
const COPIED: usize = SIZES[2];

/// Buffers kept for later while the line is busy, in bytes.
const SPARE_BYTES: usize = 16 << 20;

/// Spare buffers.
#[derive(Debug, Default)]
pub(super) struct Pool {
    spare: [Vec<Box<[u8]>>; SIZES.len()],
    spare_bytes: usize,
}

impl Pool {
    /// A buffer of at least so many bytes (at most [`LARGEST`]); what is in it is left from before.
    pub(super) fn take(&mut self, bytes: usize) -> Box<[u8]> {
        let class = SIZES.iter().position(|&size| bytes <= size).unwrap_or(SIZES.len() - 1);
        let kept = self.spare.get_mut(class).and_then(Vec::pop);
        if let Some(buffer) = kept {
            self.spare_bytes -= buffer.len();
            return buffer;
        }
        vec![0; SIZES.get(class).copied().unwrap_or(LARGEST)].into_boxed_slice()
    }

    /// Keeps a buffer for later, or frees it where enough are kept.
    pub(super) fn give(&mut self, buffer: Box<[u8]>) {
        if self.spare_bytes + buffer.len() > SPARE_BYTES {
            return;
        }
        if let Some(class) = SIZES.iter().position(|&size| size == buffer.len()) {
            self.spare_bytes += buffer.len();
            self.spare[class].push(buffer);
        }
    }

    /// What was read, in a buffer that fits it. `scratch` is a buffer of [`LARGEST`] bytes before and after.
    pub(super) fn keep(&mut self, scratch: &mut Box<[u8]>, length: usize) -> Box<[u8]> {
        if length > COPIED {
            let next = self.take(LARGEST);
            return std::mem::replace(scratch, next);
        }
        let mut buffer = self.take(length);
        buffer[..length].copy_from_slice(&scratch[..length]);
        buffer
    }

    /// Frees everything that is kept, and has the machine get it back.
    pub(super) fn trim(&mut self) {
        *self = Self::default();
        // musl's allocator unmaps what is free by itself; glibc's keeps it unless it is asked.
        #[cfg(target_env = "gnu")]
        // SAFETY: takes an integer, and may be called at any time from any thread.
        unsafe {
            libc::malloc_trim(0);
        }
    }

    /// Bytes kept for later.
    #[cfg(test)]
    fn spare_bytes(&self) -> usize {
        self.spare_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gets_the_smallest_buffer_that_holds_it() {
        let mut pool = Pool::default();
        let mut scratch = pool.take(LARGEST);
        for (length, size) in [(24, 256), (256, 256), (257, 2_048), (16_384, 16_384), (16_385, LARGEST)] {
            scratch[length - 1] = 7;
            let frame = pool.keep(&mut scratch, length);
            assert_eq!((frame.len(), frame[length - 1], scratch.len()), (size, 7, LARGEST));
        }
    }

    #[test]
    fn buffers_come_back_and_do_not_pile_up() {
        let mut pool = Pool::default();
        let mut one = pool.take(100);
        one[0] = 7;
        pool.give(one);
        assert_eq!(pool.spare_bytes(), 256);
        assert_eq!(pool.take(10)[0], 7);
        assert_eq!(pool.spare_bytes(), 0);
        for _ in 0..1_000 {
            pool.give(vec![0; LARGEST].into_boxed_slice());
        }
        assert!(pool.spare_bytes() <= SPARE_BYTES);
        pool.trim();
        assert_eq!(pool.spare_bytes(), 0);
    }
}
