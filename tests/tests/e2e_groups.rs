//! Partitions of groups: who reaches whom, exactly.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use chaos_tests::{
    api::both_ways,
    chaos::{self, Chaos},
    lab::{alone, mesh::Mesh},
    require_root, require_tools,
};

/// Everybody, but for the pairs in `cut`, each of which is cut both ways.
fn all_but(cut: &[(u8, u8)]) -> Vec<(u8, u8)> {
    let all = (0..5u8).flat_map(|a| (0..5u8).map(move |b| (a, b)));
    all.filter(|(a, b)| a != b && !cut.contains(&(*a, *b)) && !cut.contains(&(*b, *a))).collect()
}

fn group(mesh: &Mesh, members: &[u8]) -> String {
    let names: Vec<String> = members.iter().map(|index| mesh.target(*index)).collect();
    format!("{{{}}}", names.join(","))
}

/// While the command holds, exactly these pairs are cut; it is one fault, and afterwards all is whole.
fn check(mesh: &Mesh, arguments: &str, cut: &[(u8, u8)]) {
    let mut chaos = Chaos::start(&format!("{arguments} --for 60s")).unwrap();
    assert_eq!(mesh.pings().unwrap(), all_but(cut), "{arguments}");
    let started = chaos.seen().iter().find(|line| chaos::kind(line) == Some("started")).unwrap();
    assert_eq!(started["rules"].as_array().unwrap().len(), 1, "one name: {started}");
    assert!(chaos.process().is_running());
    let rules = chaos.stop().unwrap();
    assert_eq!(rules.len(), 1, "one summary: {rules:?}");
    assert!(rules[0].both("dropped_packets") > 0, "{rules:?}");
    assert_eq!(mesh.pings().unwrap(), all_but(&[]), "it heals: {arguments}");
}

#[test]
fn two_groups_are_cut_apart_and_keep_together() {
    require_root!();
    require_tools!("ping");
    let _alone = alone().unwrap();
    both_ways(two_groups).unwrap();
}

fn two_groups() {
    let mesh = Mesh::new(5).unwrap();
    let sides = format!("partition {} {}", group(&mesh, &[0, 1]), group(&mesh, &[2, 3, 4]));
    check(&mesh, &sides, &[(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)]);
}

#[test]
fn one_is_isolated_and_the_others_are_not() {
    require_root!();
    require_tools!("ping");
    let mesh = Mesh::new(5).unwrap();
    let arguments = format!("partition --isolate {} {}", mesh.target(2), group(&mesh, &[0, 1, 2, 3, 4]));
    check(&mesh, &arguments, &[(2, 0), (2, 1), (2, 3), (2, 4)]);
}

#[test]
fn a_bridge_sees_both_halves() {
    require_root!();
    require_tools!("ping");
    let mesh = Mesh::new(5).unwrap();
    let arguments = format!("partition --bridge {} {}", mesh.target(4), group(&mesh, &[0, 1, 2, 3]));
    check(&mesh, &arguments, &[(0, 2), (0, 3), (1, 2), (1, 3)]);
}

#[test]
fn in_a_ring_each_sees_its_neighbours() {
    require_root!();
    require_tools!("ping");
    let mesh = Mesh::new(5).unwrap();
    let arguments = format!("partition --ring {}", group(&mesh, &[0, 1, 2, 3, 4]));
    check(&mesh, &arguments, &[(0, 2), (0, 3), (1, 3), (1, 4), (2, 4)]);
}

/// A member that is an address is cut from the members of this machine, at their side.
#[test]
fn an_address_can_be_a_member() {
    require_root!();
    require_tools!("ping");
    let mesh = Mesh::new(5).unwrap();
    let there = format!("{{{},{}}}", mesh.target(3), Mesh::v6(4));
    let v4 =
        format!("partition {} {{{},{},{}}}", group(&mesh, &[0, 1]), mesh.target(3), Mesh::v4(4), Mesh::v6(4));
    check(&mesh, &v4, &[(0, 3), (0, 4), (1, 3), (1, 4)]);
    let chaos = Chaos::start(&format!("partition {} {there} --for 60s", group(&mesh, &[0, 1]))).unwrap();
    assert!(mesh.pings().is_err(), "only the IPv6 address of the last member was named");
    chaos.stop().unwrap();
}

#[test]
fn one_way_between_groups_cuts_one_way() {
    require_root!();
    require_tools!("ping");
    let mesh = Mesh::new(5).unwrap();
    assert_eq!(mesh.datagrams().unwrap(), all_but(&[]));
    let sides = format!("{} {}", group(&mesh, &[0, 1]), group(&mesh, &[2, 3]));
    let chaos = Chaos::start(&format!("partition {sides} --one-way --for 60s")).unwrap();
    let mut wanted = all_but(&[]);
    wanted.retain(|pair| ![(0, 2), (0, 3), (1, 2), (1, 3)].contains(pair));
    assert_eq!(mesh.datagrams().unwrap(), wanted);
    let rules = chaos.stop().unwrap();
    assert_eq!(rules[0].both("dropped_packets"), 4, "{rules:?}");
}

/// One member that cannot be cut: nothing is changed.
#[test]
fn a_group_that_cannot_be_cut_whole_is_not_cut_at_all() {
    require_root!();
    require_tools!("ping");
    let mesh = Mesh::new(5).unwrap();
    let sides = format!("{{{},10.79.0.200}} {{{},10.79.0.201}}", mesh.target(0), mesh.target(1));
    let output = chaos::run(&format!("partition {sides} --for 5s")).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("10.79.0.200 and 10.79.0.201"), "{text}");
    let gone = format!("{} {{{},netns:no-such-namespace}}", mesh.target(0), mesh.target(1));
    let output = chaos::run(&format!("partition {gone} --for 5s")).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("no-such-namespace"), "{text}");
    let filters = mesh.members[0].run("tc filter show dev eth0 egress").unwrap();
    assert!(filters.is_empty(), "{filters}");
    assert_eq!(mesh.pings().unwrap(), all_but(&[]));
}
