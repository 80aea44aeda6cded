//! Expressions of Prometheus: that they parse, and that everything they name is there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use promql_parser::{
    label::{METRIC_NAME, MatchOp},
    parser::{
        self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
        value::ValueType,
    },
};

use crate::metrics::{self, Scrape};

/// Names of labels.
pub type Labels = BTreeSet<String>;

/// What Prometheus adds to every series it scrapes.
const OF_SCRAPE: [&str; 2] = ["instance", "job"];
/// What it makes itself, one for each thing it scrapes.
const UP: &str = "up";
/// What only a value that never falls can be put into.
const OF_COUNTERS: [&str; 3] = ["rate", "irate", "increase"];
/// The upper end of a class of a histogram.
const END: &str = "le";

/// Series that can be asked for: their names, their labels, and the values these have.
#[derive(Clone, Debug, Default)]
pub struct Known(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Known {
    /// What Prometheus would know after this scrape.
    ///
    /// # Errors
    /// When the labels of a series cannot be read.
    pub fn of(scrape: &Scrape) -> Result<Self> {
        let mut known = Self::default();
        known.0.insert(UP.to_owned(), BTreeMap::new());
        for series in scrape.samples.keys() {
            let name = series.split('{').next().unwrap_or_default();
            let of_name = known.0.entry(name.to_owned()).or_default();
            for (label, value) in metrics::labels(series)? {
                of_name.entry(label).or_default().insert(value);
            }
        }
        Ok(known)
    }

    /// The labels of what the expression gives, and whether it compares: gives nothing unless something is so.
    ///
    /// # Errors
    /// When it does not parse, or names a series, a label or a label's value that is not there.
    pub fn check(&self, expression: &str) -> Result<(Labels, bool)> {
        let parsed = parser::parse(expression).map_err(anyhow::Error::msg);
        let parsed = parsed.with_context(|| format!("`{expression}` does not parse"))?;
        let labels = self.labels(&parsed).with_context(|| format!("in `{expression}`"))?;
        let compares = matches!(&parsed, Expr::Binary(whole) if whole.op.is_comparison_operator());
        Ok((labels, compares))
    }

    /// The labels of the series with this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_series(&self, name: &str) -> Result<Labels> {
        let known = self.0.get(name).with_context(|| format!("no series is called `{name}`"))?;
        Ok(known.keys().cloned().chain(OF_SCRAPE.map(str::to_owned)).collect())
    }

    fn labels(&self, expression: &Expr) -> Result<Labels> {
        match expression {
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(selector) => self.selector(&selector.vs),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => self.call(call),
            Expr::Paren(inner) => self.labels(&inner.expr),
            Expr::Unary(inner) => self.labels(&inner.expr),
            Expr::Subquery(inner) => self.labels(&inner.expr),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
            Expr::Extension(_) => bail!("an extension of the language"),
        }
    }

    fn selector(&self, selector: &VectorSelector) -> Result<Labels> {
        let name = selector.name.as_deref().context("a selector without a name")?;
        let labels = self.of_series(name)?;
        ensure!(selector.matchers.or_matchers.is_empty(), "`or` in a selector");
        for matcher in selector.matchers.matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
            has(&labels, &matcher.name, name)?;
            let Some(values) = self.0.get(name).and_then(|known| known.get(&matcher.name)) else { continue };
            for value in wanted(&matcher.op, &matcher.value) {
                ensure!(
                    values.contains(value),
                    "the label `{}` of `{name}` is never `{value}`: it has {values:?}",
                    matcher.name
                );
            }
        }
        Ok(labels)
    }

    fn aggregate(&self, aggregate: &AggregateExpr) -> Result<Labels> {
        let inner = self.labels(&aggregate.expr)?;
        match &aggregate.modifier {
            None => Ok(Labels::new()),
            Some(LabelModifier::Include(by)) => all_of(&inner, &by.labels, "what `by` is over"),
            Some(LabelModifier::Exclude(without)) => {
                let without = all_of(&inner, &without.labels, "what `without` is over")?;
                Ok(&inner - &without)
            }
        }
    }

    fn call(&self, call: &Call) -> Result<Labels> {
        let name = call.func.name;
        let mut labels = Labels::new();
        for argument in &call.args.args {
            labels.extend(self.labels(argument)?);
            if OF_COUNTERS.contains(&name)
                && let Expr::MatrixSelector(selector) = argument.as_ref()
            {
                let series = selector.vs.name.as_deref().unwrap_or_default();
                let grows = ["_total", "_bucket", "_sum", "_count"].iter().any(|end| series.ends_with(end));
                ensure!(grows, "`{name}` is for counters, and `{series}` is none");
            }
        }
        if name == "histogram_quantile" {
            ensure!(labels.remove(END), "`histogram_quantile` of what has no label `{END}`");
        }
        Ok(labels)
    }

    fn binary(&self, binary: &BinaryExpr) -> Result<Labels> {
        let (left, right) = (self.labels(&binary.lhs)?, self.labels(&binary.rhs)?);
        let is_scalar = |side: &Expr| side.value_type() == ValueType::Scalar;
        match (is_scalar(&binary.lhs), is_scalar(&binary.rhs)) {
            (_, true) => return Ok(left),
            (true, false) => return Ok(right),
            (false, false) => {}
        }
        let Some(modifier) = &binary.modifier else { return Ok(&left & &right) };
        let on = match &modifier.matching {
            Some(LabelModifier::Include(on) | LabelModifier::Exclude(on)) => {
                all_of(&left, &on.labels, "the left side")?;
                all_of(&right, &on.labels, "the right side")?
            }
            None => Labels::new(),
        };
        Ok(match &modifier.card {
            VectorMatchCardinality::ManyToOne(more) => {
                &left | &all_of(&right, &more.labels, "the right side")?
            }
            VectorMatchCardinality::OneToMany(more) => {
                &right | &all_of(&left, &more.labels, "the left side")?
            }
            // No more than what is surely there.
            VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => {
                if modifier.is_matching_on() { on } else { &left & &right }
            }
        })
    }
}

