//! Who is cut from whom: groups as people write them, and the pairs they stand for.

use std::{fmt, str::FromStr};

use super::failure::Failure;
use crate::{datapath::Sizes, targets::Target};

const QUOTED: &str = "quote a group, so that the shell leaves it whole: chaos partition '{a,b}' '{c,d}', or write a,b without braces";

/// So many members of a group are named in a line.
const SHOWN: usize = 8;

/// One side of a partition: a target, or several as `{a,b}` or `a,b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group(pub(crate) Vec<Target>);

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = match (text.strip_prefix('{'), text.strip_suffix('}')) {
            (None, None) => text,
            (Some(rest), Some(_)) => rest.strip_suffix('}').unwrap_or(rest),
            _ => return Err(format!("a brace is missing; {QUOTED}")),
        };
        let words: Vec<&str> = inner.split(',').map(str::trim).collect();
        let parsed: Result<Vec<Target>, _> = words.iter().map(|word| word.parse::<Target>()).collect();
        match parsed {
            Ok(members) => Ok(Self(members)),
            // A path of a cgroup may hold a comma.
            Err(error) => match inner.parse() {
                Ok(target @ Target::Cgroup(_)) if inner == text => Ok(Self(vec![target])),
                _ if words.contains(&"") => Err(format!("a member of the group is empty; {QUOTED}")),
                _ => Err(error.to_string()),
            },
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self.0.len() {
            1 => f.write_str(&shown),
            count if count > SHOWN => write!(f, "{{{shown},... {count} in all}}"),
            _ => write!(f, "{{{shown}}}"),
        }
    }
}

/// What the flags of `chaos partition` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The first side from the second.
    Sides,
    /// This one from all the others.
    Isolate(Target),
    /// The others in two halves that cannot see each other; this one sees both.
    Bridge(Target),
    /// Each sees only its two neighbours in the order given; the last is the first one's neighbour.
    Ring,
}

/// Who is cut from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// In words, such as `{a,b} <-> {c,d}`.
    pub(crate) name: String,
    /// Everybody who was named, each once.
    pub(crate) members: Vec<Target>,
    /// The pairs that are cut, each once; what goes from the first to the second is the one way.
    pub(crate) pairs: Vec<(Target, Target)>,
}

/// The pairs that are to be cut.
///
/// # Errors
/// The sides are too few, too many or too small, share a member, or make more pairs than can be held.
pub(crate) fn cut(sides: &[Group], wanted: &Wanted, one_way: bool) -> Result<Cut, Failure> {
    let cut = match wanted {
        Wanted::Sides => two_sides(sides, one_way)?,
        Wanted::Isolate(alone) => isolate(&others(sides, alone)?, alone, one_way),
        Wanted::Bridge(bridge) => bridged(&others(sides, bridge)?, bridge, one_way)?,
        Wanted::Ring if one_way => {
            return Err(Failure::usage("--ring and --one-way exclude each other: a ring has no first side")
                .mend("leave out --one-way"));
        }
        Wanted::Ring => ring(&everybody(sides)?)?,
    };
    if cut.pairs.len() > Sizes::MOST as usize {
        return Err(Failure::usage(format!(
            "{} pairs would have to be cut, each with a rule of its own; {} rules are possible at once",
            cut.pairs.len(),
            Sizes::MOST
        ))
        .mend("name fewer members, or write a range of addresses such as 10.0.0.0/24 as one member"));
    }
    Ok(cut)
}

