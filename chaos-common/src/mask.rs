//! Numbers that the compiler must not know: indices that every verifier believes, and zeros that stay whole.

/// `index` modulo `ROOM`, a power of two.
///
/// Where the compiler knows that `index` is below `ROOM` it leaves the mask out; the verifier of Linux 6.1
/// and 6.12 does not know. It does not carry a bound that a comparison finds over to copies on the
/// stack (6.1), nor to numbers from which the one compared was computed (both): `at - 12 < 255` says nothing
/// about `at`. So the compiler is kept from knowing.
#[inline(always)]
pub(crate) fn masked<const ROOM: usize>(index: u32) -> usize {
    const { assert!(ROOM.is_power_of_two(), "a mask needs a power of two") };
    // SAFETY: a reference is always valid to read.
    let unknown = unsafe { core::ptr::read_volatile(&raw const index) };
    unknown as usize & ROOM.wrapping_sub(1)
}

/// 0. Of stores of zeros that it knows, LLVM's bpf backend makes a loop over single bytes, which takes ten times as long.
#[inline(always)]
pub(crate) fn zero() -> u64 {
    core::hint::black_box(0)
}
