//! Which sets of rules the compiler refuses: those of which one packet can match more than the
//! program looks at, and no others.

use chaos_common::{
    abi::MATCHES_MAX,
    compile::{CgroupInput, ClauseInput, CompileError, Input, Prefix, RuleInput, compile},
    packet::Class,
};

use crate::support::{devices, everywhere};

const MOST: u32 = MATCHES_MAX as u32;

fn check(rules: Vec<RuleInput>) -> Result<(), CompileError> {
    let cgroup = |id, level, ancestors: &[u64]| CgroupInput { id, level, ancestors: ancestors.to_vec() };
    let cgroups = vec![cgroup(11, 1, &[]), cgroup(12, 2, &[11]), cgroup(21, 1, &[])];
    compile(&Input { rules, cgroups, devices: devices() }).map(drop)
}

fn net(text: &str) -> Prefix {
    let (addr, len) = text.split_once('/').unwrap();
    Prefix::new(addr.parse().unwrap(), len.parse().unwrap())
}

fn rule(slot: u32, change: impl Fn(&mut RuleInput)) -> RuleInput {
    let mut rule = everywhere(slot, "10%");
    change(&mut rule);
    rule
}

fn rules(slots: std::ops::Range<u32>, change: impl Fn(&mut RuleInput)) -> Vec<RuleInput> {
    slots.map(|slot| rule(slot, &change)).collect()
}

fn peers(nets: &str) -> impl Fn(&mut RuleInput) {
    let peers: Vec<Prefix> = nets.split(' ').map(net).collect();
    move |rule| rule.clauses.push(ClauseInput { peers: peers.clone(), ..ClauseInput::default() })
}

fn locals(nets: &str) -> impl Fn(&mut RuleInput) {
    let locals: Vec<Prefix> = nets.split(' ').map(net).collect();
    move |rule| rule.clauses.push(ClauseInput { locals: locals.clone(), ..ClauseInput::default() })
}

fn peer_ports(first: u16, last: u16) -> impl Fn(&mut RuleInput) {
    move |rule| {
        rule.clauses.push(ClauseInput { peer_ports: vec![(first, last)], ..ClauseInput::default() });
    }
}

/// Two kinds of rules, as many of each as one packet may match: refused if a packet can be both.
fn two_kinds(one: impl Fn(&mut RuleInput), other: impl Fn(&mut RuleInput)) -> bool {
    check([rules(0..MOST, one), rules(MOST..2 * MOST, other)].concat()).is_err()
}

#[test]
fn sixteen_rules_for_one_packet_are_accepted_seventeen_refused_by_name() {
    assert_eq!(check(rules(0..MOST, |_| ())), Ok(()));
    let Err(CompileError::TooManyMatches { count, limit, names }) = check(rules(0..MOST + 1, |_| ())) else {
        panic!("17 rules for every packet are accepted");
    };
    assert_eq!((count, limit), (17, 16));
    for slot in 0..=MOST {
        assert!(
            names.split(", ").any(|name| name == format!("rule {slot}")),
            "rule {slot} is not in: {names}"
        );
    }
}

#[test]
fn only_the_rules_that_meet_are_named() {
    let crowd = rules(0..17, peers("10.0.0.0/8"));
    let others = (100..140).map(|slot| rule(slot, peers(&format!("192.168.0.{slot}/32"))));
    let all: Vec<RuleInput> = crowd.into_iter().chain(others).collect();
    let Err(CompileError::TooManyMatches { names, .. }) = check(all) else { panic!("accepted") };
    assert_eq!(names.split(", ").count(), 17, "{names}");
    assert!((100..140).all(|slot| !names.contains(&format!("rule {slot}"))), "{names}");
}

#[test]
fn kinds_that_can_meet_are_refused() {
    assert!(two_kinds(peers("10.0.0.0/8"), peers("10.1.2.3/32")), "nested ranges");
    assert!(two_kinds(peers("10.0.0.0/8"), locals("10.0.0.0/8")), "both ends");
    assert!(two_kinds(peers("10.0.0.0/8"), peer_ports(80, 80)), "address and port");
    assert!(two_kinds(peer_ports(1, 80), peer_ports(80, 90)), "ranges that touch");
    assert!(two_kinds(|rule| rule.cgroups = vec![11], |rule| rule.cgroups = vec![12]), "nested cgroups");
    assert!(two_kinds(|rule| rule.cgroups = vec![11], |rule| rule.peer_cgroups = vec![21]), "two owners");
    assert!(two_kinds(|rule| rule.classes = 1 << Class::TCP.0, |_| ()), "class");
    assert!(two_kinds(peers("::/0"), peers("fd00::1/128")), "nested IPv6");
}

