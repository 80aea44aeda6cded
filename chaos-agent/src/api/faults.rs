//! `/v1/faults` and the safety lever.

use std::{collections::HashMap, sync::Arc, thread};

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Json, Response},
};
use serde_json::{Value, json};

use super::{
    body,
    caller::Caller,
    idempotency::{self, Answers},
    json,
    problem::Problem,
    shape, view,
};
use crate::{
    daemon::{Fault, Handle, KeeperError, NewFault, State as FaultState, why},
    engine::{Engine, Plan, RuleStats},
};

/// How often a change is tried when others change the same fault.
const TRIES: usize = 5;
/// As many threads read one list at most; others have requests, too.
const READERS_MAX: usize = 4;
/// A thread is worth so many faults at least.
const SHARE_LEAST: usize = 64;

type Answer = Result<Json<Value>, Problem>;
/// With faults as they are shown.
type Shown = Result<Response, Problem>;

pub(super) async fn list(State(handle): State<Handle>) -> Shown {
    let all = handle.ask(|keeper| Ok(keeper.list())).await?;
    Ok(Json(view::list(&all)).into_response())
}

pub(super) async fn show(State(handle): State<Handle>, Path(id): Path<String>) -> Shown {
    let found = handle.ask(move |keeper| keeper.show(&id)).await?;
    Ok(Json(view::fault(&found)).into_response())
}

pub(super) async fn stats(State(handle): State<Handle>, Path(id): Path<String>) -> Shown {
    let found = handle.ask(move |keeper| keeper.show(&id)).await?;
    Ok(Json(view::stats(&found)).into_response())
}

/// Every problem that a POST of the same body would have and that can be known without touching anything.
pub(super) async fn validate(State(handle): State<Handle>, bytes: Bytes) -> Answer {
    let (fault, _) = planned(&handle, &bytes).await?;
    Ok(Json(json!({"valid": true, "what": fault.set.name, "targets": fault.set.targets()})))
}

/// What `--dry-run --explain` prints.
pub(super) async fn explain(State(handle): State<Handle>, bytes: Bytes) -> Answer {
    let (fault, plan) = planned(&handle, &bytes).await?;
    Ok(Json(json!({
        "what": fault.set.name,
        "targets": fault.set.targets(),
        "explanations": plan.explanations,
        "protected": plan.protected,
        "attachments": plan.attachments,
    })))
}

async fn planned(handle: &Handle, bytes: &Bytes) -> Result<(NewFault, Plan), Problem> {
    let fault = understood(json::read(bytes)?).await?;
    let new = fault.clone();
    let options = handle.ask(move |keeper| keeper.may_hold(&new).map(|()| keeper.engine_options())).await?;
    let rules = fault.set.rules.clone();
    let planned = tokio::task::spawn_blocking(move || Engine::plan(&rules, &options)).await;
    let plan =
        planned.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "planning the fault failed"))?;
    Ok((fault, plan.map_err(KeeperError::Engine)?))
}

pub(super) async fn create(
    State(handle): State<Handle>,
    Extension(answers): Extension<Answers>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let key = idempotency::key(&headers)?;
    let body = json::read(&bytes)?;
    let Some(key) = key else { return made(handle, body).await };
    let make = made(handle, body.clone());
    Ok(answers.of((caller.owner(), key), &body, async { make.await.into_response() }).await)
}

async fn made(handle: Handle, body: Value) -> Result<Response, Problem> {
    let fault = understood(body).await?;
    let made = handle
        .ask(move |keeper| {
            keeper.may_hold(&fault)?;
            let ids = keeper.set(vec![fault], false)?;
            keeper.show(&ids.first().copied().unwrap_or_default().to_string())
        })
        .await?;
    Ok(created(&made))
}

/// By name: sets the fault of this name, instead of the one there is. By number: the fault becomes this one.
pub(super) async fn put(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let mut body = json::read(&bytes)?;
    if let Ok(number) = id.parse::<u64>() {
        let fault = understood(body).await?;
        return Ok(amended(&handle, number, None, fault, true).await?);
    }
    body::name(&id).map_err(|what| Problem::new(StatusCode::NOT_FOUND, format!("`{id}`: {what}")))?;
    if let Some(fields) = body.as_object_mut() {
        if fields.get("name").is_some_and(|given| given.as_str() != Some(&id)) {
            return Err(Problem::field("/name", format!("is not the `{id}` of the path: leave it out")));
        }
        fields.insert("name".to_owned(), id.clone().into());
    }
    let fault = understood(body).await?;
    let (was, made) = handle
        .ask(move |keeper| {
            let was = keeper.show(&id).is_ok_and(|(old, _)| old.state == FaultState::Active);
            keeper.set(vec![fault], false)?;
            Ok((was, keeper.show(&id)?))
        })
        .await?;
    Ok(if was { Json(view::fault(&made)).into_response() } else { created(&made) })
}

/// Changes some fields of a fault. Its time goes on, unless the duration is among them.
pub(super) async fn patch(State(handle): State<Handle>, Path(id): Path<String>, bytes: Bytes) -> Shown {
    let patch = json::read(&bytes)?;
    if !patch.is_object() {
        return Err(Problem::field("", "an object ({...}) with the fields that change is wanted here"));
    }
    let is_anew = patch.get("duration").is_some();
    let mut tries = 0;
    loop {
        let word = id.clone();
        let (old, _) = handle.ask(move |keeper| keeper.show(&word)).await?;
        let mut body = old.new.body.clone();
        json::merge(&mut body, &patch);
        let fault = understood(body).await?;
        tries += 1;
        match amended(&handle, old.id, Some(old.new.body), fault, is_anew).await {
            // Somebody was quicker; the patch may well fit what there is now.
            Err(KeeperError::Changed) if tries < TRIES => {}
            answer => return Ok(answer?),
        }
    }
}

