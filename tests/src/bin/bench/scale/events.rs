//! Events at full rate: what it costs to be told of every packet that a rule hits.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::{
    api::{Agent, matched},
    bench::{
        Axis, Chart, Document, Options, Point, Series, Spread, Table, cpu_s,
        lane::{Lane, PORT},
    },
    lab::process::wait_until,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{added_ns, told};

/// Who is told of what.
const WAYS: [(&str, Option<&str>); 3] = [
    ("nobody reads", None),
    ("100 a second, then 1 in 100", Some("")),
    ("every packet", Some("--events-first-per-second 1000000000")),
];

#[derive(Debug, Serialize)]
struct Row {
    events: &'static str,
    /// What the rule adds to a datagram that it hits.
    added_ns: Option<Spread>,
    /// Of the datagrams that were hit.
    datagrams_per_s: f64,
    told_per_s: f64,
    lost_per_s: f64,
    /// CPU time of the agent, percent of one CPU.
    agent_percent: f64,
}

pub(super) fn measure(document: &mut Document, options: &Options, rounds: usize) -> Result<()> {
    let note = "One rule hits every datagram and only counts it (shadow). A reader of `/v1/events?kind=packet` gets what \
                the ring buffer and the stream have room for; what has none is counted as lost.";
    let columns = ["events", "a datagram, ns", "hit, 1/s", "told, 1/s", "lost, 1/s", "agent, % of a CPU"];
    let mut table = Table::new("Events at full rate", &columns, note);
    let mut costs = Series { name: "a datagram that is hit".to_owned(), points: Vec::new() };
    for (place, (name, flags)) in WAYS.into_iter().enumerate() {
        let row = one(name, flags, options, rounds)?;
        table.rows.push(vec![
            name.to_owned(),
            told(row.added_ns, 0),
            format!("{:.0}", row.datagrams_per_s),
            format!("{:.0}", row.told_per_s),
            format!("{:.0}", row.lost_per_s),
            format!("{:.0}", row.agent_percent),
        ]);
        document.add(&row)?;
        costs.points.extend(row.added_ns.map(|spread| Point::spread(place as f64, spread)));
    }
    document.tables.push(table);
    document.charts.push(Chart {
        title: "Events at full rate: what a rule adds to a datagram that it hits".to_owned(),
        x: Axis::named(WAYS.map(|(name, _)| name.to_owned())),
        y: Axis::of("ns"),
        series: vec![costs],
    });
    Ok(())
}

fn one(events: &'static str, flags: Option<&str>, options: &Options, rounds: usize) -> Result<Row> {
    let (lane, plain) = (Lane::new()?, Lane::new()?);
    let mut agent = Agent::start(flags.unwrap_or_default())?;
    let fault = agent.set(&json!({"target": format!("netns:{}", lane.netns().name()), "duration": "10m",
        "faults": {"partition": true}, "match": {"peer_port": [PORT]}, "shadow": true}))?;
    let told = Arc::<AtomicU64>::default();
    if flags.is_some() {
        read(agent.socket(), &told)?;
        // The stream is there when the first comes.
        wait_until("an event", Duration::from_secs(20), || {
            let sent = lane.send(Duration::from_millis(5));
            thread::sleep(Duration::from_millis(50));
            sent.is_err() || told.load(Ordering::Acquire) > 0
        })?;
    }
    let pid = agent.chaos().process().pid();
    let before = (hits(&agent, fault)?, told.load(Ordering::Acquire), lost(&agent)?, cpu_s(pid)?);
    let begun = Instant::now();
    let added = added_ns(&lane, &plain, 2 * rounds, Duration::from_millis(options.pick(100, 30)))?;
    let took = begun.elapsed().as_secs_f64();
    let hit = hits(&agent, fault)? - before.0;
    ensure!(hit > 0, "the rule hit nothing");
    let row = Row {
        events,
        added_ns: added,
        datagrams_per_s: hit as f64 / took,
        told_per_s: (told.load(Ordering::Acquire) - before.1) as f64 / took,
        lost_per_s: (lost(&agent)? - before.2) / took,
        agent_percent: (cpu_s(pid)? - before.3) * 100.0 / took,
    };
    agent.stop()?;
    Ok(row)
}

/// Counts events of packets as they come, until the agent ends.
fn read(socket: &Path, told: &Arc<AtomicU64>) -> Result<()> {
    let mut stream = UnixStream::connect(socket).context("connecting to the agent")?;
    stream.write_all(b"GET /v1/events?kind=packet HTTP/1.1\r\nhost: chaos\r\n\r\n")?;
    let told = Arc::clone(told);
    thread::spawn(move || {
        let lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
        for _ in lines.filter(|line| line.starts_with(b"data:")) {
            told.fetch_add(1, Ordering::Release);
        }
    });
    Ok(())
}

fn hits(agent: &Agent, fault: u64) -> Result<u64> {
    let shown = agent.ask("GET", &format!("/v1/faults/{fault}"), &Value::Null)?;
    ensure!(shown.status == 200, "{shown:?}");
    Ok(matched(&shown.body))
}

/// Records that found no room, by the agent's metrics.
fn lost(agent: &Agent) -> Result<f64> {
    let text = agent.ask("GET", "/metrics", &Value::Null)?.body;
    let text = text.as_str().context("the metrics are no text")?;
    let value = text.lines().find_map(|line| line.strip_prefix("chaos_events_lost_total "));
    value.context("no chaos_events_lost_total")?.trim().parse().context("chaos_events_lost_total")
}
