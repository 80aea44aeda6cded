//! The delay line of one namespace: a TAP into which the classifier redirects what has to wait.

use std::sync::Arc;

use super::thread::{LineId, LineThread};
use crate::{
    datapath::{Attached, DatapathError, Instance},
    net::{
        Netlink,
        tap::{self, Offloads, TapSpec},
        tc::Side,
    },
    netns::Netns,
};

/// Packets that may wait until the thread reads them.
const QUEUE_LEN: u32 = 10_000;

/// The line of one namespace. Dropping it writes what it holds, in order, and removes the device.
#[derive(Debug)]
pub struct DelayLine {
    index: u32,
    offloads: Offloads,
    id: LineId,
    thread: Arc<LineThread>,
    // After `drop` has given the held packets back through it.
    _program: Attached,
}

impl DelayLine {
    /// Makes the device, attaches the program that sends packets on where they came from, and has `thread`
    /// serve it. `tag` is the agent's marker: part of the name.
    pub fn new(instance: &mut Instance, tag: u32, thread: &Arc<LineThread>) -> Result<Self, DatapathError> {
        let name = format!("chaos-d{tag}");
        let netns = instance.netns().clone();
        let tap = create(&netns, &name).map_err(|reason| DatapathError::Attach {
            device: name.clone(),
            direction: "private device",
            reason,
        })?;
        // On an error from here on the descriptor is closed, and the device is gone.
        let at = (&netns, name.as_str(), tap.index);
        let program = instance.attach_elsewhere("chaos_due", at, Side::Ingress)?;
        let id = thread.add(tap.fd).map_err(|error| DatapathError::io("serving the delay line", error))?;
        let thread = Arc::clone(thread);
        Ok(Self { index: tap.index, offloads: tap.offloads, id, thread, _program: program })
    }

    /// Interface index of the device, in the namespace of the target.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// What the kernel leaves uncut on the way through it.
    #[must_use]
    pub const fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Somebody deleted the device: make a new line.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.thread.is_broken(self.id)
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.thread.remove(self.id);
    }
}

/// The device, in a namespace.
fn create(netns: &Netns, name: &str) -> Result<tap::Tap, String> {
    let spec = TapSpec { name, queue_len: QUEUE_LEN, mtu: tap::MAX_MTU };
    netns
        .run(|| tap::create(&mut Netlink::route()?, &spec))
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}
