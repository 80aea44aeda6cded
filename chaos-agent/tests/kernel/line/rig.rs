//! A delay line without programs: frames are pushed into its TAP with a packet socket, and caught with another
//! when the thread writes them back.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use chaos_agent::{
    lines::{LineOptions, LineThread, RuleWatch},
    net::{
        Netlink,
        tap::{self, Tap, TapSpec},
    },
    netns::Netns,
};
use nix::{
    cmsg_space,
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
            setsockopt, socket, sockopt,
        },
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
};

pub(super) const NAME: &str = "chaos-d9";
pub(super) const MS: u64 = 1_000_000;
pub(super) const DRAIN: u64 = 1 << 63;

pub(super) fn now_ns() -> u64 {
    ns(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap())
}

fn ns(time: TimeSpec) -> u64 {
    u64::try_from(Duration::from(time).as_nanos()).unwrap()
}

/// Which rules are over, and what the thread told.
#[derive(Default)]
pub(super) struct Rules {
    over: Mutex<Vec<u32>>,
    released: Mutex<Vec<(u32, u64)>>,
    beats: Mutex<Vec<u64>>,
    /// The line's thread.
    pub(super) thread: AtomicI32,
    /// Questions about rules.
    pub(super) asked: AtomicU64,
    /// Set by the test: heartbeats are kept.
    pub(super) keep_beats: AtomicBool,
}

impl Rules {
    pub(super) fn end(&self, slot: u32) {
        self.over.lock().unwrap().push(slot);
    }

    /// Frames of a rule that left or were dropped.
    pub(super) fn released(&self, slot: u32) -> u64 {
        self.released.lock().unwrap().iter().filter(|told| told.0 == slot).map(|told| told.1).sum()
    }

    pub(super) fn beats(&self) -> Vec<u64> {
        self.beats.lock().unwrap().clone()
    }
}

impl RuleWatch for Rules {
    fn is_over(&self, slot: u32) -> bool {
        self.asked.fetch_add(1, SeqCst);
        self.over.lock().unwrap().contains(&slot)
    }

    fn released(&self, slot: u32, frames: u64) {
        self.released.lock().unwrap().push((slot, frames));
    }

    fn heartbeat(&self, monotonic_ns: u64) {
        self.thread.store(nix::unistd::gettid().as_raw(), SeqCst);
        if self.keep_beats.load(SeqCst) {
            self.beats.lock().unwrap().push(monotonic_ns);
        }
    }
}

/// A namespace with a TAP, and both ends of the way through it.
pub(super) struct Rig {
    pub(super) netns: Netns,
    /// Until it is given to a thread.
    pub(super) tap: Option<Tap>,
    pub(super) index: u32,
    pub(super) rules: Arc<Rules>,
    push: OwnedFd,
    catch: OwnedFd,
}

impl Rig {
    pub(super) fn new() -> Self {
        let netns = Netns::anonymous().unwrap();
        let tap = make(&netns);
        let index = tap.index;
        let (push, catch) = netns.run(|| (packets(index), packets(index))).unwrap();
        Self { netns, tap: Some(tap), index, rules: Arc::default(), push, catch }
    }

    /// A thread that serves the TAP.
    pub(super) fn serve(&mut self, options: LineOptions) -> LineThread {
        let thread = LineThread::start(Arc::clone(&self.rules) as _, options).unwrap();
        thread.add(self.tap.take().unwrap().fd).unwrap();
        thread
    }

    /// A frame as the classifier makes it: number, word, and so many bytes in all.
    pub(super) fn push(&self, number: u32, word: u64, length: usize) {
        let mut frame = vec![0xa5_u8; length];
        frame[..4].copy_from_slice(&number.to_ne_bytes());
        frame[4..12].copy_from_slice(&word.to_ne_bytes());
        // An EtherType for experiments.
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        loop {
            match nix::unistd::write(&self.push, &frame) {
                Ok(written) => return assert_eq!(written, length),
                Err(Errno::ENOBUFS) => std::thread::yield_now(),
                Err(errno) => panic!("pushing: {errno}"),
            }
        }
    }

    /// The numbers, the words and the arrival times (`CLOCK_MONOTONIC`) of what comes back: `count` frames, or
    /// those of `limit`.
    pub(super) fn catch(&self, count: usize, limit: Duration) -> Vec<Caught> {
        let end = Instant::now() + limit;
        let mut caught = Vec::new();
        while caught.len() < count && Instant::now() < end {
            match self.catch_one() {
                Ok(one) => caught.push(one),
                // The device went down: told once, after which what came before can be read.
                Err(Errno::ENETDOWN) => {}
                Err(Errno::EAGAIN) => std::thread::sleep(Duration::from_micros(200)),
                Err(errno) => panic!("catching: {errno}"),
            }
        }
        caught
    }

    fn catch_one(&self) -> Result<Caught, Errno> {
        let mut frame = [0_u8; 64];
        let mut control = cmsg_space!(TimeSpec);
        let mut parts = [io::IoSliceMut::new(&mut frame)];
        let message = recvmsg::<()>(
            self.catch.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC,
        )?;
        let stamp = message.cmsgs()?.find_map(|control| {
            let ControlMessageOwned::ScmTimestampns(time) = control else { return None };
            Some(ns(time))
        });
        let length = message.bytes;
        let number = u32::from_ne_bytes(frame[..4].try_into().unwrap());
        let word = u64::from_ne_bytes(frame[4..12].try_into().unwrap());
        // The stamp is of another clock, which is steered and so drifts against this one.
        let real = ns(clock_gettime(ClockId::CLOCK_REALTIME).unwrap());
        let at_ns = now_ns() - (real - stamp.unwrap());
        Ok(Caught { number, word, length, at_ns })
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Caught {
    pub(super) number: u32,
    pub(super) word: u64,
    pub(super) length: usize,
    pub(super) at_ns: u64,
}

pub(super) fn numbers(caught: &[Caught]) -> Vec<u32> {
    caught.iter().map(|one| one.number).collect()
}

/// The word of a frame.
pub(super) fn word(release_ns: u64, slot: u16) -> u64 {
    release_ns & ((1 << 48) - 1) | u64::from(slot) << 48
}

pub(super) fn make(netns: &Netns) -> Tap {
    let spec = TapSpec { name: NAME, queue_len: 10_000, mtu: tap::MAX_MTU };
    netns.run(|| tap::create(&mut Netlink::route().unwrap(), &spec).unwrap()).unwrap()
}

/// A packet socket on one device of this thread's namespace, deaf to what leaves.
fn packets(index: u32) -> OwnedFd {
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
    let on: libc::c_int = 1;
    // SAFETY: the option reads an int from a live local.
    let deaf = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, (&raw const on).cast(), 4)
    };
    assert_eq!(deaf, 0);
    setsockopt(&fd, sockopt::RcvBufForce, &(512 << 20)).unwrap();
    setsockopt(&fd, sockopt::SndBufForce, &(64 << 20)).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true).unwrap();
    // SAFETY: plain integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a live local of the length given.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    assert_eq!(bound, 0);
    fd
}
