//! The same rules on the same packets: ours and nftables, beside a device without either.
//!
//! nftables has no test run, so a packet's cost is what it adds to a datagram on its way through a veth device, whose
//! far end drops it at once: it is for another MAC. Every form has a namespace of its own, all made alike, and one has
//! none of them: what that differs from another such is the error of the method.

use std::time::Duration;

use anyhow::{Result, ensure};
use chaos_tests::{
    api::{Agent, matched},
    bench::{
        Axis, Chart, Document, Options, Point, Series, Spread, Table,
        lane::{Lane, PEER},
        rules::{Cgroups, Rule, cgroups_of, unmatched},
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use super::nft;

const RULES: [usize; 5] = [1, 10, 100, 1000, 4096];
/// How the rules are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Nothing,
    Control,
    Ours,
    List,
    Sets,
}

impl Form {
    const ALL: [Self; 5] = [Self::Nothing, Self::Control, Self::Ours, Self::List, Self::Sets];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Control => "nothing again",
            Self::Ours => "chaos",
            Self::List => "nftables, list",
            Self::Sets => "nftables, sets",
        }
    }
}

/// One form in a namespace of its own.
struct Stage {
    form: Form,
    lane: Lane,
    _cgroups: Cgroups,
    agent: Option<Agent>,
    /// What one datagram took, nanoseconds.
    samples: Vec<f64>,
    sent: u64,
}

/// One set of rules in one form.
#[derive(Debug, Serialize)]
struct Row {
    form: &'static str,
    rules: usize,
    r#match: usize,
    version: u8,
    /// What it adds to a datagram.
    ns: f64,
    spread: Spread,
}

/// Measures, and puts everything into the document.
pub(super) fn measure_all(document: &mut Document, options: &Options, rounds: usize) -> Result<()> {
    let title = "What rules add to a datagram's way through a veth device, ns (IPv4)";
    let mut table = Table::new(title, &["rules", "match", "of all its way"], "");
    table.columns.extend(Form::ALL[1..].iter().map(|form| form.name().to_owned()));
    if let Some(why) = nft::missing() {
        table.note = format!("SKIPPED: {why}");
        document.tables.push(table);
        return Ok(());
    }
    let with_cgroups = nft::knows_cgroups(Lane::new()?.netns())?;
    table.note = note(with_cgroups);
    let mut rows = Vec::new();
    for matches in [0, 1] {
        for count in RULES {
            eprint!("\rbeside nftables, {count} rules, {matches} match    ");
            let mut rules = unmatched(count - matches);
            rules.extend((0..matches).map(|_| Rule::Peer(PEER, 32)));
            rules.retain(|rule| with_cgroups || !matches!(rule, Rule::Cgroup(_)));
            let mut stages =
                Form::ALL.map(|form| Stage::new(form, &rules)).into_iter().collect::<Result<Vec<_>>>()?;
            let time = Duration::from_millis(options.pick(100, 30));
            for round in 0..2 * rounds {
                // Not always in the same order.
                stages.rotate_left(round % 2);
                stages.iter_mut().try_for_each(|stage| stage.sample(time))?;
            }
            let (line, found) = judged(&stages, count, matches);
            table.rows.push(line);
            rows.extend(found);
            stages.into_iter().try_for_each(|stage| stage.finish(matches as u64))?;
        }
    }
    eprintln!();
    for row in &rows {
        document.others.push(serde_json::to_value(row)?);
    }
    document.tables.push(table);
    document.charts.push(chart(&rows));
    Ok(())
}

fn note(with_cgroups: bool) -> String {
    let cgroups = if with_cgroups {
        String::new()
    } else {
        "\nSKIPPED on both sides: rules about cgroups; this kernel or this nft has no `socket cgroupv2`."
            .to_owned()
    };
    format!(
        "Median of the rounds, in brackets the middle half; `nothing again` is the error of the method. Every rule \
         counts. The list has one line a rule, the last of which matches; the sets are one for single addresses, for \
         networks, for ranges of ports and for cgroups, with a counter for each element: they tell of one match a \
         set. In nftables rules about ports are for UDP alone.{cgroups}"
    )
}

