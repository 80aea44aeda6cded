//! What a decision says; data only. `chaos-ebpf` takes it apart exhaustively and acts.

use crate::fault::FaultKind;

/// What shall happen to one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The packet vanishes without anybody being told; the fault that wanted it.
    pub drop_by: Option<FaultKind>,
}

impl Verdict {
    /// Nothing happens to the packet.
    pub const PASS: Self = Self { drop_by: None };

    /// Several rules matched one packet: any drop wins.
    pub const fn merge(&mut self, other: Self) {
        if self.drop_by.is_none() {
            self.drop_by = other.drop_by;
        }
    }
}
