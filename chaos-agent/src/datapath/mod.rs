//! The kernel side as the agent sees it: load, attach, fill tables, read counters. The only place
//! that knows aya.

mod attach;
mod banks;
mod bpffs;
mod cgroup_hooks;
mod error;
mod gate;
mod instance;
mod lever;
mod line_watch;
mod loaded;
mod membarrier;
mod memory;
mod object;
mod records;
mod sizes;
mod tables;
mod telemetry;

pub(crate) use attach::has_tcx;
pub use attach::{AttachMode, Attached, How};
pub(crate) use cgroup_hooks::can_refuse;
pub use cgroup_hooks::{CgroupHooks, ConnectHooks, OwnerHooks};
pub use error::DatapathError;
pub use instance::{Instance, InstanceSpec, Spare};
pub use lever::disarm_all;
pub use line_watch::TableWatch;
pub use loaded::Loaded;
pub use object::{OBJECT, Object, PROGRAMS, instructions};
pub use records::Records;
pub use sizes::Sizes;
pub use tables::Maps;
pub use telemetry::{DirectionCounters, KernelLog};
