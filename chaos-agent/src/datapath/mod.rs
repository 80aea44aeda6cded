//! The kernel side as the agent sees it: load, attach, fill tables, read counters. The only place
//! that knows aya.

mod attach;
mod banks;
mod bpffs;
mod connects;
mod error;
mod instance;
mod lever;
mod line_watch;
mod membarrier;
mod memory;
mod object;
mod owners;
mod tables;
mod telemetry;

pub(crate) use attach::has_tcx;
pub use attach::{AttachMode, Attached, How};
pub use connects::ConnectHooks;
pub(crate) use connects::can_refuse;
pub use error::DatapathError;
pub use instance::{Instance, InstanceSpec, Spare};
pub use lever::disarm_all;
pub use line_watch::TableWatch;
pub use object::{OBJECT, Object, PROGRAMS, instructions};
pub use owners::OwnerHooks;
pub use tables::{CAPACITY, Maps};
pub use telemetry::{DirectionCounters, KernelLog};
