//! What keeps a fault from hurting more, or longer, than was agreed.
//!
//! `limits` is what an administrator allows at most, `risk` decides which faults can take the machine itself away.

mod limits;
mod risk;

pub(crate) use self::{
    limits::{Limits, limits},
    risk::{Risk, risk},
};
