//! The programs of one namespace: one instance of the object, attached to the namespace's devices.

use std::{collections::BTreeMap, panic::resume_unwind, thread};

use aya::{
    Ebpf,
    programs::{Program, ProgramError, SchedClassifier},
};

use super::{AttachMode, Attached, DatapathError, How, Object, attach::Hook, object::assign};
use crate::{
    guard::Guard,
    net::{Netlink, addr, link, tc::Side, watch::LinkWatch},
    netns::{Netns, NetnsId},
};

/// What an instance is made with.
#[derive(Clone, Copy)]
pub struct InstanceSpec<'a> {
    /// Tables and constants.
    pub object: &'a Object,
    /// tcx, clsact or what is there.
    pub mode: AttachMode,
    /// Removes filters after us.
    pub guard: Option<&'a Guard>,
}

/// A loaded instance that has no namespace yet: the verifier's work, some 100 ms, is done.
pub struct Spare {
    ebpf: Ebpf,
    /// For the far end of a normaliser; making one takes some 20 ms.
    far: Option<Netns>,
}

impl Spare {
    /// Loads the classifiers, and with `wire` what a normaliser needs.
    pub fn load(object: &Object, wire: bool) -> Result<Self, DatapathError> {
        let mut ebpf = object.instance(0)?;
        let normaliser: &[&str] = if wire { &NORMALISER } else { &[] };
        let names: Vec<&str> = CLASSIFIERS.iter().map(|(name, _)| *name).chain(normaliser.to_vec()).collect();
        load_together(&mut ebpf, &names)?;
        let far = if wire { Some(Netns::anonymous()?) } else { None };
        Ok(Self { ebpf, far })
    }

    /// An instance whose classifiers are all loaded.
    pub(super) fn of(ebpf: Ebpf) -> Self {
        Self { ebpf, far: None }
    }
}

/// A namespace with our programs.
pub struct Instance {
    netns: Netns,
    cookie: u64,
    ebpf: Ebpf,
    mode: AttachMode,
    guard: Option<Guard>,
    devices: BTreeMap<u32, Vec<Attached>>,
    watch: LinkWatch,
    far: Option<Netns>,
}

/// What a device carries.
const CLASSIFIERS: [(&str, Side); 2] = [(EGRESS, Side::Egress), (INGRESS, Side::Ingress)];
/// What leaves a device.
pub(super) const EGRESS: &str = "chaos_egress";
/// What the delay line asks when a packet is due.
pub(super) const DUE: &str = "chaos_due";
/// What comes from a device.
pub(super) const INGRESS: &str = "chaos_ingress";
/// What the ends of a normaliser carry.
pub(super) const NORMALISER: [&str; 2] = ["chaos_bounce", "chaos_return"];

impl Instance {
    /// Makes an instance for a namespace, of `spare` if there is one; attaches nothing yet.
    pub fn load(spec: InstanceSpec<'_>, netns: &Netns, spare: Option<Spare>) -> Result<Self, DatapathError> {
        let cookie = netns.cookie()?;
        let Spare { mut ebpf, far } = match spare {
            Some(spare) => spare,
            None => Spare::load(spec.object, false)?,
        };
        assign(&mut ebpf, cookie)?;
        let watch = netns.run(LinkWatch::open)??;
        Ok(Self {
            netns: netns.clone(),
            cookie,
            ebpf,
            mode: spec.mode,
            guard: spec.guard.cloned(),
            devices: BTreeMap::new(),
            watch,
            far,
        })
    }

