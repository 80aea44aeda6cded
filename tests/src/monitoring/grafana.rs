//! A dashboard, as Grafana reads it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{
    promql::{Known, Labels},
    templates,
};

/// The columns that a dashboard has.
const COLUMNS: u32 = 24;
/// Units of Grafana's that fit what the agent shows.
const UNITS: [&str; 7] = ["short", "s", "pps", "Bps", "bytes", "percentunit", "bool"];
/// The kinds of panels that show series.
const KINDS: [&str; 3] = ["stat", "table", "timeseries"];
/// Variables that Grafana has by itself, and something they may stand for.
const OWN: [(&str, &str); 2] = [("$__rate_interval", "5m"), ("$__interval", "1m")];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dashboard {
    uid: String,
    title: String,
    schema_version: u32,
    templating: List<Variable>,
    annotations: List<Annotation>,
    panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
struct List<T> {
    list: Vec<T>,
}

#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    query: String,
    datasource: Option<Source>,
}

#[derive(Debug, Deserialize)]
struct Annotation {
    name: String,
    expr: String,
    datasource: Source,
}

#[derive(Debug, Deserialize)]
struct Source {
    #[serde(rename = "type")]
    kind: String,
    uid: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Panel {
    id: u32,
    #[serde(rename = "type")]
    kind: String,
    title: String,
    description: String,
    datasource: Source,
    grid_pos: Place,
    field_config: FieldConfig,
    targets: Vec<Target>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Place {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

#[derive(Debug, Deserialize)]
struct FieldConfig {
    defaults: Defaults,
}

#[derive(Debug, Deserialize)]
struct Defaults {
    unit: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    ref_id: String,
    expr: String,
    legend_format: String,
    datasource: Source,
}

/// Checks a dashboard; the number of its expressions.
///
/// # Errors
/// The panel, and what is wrong with it.
pub fn check(text: &str, known: &Known) -> Result<usize> {
    let dashboard: Dashboard = serde_json::from_str(text).context("the dashboard cannot be read")?;
    let Dashboard { uid, title, schema_version, templating, annotations, panels } = &dashboard;
    let is_uid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    ensure!((1..=40).contains(&uid.len()) && uid.bytes().all(is_uid), "the uid `{uid}`");
    ensure!(!title.is_empty() && *schema_version >= 36, "no title, or an old schema ({schema_version})");
    ensure!(!panels.is_empty(), "there are no panels");
    let scope = Scope { known, variables: &templating.list };
    for variable in &templating.list {
        scope.variable(variable).with_context(|| format!("the variable {}", variable.name))?;
    }
    for annotation in &annotations.list {
        let checked = scope.source(&annotation.datasource).and_then(|()| scope.expression(&annotation.expr));
        checked.with_context(|| format!("the annotation {}", annotation.name))?;
    }
    let mut ids = BTreeSet::new();
    let mut count = annotations.list.len();
    for (at, panel) in panels.iter().enumerate() {
        let whose = || format!("the panel {} ({})", panel.id, panel.title);
        ensure!(ids.insert(panel.id), "{} has another's number", whose());
        count += scope.panel(panel).with_context(whose)?;
        let over = panels.iter().skip(at + 1).find(|other| overlap(panel.grid_pos, other.grid_pos));
        if let Some(other) = over {
            bail!("{} covers the panel {}", whose(), other.id);
        }
    }
    Ok(count)
}

/// What expressions of a dashboard may name.
struct Scope<'a> {
    known: &'a Known,
    variables: &'a [Variable],
}

impl Scope<'_> {
    /// Only choices of a data source and of values of a label.
    fn variable(&self, variable: &Variable) -> Result<()> {
        let Variable { kind, query, datasource, .. } = variable;
        if kind == "datasource" {
            ensure!(query == "prometheus", "a data source of the kind {query}");
            return Ok(());
        }
        ensure!(kind == "query", "a variable of the type {kind}");
        self.source(datasource.as_ref().context("no data source")?)?;
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (name, label) = inside.and_then(|inside| inside.split_once(", ")).context("no label_values")?;
        ensure!(self.known.of_series(name)?.contains(label), "{name} has no label `{label}`");
        Ok(())
    }

    /// The one that the user chooses.
    fn source(&self, source: &Source) -> Result<()> {
        ensure!(source.kind == "prometheus", "a data source of the type {}", source.kind);
        let name = source.uid.strip_prefix("${").and_then(|uid| uid.strip_suffix('}'));
        let is_chosen =
            self.variables.iter().any(|known| known.kind == "datasource" && name == Some(&known.name));
        ensure!(is_chosen, "the data source `{}` is not the one that is chosen", source.uid);
        Ok(())
    }

    /// The labels of the result.
    fn expression(&self, expression: &str) -> Result<Labels> {
        let mut plain = expression.to_owned();
        for (variable, value) in OWN {
            plain = plain.replace(variable, value);
        }
        for variable in self.variables.iter().filter(|variable| variable.kind == "query") {
            plain = plain.replace(&format!("\"${}\"", variable.name), "\".*\"");
        }
        ensure!(!plain.contains('$'), "a variable that is not there in `{plain}`");
        Ok(self.known.check(&plain)?.0)
    }

    fn panel(&self, panel: &Panel) -> Result<usize> {
        let Panel { kind, title, description, grid_pos: place, field_config, targets, .. } = panel;
        ensure!(KINDS.contains(&kind.as_str()), "a panel of the type {kind}");
        ensure!(
            !title.is_empty() && description.ends_with('.'),
            "no title, or no sentence that describes it"
        );
        ensure!(place.w > 0 && place.h > 0 && place.x + place.w <= COLUMNS, "it stands at {place:?}");
        let unit = field_config.defaults.unit.as_str();
        ensure!(UNITS.contains(&unit), "the unit `{unit}`; there are {UNITS:?}");
        self.source(&panel.datasource)?;
        ensure!(!targets.is_empty(), "it asks for nothing");
        let mut ids = BTreeSet::new();
        for target in targets {
            ensure!(ids.insert(&target.ref_id), "two targets are called {}", target.ref_id);
            self.source(&target.datasource)?;
            let labels = self.expression(&target.expr)?;
            for label in templates(&target.legend_format)? {
                ensure!(
                    labels.contains(label),
                    "the legend has `{label}`; the result's labels are {labels:?}"
                );
            }
        }
        Ok(targets.len())
    }
}

fn overlap(one: Place, other: Place) -> bool {
    let apart = |at: u32, length: u32, from: u32, to: u32| at + length <= from || from + to <= at;
    !apart(one.x, one.w, other.x, other.w) && !apart(one.y, one.h, other.y, other.h)
}
