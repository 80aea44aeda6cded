//! `/v1/capabilities`: what this machine can do, and every kind of fault.

use std::time::{Duration, Instant};

use axum::{http::StatusCode, response::Json};
use chaos_common::{
    fault::{DefaultDirection, FAULTS, FaultInfo, Need},
    profile::PROFILES,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{problem::Problem, shape};
use crate::{
    doctor::{self, Outcome},
    needs,
};

/// Trying things out loads programs into the kernel, so the answer is kept for a while.
const FRESH: Duration = Duration::from_mins(1);

static KNOWN: Mutex<Option<(Instant, Value)>> = Mutex::const_new(None);

pub(super) async fn show() -> Result<Json<Value>, Problem> {
    // Whoever asks at the same time waits for the same answer.
    let mut known = KNOWN.lock().await;
    if let Some((_, value)) = known.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        return Ok(Json(value.clone()));
    }
    let found = tokio::task::spawn_blocking(find).await;
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "looking at this machine failed");
    let value = found.map_err(failed)?;
    *known = Some((Instant::now(), value.clone()));
    Ok(Json(value))
}

fn find() -> Value {
    let checks = doctor::run(&doctor::probes());
    json!({
        "healthy": doctor::healthy(&checks),
        "checks": checks,
        "faults": FAULTS.iter().map(fault).collect::<Vec<_>>(),
        "profiles": PROFILES.iter().map(|profile| json!({
            "name": profile.name, "help": profile.describe(), "source": profile.source,
        })).collect::<Vec<_>>(),
    })
}

fn fault(info: &FaultInfo) -> Value {
    let missing: Vec<Value> = info
        .needs
        .iter()
        .filter_map(|need| match needs::probe(*need) {
            Outcome::Missing { why, mend } => Some(json!({"need": word(*need), "why": why, "mend": mend})),
            Outcome::Ok { .. } | Outcome::Unknown { .. } => None,
        })
        .collect();
    json!({
        "name": info.name,
        "usage": info.usage(),
        "help": info.help,
        "direction": match info.default_direction {
            DefaultDirection::Egress => "egress",
            DefaultDirection::Ingress => "ingress",
            DefaultDirection::Both => "both",
        },
        "needs": info.needs.iter().map(|need| word(*need)).collect::<Vec<_>>(),
        "missing": missing,
    })
}

const fn word(need: Need) -> &'static str {
    match need {
        Need::Line => "line",
        Need::Normaliser => "normaliser",
        Need::ConnectHook => "connect-hook",
        Need::SockDestroy => "sock-destroy",
    }
}

/// What the answer looks like.
pub(super) fn shape() -> Value {
    let why = |help: &str| shape::text(help);
    let check = shape::object([
        ("name", shape::text("What was looked at")),
        ("need", shape::one_of(["basic", "optional"], "Whether no fault works without it")),
        ("purpose", shape::text("What it is good for")),
        ("status", shape::one_of(["ok", "missing", "unknown"], "What was found")),
        ("detail", shape::text("Which one, how much")),
        ("why", why("What was tried and what the kernel said")),
        ("mend", why("The command that mends it")),
    ]);
    let missing = shape::object([("need", why("What")), ("why", why("Why")), ("mend", why("What mends it"))]);
    let fault = shape::object([
        ("name", shape::text("The field in `faults`")),
        ("usage", shape::text("As a flag")),
        ("help", shape::text("In words")),
        ("direction", shape::one_of(["egress", "ingress", "both"], "Unless told otherwise")),
        ("needs", shape::list(shape::text("What some of its values need"))),
        ("missing", shape::list(missing)),
    ]);
    let profile = shape::object([
        ("name", shape::text("The value of `profile`")),
        ("help", shape::text("In words")),
        ("source", shape::text("Where the numbers are from")),
    ]);
    shape::object([
        ("healthy", shape::flag("The basics work")),
        ("checks", shape::list(shape::without(check, &["detail", "why", "mend"]))),
        ("faults", shape::list(fault)),
        ("profiles", shape::list(profile)),
    ])
}
