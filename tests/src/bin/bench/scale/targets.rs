//! More targets: namespaces, each with a process and a fault of its own.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chaos_tests::{
    bench::{Axis, Chart, Document, Options, Point, Series, Spread, Table, lane::Lane},
    lab::{netns::Netns, process::Process},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{added_ns, agent, resident_mib, rules::add_and_remove, told};

const COUNTS: [usize; 5] = [1, 4, 16, 64, 256];
const QUICK: [usize; 2] = [1, 16];
/// A port that nobody uses.
const PORT: u16 = 9999;

#[derive(Debug, Serialize)]
struct Row {
    targets: usize,
    /// One fault for each of the others, where none was, one after the other, until answered.
    new_ms: Option<Spread>,
    /// The fault of the first target, while the others have theirs.
    add_ms: Option<Spread>,
    remove_ms: Option<Spread>,
    /// All at once, until answered.
    end_ms: f64,
    resident_mib: f64,
    added_ns: Option<Spread>,
}

fn fault(netns: &Netns) -> Value {
    json!({"target": format!("netns:{}", netns.name()), "faults": {"partition": true}, "duration": "10m",
        "match": {"peer_port": [PORT]}})
}

pub(super) fn measure(document: &mut Document, options: &Options, rounds: usize) -> Result<()> {
    let note = "Each target is a network namespace with a process and a fault of its own, set one after the other. One of \
                them is then added and removed again and again while the others have theirs; the last column is what its \
                fault adds to a datagram of it.";
    let columns = [
        "targets",
        "a new one, ms",
        "add again, ms",
        "remove it, ms",
        "end all, ms",
        "agent, MiB",
        "a datagram, ns",
    ];
    let mut table = Table::new("More targets", &columns, note);
    let mut rows = Vec::new();
    for count in options.pick(&COUNTS[..], &QUICK[..]) {
        eprint!("\r{count} targets   ");
        let row = one(*count, options, rounds)?;
        table.rows.push(vec![
            row.targets.to_string(),
            told(row.new_ms, 1),
            told(row.add_ms, 1),
            told(row.remove_ms, 1),
            format!("{:.1}", row.end_ms),
            format!("{:.1}", row.resident_mib),
            told(row.added_ns, 0),
        ]);
        document.add(&row)?;
        rows.push(row);
    }
    eprintln!();
    document.tables.push(table);
    let curve = |name: &str, figure: &dyn Fn(&Row) -> Option<f64>| Series {
        name: name.to_owned(),
        points: rows.iter().filter_map(|row| Some(Point::plain(row.targets as f64, figure(row)?))).collect(),
    };
    document.charts.push(Chart {
        title: "More targets: time of a change, memory of the agent".to_owned(),
        x: Axis::log("targets"),
        y: Axis::log("ms, MiB"),
        series: vec![
            curve("a new one, ms", &|row| Some(row.new_ms?.median)),
            curve("add again, ms", &|row| Some(row.add_ms?.median)),
            curve("end all, ms", &|row| Some(row.end_ms)),
            curve("agent, MiB", &|row| Some(row.resident_mib)),
        ],
    });
    Ok(())
}

fn one(count: usize, options: &Options, rounds: usize) -> Result<Row> {
    let (lane, plain) = (Lane::new()?, Lane::new()?);
    let others = (1..count).map(|_| Netns::new()).collect::<Result<Vec<_>>>()?;
    let live = |netns: &Netns| Process::start(netns.command("sleep 86400"));
    let _processes = others.iter().map(live).collect::<Result<Vec<_>>>()?;
    let mut agent = agent()?;
    let mut new = Vec::new();
    for netns in &others {
        let begun = Instant::now();
        agent.set(&fault(netns))?;
        new.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    // The first time it is cold: programs come to its devices.
    for round in 0..=rounds {
        let (added, removed) = add_and_remove(&agent, &fault(lane.netns()))?;
        if round > 0 {
            add.push(added);
            remove.push(removed);
        }
    }
    agent.set(&fault(lane.netns()))?;
    let added = added_ns(&lane, &plain, 2 * rounds, Duration::from_millis(options.pick(100, 30)))?;
    let resident_mib = resident_mib(&mut agent)?;
    let begun = Instant::now();
    let gone = agent.ask("DELETE", "/v1/faults", &Value::Null)?;
    ensure!(gone.status == 200 && gone.body["ended"] == count, "{gone:?}");
    let end_ms = begun.elapsed().as_secs_f64() * 1e3;
    agent.stop()?;
    Ok(Row {
        targets: count,
        new_ms: Spread::of(&new),
        add_ms: Spread::of(&add),
        remove_ms: Spread::of(&remove),
        end_ms,
        resident_mib,
        added_ns: added,
    })
}
