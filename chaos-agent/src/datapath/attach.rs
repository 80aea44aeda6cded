//! Attaches a classifier to one device and direction: by a tcx link, which ends with the process,
//! or before Linux 6.6 by a clsact filter, which the guard removes after us.

use std::os::fd::AsFd as _;

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::FdLink,
    tc::{SchedClassifierLink, TcAttachOptions},
};

use super::{DatapathError, error::explain};
use crate::{
    guard::{Guard, Job, Registration},
    net::{
        Netlink,
        tc::{self, FilterRemoval, IngressQdisc, OwnFilter, Side},
    },
    netns::Netns,
};

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// tcx where the kernel has it, else clsact.
    #[default]
    Auto,
    /// tcx only.
    Tcx,
    /// clsact only.
    Clsact,
}

/// How one program was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// First of the tcx chain.
    Tcx,
    /// A clsact filter of priority 1.
    Clsact,
}

/// The device and direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook<'a> {
    pub(super) device: &'a str,
    pub(super) ifindex: u32,
    pub(super) side: Side,
    /// What the filter is called where filters have names.
    pub(super) name: &'static str,
}

/// A program on a device. Dropping it detaches what is a link; filters must be [`detach`](Self::detach)ed.
#[derive(Debug)]
pub struct Attached(Kind);

#[derive(Debug)]
enum Kind {
    Tcx { _link: FdLink, program_id: u32, device: String, direction: TcAttachType },
    Clsact(Filter),
}

/// A filter, and what the guard would do about it. A job that is dropped, not withdrawn, stays
/// with the guard.
#[derive(Debug)]
struct Filter {
    own: OwnFilter,
    clsact_is_ours: bool,
    job: Option<Registration>,
}

impl Filter {
    fn remove(self) -> Result<Self, DatapathError> {
        if tc::remove_filter(&mut Netlink::route()?, &self.own)? == FilterRemoval::Foreign {
            tracing::warn!(
                "somebody replaced our filter on interface {}; it is left alone",
                self.own.interface
            );
        }
        Ok(self)
    }

    fn clean_up(self) -> Result<(), DatapathError> {
        if self.clsact_is_ours {
            tc::remove_empty_clsact(&mut Netlink::route()?, self.own.interface)?;
        }
        withdraw(self.job);
        Ok(())
    }
}

fn logged<T>(result: Result<T, DatapathError>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!("{error}")).ok()
}

const PRIORITY: u16 = 1;
/// Handles tried; among equal filters the newest runs first.
const HANDLES: std::ops::Range<u32> = 0xc4a0..0xc4c0;

impl Attached {
    /// Attaches in the calling thread's namespace, which is `netns`.
    pub(super) fn new(
        program: &mut SchedClassifier,
        hook: Hook<'_>,
        mode: AttachMode,
        guard: Option<&Guard>,
        netns: &Netns,
    ) -> Result<Self, DatapathError> {
        let direction = if hook.side == Side::Egress { "egress" } else { "ingress" };
        match mode {
            AttachMode::Clsact => clsact(program, hook, guard, netns),
            AttachMode::Tcx | AttachMode::Auto => match tcx(program, hook) {
                Ok(attached) => Ok(Self(attached)),
                Err(error) if mode == AttachMode::Auto && !has_tcx() => {
                    tracing::debug!("no tcx ({error}): clsact");
                    clsact(program, hook, guard, netns)
                }
                Err(error) => {
                    Err(DatapathError::Attach { device: hook.device.to_owned(), direction, reason: error })
                }
            },
        }
    }

    /// How it is attached.
    #[must_use]
    pub const fn how(&self) -> How {
        match self.0 {
            Kind::Tcx { .. } => How::Tcx,
            Kind::Clsact(_) => How::Clsact,
        }
    }

    /// Id of the program in a filter, for the register of what is whose.
    #[must_use]
    pub const fn filter_program(&self) -> Option<u32> {
        match &self.0 {
            Kind::Tcx { .. } => None,
            Kind::Clsact(filter) => Some(filter.own.program_id),
        }
    }

    /// Takes programs off, in the calling thread's namespace: links go with their values; filters
    /// are deleted one by one, and only then each clsact of ours, which none of them may be on.
    pub(super) fn detach(hooks: Vec<Self>) {
        let filters: Vec<Filter> = hooks.into_iter().filter_map(Self::filter).collect();
        let removed = filters.into_iter().filter_map(|filter| logged(filter.remove()));
        for filter in removed.collect::<Vec<_>>() {
            logged(filter.clean_up());
        }
    }

    /// Lets go of what went with its device: the guard has nothing to remove there any more.
    pub(super) fn forget(self) {
        withdraw(self.filter().and_then(|filter| filter.job));
    }

    fn filter(self) -> Option<Filter> {
        match self.0 {
            Kind::Tcx { .. } => None,
            Kind::Clsact(filter) => Some(filter),
        }
    }

