//! Array maps in our address space (`BPF_F_MMAPABLE`, Linux 5.5): a table of a thousand rules is
//! written without a system call an entry.

use std::{
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// An array map's elements.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    base: NonNull<libc::c_void>,
    bytes: NonZeroUsize,
    len: usize,
    _element: PhantomData<T>,
}

// SAFETY: the memory belongs to the kernel object and is the same for every thread.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: others (the kernel) change it at any time as it is; every access is volatile or atomic.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    /// The kernel places elements at multiples of eight bytes (`array_map_alloc`).
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps the `len` elements of the array behind `fd`.
    pub(super) fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let page = 4096;
        let bytes = (len * Self::STRIDE).next_multiple_of(page);
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { base, bytes, len, _element: PhantomData })
    }

    fn at(&self, index: usize) -> Option<*mut T> {
        // SAFETY: below `len`, hence inside the mapping.
        (index < self.len).then(|| unsafe { self.base.as_ptr().byte_add(index * Self::STRIDE) }.cast())
    }

    /// Writes an element; false = there is none of that index.
    pub(super) fn set(&self, index: usize, value: T) -> bool {
        let Some(at) = self.at(index) else { return false };
        // SAFETY: inside the mapping and aligned to eight bytes; volatile, because the kernel reads it too.
        unsafe { at.write_volatile(value) };
        true
    }

    /// Writes one 64-bit word of an element, and nothing beside it.
    pub(super) fn set_word(&self, index: usize, word: usize, value: u64) {
        if word < size_of::<T>() / 8
            && let Some(at) = self.at(index)
        {
            // SAFETY: inside the element, which is inside the mapping.
            let at = unsafe { at.cast::<u64>().add(word) };
            // SAFETY: aligned to eight bytes; volatile, because the kernel reads it too.
            unsafe { at.write_volatile(value) };
        }
    }

    /// Writes elements of an array inside an element, from `offset` bytes on.
    pub(super) fn set_part<F: Copy>(&self, index: usize, offset: usize, values: &[F]) {
        let Some(at) = self.at(index) else { return };
        if !offset.is_multiple_of(align_of::<F>()) || offset + size_of_val(values) > size_of::<T>() {
            return;
        }
        for (number, value) in values.iter().enumerate() {
            // SAFETY: inside the element, which is inside the mapping.
            let at = unsafe { at.byte_add(offset + number * size_of::<F>()) };
            // SAFETY: aligned; volatile, because the kernel reads it too.
            unsafe { at.cast::<F>().write_volatile(*value) };
        }
    }

    /// One 64-bit word of an element, for what several change at once.
    fn atomic(&self, index: usize, word: usize) -> Option<&AtomicU64> {
        let at = self.at(index).filter(|_| word < size_of::<T>() / 8)?;
        // SAFETY: inside the element, which is inside the mapping.
        let at = unsafe { at.cast::<u64>().add(word) };
        // SAFETY: aligned to eight bytes, and mapped as long as `self` lives.
        Some(unsafe { AtomicU64::from_ptr(at) })
    }

    /// Reads one 64-bit word of an element.
    pub(super) fn word(&self, index: usize, word: usize) -> Option<u64> {
        self.atomic(index, word).map(|word| word.load(Ordering::Acquire))
    }

    /// Reads one byte of an element.
    pub(super) fn byte(&self, index: usize, offset: usize) -> Option<u8> {
        let at = self.at(index).filter(|_| offset < size_of::<T>())?;
        // SAFETY: inside the element, which is inside the mapping.
        let at = unsafe { at.cast::<u8>().add(offset) };
        // SAFETY: inside the mapping; volatile, because the kernel writes it too.
        Some(unsafe { at.read_volatile() })
    }

    /// Changes one 64-bit word of an element in one atomic step, if `change` gives another.
    pub(super) fn update(&self, index: usize, word: usize, change: impl FnMut(u64) -> Option<u64>) {
        if let Some(word) = self.atomic(index, word) {
            // An error is a word that stays as it is.
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        }
    }

    /// Takes `n` off one 64-bit word of an element, in one atomic step, but never below 0.
    pub(super) fn subtract(&self, index: usize, word: usize, n: u64) {
        self.update(index, word, |value| Some(value.saturating_sub(n)));
    }

    /// Reads an element.
    pub(super) fn get(&self, index: usize) -> Option<T> {
        // SAFETY: inside the mapping and aligned; volatile, because the kernel writes it too.
        self.at(index).map(|at| unsafe { at.read_volatile() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`, to which no reference is left.
        if let Err(error) = unsafe { munmap(self.base, self.bytes.get()) } {
            tracing::debug!("unmapping a table: {error}");
        }
    }
}
