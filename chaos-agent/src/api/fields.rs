//! What the body of a fault looks like: made from the lists and the grammar that read it.

use std::sync::OnceLock;

use chaos_common::{
    fault::{FAULTS, FaultInfo, Faults, Value as Takes},
    profile::PROFILES,
};
use clap::{Arg, ArgAction};
use serde_json::{Map, Value, json};

use super::{body, json, problem::Problem, shape};
use crate::cli::request;

/// Values of flags by the name that help has for them: an example that can be used as it stands, and whether a
/// number is taken as well as a text.
const VALUES: &[(&str, &str, Number)] = &[
    ("TIME", "30s", Number::No),
    ("ON/OFF", "100ms/100ms", Number::No),
    ("N", "10000", Number::Whole),
    ("SIZE", "10MiB", Number::Whole),
    ("NUMBER", "42", Number::Whole),
    ("PEER", "10.0.0.0/8", Number::No),
    ("PORT", "8000-8100", Number::Port),
    ("ADDR", "10.0.0.1", Number::No),
    ("NAME", "eth0", Number::No),
    ("SHARE", "25%", Number::Share),
    ("X", "netns:blue", Number::No),
    ("MODE", "drop", Number::No),
];

/// An example for each kind of fault; a test holds them against the parsers.
const FAULT_EXAMPLES: &[(&str, &str)] = &[
    ("loss", "10%"),
    ("corrupt", "1%"),
    ("duplicate", "5%"),
    ("delay", "100ms±20ms"),
    ("rtt", "100ms"),
    ("reorder", "25%,gap=5"),
    ("rate", "10Mbit/s"),
    ("mtu", "1200"),
    ("reset", "after=5s"),
    ("reject", "host"),
    ("refuse", "ETIMEDOUT,50%"),
    ("stall", "close=10s"),
    ("dns", "nxdomain:*.internal"),
    ("partition", "drop"),
];

/// The forms of a target that programs can be attached to.
const TARGET: &str =
    "^(host|cgroup:/[^\\x00]*|unit:[A-Za-z0-9:._@-]{1,255}|netns:[^/.\\x00][^/\\x00]*|pid:[1-9][0-9]{0,8})$";

/// Which numbers are taken where a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    No,
    Whole,
    Share,
    Port,
}

impl Number {
    fn shape(self) -> Option<Value> {
        match self {
            Self::No => None,
            Self::Whole => Some(json!({"type": "integer", "minimum": 1})),
            Self::Share => Some(json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1})),
            Self::Port => Some(json!({"type": "integer", "minimum": 1, "maximum": 65535})),
        }
    }
}

fn example_of(info: &FaultInfo) -> &'static str {
    FAULT_EXAMPLES.iter().find(|(name, _)| *name == info.name).map_or("", |(_, example)| example)
}

/// Does the fault's own parser read it?
fn reads(info: &FaultInfo, text: &str) -> bool {
    (info.parse)(text, &mut Faults::default()).is_ok()
}

/// The numbers that a fault's own parser reads: a share, or whole ones within bounds. A bound lies between a power of
/// two that is read and one that is not: to ask for every number would take a tenth of a second.
fn numbers(info: &FaultInfo) -> Option<Value> {
    if reads(info, "0.5") {
        return Some(json!({"type": "number", "minimum": 0, "maximum": 1}));
    }
    let is_read = |number: u32| reads(info, &number.to_string());
    let most = u32::from(u16::MAX);
    let mut powers = (0..16).map(|bit| 1u32 << bit).chain([most]);
    let one = powers.find(|number| is_read(*number))?;
    let last = powers.take_while(|number| is_read(*number)).last().unwrap_or(one);
    let first = bound(one / 2, one, is_read);
    // The next power is not read, if there is one.
    let last = if last == most { most } else { bound((2 * last).min(most + 1), last, is_read) };
    Some(json!({"type": "integer", "minimum": first, "maximum": last}))
}

