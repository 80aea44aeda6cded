//! What leaves by loopback comes by loopback.

use chaos_common::{
    abi::Direction,
    compile::{ClauseInput, RuleInput},
};

use crate::{
    checks::walk,
    support::{LOOPBACK, arm, everywhere, job, tcp},
};

/// A rule for both directions judges a loopback packet once, by whatever clause: when it leaves,
/// or, if it was not for it then, when it comes.
#[test]
fn by_loopback_a_rule_for_both_directions_judges_once() {
    let port = |peer: bool| {
        let ports = vec![(6379, 6379)];
        let (local_ports, peer_ports) = if peer { (Vec::new(), ports) } else { (ports, Vec::new()) };
        ClauseInput { local_ports, peer_ports, ..ClauseInput::default() }
    };
    let judged = |clauses: &[ClauseInput], exclusions: &[ClauseInput]| {
        let rule =
            RuleInput { clauses: clauses.to_vec(), exclusions: exclusions.to_vec(), ..everywhere(1, "100%") };
        let host = arm(vec![rule]);
        [Direction::Egress, Direction::Ingress].map(|direction| {
            let packet = tcp();
            !walk(&host, &job(&host, &packet, LOOPBACK, direction)).is_empty()
        })
    };
    // The packet goes to port 6379.
    let (to, from) = (port(true), port(false));
    assert_eq!(judged(&[], &[]), [true, false]);
    assert_eq!(judged(std::slice::from_ref(&to), &[]), [true, false]);
    assert_eq!(judged(std::slice::from_ref(&from), &[]), [false, true]);
    assert_eq!(judged(&[to.clone(), from.clone()], &[]), [true, false], "by the one, then by the other");
    assert_eq!(judged(&[from.clone(), to.clone()], &[]), [true, false]);
    assert_eq!(judged(&[], std::slice::from_ref(&to)), [false, true], "excluded when it left");
    assert_eq!(judged(&[], std::slice::from_ref(&from)), [true, false]);
    assert_eq!(judged(&[], &[to, from]), [false, false]);
}
