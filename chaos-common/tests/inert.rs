//! What is zeroed or missing acts on nothing and counts nothing.

use chaos_common::{
    abi::{Device, Header, Rule, RuleState},
    fault::Faults,
};

use crate::support::{ALL_IP, DEVICE, arm, everywhere, judge_one, tcp};

/// An array map always returns an element, so all zeroes must do and count nothing.
#[test]
fn a_zeroed_rule_is_inert() {
    let mut rule = everywhere(1, "100%");
    rule.rule = Rule::default();
    rule.classes = u8::MAX;
    let mut host = arm(vec![rule]);
    for number in 0..2000 {
        host.random.set(0);
        host.now_ns.set(number * 1_000_000);
        assert_eq!(judge_one(&host, &tcp()), 0);
    }
    assert!(host.counters.borrow().is_empty());
    // The same rule with nothing but an id has expired in 1970.
    host.tables.rules[0].1.id = 1;
    assert_eq!(judge_one(&host, &tcp()), 0);
}

#[test]
fn a_zeroed_header_device_state_or_missing_entry_is_inert() {
    let armed = || arm(vec![everywhere(1, "100%")]);
    assert_ne!(judge_one(&armed(), &tcp()), 0, "the rule would act");

    let mut host = armed();
    host.tables.header = Header::default();
    assert_eq!(judge_one(&host, &tcp()), 0, "zeroed header");
    assert!(host.counters.borrow().is_empty());

    let mut host = armed();
    host.tables.devices.insert(DEVICE, Device::default());
    assert_eq!(judge_one(&host, &tcp()), 0, "zeroed device");
    assert!(host.counters.borrow().is_empty());

    let mut host = armed();
    host.states.insert(1, RuleState::default());
    assert_eq!(judge_one(&host, &tcp()), 0, "zeroed state: no lease");

    let mut host = armed();
    host.states.clear();
    assert_eq!(judge_one(&host, &tcp()), 0, "no state");
    assert!(host.counters.borrow().is_empty());

    for strip in [
        |host: &mut chaos_common::host::Host| host.tables.sets.clear(),
        |host: &mut chaos_common::host::Host| host.tables.clauses.clear(),
        |host: &mut chaos_common::host::Host| host.tables.rules.clear(),
    ] {
        let mut host = armed();
        strip(&mut host);
        assert_eq!(judge_one(&host, &tcp()), 0, "a table is empty");
        assert!(host.counters.borrow().is_empty());
    }
}

#[test]
fn zeroed_faults_are_off_and_need_nothing() {
    let faults = Faults::default();
    assert!(faults.is_off());
    assert!(!faults.needs_wire() && !faults.needs_ordinal() && !faults.cuts_link());
    let mut rule = everywhere(1, "100%");
    rule.rule.faults = faults;
    rule.classes = ALL_IP;
    assert_eq!(judge_one(&arm(vec![rule]), &tcp()), 0);
}