/// The last number from `inside`, which is read, on the way to `outside`, which is not.
fn bound(mut outside: u32, mut inside: u32, is_read: impl Fn(u32) -> bool) -> u32 {
    while outside.abs_diff(inside) > 1 {
        let middle = outside.midpoint(inside);
        if is_read(middle) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    inside
}

fn described(shape: Value, help: &str) -> Value {
    let Value::Object(mut fields) = shape else { return shape };
    fields.insert("description".to_owned(), help.into());
    Value::Object(fields)
}

fn any_of(mut shapes: Vec<Value>) -> Value {
    if shapes.len() == 1 {
        return shapes.remove(0);
    }
    Map::from_iter([("anyOf".to_owned(), Value::Array(shapes))]).into()
}

fn fault(info: &FaultInfo) -> Value {
    let example = example_of(info);
    let text = json!({"type": "string", "minLength": 1, "examples": [example]});
    let mut shapes = Vec::new();
    if !matches!(info.value, Takes::None) {
        shapes.push(text.clone());
        shapes.extend(numbers(info));
        shapes.push(json!({"type": "array", "minItems": 1, "items": text}));
    }
    if !matches!(info.value, Takes::Required(_)) {
        shapes.push(json!({"type": "boolean"}));
    }
    described(any_of(shapes), info.help)
}

fn faults() -> Value {
    let mut properties: Map<String, Value> =
        FAULTS.iter().map(|info| (info.name.to_owned(), fault(info))).collect();
    let names = PROFILES.iter().map(|profile| profile.name);
    properties.insert("profile".to_owned(), shape::one_of(names, "A whole network by its name"));
    json!({
        "type": "object",
        "minProperties": 1,
        "properties": properties,
        "additionalProperties": false,
        "description": "What happens; the values are those of the flags of `chaos inject`",
        "examples": [{"loss": "10%", "delay": "100ms"}],
    })
}

/// A flag of the command line as a field.
fn flag(arg: &Arg) -> Value {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return shape::flag(&help);
    }
    let words: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| value.get_name().to_owned())
        .collect();
    let name = arg.get_value_names().and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
    let mut shapes = if words.is_empty() {
        let known = VALUES.iter().find(|(known, ..)| *known == name);
        let mut text = json!({"type": "string", "minLength": 1});
        if let (Some((_, example, _)), Some(fields)) = (known, text.as_object_mut()) {
            fields.insert("examples".to_owned(), json!([example]));
        }
        let number = known.and_then(|(.., number)| number.shape());
        std::iter::once(text).chain(number).collect()
    } else {
        vec![json!({"type": "string", "enum": words})]
    };
    if matches!(arg.get_action(), ArgAction::Append) {
        let each = any_of(shapes.clone());
        shapes.push(json!({"type": "array", "minItems": 1, "items": each}));
    }
    described(any_of(shapes), &help)
}

fn flags(of: &[Arg], fields: impl Iterator<Item = (String, String)>) -> Map<String, Value> {
    let arg = |long: &str| of.iter().find(|arg| arg.get_long() == Some(long));
    fields.filter_map(|(field, long)| arg(&long).map(|arg| (field, flag(arg)))).collect()
}

/// What both forms of a body have.
fn common() -> Map<String, Value> {
    let when = body::WHEN.iter().map(|(field, flag)| ((*field).to_owned(), (*flag).to_owned()));
    let mut fields = flags(&request::flags("inject"), when);
    for (name, shape) in body::own_shapes() {
        fields.insert(name.to_owned(), shape);
    }
    fields
}

/// A target that is something on this machine.
pub(super) fn target() -> Value {
    json!({
        "type": "string",
        "pattern": TARGET,
        "description": "Who: host, cgroup:/path, unit:name.service, netns:name or pid:1234 (its network namespace)",
        "examples": ["netns:blue"],
    })
}

fn matching() -> Value {
    let names = request::match_flags();
    let fields = names.iter().map(|name| (name.replace('-', "_"), name.clone()));
    json!({
        "type": "object",
        "properties": flags(&request::flags("inject"), fields),
        "additionalProperties": false,
        "description": "Which packets; all fields must hold, the values of one are alternatives",
    })
}

fn partition() -> Value {
    let fields = body::PARTITION.iter().map(|name| ((*name).to_owned(), name.replace('_', "-")));
    let mut properties = flags(&request::flags("partition"), fields);
    let side = json!({"anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
    ]});
    properties.insert(
        "sides".to_owned(),
        json!({
            "type": "array",
            "minItems": 1,
            "items": side,
            "description": "Two sides, each a target, an address, or a group of them; one group with isolate, bridge or ring",
            "examples": [["netns:blue", "10.0.0.0/8"]],
        }),
    );
    json!({
        "type": "object",
        "required": ["sides"],
        "properties": properties,
        "additionalProperties": false,
        "description": "Who is cut from whom, as with `chaos partition`",
    })
}

fn form(own: &[(&str, Value)], required: &[&str], example: &Value) -> Value {
    let mut properties = common();
    properties.extend(own.iter().map(|(name, shape)| ((*name).to_owned(), shape.clone())));
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
        "examples": [example],
    })
}

/// The body of a fault: one of two forms.
pub(super) fn fault_shape() -> Value {
    let inject = form(
        &[("target", target()), ("faults", faults()), ("match", matching())],
        &["target", "faults", "duration"],
        &json!({"target": "netns:blue", "faults": {"loss": "10%"}, "match": {"peer_port": [6379]},
            "duration": "30s"}),
    );
    let cut = form(
        &[("partition", partition())],
        &["partition", "duration"],
        &json!({"partition": {"sides": ["netns:blue", "10.0.0.0/8"]}, "duration": "30s"}),
    );
    json!({"anyOf": [inject, cut]})
}