    /// Which namespace.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.netns.id()
    }

    /// The namespace.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A namespace that nobody else knows, for the far end of a private pair.
    pub fn far_namespace(&mut self) -> Result<Netns, DatapathError> {
        Ok(self.far.take().map_or_else(Netns::anonymous, Ok)?)
    }

    /// `SO_NETNS_COOKIE`, as in the tables.
    #[must_use]
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Links or addresses have changed since this was asked last.
    pub fn has_changed(&mut self) -> Result<bool, DatapathError> {
        Ok(self.watch.changed()?)
    }

    /// The links of the namespace as they are now.
    pub fn links(&self) -> Result<Vec<link::Link>, DatapathError> {
        Ok(self.netns.run(|| link::list(&mut Netlink::route()?))??)
    }

    /// The addresses of the namespace as they are now.
    pub fn addresses(&self) -> Result<Vec<addr::Address>, DatapathError> {
        Ok(self.netns.run(|| addr::list(&mut Netlink::route()?))??)
    }

    /// Devices that carry our classifiers.
    pub fn attached(&self) -> impl Iterator<Item = u32> {
        self.devices.keys().copied()
    }

    /// Forgets devices that are gone; links and filters went with them.
    pub fn forget_gone(&mut self, present: &[link::Link]) {
        let is_gone = |index: &u32| !present.iter().any(|link| link.index == *index);
        for (_, hooks) in self.devices.extract_if(.., |index, _| is_gone(index)) {
            hooks.into_iter().for_each(Attached::forget);
        }
    }

    /// Puts the classifiers first at both directions of a device, if they are not there yet.
    pub fn attach(&mut self, device: &link::Link) -> Result<How, DatapathError> {
        if let Some(attached) = self.devices.get(&device.index).and_then(|hooks| hooks.first()) {
            return Ok(attached.how());
        }
        let mut hooks = Vec::new();
        for (name, side) in CLASSIFIERS {
            match self.attach_program(name, &device.name, device.index, side) {
                Ok(attached) => hooks.push(attached),
                Err(error) => {
                    self.take_off(hooks);
                    return Err(error);
                }
            }
        }
        let how = hooks.first().map_or(How::Tcx, Attached::how);
        self.devices.insert(device.index, hooks);
        Ok(how)
    }

    /// Attaches one program of this instance to a device of its namespace.
    pub fn attach_program(
        &mut self,
        name: &'static str,
        device: &str,
        ifindex: u32,
        side: Side,
    ) -> Result<Attached, DatapathError> {
        let Self { netns, ebpf, mode, guard, .. } = self;
        let program = loaded(ebpf, name)?;
        let hook = Hook { device, ifindex, side, name };
        let (mode, guard, inside) = (*mode, guard.as_ref(), &*netns);
        netns.run(|| Attached::new(program, hook, mode, guard, inside))?
    }

    /// The same in another namespace, for a device of ours that ends with that namespace.
    pub fn attach_elsewhere(
        &mut self,
        name: &'static str,
        (elsewhere, device, ifindex): (&Netns, &str, u32),
        side: Side,
    ) -> Result<Attached, DatapathError> {
        let mode = self.mode;
        let program = loaded(&mut self.ebpf, name)?;
        let hook = Hook { device, ifindex, side, name };
        elsewhere.run(|| Attached::new(program, hook, mode, None, elsewhere))?
    }

    /// Programs in filters, for the register of what is whose.
    pub fn filter_programs(&self) -> impl Iterator<Item = u32> {
        self.devices.values().flatten().filter_map(Attached::filter_program)
    }

    /// Devices on which our program is gone or no longer first.
    pub fn displaced(&self) -> Result<Vec<u32>, DatapathError> {
        self.netns.run(|| {
            let mut displaced = Vec::new();
            for (index, hooks) in &self.devices {
                for hook in hooks {
                    if !hook.is_in_place()? {
                        displaced.push(*index);
                        break;
                    }
                }
            }
            Ok(displaced)
        })?
    }

    /// Takes the classifiers off one device.
    pub fn detach(&mut self, ifindex: u32) {
        let hooks = self.devices.remove(&ifindex).unwrap_or_default();
        self.take_off(hooks);
    }

    /// Takes the classifiers off every device.
    pub fn detach_all(&mut self) {
        let hooks = std::mem::take(&mut self.devices).into_values().flatten().collect();
        self.take_off(hooks);
    }

    fn take_off(&self, hooks: Vec<Attached>) {
        if hooks.iter().all(|hook| hook.how() == How::Tcx) {
            return;
        }
        if let Err(error) = self.netns.run(|| Attached::detach(hooks)) {
            tracing::warn!("filters could not be removed: {error}");
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.detach_all();
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, DatapathError> {
    ebpf.program_mut(name)
        .ok_or_else(|| DatapathError::Object(format!("no program `{name}`")))?
        .try_into()
        .map_err(|error| DatapathError::load(name, &error))
}

/// The program, loaded when it is first needed.
pub(super) fn loaded<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, DatapathError> {
    let program = classifier(ebpf, name)?;
    if program.fd().is_err() {
        program.load().map_err(|error| DatapathError::load(name, &error))?;
    }
    Ok(program)
}

/// Loads classifiers side by side: what takes time is the verifier, a thread each.
pub(super) fn load_together(ebpf: &mut Ebpf, names: &[&str]) -> Result<(), DatapathError> {
    let load = |name: &str, program: &mut Program| {
        let failed = |error: ProgramError| DatapathError::load(name, &error);
        let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
        if program.fd().is_err() { program.load().map_err(failed) } else { Ok(()) }
    };
    thread::scope(|scope| {
        let wanted = ebpf.programs_mut().filter(|(name, _)| names.contains(name));
        let loading: Vec<_> =
            wanted.map(|(name, program)| scope.spawn(move || load(name, program))).collect();
        loading.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
