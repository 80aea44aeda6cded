//! Rules that alert, as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use promql_parser::util::parse_duration;
use serde::Deserialize;

use super::{promql::Known, templates};

/// What `severity` may be.
const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    lasting: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: Annotations,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    summary: String,
    description: String,
}

/// Checks a file of rules; the number of its expressions.
///
/// # Errors
/// The rule, and what is wrong with it.
pub fn check(text: &str, known: &Known) -> Result<usize> {
    let rules: Rules = serde_saphyr::from_str(text).context("the rules cannot be read")?;
    let mut names = BTreeSet::new();
    for group in &rules.groups {
        ensure!(!group.name.is_empty() && !group.rules.is_empty(), "the group `{}` is empty", group.name);
        for rule in &group.rules {
            rule.check(known).with_context(|| format!("the alert {}", rule.alert))?;
            ensure!(names.insert(&rule.alert), "the alert {} comes twice", rule.alert);
        }
    }
    Ok(names.len())
}

impl Rule {
    fn check(&self, known: &Known) -> Result<()> {
        let (labels, compares) = known.check(&self.expr)?;
        ensure!(compares, "it compares with nothing, so it would always be firing");
        if let Some(lasting) = &self.lasting {
            parse_duration(lasting).map_err(anyhow::Error::msg).with_context(|| format!("for: {lasting}"))?;
        }
        let severity = self.labels.get("severity").context("no severity")?;
        ensure!(SEVERITIES.contains(&severity.as_str()), "the severity {severity}; there are {SEVERITIES:?}");
        for (name, text) in
            [("summary", &self.annotations.summary), ("description", &self.annotations.description)]
        {
            ensure!(text.trim().ends_with('.'), "the {name} is no sentence: `{text}`");
            for template in templates(text)? {
                let label = template.strip_prefix("$labels.");
                let is_there = template == "$value" || label.is_some_and(|label| labels.contains(label));
                ensure!(is_there, "the {name} has `{template}`; the result's labels are {labels:?}");
            }
        }
        Ok(())
    }
}