/// A merge patch of it: every field may be there or be null.
pub(super) fn patch_shape() -> Value {
    let mut properties = common();
    let own =
        [("target", target()), ("faults", json!({"type": "object"})), ("match", json!({"type": "object"}))];
    properties.extend(own.map(|(name, shape)| (name.to_owned(), shape)));
    properties.insert("partition".to_owned(), json!({"type": "object"}));
    for shape in properties.values_mut() {
        *shape = shape::or_null(shape.clone());
    }
    json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "description": "A JSON merge patch (RFC 7396) of the body the fault came in; null takes a field away",
        "examples": [{"faults": {"loss": "20%"}}],
    })
}

/// Whether a body that the grammar could read also looks as it is described: what is not described is not taken.
///
/// # Errors
/// The place that does not.
pub(super) fn fits(body: &Value) -> Result<(), Problem> {
    static FORMS: OnceLock<Value> = OnceLock::new();
    let forms = FORMS.get_or_init(fault_shape);
    let form = forms.get("anyOf").and_then(|forms| forms.get(usize::from(body.get("partition").is_some())));
    let Some((place, shape)) = form.and_then(|form| misfit(body, form, String::new())) else { return Ok(()) };
    let help = shape.get("description").and_then(Value::as_str).unwrap_or_default();
    Err(Problem::field(place, format!("is not what is wanted here: {} {help}", words(shape)).trim_end()))
}

/// The first place where a value is not as it should be, and how it should be.
fn misfit<'a>(value: &Value, shape: &'a Value, place: String) -> Option<(String, &'a Value)> {
    if let Some(shapes) = shape.get("anyOf").and_then(Value::as_array) {
        let fits = shapes.iter().any(|shape| misfit(value, shape, String::new()).is_none());
        return (!fits).then_some((place, shape));
    }
    let known = |name: &str| shape.get(name);
    let bound = |name: &str| known(name).and_then(Value::as_f64);
    let is_right = match (known("type").and_then(Value::as_str), value) {
        (Some("object"), Value::Object(fields)) => {
            let properties = known("properties").and_then(Value::as_object);
            return fields.iter().find_map(|(key, value)| {
                let place = format!("{place}/{}", json::token(key));
                misfit(value, properties?.get(key)?, place)
            });
        }
        (Some("array"), Value::Array(list)) => {
            let items = known("items")?;
            let each = list.iter().enumerate();
            let wrong = each.clone().find_map(|(n, one)| misfit(one, items, format!("{place}/{n}")));
            if wrong.is_some() {
                return wrong;
            }
            known("minItems").is_none() || !list.is_empty()
        }
        (Some("string"), Value::String(text)) => {
            let is_one = known("enum").and_then(Value::as_array).is_none_or(|words| words.contains(value));
            is_one && (known("minLength").is_none() || !text.is_empty())
        }
        (Some("boolean"), Value::Bool(_)) => true,
        (Some(kind @ ("integer" | "number")), Value::Number(number)) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            (kind == "number" || number.fract() == 0.0)
                && bound("minimum").is_none_or(|least| number >= least)
                && bound("exclusiveMinimum").is_none_or(|least| number > least)
                && bound("maximum").is_none_or(|most| number <= most)
        }
        _ => false,
    };
    (!is_right).then_some((place, shape))
}

/// A shape in words: `string, integer or array`.
fn words(shape: &Value) -> String {
    let kind = |shape: &Value| match (shape.get("enum"), shape.get("type")) {
        (Some(Value::Array(words)), _) => {
            words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|")
        }
        (_, Some(Value::String(kind))) => kind.clone(),
        _ => String::new(),
    };
    match shape.get("anyOf").and_then(Value::as_array) {
        Some(shapes) => shapes.iter().map(kind).collect::<Vec<_>>().join(" or "),
        None => kind(shape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_an_example_that_its_parser_reads() {
        for info in FAULTS {
            let example = example_of(info);
            assert!(!example.is_empty() && reads(info, example), "{}: `{example}`", info.name);
        }
        assert_eq!(FAULTS.len(), FAULT_EXAMPLES.len());
    }

    #[test]
    fn the_fields_come_from_the_lists_that_read_them() {
        let shape = fault_shape();
        let inject = &shape["anyOf"][0]["properties"];
        for info in FAULTS {
            assert!(inject["faults"]["properties"][info.name].is_object(), "{}", info.name);
        }
        for (field, _) in body::WHEN {
            assert!(inject[field].is_object(), "{field} has no flag");
        }
        for flag in request::match_flags() {
            assert!(inject["match"]["properties"][flag.replace('-', "_")].is_object(), "{flag}");
        }
        for field in body::PARTITION {
            assert!(shape["anyOf"][1]["properties"]["partition"]["properties"][field].is_object(), "{field}");
        }
        assert_eq!(
            inject["faults"]["properties"]["mtu"]["anyOf"][1],
            json!({"type": "integer", "minimum": 68, "maximum": 65535})
        );
        for example in [&shape["anyOf"][0]["examples"][0], &shape["anyOf"][1]["examples"][0]] {
            body::understand(example).unwrap();
        }
    }
}