async fn amended(
    handle: &Handle,
    id: u64,
    was: Option<Value>,
    fault: NewFault,
    is_anew: bool,
) -> Result<Response, KeeperError> {
    let amended = handle
        .ask(move |keeper| {
            keeper.show(&id.to_string())?;
            keeper.amend(id, was.as_ref(), fault, is_anew)?;
            keeper.show(&id.to_string())
        })
        .await?;
    Ok(Json(view::fault(&amended)).into_response())
}

/// The whole set, at once.
pub(super) async fn replace_all(State(handle): State<Handle>, bytes: Bytes) -> Shown {
    const FORM: &str = "a list of faults is wanted: {\"faults\": [{...}, ...]}";
    let mut body = json::read(&bytes)?;
    body::only(&body, &["faults"])?;
    let Some(Value::Array(list)) = body.get_mut("faults").map(Value::take) else {
        return Err(Problem::field("/faults", FORM));
    };
    let news = all_understood(list).await?;
    let held = handle
        .ask(move |keeper| {
            let ids = keeper.set(news, true)?;
            Ok(keeper.held(&ids))
        })
        .await?;
    Ok(Json(view::list(&held)).into_response())
}

/// Ends one; the answer has its last counters.
pub(super) async fn delete(State(handle): State<Handle>, Path(id): Path<String>) -> Shown {
    let ended = handle
        .ask(move |keeper| {
            let (fault, _) = keeper.show(&id)?;
            if fault.state == FaultState::Active {
                keeper.remove(fault.id, why::DELETED)?;
            }
            keeper.show(&fault.id.to_string())
        })
        .await?;
    Ok(Json(view::fault(&ended)).into_response())
}

pub(super) async fn delete_all(State(handle): State<Handle>) -> Answer {
    let ended = handle.ask(|keeper| keeper.delete_all(why::ALL_DELETED)).await?;
    Ok(Json(json!({"ended": ended})))
}

pub(super) async fn renew(State(handle): State<Handle>, Path(id): Path<String>) -> Shown {
    let renewed = handle
        .ask(move |keeper| {
            keeper.renew(&id)?;
            keeper.show(&id)
        })
        .await?;
    Ok(Json(view::fault(&renewed)).into_response())
}

/// Every fault ends and new ones are refused, until `resume`.
pub(super) async fn stop(State(handle): State<Handle>, bytes: Bytes) -> Answer {
    let reason = if bytes.is_empty() {
        "no reason was given".to_owned()
    } else {
        let body = json::read(&bytes)?;
        body::only(&body, &["reason"])?;
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

/// Reading a fault may ask a resolver and look into namespaces: not on the thread of all.
async fn understood(body: Value) -> Result<NewFault, Problem> {
    let understood = tokio::task::spawn_blocking(move || body::understand(&body)).await;
    understood.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "reading the fault failed"))?
}

/// A list of them, shared out among the CPUs, because thousands may come at once; the first problem in their order.
async fn all_understood(list: Vec<Value>) -> Result<Vec<NewFault>, Problem> {
    // It goes when nobody waits for the answer any more.
    let waits = Arc::new(());
    let read = |list: Vec<Value>| {
        let is_awaited = Arc::downgrade(&waits);
        tokio::task::spawn_blocking(move || {
            let mut understood = Vec::new();
            for one in list.iter().take_while(|_| is_awaited.strong_count() > 0) {
                understood.push(body::understand(one));
                if understood.last().is_some_and(Result::is_err) {
                    break;
                }
            }
            understood
        })
    };
    let cpus = thread::available_parallelism().map_or(1, usize::from).min(READERS_MAX);
    let share = list.len().div_ceil(cpus).max(SHARE_LEAST);
    let mut rest = list.into_iter().peekable();
    let mut readers = Vec::new();
    while rest.peek().is_some() {
        readers.push(read(rest.by_ref().take(share).collect()));
    }
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut news: Vec<NewFault> = Vec::new();
    for reader in readers {
        let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "reading the faults failed");
        for fault in reader.await.map_err(failed)? {
            let index = news.len();
            let fault = fault.map_err(|problem| problem.within(&format!("/faults/{index}")))?;
            if let Some(name) = &fault.name
                && let Some(first) = names.insert(name.clone(), index)
            {
                let what = format!("`{name}` is the name of /faults/{first} already: a name means one fault");
                return Err(Problem::field(format!("/faults/{index}/name"), what));
            }
            news.push(fault);
        }
    }
    Ok(news)
}

fn created(made: &(Fault, RuleStats)) -> Response {
    let mut response = (StatusCode::CREATED, Json(view::fault(made))).into_response();
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/faults/{}", made.0.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

pub(super) fn valid_shape() -> Value {
    shape::object([
        ("valid", shape::flag("It is")),
        ("what", shape::text("The fault in plain words")),
        ("targets", shape::text("Whom it is for")),
    ])
}

pub(super) fn plan_shape() -> Value {
    let attachment = shape::object([
        ("namespace", shape::text("And why it is meant")),
        ("device", shape::text("Interface")),
        ("direction", shape::text("egress, ingress or connect()")),
        ("how", shape::text("Such as `tcx, first`")),
    ]);
    shape::object([
        ("what", shape::text("The fault in plain words")),
        ("targets", shape::text("Whom it is for")),
        ("explanations", shape::list(shape::text("What it would do, and what it will not hit"))),
        ("protected", shape::list(shape::text("What no rule touches"))),
        ("attachments", shape::list(attachment)),
    ])
}
