//! What the agent tells about itself and its faults: counters for Prometheus.

mod exposition;
mod families;
mod ledger;
mod packet;
mod reader;

pub(crate) use self::{
    exposition::CONTENT_TYPE,
    families::{Observed, Place, text},
    ledger::Ledger,
};
pub use self::{
    packet::{Names, Packet},
    reader::{Reader, Sink},
};
