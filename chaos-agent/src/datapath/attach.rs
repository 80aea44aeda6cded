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

/// A program on a device. Dropping it detaches what is a link; a filter must be [`detach`](Self::detach)ed.
#[derive(Debug)]
pub struct Attached(Kind);

#[derive(Debug)]
enum Kind {
    Tcx(#[expect(dead_code, reason = "held: dropping it detaches")] FdLink),
    Clsact { own: OwnFilter, clsact_is_ours: bool, job: Option<Registration> },
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
                Ok(link) => Ok(Self(Kind::Tcx(link))),
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
            Kind::Tcx(_) => How::Tcx,
            Kind::Clsact { .. } => How::Clsact,
        }
    }

    /// Id of the program in a filter, for the register of what is whose.
    #[must_use]
    pub const fn filter_program(&self) -> Option<u32> {
        match &self.0 {
            Kind::Tcx(_) => None,
            Kind::Clsact { own, .. } => Some(own.program_id),
        }
    }

    /// Takes a filter away, in the calling thread's namespace; a link goes with `self`.
    pub(super) fn detach(self) -> Result<(), DatapathError> {
        let Kind::Clsact { own, clsact_is_ours, job } = self.0 else { return Ok(()) };
        let mut netlink = Netlink::route()?;
        let removal = tc::remove_filter(&mut netlink, &own)?;
        if removal == FilterRemoval::Foreign {
            tracing::warn!("somebody replaced our filter on interface {}; it is left alone", own.interface);
        }
        if clsact_is_ours {
            tc::remove_empty_clsact(&mut netlink, own.interface)?;
        }
        if let Some(job) = job {
            job.unregister();
        }
        Ok(())
    }

    /// Whether a filter is still there and still the first; a link always is.
    pub(super) fn is_in_place(&self) -> Result<bool, DatapathError> {
        let Kind::Clsact { own, .. } = &self.0 else { return Ok(true) };
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

fn tcx(program: &mut SchedClassifier, hook: Hook<'_>) -> Result<FdLink, String> {
    let attach_type = if hook.side == Side::Egress { TcAttachType::Egress } else { TcAttachType::Ingress };
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id =
        program.attach_with_options(hook.device, attach_type, options).map_err(|error| explain(&error))?;
    let link: SchedClassifierLink = program.take_link(id).map_err(|error| explain(&error))?;
    FdLink::try_from(link).map_err(|error| explain(&error))
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
    let clsact_is_ours = match tc::ingress_qdisc(&mut netlink, hook.ifindex)? {
        IngressQdisc::Clsact => false,
        IngressQdisc::None => tc::add_clsact(&mut netlink, hook.ifindex)?,
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
        let own = OwnFilter {
            interface: hook.ifindex,
            side: hook.side,
            priority: PRIORITY,
            handle,
            program_id: info.id(),
        };
        let job = match guard {
            Some(guard) => {
                let job = Job::RemoveFilter { filter: own, remove_clsact: clsact_is_ours };
                let registered = guard.register(job, Some(netns.as_fd()));
                Some(registered.map_err(|error| DatapathError::io("telling the guard", error))?)
            }
            None => None,
        };
        let added =
            tc::add_filter(&mut netlink, hook.ifindex, hook.side, (PRIORITY, handle), fd.as_fd(), hook.name);
        match added {
            Ok(()) => return Ok(Attached(Kind::Clsact { own, clsact_is_ours, job })),
            Err(error) => {
                if let Some(job) = job {
                    job.unregister();
                }
                last = Some(error);
            }
        }
    }
    if clsact_is_ours {
        tc::remove_empty_clsact(&mut netlink, hook.ifindex)?;
    }
    Err(failed(last.map_or_else(|| "no free handle".to_owned(), |error| error.to_string())))
}
