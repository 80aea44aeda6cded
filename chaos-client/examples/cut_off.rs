//! Cuts a target off from everybody for as long as a value lives, and shows what a command makes of it.
//!
//! ```sh
//! cargo run -p chaos-client --example cut_off -- netns:blue -- ip netns exec blue ping -c 1 -W 1 10.0.0.2
//! ```
//!
//! The command must succeed before, fail while the fault is held, and succeed again afterwards. With `--end panic` or
//! `--end abort` this process ends so while it holds the fault: it heals all the same.

use std::{env, error::Error, process::Command, time::Duration};

use chaos_client::{Client, NewFault};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words: Vec<String> = env::args().skip(1).collect();
    let command = match words.iter().position(|word| word == "--") {
        Some(at) => words.split_off(at).split_off(1),
        None => Vec::new(),
    };
    let (Some(target), Some((program, arguments))) = (words.first(), command.split_first()) else {
        return Err("usage: cut_off TARGET [--end panic|abort] -- COMMAND...".into());
    };
    let succeeds = || Command::new(program).args(arguments).status().map(|status| status.success());

    if !succeeds()? {
        return Err("the command fails without any fault".into());
    }
    // Where: CHAOS_URL and CHAOS_KEY, or CHAOS_SOCKET, or /run/chaos/agent.sock.
    let client = Client::from_env()?;
    let fault = client.hold(
        NewFault::on(target)
            .fault("partition", true)
            .duration(Duration::from_mins(1))
            .lease(Duration::from_secs(2)),
    )?;
    println!("fault {}: {} on {}", fault.id(), fault.view().what, fault.view().targets);
    if succeeds()? {
        return Err("the command does not notice the fault".into());
    }
    println!("{} packets are gone", fault.stats()?.both("dropped_packets"));
    match words.get(2).map(String::as_str) {
        Some("panic") => panic!("as asked for"),
        Some("abort") => std::process::abort(),
        _ => drop(fault),
    }
    if !succeeds()? {
        return Err("the fault did not heal".into());
    }
    println!("healed");
    Ok(())
}
