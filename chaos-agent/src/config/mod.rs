//! What `chaos agent` can be told: one list of settings, each from a flag, the environment, a file or its default.
//!
//! A setting is one line of `settings!`. Its name in the file (`limits.body_bytes`) gives the flag
//! (`--limits-body-bytes`) and the variable (`CHAOS_LIMITS_BODY_BYTES`); help, `--print-config` and what SIGHUP may
//! change come from the same line.

mod file;
mod live;
mod load;
mod print;
mod value;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use self::value::{Kind, Protected, Value};
pub(crate) use self::{
    live::{Live, Reloaded},
    load::{ConfigError, Loaded, Sources},
    value::{AbortCommands, LogLevel},
};
use crate::{
    datapath::Sizes,
    engine::Protection,
    spec::{Endpoint, PortRange},
};

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// At SIGHUP.
    Reload,
    /// When the agent is started the next time.
    Start,
}

/// One setting, whatever its type.
pub(crate) struct Setting {
    /// As in the file, with its section: `limits.body_bytes`.
    pub(crate) name: &'static str,
    /// What it does, without a full stop.
    pub(crate) help: &'static str,
    /// What the value looks like, for `--help`.
    pub(crate) form: &'static str,
    /// When a change takes effect.
    pub(crate) when: When,
    kind: Kind,
    /// Reads it from a text; the error says what is accepted.
    set: fn(&mut Config, &str) -> Result<(), String>,
    /// Its value as in a TOML file.
    show: fn(&Config) -> String,
    /// Takes the value of another configuration; true if it was different.
    take: fn(&mut Config, &Config) -> bool,
}

impl Setting {
    /// `limits-body-bytes`.
    pub(crate) fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// `CHAOS_LIMITS_BODY_BYTES`.
    pub(crate) fn variable(&self) -> String {
        format!("CHAOS_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// True or false: the flag may stand alone.
    pub(crate) fn is_switch(&self) -> bool {
        self.kind == Kind::Switch
    }

    /// The default as in a TOML file.
    pub(crate) fn default_text(&self) -> String {
        (self.show)(&Config::default())
    }

    /// Whether the text could be its value.
    pub(crate) fn check(&self, text: &str) -> Result<(), String> {
        (self.set)(&mut Config::default(), text)
    }
}

macro_rules! settings {
    ($($name:literal $when:ident $field:ident: $type:ty = $default:expr; $help:literal;)+) => {
        /// The configuration in effect; each field is explained by its line of the list.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct Config {
            $(pub(crate) $field: $type,)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Every setting: first those without a section, then section by section.
        pub(crate) const SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            help: $help,
            form: <$type as Value>::FORM,
            when: When::$when,
            kind: <$type as Value>::KIND,
            set: |config, text| {
                config.$field = <$type as Value>::read(text)?;
                Ok(())
            },
            show: |config| config.$field.toml(),
            take: |config, other| {
                let differs = config.$field != other.$field;
                config.$field.clone_from(&other.$field);
                differs
            },
        },)+];
    };
}

// name in the file, when a change takes effect, field: type = default; help;
settings! {
    "socket" Start socket: PathBuf = "/run/chaos/agent.sock".into();
        "The Unix socket it listens at (HTTP, see /v1/faults); root and one group may ask";
    "socket_group" Start socket_group: String = "chaos".to_owned();
        "The group that may ask, besides root, if there is one of this name";
    "listen" Start listen: Option<SocketAddr> = None;
        "Listen on TCP, too; a key is required, and TLS unless the address is loopback";
    "key_file" Reload key_file: Option<PathBuf> = None;
        "The file with the key for TCP (or CHAOS_KEY holds the key itself); others may not be able to read it";
    "tls_cert" Reload tls_cert: Option<PathBuf> = None;
        "The certificate chain for TCP, PEM";
    "tls_key" Reload tls_key: Option<PathBuf> = None;
        "The private key of the certificate, PEM";
    "insecure" Start insecure: bool = false;
        "Allow TCP without TLS on an address that others can reach: the key goes over the network in clear";
    "max_duration" Reload max_duration: Duration = Duration::from_hours(1);
        "The longest a fault may last";
    "max_faults" Reload max_faults: u32 = 256;
        "So many faults at once at most";
    "max_rules" Start max_rules: Sizes = Sizes::default();
        "So many rules at once, up to 4096: a fault has one, or one for each pair it parts; replacing a set takes places for the old and the new; each takes 5 KiB of the kernel's memory and 720 bytes a CPU";
    "max_targets" Reload max_targets: u32 = 256;
        "So many namespaces, cgroups or devices of one fault at most, unless it names its own max_targets";
    "state_dir" Start state_dir: PathBuf = "/var/lib/chaos".into();
        "Where it remembers what it made; one agent at a time";
    "audit_log" Start audit_log: Option<PathBuf> = None;
        "The file to which every change of faults is appended: who, from where, what, when, until, why it ended";
    "abort.commands" Reload abort_commands: AbortCommands = AbortCommands::Root;
        "Who may have a fault watched by a command, over the API: it runs as root";
    "limits.body_bytes" Reload limits_body_bytes: u32 = 1 << 20;
        "The longest body of a request";
    "limits.requests_per_second" Reload limits_requests_per_second: u32 = 1000;
        "So many requests a second of one caller (user, or address); 0 = any number";
    "limits.connections" Start limits_connections: u32 = 256;
        "So many connections at once, of each listener; more wait";
    "limits.idle" Reload limits_idle: Duration = Duration::from_secs(30);
        "A connection that asks nothing, asks or reads too slowly for so long is closed; streams of events stay";
    "log.level" Reload log_level: LogLevel = LogLevel::Info;
        "How much of its own work it logs to stderr";
    "log.json" Start log_json: bool = false;
        "Log one JSON object a line";
    "events.first_per_second" Reload events_first_per_second: u32 = 100;
        "So many affected packets a second of each rule become events";
    "events.one_in" Reload events_one_in: u32 = 100;
        "After them, one in so many; 0 = none";
    "protect.local_ports" Reload protect_local_ports: Vec<u16> = Vec::new();
        "Ports of this machine, TCP and UDP, that no fault touches; ports in containers are others";
    "protect.peers" Reload protect_peers: Vec<Protected> = Vec::new();
        "Other ends that no fault touches, whatever its target (10.0.0.1, 10.0.0.0/8, 10.0.0.1:6443, [fd00::1]:6443)";
}

impl From<&Config> for Protection {
    fn from(config: &Config) -> Self {
        let peer = |one: &Protected| Endpoint {
            net: Some(one.net),
            ports: one.port.map(|port| PortRange { first: port, last: port }),
        };
        Self {
            local_ports: config.protect_local_ports.clone(),
            peers: config.protect_peers.iter().map(peer).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_flags_and_variables() {
        let setting = SETTINGS.iter().find(|one| one.name == "limits.body_bytes").unwrap();
        assert_eq!(
            (setting.flag(), setting.variable()),
            ("limits-body-bytes".to_owned(), "CHAOS_LIMITS_BODY_BYTES".to_owned())
        );
    }

    #[test]
    fn every_default_can_be_read_again_and_sections_stay_together() {
        let mut sections: Vec<&str> = Vec::new();
        for setting in SETTINGS {
            let section = setting.name.split_once('.').map_or("", |(section, _)| section);
            if sections.last() != Some(&section) {
                assert!(!sections.contains(&section), "{} is away from its section", setting.name);
                sections.push(section);
            }
            assert!(!setting.help.ends_with('.'), "{}", setting.name);
        }
        assert_eq!(sections.first(), Some(&""), "those without a section come first");
    }
}