/// No packet is both, so no set of rules may be refused for it.
#[test]
fn kinds_that_never_meet_are_accepted() {
    assert!(!two_kinds(peers("10.0.0.0/8"), peers("11.0.0.0/8")), "ranges beside each other");
    assert!(!two_kinds(peer_ports(1, 79), peer_ports(80, 90)), "ports beside each other");
    assert!(!two_kinds(|rule| rule.cgroups = vec![12], |rule| rule.cgroups = vec![21]), "cgroups");
    let class = |class: Class| move |rule: &mut RuleInput| rule.classes = 1 << class.0;
    assert!(!two_kinds(class(Class::TCP), class(Class::UDP)), "classes");
    let place = |index: usize| move |rule: &mut RuleInput| rule.places = vec![rule.places[index]];
    assert!(!two_kinds(place(0), place(1)), "devices");
    let ways = |out: bool| {
        move |rule: &mut RuleInput| {
            for place in &mut rule.places {
                (place.egress, place.ingress) = (out, !out);
            }
        }
    };
    assert!(!two_kinds(ways(true), ways(false)), "directions");
    assert!(!two_kinds(locals("10.0.0.0/8"), peers("fd00::/8")), "families of the two ends");
    assert!(!two_kinds(peers("0.0.0.0/0"), peers("::/0")), "families");
    assert!(!two_kinds(class(Class::ICMP), peer_ports(80, 80)), "ICMP has no ports");
}

#[test]
fn an_exclusion_that_always_holds_makes_room() {
    let exclude = |rule: &mut RuleInput| {
        peers("10.0.0.0/8")(rule);
        rule.exclusions = vec![ClauseInput { peers: vec![net("10.0.0.0/8")], ..ClauseInput::default() }];
    };
    assert!(!two_kinds(peers("10.0.0.0/8"), exclude));
}

/// The program takes a step per clause, whatever rule it is of.
#[test]
fn many_alternatives_of_one_rule_are_accepted_until_the_walk_is_too_long() {
    let overlapping = |count: u8| {
        rule(0, |rule| {
            let clause = |n| ClauseInput {
                peers: vec![net(&format!("10.0.0.{n}/8"))],
                local_ports: vec![(0, u16::from(n))],
                ..ClauseInput::default()
            };
            rule.clauses = (0..count).map(clause).collect();
        })
    };
    assert_eq!(check(vec![overlapping(64)]), Ok(()));
    let Err(CompileError::TooManyAlternatives { count, names }) = check(vec![overlapping(200)]) else {
        panic!("200 alternatives that one packet fulfils are accepted");
    };
    assert!(count > 64 && names == "rule 0", "{count} of {names}");
}

#[test]
fn thousands_of_rules_of_which_few_meet_are_accepted() {
    let mut many: Vec<RuleInput> = (0..2000)
        .map(|slot| {
            let [_, _, high, low] = u32::to_be_bytes(slot);
            rule(slot, peers(&format!("10.0.{high}.{low}/32")))
        })
        .collect();
    many.extend((2000..3000).map(|slot| rule(slot, peer_ports(slot as u16, slot as u16))));
    many.extend(rules(3000..3014, |_| ()));
    assert_eq!(check(many.clone()), Ok(()), "one address, one port, fourteen for all");
    many.push(rule(3014, |_| ()));
    assert!(matches!(check(many), Err(CompileError::TooManyMatches { count: 17, .. })));
}

#[test]
fn too_many_clauses_and_depths_are_refused() {
    let many: Vec<RuleInput> =
        (0..4097u32).map(|slot| rule(slot, peer_ports(slot as u16, slot as u16))).collect();
    assert_eq!(check(many[..4096].to_vec()), Ok(()));
    assert_eq!(check(many), Err(CompileError::TooManyClauses(4097)));
    let cgroups = (1..=9).map(|level| CgroupInput { id: level.into(), level, ancestors: Vec::new() });
    let deep = Input { rules: vec![everywhere(0, "10%")], cgroups: cgroups.collect(), devices: devices() };
    assert_eq!(compile(&deep), Err(CompileError::TooManyLevels(9)));
}

/// `::/0` is IPv6 and `0.0.0.0/0` is IPv4.
#[test]
fn ranges_hold_addresses_of_their_family() {
    let addr = crate::support::addr;
    assert!(net("::/0").holds(&addr("fd00::1")) && net("::/0").holds(&addr("::1")));
    assert!(!net("::/0").holds(&addr("10.0.0.1")) && !net("::/64").holds(&addr("10.0.0.1")));
    assert!(net("0.0.0.0/0").holds(&addr("10.0.0.1")) && !net("0.0.0.0/0").holds(&addr("::1")));
    assert!(net("::ffff:10.0.0.0/104").holds(&addr("10.0.0.1")), "mapped addresses are IPv4");
}
