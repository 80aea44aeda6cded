//! What a decision says; data only. `chaos-ebpf` takes it apart exhaustively and acts.

use crate::fault::FaultKind;

/// What shall happen to one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The packet vanishes without anybody being told: [`FaultKind::number`] of the fault that
    /// wanted it; 0 = it does not.
    pub drop_by: u32,
}

impl Verdict {
    /// Nothing happens to the packet.
    pub const PASS: Self = Self { drop_by: 0 };

    /// The packet vanishes because of `kind`.
    pub const fn drop(&mut self, kind: FaultKind) {
        self.drop_by = kind.number();
    }

    /// Several rules matched one packet: any drop wins.
    pub const fn merge(&mut self, other: Self) {
        if self.drop_by == 0 {
            self.drop_by = other.drop_by;
        }
    }
}