impl Stage {
    fn new(form: Form, rules: &[Rule]) -> Result<Self> {
        let lane = Lane::new()?;
        // Nothing else is sent meanwhile.
        let named =
            if matches!(form, Form::Nothing | Form::Control) { 0 } else { cgroups_of(rules.len()) + 1 };
        let cgroups = Cgroups::new(lane.netns(), named)?;
        let mut agent = None;
        match form {
            Form::Nothing | Form::Control => {}
            Form::List => nft::load(lane.netns(), &nft::list(rules, &cgroups))?,
            Form::Sets => nft::load(lane.netns(), &nft::sets(rules, &cgroups))?,
            Form::Ours => {
                let faults: Vec<Value> =
                    rules.iter().map(|rule| rule.fault(lane.netns(), &cgroups, true)).collect();
                let armed = Agent::start("--max-rules 4096 --max-faults 4096")?;
                let answer = armed.ask("PUT", "/v1/faults", &json!({"faults": faults}))?;
                ensure!(answer.status == 200, "the rules are refused: {answer:?}");
                agent = Some(armed);
            }
        }
        Ok(Self { form, lane, _cgroups: cgroups, agent, samples: Vec::new(), sent: 0 })
    }

    fn sample(&mut self, time: Duration) -> Result<()> {
        let sent = self.lane.send(time)?;
        self.samples.push(sent.nanos());
        self.sent += sent.datagrams;
        Ok(())
    }

    /// The rules must have seen every datagram, and as many have matched as meant.
    fn finish(self, matches: u64) -> Result<()> {
        let counted = match (self.form, &self.agent) {
            (Form::Nothing | Form::Control, _) => return Ok(()),
            (Form::Ours, Some(agent)) => {
                let list = agent.ask("GET", "/v1/faults", &Value::Null)?.body;
                list["faults"].as_array().into_iter().flatten().map(matched).sum()
            }
            _ => nft::counted(self.lane.netns())?,
        };
        let (name, wanted) = (self.form.name(), self.sent * matches);
        ensure!(counted == wanted, "{name}: {counted} matches counted, {wanted} meant");
        self.agent.map_or(Ok(()), Agent::stop)
    }
}

/// A line of the table, and its rows.
fn judged(stages: &[Stage], rules: usize, matches: usize) -> (Vec<String>, Vec<Row>) {
    let samples = |form: Form| stages.iter().find(|stage| stage.form == form).map(|stage| &stage.samples[..]);
    let nothing = samples(Form::Nothing).unwrap_or_default();
    let way = Spread::of(nothing).map_or(String::new(), |spread| spread.told(0));
    let mut line = vec![rules.to_string(), matches.to_string(), way];
    let mut rows = Vec::new();
    for form in &Form::ALL[1..] {
        let pairs = samples(*form).unwrap_or_default().iter().zip(nothing);
        let added: Vec<f64> = pairs.map(|(with, without)| with - without).collect();
        let Some(spread) = Spread::of(&added) else { continue };
        line.push(spread.told(0));
        rows.push(Row { form: form.name(), rules, r#match: matches, version: 4, ns: spread.median, spread });
    }
    (line, rows)
}

fn chart(rows: &[Row]) -> Chart {
    let series = |form: Form, matches: usize| {
        let rows = rows.iter().filter(|row| row.form == form.name() && row.r#match == matches);
        // A logarithm needs more than nothing.
        let least = |value: f64| value.max(1.0);
        let points = rows.map(|row| Point {
            x: row.rules as f64,
            y: least(row.ns),
            low: least(row.spread.low),
            high: least(row.spread.high),
        });
        Series { name: format!("{}, {matches} match", form.name()), points: points.collect() }
    };
    let forms = [Form::Ours, Form::List, Form::Sets];
    Chart {
        title: "What rules add to a datagram's way".to_owned(),
        x: Axis::log("rules"),
        y: Axis::log("ns"),
        series: forms.into_iter().flat_map(|form| [series(form, 0), series(form, 1)]).collect(),
    }
}
