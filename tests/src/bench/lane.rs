//! A way on which only what is before the wire costs anything.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Result;

use super::flood::{self, Sent};
use crate::lab::{
    netns::Netns,
    shapes::{A4, Pair},
};

/// Where the datagrams go.
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
/// To this port.
pub const PORT: u16 = 6379;

/// A namespace with a veth device whose far end drops all that comes, since it is for another MAC.
#[derive(Debug)]
pub struct Lane(Pair);

impl Lane {
    /// Makes it.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> Result<Self> {
        let pair = Pair::new()?;
        pair.a.run(&format!("ip route add {PEER} dev va"))?;
        pair.a.run(&format!("ip neigh add {PEER} lladdr 02:77:00:00:00:99 dev va nud permanent"))?;
        Ok(Self(pair))
    }

    /// Where the sender is.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.0.a
    }

    /// Datagrams to [`PEER`] without a pause.
    ///
    /// # Errors
    /// When the kernel refuses to send.
    pub fn send(&self, time: Duration) -> Result<Sent> {
        flood::send(self.netns(), SocketAddr::from((A4, 40_000)), SocketAddr::from((PEER, PORT)), time)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::{A4, Lane, flood};
    use crate::lab::shapes::{B4, Pair};

    #[test]
    fn datagrams_go_and_none_is_answered() {
        crate::require_root!();
        let sent = Lane::new().unwrap().send(Duration::from_millis(20)).unwrap();
        assert!(sent.datagrams > 100 && sent.nanos() > 10.0, "{sent:?}");
    }

    #[test]
    fn what_arrives_is_counted() {
        crate::require_root!();
        let pair = Pair::new().unwrap();
        let to = SocketAddr::from((B4, 9000));
        let receiver = flood::Receiver::start(&pair.b, to).unwrap();
        let sent = flood::send(&pair.a, SocketAddr::from((A4, 0)), to, Duration::from_millis(50)).unwrap();
        let came = receiver.finish().unwrap();
        println!("{sent:?}, {came} came");
        assert!(came > 0 && came <= sent.datagrams, "{came} of {sent:?}");
    }
}
