//! Several namespaces on one bridge, and who reaches whom.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{netns::Netns, process};

/// How long a datagram may take on an idle bridge of one machine.
const SOON: Duration = Duration::from_millis(500);
/// Where the datagrams go.
const PORT: u16 = 7777;

/// Namespaces on one bridge; the bridge lies in a namespace of its own.
#[derive(Debug)]
pub struct Mesh {
    /// The members, in their order.
    pub members: Vec<Netns>,
    _switch: Netns,
}

impl Mesh {
    /// Makes that many members (at most 9) that all reach each other.
    ///
    /// # Errors
    /// Without root, or when they do not reach each other.
    pub fn new(count: u8) -> Result<Self> {
        let switch = Netns::new()?;
        switch.run("ip link add br0 type bridge forward_delay 0 mcast_snooping 0")?;
        switch.run("ip link set br0 up")?;
        let mut members = Vec::new();
        for index in 0..count {
            let netns = Netns::new()?;
            netns.run(&format!("ip link add eth0 type veth peer name p{index} netns {}", switch.name()))?;
            switch.run(&format!("ip link set p{index} master br0 up"))?;
            netns.run(&format!("ip addr add {}/24 dev eth0", Self::v4(index)))?;
            netns.run(&format!("ip addr add {}/64 dev eth0 nodad", Self::v6(index)))?;
            netns.run("ip link set eth0 up")?;
            netns.run("ip link set lo up")?;
            members.push(netns);
        }
        let mesh = Self { members, _switch: switch };
        let everybody: Vec<(u8, u8)> =
            (0..count).flat_map(|a| (0..count).filter(move |b| a != *b).map(move |b| (a, b))).collect();
        let reached = mesh.pings()?;
        anyhow::ensure!(reached == everybody, "not everybody reaches everybody: {reached:?}");
        Ok(mesh)
    }

    /// IPv4 address of a member.
    #[must_use]
    pub const fn v4(index: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 79, 0, index + 1)
    }

    /// IPv6 address of a member.
    #[must_use]
    pub const fn v6(index: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, index as u16 + 1)
    }

    /// A member as a target.
    #[must_use]
    pub fn target(&self, index: u8) -> String {
        format!("netns:{}", self.members[usize::from(index)].name())
    }

    /// Who can ping whom, as (who, whom), in order; IPv4 and IPv6 agree.
    ///
    /// # Errors
    /// When `ping` does not end in time, or one version of IP reaches whom the other does not.
    pub fn pings(&self) -> Result<Vec<(u8, u8)>> {
        let by = |address: fn(u8) -> IpAddr| -> Result<Vec<(u8, u8)>> {
            std::thread::scope(|scope| {
                let asked: Vec<_> = self
                    .pairs()
                    .map(|(a, b)| {
                        let command = self.members[usize::from(a)].inside(ping(address(b)));
                        let running = scope.spawn(move || process::output(command, Duration::from_secs(10)));
                        ((a, b), running)
                    })
                    .collect();
                let mut reached = Vec::new();
                for (pair, running) in asked {
                    let output = running.join().map_err(|_| anyhow::anyhow!("a ping panicked"))??;
                    if output.status.success() {
                        reached.push(pair);
                    }
                }
                Ok(reached)
            })
        };
        let v4 = by(|index| Self::v4(index).into())?;
        let v6 = by(|index| Self::v6(index).into())?;
        anyhow::ensure!(v4 == v6, "IPv4 reaches {v4:?}, IPv6 {v6:?}");
        Ok(v4)
    }

    /// Whose datagrams reach whom, as (sender, receiver), in order: each way by itself.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn datagrams(&self) -> Result<Vec<(u8, u8)>> {
        let mut sockets = Vec::new();
        for (index, netns) in (0u8..).zip(&self.members) {
            let address = SocketAddr::new(Self::v4(index).into(), PORT);
            let socket = netns.enter(|| UdpSocket::bind(address))?.context("a UDP socket")?;
            socket.set_nonblocking(true)?;
            sockets.push(socket);
        }
        for (from, to) in self.pairs() {
            // A local refusal would be no fault of ours to hide: it counts as not reached.
            let _ = sockets[usize::from(from)].send_to(&[from], (Self::v4(to), PORT));
        }
        let mut heard = Vec::new();
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            for (to, socket) in (0u8..).zip(&sockets) {
                let mut from = [0];
                while socket.recv(&mut from).is_ok() {
                    heard.push((from[0], to));
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        heard.sort_unstable();
        Ok(heard)
    }

    fn pairs(&self) -> impl Iterator<Item = (u8, u8)> + use<'_> {
        let all = || (0u8..).zip(&self.members).map(|(index, _)| index);
        all().flat_map(move |a| all().filter(move |b| a != *b).map(move |b| (a, b)))
    }
}

fn ping(to: IpAddr) -> Command {
    let mut command = Command::new("ping");
    command.args(["-q", "-n", "-i", "0.05", "-W", "1", "-c", "3", &to.to_string()]);
    command
}
