//! Types of settings: how each is read from a text, and written in TOML.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::ValueEnum;
use ipnet::IpNet;

use crate::{cli::units, datapath::Sizes};

/// What stands for a value in a TOML file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// An integer.
    Number,
    /// `true` or `false`.
    Switch,
    /// A list of strings or integers.
    List,
}

/// A type of setting.
pub(super) trait Value: Sized {
    const KIND: Kind;
    /// Its form in `--help`.
    const FORM: &'static str;

    /// Reads it; lists have commas between. The error says what is accepted.
    fn read(text: &str) -> Result<Self, String>;

    /// As in a TOML file.
    fn toml(&self) -> String;
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Who may ask for a condition that runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AbortCommands {
    /// Root, over the Unix socket.
    Root,
    /// Nobody; on the command line, working alone, root still can.
    Nobody,
}

/// What no fault touches: addresses, and of them one port or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protected {
    /// Which addresses.
    pub(crate) net: IpNet,
    /// Which port of them; none = each.
    pub(crate) port: Option<u16>,
}

impl FromStr for Protected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = |net| Self { net, port: None };
        let net = text.parse().map(all).or_else(|_| text.parse::<IpAddr>().map(|ip| all(ip.into())));
        let end = |end: SocketAddr| Self { net: end.ip().into(), port: Some(end.port()) };
        net.or_else(|_| text.parse().map(end)).map_err(|_| {
            format!("`{text}` is no address: write 10.0.0.1, 10.0.0.0/8, 10.0.0.1:6443 or [fd00::1]:6443")
        })
    }
}

impl fmt::Display for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.net.addr(), port).fmt(f),
            None if self.net.prefix_len() == self.net.max_prefix_len() => self.net.addr().fmt(f),
            None => self.net.fmt(f),
        }
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

impl Value for String {
    const KIND: Kind = Kind::Text;
    const FORM: &'static str = "NAME";

    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn toml(&self) -> String {
        quoted(self)
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Text;
    const FORM: &'static str = "PATH";

    fn read(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(text.into());
        }
        Err("write a whole path, beginning with /".to_owned())
    }

    fn toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Value for SocketAddr {
    const KIND: Kind = Kind::Text;
    const FORM: &'static str = "ADDRESS:PORT";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "write an address and a port, such as 127.0.0.1:8473 or [::1]:8473".to_owned())
    }

    fn toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// Nothing is written as an empty text.
impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;
    const FORM: &'static str = T::FORM;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::read(text).map(Some) }
    }

    fn toml(&self) -> String {
        self.as_ref().map_or_else(|| quoted(""), Value::toml)
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Switch;
    const FORM: &'static str = "true|false";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "write true or false".to_owned())
    }

    fn toml(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const KIND: Kind = Kind::Number;
    const FORM: &'static str = "N";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("write a whole number from 0 to {}", Self::MAX))
    }

    fn toml(&self) -> String {
        self.to_string()
    }
}

impl Value for Sizes {
    const KIND: Kind = Kind::Number;
    const FORM: &'static str = "N";

    fn read(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|rules| (1..=Self::MOST).contains(rules));
        number.map(Self::new).ok_or_else(|| format!("write a whole number from 1 to {}", Self::MOST))
    }

    fn toml(&self) -> String {
        self.rules().to_string()
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Text;
    const FORM: &'static str = "TIME";

    fn read(text: &str) -> Result<Self, String> {
        match units::duration(text)? {
            Self::ZERO => Err("write more than 0, such as 30s, 5m or 1h".to_owned()),
            time => Ok(time),
        }
    }

    fn toml(&self) -> String {
        quoted(&humantime::format_duration(*self).to_string())
    }
}

/// One of a few words.
fn word<T: ValueEnum>(text: &str) -> Result<T, String> {
    let names = || {
        let all = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        all.map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(", ")
    };
    T::from_str(text, false).map_err(|_| format!("write one of {}", names()))
}

/// The word, as in a TOML file.
fn quoted_word(value: &impl ValueEnum) -> String {
    quoted(value.to_possible_value().as_ref().map_or("", |value| value.get_name()))
}

impl Value for LogLevel {
    const KIND: Kind = Kind::Text;
    const FORM: &'static str = "LEVEL";

    fn read(text: &str) -> Result<Self, String> {
        word(text)
    }

    fn toml(&self) -> String {
        quoted_word(self)
    }
}

impl Value for AbortCommands {
    const KIND: Kind = Kind::Text;
    const FORM: &'static str = "root|nobody";

    fn read(text: &str) -> Result<Self, String> {
        word(text)
    }

    fn toml(&self) -> String {
        quoted_word(self)
    }
}

/// What a list can hold.
trait Item: FromStr + fmt::Display {
    const FORM: &'static str;
    const ACCEPTED: &'static str;
    const IS_NUMBER: bool;
}

impl Item for u16 {
    const FORM: &'static str = "PORT,...";
    const ACCEPTED: &'static str = "write ports from 0 to 65535";
    const IS_NUMBER: bool = true;
}

impl Item for Protected {
    const FORM: &'static str = "ADDRESS,...";
    const ACCEPTED: &'static str = "write addresses such as 10.0.0.1, 10.0.0.0/8 or 10.0.0.1:6443";
    const IS_NUMBER: bool = false;
}

impl<T: Item> Value for Vec<T> {
    const KIND: Kind = Kind::List;
    const FORM: &'static str = T::FORM;

    fn read(text: &str) -> Result<Self, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| word.parse().map_err(|_| format!("`{word}`: {}", T::ACCEPTED))).collect()
    }

    fn toml(&self) -> String {
        let item = |item: &T| if T::IS_NUMBER { item.to_string() } else { quoted(&item.to_string()) };
        format!("[{}]", self.iter().map(item).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_shown_the_same() {
        fn same<T: Value>(text: &str, toml: &str) {
            assert_eq!(T::read(text).ok().map(|value| value.toml()).as_deref(), Some(toml));
        }
        same::<Option<SocketAddr>>("", "\"\"");
        same::<Option<SocketAddr>>("[::1]:8473", "\"[::1]:8473\"");
        same::<Duration>("90s", "\"1m 30s\"");
        same::<Vec<u16>>("22, 443", "[22, 443]");
        same::<Vec<u16>>("", "[]");
        same::<Vec<Protected>>("10.0.0.0/8,10.0.0.1:6443,::1", r#"["10.0.0.0/8", "10.0.0.1:6443", "::1"]"#);
        same::<LogLevel>("debug", "\"debug\"");
        same::<String>("a\"b", "'a\"b'");
    }

    #[test]
    fn what_is_wrong_is_told_what_is_accepted() {
        for (error, says) in [
            (PathBuf::read("x").err(), "beginning with /"),
            (<Option<SocketAddr>>::read("localhost:1").err(), "127.0.0.1:8473"),
            (u32::read("-1").err(), "from 0"),
            (Duration::read("0s").err(), "more than 0"),
            (LogLevel::read("loud").err(), "off, error, warn"),
            (AbortCommands::read("all").err(), "root, nobody"),
            (<Vec<u16>>::read("22,x").err(), "`x`"),
            (<Vec<Protected>>::read("10.0.0.300").err(), "10.0.0.0/8"),
        ] {
            let error = error.unwrap();
            assert!(error.contains(says), "{error}");
        }
    }
}