/// The values that a matcher names one by one; a pattern of another kind names none.
fn wanted<'a>(op: &MatchOp, value: &'a str) -> Vec<&'a str> {
    let is_word = |text: &&str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match op {
        MatchOp::Equal | MatchOp::NotEqual => vec![value],
        MatchOp::Re(_) | MatchOp::NotRe(_) => {
            let words: Vec<&str> = value.split('|').collect();
            if words.iter().all(is_word) { words } else { Vec::new() }
        }
    }
}

fn has(labels: &Labels, label: &str, whose: &str) -> Result<()> {
    ensure!(labels.contains(label), "{whose} has no label `{label}`; it has {labels:?}");
    Ok(())
}

/// These labels, which all have to be there.
fn all_of(labels: &Labels, wanted: &[String], whose: &str) -> Result<Labels> {
    wanted.iter().try_for_each(|label| has(labels, label, whose))?;
    Ok(wanted.iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::{Known, Labels, Scrape};

    fn known() -> Known {
        let page = "# HELP chaos_x_total A.\n# TYPE chaos_x_total counter\n\
            chaos_x_total{fault=\"1\",verdict=\"lease\"} 1\nchaos_x_total{fault=\"1\",verdict=\"held\"} 1\n\
            # HELP chaos_rules A.\n# TYPE chaos_rules gauge\nchaos_rules 1\n\
            # HELP chaos_late_seconds A.\n# TYPE chaos_late_seconds histogram\n\
            chaos_late_seconds_bucket{le=\"+Inf\"} 1\nchaos_late_seconds_sum 1\nchaos_late_seconds_count 1\n";
        Known::of(&Scrape::parse(page).unwrap()).unwrap()
    }

    #[test]
    fn the_labels_of_a_result_are_known() {
        for (expression, wanted, compares) in [
            ("up{job=\"chaos\"} == 0", "instance job", true),
            ("sum by (fault) (rate(chaos_x_total{verdict=~\"lease|held\"}[1m])) > 0", "fault", true),
            ("sum without (fault, job) (chaos_x_total)", "instance verdict", false),
            ("sum(chaos_rules)", "", false),
            ("time() - chaos_rules", "instance job", false),
            ("histogram_quantile(0.9, sum by (le, job) (rate(chaos_late_seconds_bucket[5m])))", "job", false),
            ("chaos_rules * on (instance) chaos_x_total", "instance", false),
            (
                "chaos_x_total{instance=~\".*\"} * on (instance) group_left () chaos_rules",
                "fault instance job verdict",
                false,
            ),
            ("chaos_rules * on (instance) group_left (fault) chaos_x_total", "fault instance job", false),
        ] {
            let wanted: Labels = wanted.split_whitespace().map(str::to_owned).collect();
            assert_eq!(known().check(expression).unwrap(), (wanted, compares), "{expression}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for (expression, why) in [
            ("chaos_x", "no series is called `chaos_x`"),
            ("sum by (fault (chaos_x_total)", "does not parse"),
            ("rate(chaos_x_total)", "does not parse"),
            ("chaos_x_total{way=\"in\"}", "no label `way`"),
            ("chaos_x_total{verdict=\"late\"}", "is never `late`"),
            ("chaos_x_total{verdict=~\"lease|late\"}", "is never `late`"),
            ("sum by (way) (chaos_x_total)", "no label `way`"),
            ("sum without (way) (chaos_x_total)", "no label `way`"),
            ("sum by (verdict) (sum by (fault) (chaos_x_total))", "no label `verdict`"),
            ("rate(chaos_rules[1m])", "is for counters"),
            ("histogram_quantile(0.9, sum(rate(chaos_late_seconds_bucket[5m])))", "no label `le`"),
            ("chaos_rules * on (fault) chaos_x_total", "the left side has no label `fault`"),
        ] {
            let error = format!("{:#}", known().check(expression).unwrap_err());
            assert!(error.contains(why), "{expression}: {error}");
        }
    }
}
