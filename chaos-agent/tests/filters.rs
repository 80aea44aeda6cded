//! Traffic filters and their removal by the guard, in namespaces made here. Needs root.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

#[expect(dead_code, reason = "shared with other tests, each of which uses a part")]
mod support;

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use chaos_agent::{
    guard::{Guard, Job},
    net::{
        netlink::Netlink,
        tc::{self, FilterRemoval, IngressQdisc, OwnFilter, Side},
    },
    netns::Netns,
};
use nix::errno::Errno;
use support::{eventually, is_root};

/// lo is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// A loaded program that passes every packet on, and its id.
struct Program {
    descriptor: OwnedFd,
    id: u32,
}

impl Program {
    fn load() -> Self {
        // bpf(2): union bpf_attr for BPF_PROG_LOAD up to `license`.
        #[repr(C)]
        struct Load {
            program_type: u32,
            instruction_count: u32,
            instructions: u64,
            license: u64,
            rest: [u64; 16],
        }
        const BPF_PROG_LOAD: libc::c_long = 5;
        const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
        // r0 = -1 (TC_ACT_UNSPEC); exit
        let code: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [0x95, 0, 0, 0, 0, 0, 0, 0]];
        let load = Load {
            program_type: BPF_PROG_TYPE_SCHED_CLS,
            instruction_count: 2,
            instructions: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            rest: [0; 16],
        };
        // SAFETY: the structure and what it points to live across the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
        let descriptor = i32::try_from(Errno::result(result).unwrap()).unwrap();
        // SAFETY: a new descriptor, which nobody else owns.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let path = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&descriptor));
        let info = std::fs::read_to_string(path).unwrap();
        let id = info.lines().find_map(|line| line.strip_prefix("prog_id:")).unwrap().trim().parse().unwrap();
        Self { descriptor, id }
    }

    fn attach(&self, netlink: &mut Netlink, side: Side, priority: u16, handle: u32) -> OwnFilter {
        tc::add_filter(netlink, LOOPBACK, side, (priority, handle), self.descriptor.as_fd(), "chaos")
            .unwrap();
        OwnFilter { interface: LOOPBACK, side, priority, handle, program_id: self.id }
    }
}

/// Runs in a new namespace, with a netlink socket there.
fn in_namespace<T: Send>(work: impl FnOnce(&mut Netlink) -> T + Send) -> T {
    let namespace = Netns::anonymous().unwrap();
    namespace.run(|| work(&mut Netlink::route().unwrap())).unwrap()
}

#[test]
fn a_filter_is_listed_as_it_was_attached_and_the_newest_first() {
    if !is_root("a_filter_is_listed_as_it_was_attached_and_the_newest_first") {
        return;
    }
    in_namespace(|netlink| {
        assert_eq!(tc::filters(netlink, LOOPBACK, Side::Egress).unwrap(), []);
        assert!(tc::add_clsact(netlink, LOOPBACK).unwrap());
        assert!(!tc::add_clsact(netlink, LOOPBACK).unwrap(), "it is there already");
        let (first, second) = (Program::load(), Program::load());
        first.attach(netlink, Side::Egress, 1, 7);
        second.attach(netlink, Side::Egress, 1, 9);
        first.attach(netlink, Side::Ingress, 3, 1);
        let egress = tc::filters(netlink, LOOPBACK, Side::Egress).unwrap();
        let seen: Vec<_> =
            egress.iter().map(|filter| (filter.priority, filter.handle, filter.program_id)).collect();
        assert_eq!(seen, [(1, 9, Some(second.id)), (1, 7, Some(first.id))]);
        assert!(egress.iter().all(|filter| filter.kind == "bpf" && filter.name.as_deref() == Some("chaos")));
        let ingress = tc::filters(netlink, LOOPBACK, Side::Ingress).unwrap();
        assert_eq!(ingress.iter().map(|filter| filter.priority).collect::<Vec<_>>(), [3]);
    });
}

