//! What can go wrong on a packet's way. All of it means: pass the packet.

/// Reasons to pass a packet without judging it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The headers cannot be understood.
    Unparsable,
    /// No device entry: nothing is armed here.
    UnknownDevice,
    /// A lookup that cannot miss did.
    Tables,
    /// The frame could not be prepared for the normaliser.
    Normaliser,
    /// There is no delay line, or nobody behind it.
    Line,
    /// The packet could not be changed as the verdict says.
    Effect,
}
