//! The dashboard and the alert rules of `deploy/`, held against what an agent really shows.

mod alerts;
mod grafana;
mod promql;

pub use self::{
    alerts::check as check_alerts,
    grafana::check as check_dashboard,
    promql::{Known, Labels},
};

use anyhow::{Result, bail};

/// What stands between `{{` and `}}` in a text, without blanks.
///
/// # Errors
/// When one is not closed.
fn templates(text: &str) -> Result<Vec<&str>> {
    let mut found = Vec::new();
    for piece in text.split("{{").skip(1) {
        let Some((inside, _)) = piece.split_once("}}") else { bail!("`{{{{` without an end in `{text}`") };
        found.push(inside.trim());
    }
    Ok(found)
}
