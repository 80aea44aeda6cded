//! `/v1/faults` and the safety lever.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Json, Response},
};
use serde_json::{Value, json};

use super::{body, problem::Problem};
use crate::{
    daemon::{self, Fault, Handle, NewFault, State as FaultState, why},
    engine::RuleStats,
};

type Answer = Result<Json<Value>, Problem>;

pub(super) async fn list(State(handle): State<Handle>) -> Answer {
    let all = handle.ask(|keeper| Ok(keeper.list())).await?;
    Ok(Json(json!({"faults": all.iter().map(view).collect::<Vec<_>>()})))
}

pub(super) async fn show(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    let found = handle.ask(move |keeper| keeper.show(&id)).await?;
    Ok(Json(view(&found)))
}

pub(super) async fn stats(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    let (fault, stats) = handle.ask(move |keeper| keeper.show(&id)).await?;
    Ok(Json(json!({"id": fault.id, "state": fault.state, "egress": stats.egress, "ingress": stats.ingress})))
}

pub(super) async fn validate(bytes: Bytes) -> Answer {
    let fault = understood(read(&bytes)?).await?;
    Ok(Json(json!({"valid": true, "what": fault.set.name, "targets": fault.set.targets()})))
}

pub(super) async fn create(State(handle): State<Handle>, bytes: Bytes) -> Result<Response, Problem> {
    let fault = understood(read(&bytes)?).await?;
    let name = fault.name.clone();
    let made = handle
        .ask(move |keeper| {
            if let Some(name) = name
                && keeper.show(&name).is_ok_and(|(old, _)| old.state == FaultState::Active)
            {
                return Ok(Err(name));
            }
            let ids = keeper.set(vec![fault], false)?;
            Ok(Ok(keeper.show(&ids.first().copied().unwrap_or_default().to_string())?))
        })
        .await?;
    match made {
        Ok(made) => Ok(created(&made)),
        Err(name) => {
            let what = format!("there is a fault `{name}` already; PUT /v1/faults/{name} replaces it");
            Err(Problem::new(StatusCode::CONFLICT, what))
        }
    }
}

/// Sets the fault of this name, instead of the one there is.
pub(super) async fn put(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let mut body = read(&bytes)?;
    if let Some(fields) = body.as_object_mut() {
        if fields.get("name").is_some_and(|given| given.as_str() != Some(&name)) {
            return Err(Problem::field("/name", format!("is not the `{name}` of the path: leave it out")));
        }
        fields.insert("name".to_owned(), name.clone().into());
    }
    let fault = understood(body).await?;
    let (was, made) = handle
        .ask(move |keeper| {
            let was = keeper.show(&name).is_ok_and(|(old, _)| old.state == FaultState::Active);
            keeper.set(vec![fault], false)?;
            Ok((was, keeper.show(&name)?))
        })
        .await?;
    Ok(if was { Json(view(&made)).into_response() } else { created(&made) })
}

/// The whole set, at once.
pub(super) async fn replace_all(State(handle): State<Handle>, bytes: Bytes) -> Answer {
    const FORM: &str = "a list of faults is wanted: {\"faults\": [{...}, ...]}";
    let body = read(&bytes)?;
    let list = body.get("faults").and_then(Value::as_array).ok_or_else(|| Problem::field("/faults", FORM))?;
    let mut news = Vec::new();
    for (index, one) in list.iter().enumerate() {
        let fault = understood(one.clone()).await;
        news.push(fault.map_err(|problem| problem.within(&format!("/faults/{index}")))?);
    }
    let held = handle
        .ask(move |keeper| {
            let ids = keeper.set(news, true)?;
            ids.iter().map(|id| keeper.show(&id.to_string())).collect::<Result<Vec<_>, _>>()
        })
        .await?;
    Ok(Json(json!({"faults": held.iter().map(view).collect::<Vec<_>>()})))
}

/// Ends one; the answer has its last counters.
pub(super) async fn delete(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    let ended = handle
        .ask(move |keeper| {
            let (fault, _) = keeper.show(&id)?;
            if fault.state == FaultState::Active {
                keeper.remove(fault.id, why::DELETED)?;
            }
            keeper.show(&fault.id.to_string())
        })
        .await?;
    Ok(Json(view(&ended)))
}

pub(super) async fn delete_all(State(handle): State<Handle>) -> Answer {
    let ended = handle
        .ask(|keeper| {
            let active = keeper.active();
            keeper.clear(why::ALL_DELETED).map(|()| active)
        })
        .await?;
    Ok(Json(json!({"ended": ended})))
}

pub(super) async fn renew(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    let renewed = handle
        .ask(move |keeper| {
            keeper.renew(&id)?;
            keeper.show(&id)
        })
        .await?;
    Ok(Json(view(&renewed)))
}

/// Every fault ends and new ones are refused, until `resume`.
pub(super) async fn stop(State(handle): State<Handle>, bytes: Bytes) -> Answer {
    let reason = if bytes.is_empty() {
        "no reason was given".to_owned()
    } else {
        let body = read(&bytes)?;
        let given = body.get("reason").and_then(Value::as_str);
        given.map(str::to_owned).ok_or_else(|| Problem::field("/reason", "a text is wanted here"))?
    };
    let why = reason.clone();
    handle.ask(move |keeper| keeper.stop(why)).await?;
    Ok(Json(json!({"stopped": reason})))
}

pub(super) async fn resume(State(handle): State<Handle>) -> Answer {
    handle
        .ask(|keeper| {
            keeper.resume();
            Ok(())
        })
        .await?;
    Ok(Json(json!({"stopped": null})))
}

fn read(bytes: &Bytes) -> Result<Value, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}")))
}

/// Reading a fault may ask a resolver and look into namespaces: not on the thread of all.
async fn understood(body: Value) -> Result<NewFault, Problem> {
    let understood = tokio::task::spawn_blocking(move || body::understand(&body)).await;
    understood.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "reading the fault failed"))?
}

fn created(made: &(Fault, RuleStats)) -> Response {
    let mut response = (StatusCode::CREATED, Json(view(made))).into_response();
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/faults/{}", made.0.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

fn view((fault, stats): &(Fault, RuleStats)) -> Value {
    let left = |until: Duration| until.saturating_sub(daemon::now()).as_secs_f64();
    let is_active = fault.state == FaultState::Active;
    json!({
        "id": fault.id,
        "name": fault.new.name,
        "state": fault.state,
        "why": fault.why,
        "what": fault.new.set.name,
        "targets": fault.new.set.targets(),
        "started": humantime::format_rfc3339_millis(fault.started).to_string(),
        "duration_seconds": fault.new.duration.as_secs_f64(),
        "remaining_seconds": is_active.then(|| left(fault.ends_at)),
        "lease_remaining_seconds": fault.lease_until.filter(|_| is_active).map(left),
        "matched": !Fault::is_unmatched(stats),
        "request": fault.new.body,
        "egress": stats.egress,
        "ingress": stats.ingress,
    })
}
