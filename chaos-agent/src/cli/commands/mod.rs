//! One file per command.

pub(crate) mod agent;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod faults;
pub(crate) mod flows;
pub(crate) mod generate;
pub(crate) mod holding;
pub(crate) mod inject;
pub(crate) mod partition;
pub(crate) mod probe;
pub(crate) mod stop;
