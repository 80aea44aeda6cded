//! The flags of a fault as the body that the API takes: what `api::body` reads back.

use chaos_common::fault::FAULTS;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory as _, parser::ValueSource};
use serde_json::{Map, Value, json};

use super::{args::Cli, request};
use crate::api::{PARTITION, WHEN};

/// The body of the fault that these flags of `exec`, `inject` or `partition` ask for; `exec` has no target yet.
pub(crate) fn of(matches: &ArgMatches) -> Map<String, Value> {
    let mut body = Map::new();
    let Some((name, given)) = matches.subcommand() else { return body };
    let grammar = Cli::command();
    let arguments = grammar.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
    let conditions = request::match_flags();
    for argument in arguments {
        let Some(value) = value(argument, given) else { continue };
        let flag = argument.get_long().unwrap_or_default();
        let field = flag.replace('-', "_");
        if let Some((field, _)) = WHEN.iter().find(|(_, known)| *known == flag) {
            body.insert((*field).to_owned(), value);
        } else if flag == "lease" {
            body.insert(field, value);
        } else if name == "partition" {
            let is_side = argument.get_id() == "sides";
            if is_side || PARTITION.contains(&field.as_str()) {
                let (field, value) = if is_side { ("sides".to_owned(), list(value)) } else { (field, value) };
                within(&mut body, "partition", field, value);
            }
        } else if argument.get_id() == "target" {
            body.insert("target".to_owned(), value);
        } else if FAULTS.iter().map(|info| info.name).chain(["profile"]).any(|known| known == flag) {
            within(&mut body, "faults", flag.to_owned(), value);
        } else if conditions.iter().any(|known| known == flag) {
            within(&mut body, "match", field, value);
        }
    }
    body
}

/// What was typed for it; none = nothing.
fn value(argument: &Arg, given: &ArgMatches) -> Option<Value> {
    let id = argument.get_id().as_str();
    if given.value_source(id) != Some(ValueSource::CommandLine) {
        return None;
    }
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        return Some(Value::Bool(given.get_flag(id)));
    }
    let words: Vec<String> = given.get_raw(id)?.map(|word| word.to_string_lossy().into_owned()).collect();
    Some(match words.as_slice() {
        // A value that was left out.
        [only] if only.is_empty() => Value::Bool(true),
        [only] => only.as_str().into(),
        several => json!(several),
    })
}

fn list(value: Value) -> Value {
    if value.is_array() { value } else { json!([value]) }
}

fn within(body: &mut Map<String, Value>, part: &str, field: String, value: Value) {
    if let Value::Object(fields) = body.entry(part).or_insert_with(|| json!({})) {
        fields.insert(field, value);
    }
}
