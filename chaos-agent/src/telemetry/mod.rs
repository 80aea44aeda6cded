//! What the agent tells about itself and its faults: counters for Prometheus.

mod exposition;
mod families;
mod ledger;

pub(crate) use self::{
    exposition::CONTENT_TYPE,
    families::{Observed, Place, text},
    ledger::Ledger,
};
