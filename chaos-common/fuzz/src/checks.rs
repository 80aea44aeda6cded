//! What must hold for any bytes. Used by the fuzz targets, and by the tests of `chaos-common`,
//! which replay the corpus.

use std::collections::BTreeSet;

use chaos_common::{
    abi::{Direction, FlowKey, device_flags},
    compile::{
        CgroupInput, ClauseInput, DeviceInput, Input, Place, Ports, Prefix, RuleInput, compile,
        reference::{Question, scan},
    },
    host::{Host, HostSteps},
    job::Job,
    judge::Steps,
    lookup::{flow_key, reverse},
    packet::{Class, Frame, Packet, packet_flags},
};

/// Headers of MAC and two tags, IPv6 and six of the longest extension headers, TCP.
const LONGEST: u32 = 22 + 40 + 6 * 2048 + 60;

/// The parser's facts about a frame; none = refused.
pub fn facts(bytes: &[u8], l3: bool) -> Option<Packet> {
    let mut packet = Packet::default();
    let frame = Frame { l3, tag_beside: false, len: bytes.len() as u32 };
    chaos_common::packet::parse(&bytes, frame, &mut packet).map(|()| packet)
}

/// Whatever the bytes, the parser refuses them or finds facts that can be true together.
pub fn parse(bytes: &[u8]) {
    for l3 in [false, true] {
        let Some(packet) = facts(bytes, l3) else { continue };
        assert!(packet.network_offset <= packet.header_len);
        assert!(packet.header_len <= LONGEST, "{} bytes of headers", packet.header_len);
        assert!(packet.class.0 <= Class::OTHER.0);
        if packet.has_ports() {
            assert!(packet.is_ip() && matches!(packet.class, Class::TCP | Class::UDP));
        }
        if packet.has_data() {
            assert!((packet.header_len as usize) < bytes.len());
            assert_eq!(packet.flags & packet_flags::LATER_FRAGMENT, 0);
        }
        if !packet.is_ip() {
            assert_eq!((packet.class, packet.source, packet.destination), (Class::LINK, [0; 4], [0; 4]));
        }
    }
}

/// The slots that compiled tables find. The owners stand where the program would find them:
/// at the socket if it leaves and `by_socket`, else in the owner table.
pub fn found(host: &mut Host, question: &Question<'_>, by_socket: bool) -> Vec<u32> {
    let source_end = flow_key(question.packet, question.netns, Direction::Egress);
    host.owners.clear();
    let leaves = question.direction == Direction::Egress;
    host.socket_cgroup.set(if leaves && by_socket { question.source_owner } else { 0 });
    let mut book = |key: FlowKey, owner: u64| {
        if owner != 0 {
            host.owners.insert(key, owner);
        }
    };
    book(reverse(&source_end), question.destination_owner);
    book(source_end, question.source_owner);
    let job = Job {
        packet: *question.packet,
        device: host.tables.devices[&(question.netns, question.ifindex)],
        netns: question.netns,
        direction: question.direction as u32,
        ..Job::default()
    };
    walk(host, &job)
}

/// The slots that match, by the steps that the program takes.
pub fn walk(host: &Host, job: &Job) -> Vec<u32> {
    let mut steps = HostSteps { host, job: *job };
    assert!(steps.prepare());
    if steps.gather() {
        while steps.advance() {}
    }
    let matches = steps.job.matches;
    matches.slots[..matches.count as usize].to_vec()
}