fn two_sides(sides: &[Group], one_way: bool) -> Result<Cut, Failure> {
    let (a, b) = match sides {
        [a, b] => (a, b),
        [only] => {
            return Err(Failure::usage(format!("cut {only} from whom? the other side is missing"))
                .mend(format!("chaos partition '{only}' B; or --isolate, --bridge, --ring with one group")));
        }
        more => {
            let words: Vec<String> = more.iter().map(ToString::to_string).collect();
            return Err(Failure::usage(format!(
                "a partition has two sides, these are {}: {}; a shell turns {{a,b}} without quotes into two words",
                more.len(),
                words.join(" ")
            ))
            .mend(QUOTED));
        }
    };
    if let ([a], [b]) = (a.0.as_slice(), b.0.as_slice())
        && a == b
    {
        return Err(Failure::usage(format!("A and B are both {a}"))
            .mend("name two different sides; to cut a target off from everybody use `chaos inject --partition TARGET`"));
    }
    distinct(&a.0)?;
    distinct(&b.0)?;
    if let Some(both) = a.0.iter().find(|member| b.0.contains(member)) {
        return Err(Failure::usage(format!("{both} is on both sides: {a} and {b}"))
            .mend("name every member on one side only; --bridge X is for one that sees both"));
    }
    Ok(Cut {
        name: format!("{a} {} {b}", arrow(one_way)),
        members: [a.0.as_slice(), b.0.as_slice()].concat(),
        pairs: across(&a.0, &b.0),
    })
}

fn isolate(others: &[Target], alone: &Target, one_way: bool) -> Cut {
    let rest = Group(others.to_vec());
    let mut members = vec![alone.clone()];
    members.extend_from_slice(others);
    Cut {
        name: format!("{alone} {} {rest}", arrow(one_way)),
        members,
        pairs: across(std::slice::from_ref(alone), others),
    }
}

fn bridged(others: &[Target], bridge: &Target, one_way: bool) -> Result<Cut, Failure> {
    if others.len() < 2 {
        return Err(Failure::usage(format!(
            "--bridge {bridge} needs two others at least, one for each half"
        ))
        .mend(format!("chaos partition --bridge {bridge} '{{a,b,c,d}}'")));
    }
    let (first, second) = others.split_at(others.len().div_ceil(2));
    let mut members = others.to_vec();
    members.push(bridge.clone());
    let (a, b) = (Group(first.to_vec()), Group(second.to_vec()));
    Ok(Cut {
        name: format!("{a} {} {b} (bridge {bridge})", arrow(one_way)),
        members,
        pairs: across(first, second),
    })
}

fn ring(members: &[Target]) -> Result<Cut, Failure> {
    let count = members.len();
    if count < 4 {
        return Err(Failure::usage(format!(
            "a ring of {count} cuts nothing: up to three, everybody is everybody's neighbour"
        ))
        .mend("name four members or more: chaos partition --ring '{a,b,c,d}'"));
    }
    let neighbours = |i: usize, j: usize| j == i + 1 || (i == 0 && j + 1 == count);
    let mut pairs = Vec::new();
    for (i, a) in members.iter().enumerate() {
        for (j, b) in members.iter().enumerate().skip(i + 1) {
            if !neighbours(i, j) {
                pairs.push((a.clone(), b.clone()));
            }
        }
    }
    Ok(Cut { name: format!("ring {}", Group(members.to_vec())), members: members.to_vec(), pairs })
}

/// The members of one group; a shell that took the braces away did no harm here.
fn everybody(sides: &[Group]) -> Result<Vec<Target>, Failure> {
    let members: Vec<Target> = sides.iter().flat_map(|group| group.0.clone()).collect();
    distinct(&members)?;
    Ok(members)
}

/// Everybody but the one that the flag names, who may be named in the group as well.
fn others(sides: &[Group], one: &Target) -> Result<Vec<Target>, Failure> {
    let mut members = everybody(sides)?;
    members.retain(|member| member != one);
    if members.is_empty() {
        return Err(Failure::usage(format!("there is nobody but {one} to be cut"))
            .mend("name the others as a group: '{a,b,c}'"));
    }
    Ok(members)
}

fn distinct(members: &[Target]) -> Result<(), Failure> {
    let twice =
        members.iter().enumerate().find(|(at, member)| members.iter().skip(at + 1).any(|m| m == *member));
    match twice {
        None => Ok(()),
        Some((_, member)) => {
            Err(Failure::usage(format!("{member} is named twice")).mend("name every member once"))
        }
    }
}

fn across(a: &[Target], b: &[Target]) -> Vec<(Target, Target)> {
    a.iter().flat_map(|a| b.iter().map(move |b| (a.clone(), b.clone()))).collect()
}

