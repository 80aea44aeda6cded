//! The file: TOML, every key a setting.

use std::{ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{ConfigError, Kind, SETTINGS, Setting};

/// A setting as the file has it.
pub(super) struct Entry {
    /// Index in [`SETTINGS`].
    pub(super) index: usize,
    /// The value as a text; a list with commas between.
    pub(super) text: String,
    /// From 1.
    pub(super) line: usize,
}

/// Reads what is in the file, in its order.
///
/// # Errors
/// With the line: no TOML, a key that is no setting, a value of another kind.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let file = File { path, text };
    let table = DeTable::parse(text)
        .map_err(|error| file.wrong(error.span().unwrap_or_default(), error.message().to_owned()))?;
    let mut entries = Vec::new();
    file.table(table.get_ref(), "", &mut entries)?;
    Ok(entries)
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn table(&self, table: &DeTable<'_>, section: &str, entries: &mut Vec<Entry>) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name = if section.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{section}.{}", key.get_ref())
            };
            let found = SETTINGS.iter().enumerate().find(|(_, setting)| setting.name == name);
            match (found, value.get_ref()) {
                (Some((index, setting)), _) => {
                    let text = self.text_of(setting, value)?;
                    entries.push(Entry { index, text, line: self.line(key.span().start) });
                }
                (None, DeValue::Table(inner)) if is_section(&name) => self.table(inner, &name, entries)?,
                (None, _) => {
                    return Err(
                        self.wrong(key.span(), format!("there is no setting `{name}`; {}", advice(&name)))
                    );
                }
            }
        }
        Ok(())
    }

    fn text_of(&self, setting: &Setting, value: &Spanned<DeValue<'_>>) -> Result<String, ConfigError> {
        let text = match (setting.kind, value.get_ref()) {
            (Kind::Text, DeValue::String(text)) => Some(text.to_string()),
            (Kind::Number, DeValue::Integer(number)) => Some(decimal(number)),
            (Kind::Switch, DeValue::Boolean(is_on)) => Some(is_on.to_string()),
            (Kind::List, DeValue::Array(list)) => {
                let item = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    DeValue::Integer(number) => Some(decimal(number)),
                    DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_)
                    | DeValue::Array(_)
                    | DeValue::Table(_) => None,
                };
                list.iter().map(item).collect::<Option<Vec<_>>>().map(|items| items.join(","))
            }
            _ => None,
        };
        let wanted = match setting.kind {
            Kind::Text => "a text in quotes",
            Kind::Number => "a whole number",
            Kind::Switch => "true or false",
            Kind::List => "a list, such as [\"10.0.0.1\"] or [22]",
        };
        let name = setting.name;
        let text =
            text.ok_or_else(|| self.wrong(value.span(), format!("`{name}`: {wanted} is wanted here")))?;
        setting.check(&text).map_err(|what| self.wrong(value.span(), format!("`{name}`: {what}")))?;
        Ok(text)
    }

    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn wrong(&self, span: Range<usize>, what: String) -> ConfigError {
        ConfigError::File { path: self.path.to_owned(), line: self.line(span.start), what }
    }
}

/// TOML also has `0x10` and `1_000`.
fn decimal(number: &toml::de::DeInteger<'_>) -> String {
    let value = i64::from_str_radix(number.as_str(), number.radix());
    value.map_or_else(|_| number.as_str().to_owned(), |value| value.to_string())
}

fn is_section(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name.split_once('.').is_some_and(|(section, _)| section == name))
}

/// The names that there are, of the same section if there is one.
fn advice(name: &str) -> String {
    let section = name.split_once('.').map_or("", |(section, _)| section);
    let of = |setting: &&Setting| setting.name.split_once('.').map_or("", |(section, _)| section) == section;
    let names: Vec<&str> = SETTINGS.iter().filter(of).map(|setting| setting.name).collect();
    if names.is_empty() || section.is_empty() {
        return format!("there are {}", SETTINGS.iter().map(|one| one.name).collect::<Vec<_>>().join(", "));
    }
    format!("there are {}", names.join(", "))
}
