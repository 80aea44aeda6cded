//! The commands of the README, as they stand there: a reader types them.

use super::{parse, rules};

const README: &str = include_str!("../../../../README.md");

/// What stands in its blocks of shell, without `sudo`, quotes and remarks.
fn commands() -> impl Iterator<Item = String> {
    let blocks = README.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).filter_map(|line| {
        let typed = line.split(" #").next()?.trim().trim_end_matches('&').trim_end();
        let words = typed.strip_prefix("sudo ").unwrap_or(typed).strip_prefix("chaos ")?;
        Some(words.replace('\'', ""))
    })
}

#[test]
fn every_command_is_read_and_makes_sense() {
    let mut faults = 0;
    for command in commands() {
        parse(&command).unwrap_or_else(|error| panic!("chaos {command}: {error}"));
        if ["exec ", "inject ", "partition "].iter().any(|name| command.starts_with(name)) {
            rules(&command).unwrap_or_else(|error| panic!("chaos {command}: {error:#}"));
            faults += 1;
        }
    }
    assert!(faults > 20, "only {faults} faults were found: the README is written in another way");
}
