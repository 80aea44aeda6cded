//! More rules for one target.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chaos_tests::{
    api::Agent,
    bench::{
        Axis, Chart, Document, Options, Point, Series, Spread, Table,
        lane::Lane,
        rules::{Cgroups, cgroups_of, unmatched},
    },
};
use serde::Serialize;
use serde_json::Value;

use super::{added_ns, agent, resident_mib, set, told};

const COUNTS: [usize; 7] = [1, 4, 16, 64, 256, 1024, 4096];
const QUICK: [usize; 3] = [1, 64, 1024];

#[derive(Debug, Serialize)]
struct Row {
    rules: usize,
    /// All but one set at once, where none was, until answered.
    load_ms: f64,
    /// The last one, until answered.
    add_ms: Option<Spread>,
    remove_ms: Option<Spread>,
    resident_mib: f64,
    added_ns: Option<Spread>,
}

pub(super) fn measure(document: &mut Document, options: &Options, rounds: usize) -> Result<()> {
    let note = "Mixed rules that no datagram matches. All but one are set at once by a PUT where none was before; one \
                more is added by a POST, and removed again. The last column is what they add to a datagram, median and \
                middle half.";
    let columns = ["rules", "set all, ms", "add one, ms", "remove it, ms", "agent, MiB", "a datagram, ns"];
    let mut table = Table::new("More rules", &columns, note);
    let mut rows = Vec::new();
    for count in options.pick(&COUNTS[..], &QUICK[..]) {
        eprint!("\r{count} rules   ");
        let row = one(*count, options, rounds)?;
        table.rows.push(vec![
            row.rules.to_string(),
            format!("{:.1}", row.load_ms),
            told(row.add_ms, 1),
            told(row.remove_ms, 1),
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
        points: rows.iter().filter_map(|row| Some(Point::plain(row.rules as f64, figure(row)?))).collect(),
    };
    document.charts.push(Chart {
        title: "More rules: time of a change, memory of the agent".to_owned(),
        x: Axis::log("rules"),
        y: Axis::log("ms, MiB"),
        series: vec![
            curve("set all, ms", &|row| Some(row.load_ms)),
            curve("add one, ms", &|row| Some(row.add_ms?.median)),
            curve("agent, MiB", &|row| Some(row.resident_mib)),
        ],
    });
    document.charts.push(Chart {
        title: "More rules: what they add to a datagram that none matches".to_owned(),
        x: Axis::log("rules"),
        y: Axis::of("ns"),
        series: vec![Series {
            name: "chaos".to_owned(),
            points: rows
                .iter()
                .filter_map(|row| Some(Point::spread(row.rules as f64, row.added_ns?)))
                .collect(),
        }],
    });
    Ok(())
}

fn one(count: usize, options: &Options, rounds: usize) -> Result<Row> {
    let (lane, plain) = (Lane::new()?, Lane::new()?);
    let cgroups = Cgroups::new(lane.netns(), cgroups_of(count))?;
    let faults: Vec<Value> =
        unmatched(count).iter().map(|rule| rule.fault(lane.netns(), &cgroups, false)).collect();
    let mut agent = agent()?;
    let (last, most) = faults.split_last().map_or((&Value::Null, &[][..]), |(last, most)| (last, most));
    let begun = Instant::now();
    set(&agent, most)?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    // The first one is cold where it is the only one.
    for round in 0..=rounds {
        let (added, removed) = add_and_remove(&agent, last)?;
        if round > 0 {
            add.push(added);
            remove.push(removed);
        }
    }
    agent.set(last)?;
    let added = added_ns(&lane, &plain, 2 * rounds, Duration::from_millis(options.pick(100, 30)))?;
    let resident_mib = resident_mib(&mut agent)?;
    agent.stop()?;
    Ok(Row {
        rules: count,
        load_ms,
        add_ms: Spread::of(&add),
        remove_ms: Spread::of(&remove),
        resident_mib,
        added_ns: added,
    })
}

/// How long both took, milliseconds.
pub(super) fn add_and_remove(agent: &Agent, fault: &Value) -> Result<(f64, f64)> {
    let begun = Instant::now();
    let number = agent.set(fault)?;
    let added = begun.elapsed().as_secs_f64() * 1e3;
    let begun = Instant::now();
    let gone = agent.ask("DELETE", &format!("/v1/faults/{number}"), &Value::Null)?;
    ensure!(gone.status == 200, "{gone:?}");
    Ok((added, begun.elapsed().as_secs_f64() * 1e3))
}