/// Numbers from bytes; zeroes when they are used up.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn half(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Few addresses, many lengths: ranges shall overlap.
    fn prefix(&mut self) -> Prefix {
        let (which, len) = (self.byte(), self.byte());
        let v4 = std::net::Ipv4Addr::new(10, 0, which >> 4 & 1, which & 3);
        let v6 = std::net::Ipv6Addr::new(0xfd00, 0, 0, (which >> 4 & 1).into(), 0, 0, 0, (which & 3).into());
        if which & 0x80 == 0 { Prefix::new(v4.into(), len % 33) } else { Prefix::new(v6.into(), len % 129) }
    }

    fn ports(&mut self) -> Ports {
        let (one, other) = (self.half(), self.half());
        (one.min(other), one.max(other))
    }

    /// Up to three.
    fn some<T>(&mut self, count: u8, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..count & 3).map(|_| one(self)).collect()
    }

    fn clause(&mut self) -> ClauseInput {
        let counts = self.byte();
        ClauseInput {
            locals: self.some(counts, Self::prefix),
            peers: self.some(counts >> 2, Self::prefix),
            local_ports: self.some(counts >> 4, Self::ports),
            peer_ports: self.some(counts >> 6, Self::ports),
        }
    }

    fn owner(&mut self) -> u64 {
        [0, 11, 12, 21][usize::from(self.byte() & 3)]
    }

    fn rule(&mut self, slot: u32) -> RuleInput {
        let (counts, owners, places) = (self.byte(), self.byte(), self.byte());
        let place = |ifindex| Place {
            netns: 1,
            ifindex,
            egress: places & 1 == 0,
            ingress: places & 2 == 0,
            tagged: places & 4 == 0,
        };
        RuleInput {
            name: format!("rule {slot}"),
            slot,
            places: (1..=2).filter(|ifindex| places >> (ifindex + 3) & 1 == 0).map(place).collect(),
            classes: self.byte(),
            cgroups: self.some(owners & 1, |cursor| 11 + u64::from(cursor.byte() & 1)),
            peer_cgroups: self.some(owners >> 1 & 1, |_| 21),
            clauses: self.some(counts, Self::clause),
            exclusions: self.some(counts >> 2 & 1, Self::clause),
            ..RuleInput::default()
        }
    }
}

/// Byte 0: how many rules; then rules; then per packet: place and owners, length, frame.
pub fn lookup(bytes: &[u8]) {
    let mut cursor = Cursor(bytes);
    let count = u32::from(cursor.byte() % 24);
    let input = Input {
        rules: (0..count).map(|slot| cursor.rule(slot)).collect(),
        cgroups: [(11, 1, vec![]), (12, 2, vec![11]), (21, 1, vec![])]
            .map(|(id, level, ancestors)| CgroupInput { id, level, ancestors })
            .to_vec(),
        devices: [(1, device_flags::LOOPBACK), (2, 0)]
            .map(|(ifindex, flags)| DeviceInput { netns: 1, ifindex, flags, normaliser: 0, line: 0 })
            .to_vec(),
    };
    let Ok(tables) = compile(&input) else { return };
    let mut host = Host { tables, ..Host::default() };
    for _ in 0..16 {
        if cursor.0.is_empty() {
            break;
        }
        let place = cursor.byte();
        let (source_owner, destination_owner) = (cursor.owner(), cursor.owner());
        let len = usize::from(cursor.byte()).min(cursor.0.len());
        let (frame, rest) = cursor.0.split_at(len);
        cursor.0 = rest;
        let Some(packet) = facts(frame, place & 4 != 0) else { continue };
        let key = flow_key(&packet, 1, Direction::Egress);
        let question = Question {
            packet: &packet,
            netns: 1,
            ifindex: 1 + u32::from(place & 1),
            direction: if place & 2 == 0 { Direction::Egress } else { Direction::Ingress },
            source_owner,
            // A packet from a socket to itself has one owner.
            destination_owner: if key == reverse(&key) { source_owner } else { destination_owner },
        };
        let slots = found(&mut host, &question, place & 8 != 0);
        let expected: BTreeSet<u32> = scan(&input, &question).into_iter().collect();
        let got: BTreeSet<u32> = slots.iter().copied().collect();
        assert_eq!(got, expected, "{question:?}\n{input:#?}");
        assert_eq!(slots.len(), expected.len(), "a rule matched twice: {slots:?}");
    }
}
