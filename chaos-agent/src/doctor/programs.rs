//! Our own programs, tried in a namespace that ends with the attempt.

use super::{Need, Outcome, Probe};
use crate::{
    datapath::{AttachMode, DatapathError, Instance, InstanceSpec, Object, instructions},
    lines::Normaliser,
    netns::Netns,
};

pub(super) const PROBES: &[Probe] = &[
    Probe { name: "our programs", need: Need::Basic, purpose: "every fault", run: load },
    Probe { name: "our classifier", need: Need::Basic, purpose: "every fault", run: attach },
    Probe { name: "our normaliser", need: Need::Basic, purpose: "loss per wire packet", run: normalise },
];

/// A marker for devices that no one else sees.
const TAG: u32 = 15;

const REPORT: &str = "report it with this table: the programs are tested on Linux 6.1, 6.12 and 6.18";

fn load() -> Outcome {
    match Object::new(TAG, 0).and_then(|object| instructions(&object)) {
        Ok(programs) => {
            let most = programs.iter().map(|(_, count)| *count).max().unwrap_or(0);
            Outcome::ok(format!("{} load, at most {most} instructions verified", programs.len()))
        }
        Err(error) => Outcome::missing(error.to_string(), REPORT),
    }
}

fn attach() -> Outcome {
    match instance() {
        Ok((how, _)) => Outcome::ok(how),
        Err(error) => Outcome::missing(error.to_string(), REPORT),
    }
}

fn normalise() -> Outcome {
    let made = instance().and_then(|(_, mut instance)| Normaliser::new(&mut instance, TAG).map(drop));
    match made {
        Ok(()) => Outcome::ok("made and removed"),
        Err(error) => Outcome::missing(error.to_string(), REPORT),
    }
}

/// Attaches to the loopback device of a new namespace.
fn instance() -> Result<(&'static str, Instance), DatapathError> {
    let netns = Netns::anonymous()?;
    let object = Object::new(TAG, 0)?;
    let maps = object.maps(false)?;
    let mut instance =
        Instance::load(InstanceSpec { object: &object, mode: AttachMode::Auto, guard: None }, &netns, None)?;
    let mut how = "nothing to attach to";
    for link in instance.links()? {
        how = match instance.attach(&link)? {
            crate::datapath::How::Tcx => "attached first, by tcx",
            crate::datapath::How::Clsact => "attached by clsact",
        };
    }
    drop(maps);
    Ok((how, instance))
}
