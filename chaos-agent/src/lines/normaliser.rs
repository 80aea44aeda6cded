//! The normaliser: a private veth pair on whose way the kernel cuts every packet into wire packets.
//!
//! Near end in the target's namespace, far end in an anonymous one that only our descriptor
//! holds: when we are gone, however, the kernel removes both.

use crate::{
    datapath::{Attached, DatapathError, Instance},
    net::{Netlink, link, offload, tc::Side, veth},
    netns::Netns,
};

/// Packets that may wait in the pair's queues.
const QUEUE_LEN: u32 = 10_000;
/// The largest packet the kernel has; loopback's are as large.
const MTU: u32 = 65_535;

/// The pair of one namespace. Dropping it removes the devices.
#[derive(Debug)]
pub struct Normaliser {
    netns: Netns,
    near: u32,
    _far_netns: Netns,
    _programs: [Attached; 2],
}

impl Normaliser {
    /// Makes the pair and attaches its programs. `tag` is the agent's marker: part of the names.
    pub fn new(instance: &mut Instance, tag: u32) -> Result<Self, DatapathError> {
        let (near_name, far_name) = (format!("chaos-n{tag}"), format!("chaos-f{tag}"));
        let far_netns = instance.far_namespace()?;
        let netns = instance.netns().clone();
        let spec = veth::VethSpec { near: &near_name, far: &far_name, tx_queue_len: QUEUE_LEN, mtu: MTU };
        let failed = |reason: String| DatapathError::Attach {
            device: near_name.clone(),
            direction: "private device",
            reason,
        };
        let made = netns.run(|| {
            let mut netlink = Netlink::route()?;
            // A name of ours that is taken was left by an agent that was killed before Linux removed it.
            link::delete_by_name(&mut netlink, &near_name)?;
            veth::create(&mut netlink, &spec, &far_netns)
        })?;
        let pair = made.map_err(|error| failed(error.to_string()))?;
        let undo = Undo { netns: &netns, near: pair.near };
        netns.run(|| offload::offloads_off(&near_name))?.map_err(|error| failed(error.to_string()))?;
        // No RPS here: it moves packets to the queue of another CPU (`netdev_max_backlog`, 1,000), which
        // overflows when one CPU cuts faster than the other takes, and reorders on the way in.
        let far = (&far_netns, far_name.as_str(), pair.far);
        let programs = [
            instance.attach_elsewhere("chaos_bounce", far, Side::Ingress)?,
            instance.attach_elsewhere("chaos_return", (&netns, &near_name, pair.near), Side::Ingress)?,
        ];
        std::mem::forget(undo);
        Ok(Self { netns: netns.clone(), near: pair.near, _far_netns: far_netns, _programs: programs })
    }

    /// Interface index of the near end, in the namespace of the target.
    #[must_use]
    pub const fn near(&self) -> u32 {
        self.near
    }
}

impl Drop for Normaliser {
    fn drop(&mut self) {
        delete(&self.netns, self.near);
    }
}

/// Removes the pair when something after its making failed.
struct Undo<'a> {
    netns: &'a Netns,
    near: u32,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        delete(self.netns, self.near);
    }
}

fn delete(netns: &Netns, near: u32) {
    match netns.run(|| link::delete(&mut Netlink::route()?, near)) {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!("removing a private device: {error}"),
        Err(error) => tracing::debug!("removing a private device: {error}"),
    }
}
