//! The probes against this machine. Needs root.

use chaos_agent::{
    doctor::{self, Need, Outcome},
    netns::Netns,
};

use crate::support::{sh, skip};

#[test]
fn this_machine_has_the_basics_and_keeps_nothing() {
    if skip("doctor: this machine has the basics and keeps nothing") {
        return;
    }
    let links = || Netns::current().unwrap().run(|| sh("ip -o link | cut -d: -f2")).unwrap();
    let before = links();
    let rows = doctor::run(&doctor::probes());
    println!("{}", doctor::table(&rows));
    for row in &rows {
        if row.need == Need::Basic {
            assert!(row.outcome.is_ok(), "{row:?}");
        }
        assert!(!matches!(&row.outcome, Outcome::Missing { mend, .. } if mend.is_empty()), "{row:?}");
    }
    assert!(doctor::healthy(&rows));
    // What the agent keeps, each with its reason, whether it is held or not.
    for kept in chaos_agent::rights::KEPT {
        let row = rows.iter().find(|row| row.name == kept.name).unwrap();
        let (Outcome::Ok { detail: told }
        | Outcome::Missing { why: told, .. }
        | Outcome::Unknown { why: told }) = &row.outcome;
        assert!(told.contains(kept.reason), "{row:?}");
    }
    assert_eq!(links(), before);
}

#[test]
fn without_privileges_it_says_so_and_tries_nothing() {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let rows = doctor::run(&doctor::probes());
    assert!(!doctor::healthy(&rows));
    let find = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
    assert!(doctor::table(&rows).contains("sudo"));
    assert!(
        matches!(&find("privileges").outcome, Outcome::Missing { why, .. } if why.contains("CAP_NET_ADMIN"))
    );
    for name in ["tcx", "veth", "cgroup creation", "bpf maps"] {
        assert!(matches!(find(name).outcome, Outcome::Unknown { .. }), "{name}");
    }
}