    /// Whether it is still there and still the first, in the calling thread's namespace. Other
    /// agents' programs before a link do no harm: they pass packets on.
    pub(super) fn is_in_place(&self) -> Result<bool, DatapathError> {
        let own = match &self.0 {
            Kind::Tcx { program_id, device, direction, .. } => {
                // A device that was renamed or is gone is noticed elsewhere.
                let Ok((_, chain)) = SchedClassifier::query_tcx(device, *direction) else { return Ok(true) };
                let is_agents = |name: Option<&str>| name.is_some_and(|name| name.starts_with("chaos_"));
                let first =
                    chain.iter().find(|info| info.id() == *program_id || !is_agents(info.name_as_str()));
                return Ok(first.is_some_and(|info| info.id() == *program_id));
            }
            Kind::Clsact(Filter { own, .. }) => own,
        };
        let mut netlink = Netlink::route()?;
        let filters = tc::filters(&mut netlink, own.interface, own.side)?;
        let present = filters.iter().any(|filter| filter.program_id == Some(own.program_id));
        // A lower priority number runs before us; among equal ones the newest is listed first.
        let first = filters.iter().min_by_key(|filter| filter.priority);
        Ok(present && first.is_some_and(|filter| filter.program_id == Some(own.program_id)))
    }
}

/// Whether this kernel has tcx (Linux 6.6).
pub(crate) fn has_tcx() -> bool {
    nix::sys::utsname::uname().ok().is_some_and(|name| {
        let release = name.release().to_string_lossy().into_owned();
        let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (6, 6)
    })
}

fn tcx(program: &mut SchedClassifier, hook: Hook<'_>) -> Result<Kind, String> {
    let direction = if hook.side == Side::Egress { TcAttachType::Egress } else { TcAttachType::Ingress };
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(hook.device, direction, options).map_err(|error| explain(&error))?;
    let link: SchedClassifierLink = program.take_link(id).map_err(|error| explain(&error))?;
    let link = FdLink::try_from(link).map_err(|error| explain(&error))?;
    let program_id = program.info().map_err(|error| explain(&error))?.id();
    Ok(Kind::Tcx { _link: link, program_id, device: hook.device.to_owned(), direction })
}

fn clsact(
    program: &SchedClassifier,
    hook: Hook<'_>,
    guard: Option<&Guard>,
    netns: &Netns,
) -> Result<Attached, DatapathError> {
    let direction = if hook.side == Side::Egress { "egress" } else { "ingress" };
    let failed = |reason: String| DatapathError::Attach { device: hook.device.to_owned(), direction, reason };
    let fd = program.fd().map_err(|error| DatapathError::load(hook.name, &error))?;
    let info = program.info().map_err(|error| DatapathError::load(hook.name, &error))?;
    let mut netlink = Netlink::route()?;
    let own = |handle| OwnFilter {
        interface: hook.ifindex,
        side: hook.side,
        priority: PRIORITY,
        handle,
        program_id: info.id(),
    };
    let tell = |filter, remove_clsact| {
        let job = Job::RemoveFilter { filter, remove_clsact };
        let registered = guard.map(|guard| guard.register(job, Some(netns.as_fd()))).transpose();
        registered.map_err(|error| DatapathError::io("telling the guard", error))
    };
    // Until a filter's job says the same.
    let mut clsact_job = None;
    let clsact_is_ours = match tc::ingress_qdisc(&mut netlink, hook.ifindex)? {
        IngressQdisc::Clsact => false,
        IngressQdisc::None => {
            clsact_job = tell(own(HANDLES.start), true)?;
            tc::add_clsact(&mut netlink, hook.ifindex)?
        }
        IngressQdisc::Ingress if hook.side == Side::Ingress => false,
        IngressQdisc::Ingress => {
            return Err(failed(format!(
                "an `ingress` qdisc is in the way and this kernel has no tcx (Linux 6.6): without it egress cannot be reached; `tc qdisc del dev {} ingress` removes it, with its filters",
                hook.device
            )));
        }
    };
    let mut last = None;
    for handle in HANDLES {
        let own = own(handle);
        let job = tell(own, clsact_is_ours)?;
        let place = (PRIORITY, handle);
        match tc::add_filter(&mut netlink, hook.ifindex, hook.side, place, fd.as_fd(), hook.name) {
            Ok(()) => {
                withdraw(clsact_job);
                return Ok(Attached(Kind::Clsact(Filter { own, clsact_is_ours, job })));
            }
            Err(error) => {
                withdraw(job);
                last = Some(error);
            }
        }
    }
    if clsact_is_ours {
        tc::remove_empty_clsact(&mut netlink, hook.ifindex)?;
    }
    withdraw(clsact_job);
    Err(failed(last.map_or_else(|| "no free handle".to_owned(), |error| error.to_string())))
}

fn withdraw(job: Option<Registration>) {
    if let Some(job) = job {
        job.unregister();
    }
}
