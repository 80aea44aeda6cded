//! Constants that the agent sets when it loads an instance; the verifier sees them as such.

use aya_ebpf::Global;
use chaos_common::abi::{FlowMemory, FlowOrder};

/// `chaos_common::abi::ABI_VERSION`, for the agent to compare.
#[unsafe(no_mangle)]
pub(crate) static CHAOS_ABI: Global<u32> = Global::new(chaos_common::abi::ABI_VERSION);

/// This agent's marker in the top four bits of `skb->tc_index`, 1 to 15.
#[unsafe(no_mangle)]
pub(crate) static CHAOS_TAG: Global<u32> = Global::new(1);

/// Rules that the tables of this agent hold.
#[unsafe(no_mangle)]
pub(crate) static CHAOS_CAPACITY: Global<u32> = Global::new(256);

/// 1 = clock, random word and cgroups come from a map (see `source`).
#[unsafe(no_mangle)]
pub(crate) static CHAOS_TESTING: Global<u32> = Global::new(0);

/// As large as the largest of [`Blank`].
static ZEROS: [u64; 8] = [0; 8];

/// What may begin as zeros.
///
/// # Safety
/// All bytes zero must be a valid value.
pub(crate) unsafe trait Blank: Sized {
    /// The value, for a helper to copy. Zeros on the stack would need a call (LLVM's bpf backend), and room.
    #[inline(always)]
    fn blank() -> *const Self {
        const { assert!(size_of::<Self>() <= size_of_val(&ZEROS) && align_of::<Self>() <= align_of::<u64>()) };
        (&raw const ZEROS).cast()
    }
}

// SAFETY: numbers only.
unsafe impl Blank for FlowMemory {}
// SAFETY: numbers only.
unsafe impl Blank for FlowOrder {}
