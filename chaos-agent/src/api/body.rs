//! The body of a fault: its fields are the flags of `chaos inject` and `chaos partition`, and go through the same
//! grammar.

use chaos_common::fault::FAULTS;
use clap::error::{ContextKind, ContextValue};
use serde_json::{Map, Value, json};

use super::{fields, json, problem::Problem, shape};
use crate::{
    cli::{
        request::{self, RequestError, Requested},
        units,
    },
    daemon::NewFault,
    safety::limits,
};

/// Fields beside `target`, `faults` and `match`, and the flags they are.
pub(crate) const WHEN: [(&str, &str); 10] = [
    ("duration", "for"),
    ("start_after", "start-after"),
    ("flap", "flap"),
    ("max_packets", "max-packets"),
    ("max_bytes", "max-bytes"),
    ("max_targets", "max-targets"),
    ("max_flows", "max-flows"),
    ("abort", "abort"),
    ("seed", "seed"),
    ("shadow", "shadow"),
];
/// Fields of `partition`, besides its `sides`.
pub(crate) const PARTITION: [&str; 6] = ["isolate", "bridge", "ring", "one_way", "mode", "connections"];
/// Fields that only the agent knows.
const OWN: [&str; 3] = ["name", "lease", "confirm"];
/// The word for `confirm`.
const HOST: &str = "host";

/// A fault that can be set.
///
/// # Errors
/// The place in the body that is wrong, or why the whole cannot be done.
pub(super) fn understand(body: &Value) -> Result<NewFault, Problem> {
    let fields = object(body, "")?;
    let mut words = Words::default();
    words.read(fields)?;
    let name = optional(fields, "name", name)?;
    let lease = optional(fields, "lease", units::lease)?;
    let Requested { set, duration, risk } = request::read(&words.words).map_err(|error| match error {
        RequestError::Words(error) => words.blame(&error),
        RequestError::Rules(error) => Problem::of(&error),
    })?;
    fields::fits(body)?;
    let is_confirmed = fields.get("confirm").and_then(Value::as_str) == Some(HOST);
    if let Some(risk) = risk {
        if !is_confirmed {
            return Err(Problem::field("/confirm", format!("{}: write \"confirm\": \"host\"", risk.what())));
        }
        if lease.is_none() {
            let what = "a fault on this host itself needs one, such as \"10s\", and a client that renews it";
            return Err(Problem::field("/lease", what));
        }
    }
    if !fields.contains_key("duration") {
        return Err(Problem::field(
            "/duration",
            format!(
                "is missing: write \"duration\": \"60s\", at most {}; a fault that nobody ends must end by itself",
                units::show_duration(limits().max_duration)
            ),
        ));
    }
    Ok(NewFault { name, set, body: body.clone(), duration, lease })
}

/// The words of a command line, and which field each flag came from.
#[derive(Default)]
struct Words {
    words: Vec<String>,
    places: Vec<(String, String)>,
}

impl Words {
    fn read(&mut self, fields: &Map<String, Value>) -> Result<(), Problem> {
        let is_partition = fields.contains_key("partition");
        self.words = vec!["chaos".to_owned(), if is_partition { "partition" } else { "inject" }.to_owned()];
        let mut last = Vec::new();
        for (key, value) in fields {
            let when = WHEN.iter().find(|(field, _)| field == key);
            match (key.as_str(), when) {
                (_, Some((field, flag))) => self.flag(flag, value, format!("/{field}"))?,
                ("target", _) if !is_partition => last.push(positional(value, "/target")?),
                ("faults", _) if !is_partition => self.faults(value)?,
                ("match", _) if !is_partition => self.matching(value)?,
                ("partition", _) => last = self.partition(value)?,
                (own, _) if OWN.contains(&own) => {}
                (other, _) => return Err(unknown(other, "", &accepted(is_partition))),
            }
        }
        if last.is_empty() && !is_partition {
            let what = "is missing: write \"target\": \"netns:blue\" (or host, cgroup:/path, unit:name.service, pid:1234)";
            return Err(Problem::field("/target", what));
        }
        self.words.push("--".to_owned());
        self.words.append(&mut last);
        Ok(())
    }