#[test]
fn only_a_filter_with_our_program_is_removed() {
    if !is_root("only_a_filter_with_our_program_is_removed") {
        return;
    }
    in_namespace(|netlink| {
        tc::add_clsact(netlink, LOOPBACK).unwrap();
        let (ours, theirs) = (Program::load(), Program::load());
        let own = ours.attach(netlink, Side::Ingress, 1, 1);
        theirs.attach(netlink, Side::Ingress, 1, 2);
        let replaced = OwnFilter { handle: 2, ..own };
        assert_eq!(tc::remove_filter(netlink, &replaced).unwrap(), FilterRemoval::Foreign);
        assert_eq!(tc::remove_filter(netlink, &own).unwrap(), FilterRemoval::Removed);
        assert_eq!(tc::remove_filter(netlink, &own).unwrap(), FilterRemoval::Gone);
        let left = tc::filters(netlink, LOOPBACK, Side::Ingress).unwrap();
        assert_eq!(left.iter().map(|filter| filter.program_id).collect::<Vec<_>>(), [Some(theirs.id)]);
        assert!(!tc::remove_empty_clsact(netlink, LOOPBACK).unwrap(), "another filter is on it");
        assert_eq!(tc::ingress_qdisc(netlink, LOOPBACK).unwrap(), IngressQdisc::Clsact);
        let gone = OwnFilter { interface: 4000, ..own };
        assert_eq!(tc::remove_filter(netlink, &gone).unwrap(), FilterRemoval::Gone);
    });
}

#[test]
fn a_plain_ingress_qdisc_is_recognised_and_kept() {
    if !is_root("a_plain_ingress_qdisc_is_recognised_and_kept") {
        return;
    }
    in_namespace(|netlink| {
        assert_eq!(tc::ingress_qdisc(netlink, LOOPBACK).unwrap(), IngressQdisc::None);
        let added =
            std::process::Command::new("tc").args(["qdisc", "add", "dev", "lo", "ingress"]).status().unwrap();
        assert!(added.success());
        assert_eq!(tc::ingress_qdisc(netlink, LOOPBACK).unwrap(), IngressQdisc::Ingress);
        let refused = tc::add_clsact(netlink, LOOPBACK).unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::EEXIST), "{refused}");
        assert!(!tc::remove_empty_clsact(netlink, LOOPBACK).unwrap());
        assert_eq!(tc::ingress_qdisc(netlink, LOOPBACK).unwrap(), IngressQdisc::Ingress);
    });
}

#[test]
fn the_guard_removes_our_filters_and_no_others() {
    if !is_root("the_guard_removes_our_filters_and_no_others") {
        return;
    }
    let (shared, alone) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
    let (ours, theirs) = (Program::load(), Program::load());
    let guard = Guard::start().unwrap();
    for namespace in [&shared, &alone] {
        let own = namespace
            .run(|| {
                let mut netlink = Netlink::route().unwrap();
                tc::add_clsact(&mut netlink, LOOPBACK).unwrap();
                ours.attach(&mut netlink, Side::Egress, 1, 1)
            })
            .unwrap();
        for (filter, remove_clsact) in [(own, true), (OwnFilter { handle: 5, ..own }, false)] {
            let job = Job::RemoveFilter { filter, remove_clsact };
            drop(guard.register(job, Some(namespace.as_fd())).unwrap());
        }
    }
    shared.run(|| theirs.attach(&mut Netlink::route().unwrap(), Side::Egress, 1, 2)).unwrap();
    drop(guard);
    let look = |namespace: &Netns| {
        namespace
            .run(|| {
                let mut netlink = Netlink::route().unwrap();
                let filters = tc::filters(&mut netlink, LOOPBACK, Side::Egress).unwrap();
                let ids: Vec<_> = filters.iter().filter_map(|filter| filter.program_id).collect();
                (ids, tc::ingress_qdisc(&mut netlink, LOOPBACK).unwrap())
            })
            .unwrap()
    };
    eventually("the namespace that was ours alone is clean", || look(&alone) == (vec![], IngressQdisc::None));
    eventually("the other's filter is alone", || look(&shared) == (vec![theirs.id], IngressQdisc::Clsact));
}
