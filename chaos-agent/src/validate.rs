//! Rules that make no sense are refused before anything is touched, whoever made them.
//!
//! What depends on the machine is asked in [`crate::needs`].

use chaos_common::{
    fault::{FAULTS, FaultInfo},
    packet::Class,
};

use crate::spec::{Proto, RuleSpec};

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refusal {
    /// What is wrong.
    pub what: String,
    /// What would work.
    pub mend: String,
}

/// The kinds of fault that are set in a rule, in the order in which they act.
pub fn set(rule: &RuleSpec) -> impl Iterator<Item = &'static FaultInfo> {
    FAULTS.iter().filter(|info| (info.describe)(&rule.faults).is_some())
}

/// Looks at one rule by itself.
///
/// # Errors
/// A fault's parameters contradict each other or another fault of the rule, or no packet that the
/// rule matches is of a protocol that the fault can act on.
pub fn validate(rule: &RuleSpec) -> Result<(), Refusal> {
    for info in set(rule) {
        if let Some(check) = info.check {
            check(&rule.faults).map_err(|what| Refusal {
                what: format!("--{}: {what}", info.name),
                mend: format!("see `{}` in `chaos inject --help`", info.usage()),
            })?;
        }
        protos(info.name, info.protos, &rule.matching.protos)?;
    }
    Ok(())
}

/// The fault can act on at least one of the protocols asked for.
fn protos(name: &str, able: &[Class], asked: &[Proto]) -> Result<(), Refusal> {
    let classes = |proto: &Proto| match proto {
        Proto::Tcp => [Class::TCP, Class::TCP],
        Proto::Udp => [Class::UDP, Class::UDP],
        Proto::Icmp => [Class::ICMP, Class::ICMP6],
    };
    if able.is_empty()
        || asked.is_empty()
        || asked.iter().flat_map(classes).any(|class| able.contains(&class))
    {
        return Ok(());
    }
    let words = |list: Vec<&str>| list.join(" and ");
    let able = [("tcp", Proto::Tcp), ("udp", Proto::Udp), ("icmp", Proto::Icmp)]
        .into_iter()
        .filter(|(_, proto)| classes(proto).iter().any(|class| able.contains(class)))
        .map(|(word, _)| word)
        .collect::<Vec<_>>();
    let asked = asked.iter().map(|proto| match proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
        Proto::Icmp => "icmp",
    });
    Err(Refusal {
        what: format!(
            "--{name} acts on {} only, and --proto {} leaves nothing to act on",
            words(able.clone()),
            asked.collect::<Vec<_>>().join(",")
        ),
        mend: format!("leave out --proto, or write --proto {}", able.join(",")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_one_protocol_and_a_match_of_another_exclude_each_other() {
        let tcp = &[Class::TCP];
        assert_eq!(protos("reset", tcp, &[]), Ok(()));
        assert_eq!(protos("reset", tcp, &[Proto::Udp, Proto::Tcp]), Ok(()), "it acts on the TCP part");
        assert_eq!(protos("loss", &[], &[Proto::Udp]), Ok(()));
        assert_eq!(protos("x", &[Class::ICMP6], &[Proto::Icmp]), Ok(()));
        let refusal = protos("reset", tcp, &[Proto::Udp, Proto::Icmp]).expect_err("UDP cannot be reset");
        assert_eq!(refusal.what, "--reset acts on tcp only, and --proto udp,icmp leaves nothing to act on");
        assert_eq!(refusal.mend, "leave out --proto, or write --proto tcp");
        let refusal =
            protos("dns", &[Class::UDP, Class::TCP], &[Proto::Icmp]).expect_err("ICMP asks no names");
        assert!(refusal.what.contains("tcp and udp only") && refusal.mend.ends_with("--proto tcp,udp"));
    }
}