    fn faults(&mut self, value: &Value) -> Result<(), Problem> {
        for (key, value) in object(value, "/faults")? {
            let names: Vec<&str> = FAULTS.iter().map(|info| info.name).chain(["profile"]).collect();
            if !names.contains(&key.as_str()) {
                return Err(unknown(key, "/faults", &names.join(", ")));
            }
            if names_file(value) {
                let what = "no file is read for a request, for it would be one of the agent's; the distributions are \
                            uniform, normal, pareto and paretonormal (`chaos inject --standalone` reads your own)";
                return Err(Problem::field(format!("/faults/{key}"), what));
            }
            self.flag(key, value, format!("/faults/{key}"))?;
        }
        Ok(())
    }

    fn matching(&mut self, value: &Value) -> Result<(), Problem> {
        for (key, value) in object(value, "/match")? {
            let flags = request::match_flags();
            let flag = key.replace('_', "-");
            if !flags.contains(&flag) || key.contains('-') {
                return Err(unknown(key, "/match", &flags.join(", ").replace('-', "_")));
            }
            self.flag(&flag, value, format!("/match/{key}"))?;
        }
        Ok(())
    }

    fn partition(&mut self, value: &Value) -> Result<Vec<String>, Problem> {
        let mut sides = Vec::new();
        for (key, value) in object(value, "/partition")? {
            if key == "sides" {
                let what = "a list of one or two: each a target, an address, or a list of them";
                let list = value.as_array().ok_or_else(|| Problem::field("/partition/sides", what))?;
                for (index, side) in list.iter().enumerate() {
                    sides.push(group(side, &format!("/partition/sides/{index}"))?);
                }
            } else if PARTITION.contains(&key.as_str()) {
                self.flag(&key.replace('_', "-"), value, format!("/partition/{key}"))?;
            } else {
                return Err(unknown(key, "/partition", &format!("sides, {}", PARTITION.join(", "))));
            }
        }
        Ok(sides)
    }

    fn flag(&mut self, flag: &str, value: &Value, place: String) -> Result<(), Problem> {
        let flag = format!("--{flag}");
        self.places.push((flag.clone(), place.clone()));
        match value {
            Value::Bool(true) => self.words.push(flag),
            Value::Bool(false) => {}
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    let text = scalar(value).ok_or_else(|| {
                        Problem::field(format!("{place}/{index}"), "a text or a number is wanted here")
                    })?;
                    self.words.push(format!("{flag}={text}"));
                }
            }
            Value::Null | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                let text = scalar(value).ok_or_else(|| {
                    Problem::field(place, "a text, a number, true, or a list is wanted here")
                })?;
                self.words.push(format!("{flag}={text}"));
            }
        }
        Ok(())
    }

    /// The field that a word came from.
    fn blame(&self, error: &clap::Error) -> Problem {
        let given = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(one)) => one.clone(),
            Some(ContextValue::Strings(several)) => several.first().cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let flag = given.split([' ', '=', '[']).next().unwrap_or_default();
        let place = self.places.iter().find(|(known, _)| known == flag).map(|(_, place)| place.as_str());
        let place = place.unwrap_or(match given.as_str() {
            "<TARGET>" => "/target",
            "<A B>..." | "[A B]..." => "/partition/sides",
            _ => "",
        });
        let whole = error.to_string();
        let first = whole.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let value = match error.get(ContextKind::InvalidValue) {
            Some(ContextValue::String(value)) if cause.is_some() => format!("`{value}`: "),
            _ => String::new(),
        };
        Problem::field(place, format!("{value}{}", cause.unwrap_or(first)))
    }
}

fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>, Problem> {
    value.as_object().ok_or_else(|| Problem::field(place, "an object ({...}) is wanted here"))
}