const fn arrow(one_way: bool) -> &'static str {
    if one_way { "->" } else { "<->" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Group {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The pairs as `a-b`, by the names of the namespaces.
    fn pairs(sides: &[&str], wanted: &Wanted) -> Vec<String> {
        let sides: Vec<Group> = sides.iter().map(|side| group(side)).collect();
        let cut = cut(&sides, wanted, false).unwrap();
        let word = |target: &Target| target.to_string().replace("netns:", "");
        cut.pairs.iter().map(|(a, b)| format!("{}-{}", word(a), word(b))).collect()
    }

    fn netns(name: &str) -> Target {
        Target::NetnsName(name.to_owned())
    }

    #[test]
    fn groups_are_read_with_and_without_braces() {
        for text in ["{netns:a,netns:b}", "netns:a,netns:b", "{netns:a, netns:b}"] {
            assert_eq!(group(text).0, [netns("a"), netns("b")], "{text}");
        }
        assert_eq!(group("{host}"), group("host"));
        assert_eq!(group("netns:a,netns:b").to_string(), "{netns:a,netns:b}");
        let many = group("10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5,10.0.0.6,10.0.0.7,10.0.0.8,10.0.0.9");
        assert!(many.to_string().ends_with(",10.0.0.8,... 9 in all}"), "{many}");
        assert_eq!(group("10.0.0.0/8,[fd00::1]:80,redis:6379").0.len(), 3);
        assert_eq!(group("cgroup:/odd,name").0, [Target::Cgroup("/odd,name".into())]);
        for (text, phrase) in [
            ("{netns:a,netns:b", "brace is missing"),
            ("netns:a}", "brace is missing"),
            ("netns:a,,netns:b", "is empty"),
            ("{}", "is empty"),
            ("netns:a,nonsense", "`nonsense` names no target"),
        ] {
            let error = text.parse::<Group>().expect_err(text);
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn every_shape_cuts_exactly_its_pairs() {
        assert_eq!(
            pairs(&["netns:a,netns:b", "{netns:c,netns:d}"], &Wanted::Sides),
            ["a-c", "a-d", "b-c", "b-d"]
        );
        let all = ["{netns:a,netns:b,netns:c,netns:d,netns:e}"];
        assert_eq!(pairs(&all, &Wanted::Isolate(netns("c"))), ["c-a", "c-b", "c-d", "c-e"]);
        assert_eq!(pairs(&all, &Wanted::Bridge(netns("a"))), ["b-d", "b-e", "c-d", "c-e"]);
        assert_eq!(pairs(&all, &Wanted::Bridge(netns("x"))), ["a-d", "a-e", "b-d", "b-e", "c-d", "c-e"]);
        assert_eq!(pairs(&all, &Wanted::Ring), ["a-c", "a-d", "b-d", "b-e", "c-e"]);
        assert_eq!(pairs(&["netns:a,netns:b,netns:c,netns:d"], &Wanted::Ring), ["a-c", "b-d"]);
    }

    #[test]
    fn a_group_that_a_shell_took_apart_is_still_one_where_there_is_only_one() {
        let words = ["netns:a", "netns:b", "netns:c", "netns:d"];
        assert_eq!(pairs(&words, &Wanted::Ring), ["a-c", "b-d"]);
        assert_eq!(pairs(&words, &Wanted::Isolate(netns("a"))), ["a-b", "a-c", "a-d"]);
    }

    #[test]
    fn as_many_pairs_as_there_are_rules_and_not_one_more() {
        let members =
            |count: usize, prefix: &str| Group((0..count).map(|n| netns(&format!("{prefix}{n}"))).collect());
        let between = |a: usize, b: usize| cut(&[members(a, "a"), members(b, "b")], &Wanted::Sides, false);
        assert_eq!(between(64, 64).unwrap().pairs.len(), Sizes::MOST as usize);
        let error = between(Sizes::MOST as usize + 1, 1).expect_err("too many");
        assert!(error.what.contains("4097 pairs") && error.what.contains("4096 rules"), "{error}");
    }
}