/// Some option of a fault is the name of a file.
fn names_file(value: &Value) -> bool {
    let is_file = |name: &str| name.contains(['/', '.']);
    let in_text = |text: &str| {
        text.split(',').filter_map(|part| part.trim().strip_prefix("distribution=")).any(is_file)
    };
    match value {
        Value::String(text) => in_text(text),
        Value::Array(list) => list.iter().filter_map(Value::as_str).any(in_text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // 7.0 is the same number as 7.
        Value::Number(number) => Some(match number.as_f64() {
            Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 1e15 => {
                format!("{value:.0}")
            }
            _ => number.to_string(),
        }),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn positional(value: &Value, place: &str) -> Result<String, Problem> {
    value.as_str().map(str::to_owned).ok_or_else(|| Problem::field(place, "a text is wanted here"))
}

/// A side: one text, or several that become a group.
fn group(value: &Value, place: &str) -> Result<String, Problem> {
    let Some(list) = value.as_array() else { return positional(value, place) };
    let members: Result<Vec<String>, Problem> =
        list.iter().enumerate().map(|(n, one)| positional(one, &format!("{place}/{n}"))).collect();
    Ok(format!("{{{}}}", members?.join(",")))
}

fn optional<T>(
    fields: &Map<String, Value>,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Problem> {
    let place = format!("/{key}");
    let Some(value) = fields.get(key) else { return Ok(None) };
    let text = positional(value, &place)?;
    parse(&text).map(Some).map_err(|what| Problem::field(place, format!("`{text}`: {what}")))
}

/// Refuses other fields than these.
pub(super) fn only(body: &Value, fields: &[&str]) -> Result<(), Problem> {
    let given = object(body, "")?;
    let other = given.keys().find(|key| !fields.contains(&key.as_str()));
    other.map_or(Ok(()), |other| Err(unknown(other, "", &fields.join(", "))))
}

/// A fault's number or name, as a word.
pub(super) fn id(text: &str) -> Result<String, String> {
    if is_word(text) {
        return Ok(text.to_owned());
    }
    Err("write a fault's number or name: 1 to 64 letters, digits, dots, dashes and underscores".to_owned())
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// What the fields that only the agent knows look like.
pub(super) fn own_shapes() -> [(&'static str, Value); 3] {
    let name = json!({"type": "string", "pattern": "^([0-9]*[A-Za-z_-]|[0-9]+\\.|\\.+[A-Za-z0-9_-])[A-Za-z0-9._-]*$", "maxLength": 64,
        "description": "What you call it; PUT by this name replaces it", "examples": ["slow-db"]});
    let lease = json!({"type": "string", "minLength": 1, "examples": ["10s"],
        "description": "The fault ends when it is not renewed for so long"});
    [("name", name), ("lease", lease), ("confirm", shape::one_of([HOST], "Yes, the host itself"))]
}

/// A fault's name.
pub(super) fn name(text: &str) -> Result<String, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    // Clients take `.` and `..` out of a path, and so would ask for something else.
    let is_dots = text.bytes().all(|byte| byte == b'.');
    if is_word(text) && !is_number && !is_dots {
        return Ok(text.to_owned());
    }
    Err("a name has 1 to 64 letters, digits, dots, dashes and underscores, and is neither a number nor only dots"
        .to_owned())
}

fn accepted(is_partition: bool) -> String {
    let form: &[&str] = if is_partition { &["partition"] } else { &["target", "faults", "match"] };
    let when = WHEN.iter().map(|(field, _)| *field);
    form.iter().copied().chain(when).chain(OWN).collect::<Vec<_>>().join(", ")
}

fn unknown(key: &str, place: &str, accepted: &str) -> Problem {
    Problem::field(
        format!("{place}/{}", json::token(key)),
        format!("there is no such field; there are: {accepted}"),
    )
}

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod check;
#[cfg(test)]
mod mutations;

#[cfg(test)]
mod tests;
