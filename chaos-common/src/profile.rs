//! Named networks, as sets of faults: `--profile 3g`.
//!
//! A profile is written in the values of the fault kinds' own flags, and each kind reads its value itself.
//! It becomes two rules: uplink (what leaves the target) and downlink (what comes to it), each with half of
//! the round trip.

use std::fmt::Write as _;

use crate::fault::{FAULTS, Faults};

/// One of the two ways of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Leaves the target.
    Up,
    /// Comes to the target.
    Down,
}

/// A named network.
#[derive(Debug)]
pub struct Profile {
    /// As in `--profile NAME`.
    pub name: &'static str,
    /// What comes to the target at most, as the value of `--rate`.
    pub down_rate: &'static str,
    /// What leaves the target at most, as the value of `--rate`.
    pub up_rate: &'static str,
    /// Added to a round trip, in milliseconds; an even number, each way gets half.
    pub rtt_ms: u32,
    /// How far the delay of each way strays, in milliseconds, either side; 0 = not at all.
    pub jitter_ms: u32,
    /// Share of packets lost each way, as the value of `--loss`; empty = none.
    pub loss: &'static str,
    /// Where the numbers come from.
    pub source: &'static str,
}

/// Every profile.
///
/// `WebPageTest` is `www/settings/connectivity.ini.sample` of `catchpoint/WebPageTest`: `3G`, `4G` and `DSL`.
/// Chrome's `DevTools` have "3G" and "4G" too, but those are made for the level of HTTP requests
/// (`NetworkManager.ts`: 562.5 ms for a "Fast 3G" whose packets take 150 ms), so they are not used here.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "3g",
        down_rate: "1600kbit/s",
        up_rate: "768kbit/s",
        rtt_ms: 300,
        jitter_ms: 0,
        loss: "",
        source: "WebPageTest's 3G",
    },
    Profile {
        name: "4g",
        down_rate: "9Mbit/s",
        up_rate: "9Mbit/s",
        rtt_ms: 170,
        jitter_ms: 0,
        loss: "",
        source: "WebPageTest's 4G",
    },
    Profile {
        name: "wifi-lossy",
        down_rate: "40Mbit/s",
        up_rate: "33Mbit/s",
        rtt_ms: 40,
        jitter_ms: 10,
        loss: "2%",
        source: "rates: Wi-Fi of Apple's Network Link Conditioner; round trip: WIFI of tylertreat/comcast; jitter and loss: ours, a crowded channel",
    },
    Profile {
        name: "satellite",
        down_rate: "25Mbit/s",
        up_rate: "3Mbit/s",
        rtt_ms: 600,
        jitter_ms: 0,
        loss: "",
        source: "geostationary; round trip: at least 558 ms by RFC 2488, and 42 ms of ours on the ground; rates: the FCC's broadband of 2015, which such links are sold as",
    },
    Profile {
        name: "cross-region",
        down_rate: "1Gbit/s",
        up_rate: "1Gbit/s",
        rtt_ms: 80,
        jitter_ms: 0,
        loss: "",
        source: "ours: about what clouds publish between the US east coast and western Europe",
    },
    Profile {
        name: "dsl",
        down_rate: "1500kbit/s",
        up_rate: "384kbit/s",
        rtt_ms: 50,
        jitter_ms: 0,
        loss: "",
        source: "WebPageTest's DSL",
    },
];

impl Profile {
    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// One way of it, as names of fault kinds and the values of their flags.
    #[must_use]
    pub fn settings(&self, way: Way) -> Vec<(&'static str, String)> {
        let rate = match way {
            Way::Up => self.up_rate,
            Way::Down => self.down_rate,
        };
        let half = self.rtt_ms / 2;
        let delay = match self.jitter_ms {
            0 => format!("{half}ms"),
            jitter => format!("{half}ms±{jitter}ms"),
        };
        let mut settings = vec![("rate", rate.to_owned()), ("delay", delay)];
        if !self.loss.is_empty() {
            settings.push(("loss", self.loss.to_owned()));
        }
        settings
    }

    /// Adds one way of it to `faults`, but for the kinds in `given`: what the user asks for wins. Who
    /// gives an `rtt` has said all about the delay.
    ///
    /// # Errors
    /// This program has no such kind of fault, or it does not read the value: a mistake of ours.
    pub fn apply(&self, way: Way, given: &[&str], faults: &mut Faults) -> Result<(), String> {
        for (kind, value) in self.settings(way) {
            if given.contains(&kind) || (kind == "delay" && given.contains(&"rtt")) {
                continue;
            }
            let info = FAULTS.iter().find(|info| info.name == kind).ok_or_else(|| {
                format!(
                    "the profile `{}` needs the fault `{kind}`, which this version does not have",
                    self.name
                )
            })?;
            (info.parse)(&value, faults).map_err(|error| {
                format!("the profile `{}` sets --{kind} {value}, which is wrong: {error}", self.name)
            })?;
        }
        Ok(())
    }

    /// It in words: `1600kbit/s down, 768kbit/s up, 300 ms round trip`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{} down, {} up, {} ms round trip", self.down_rate, self.up_rate, self.rtt_ms);
        // Writing to a String cannot fail.
        if self.jitter_ms > 0 {
            let _ = write!(text, ", jitter of {} ms each way", self.jitter_ms);
        }
        if !self.loss.is_empty() {
            let _ = write!(text, ", loss of {} each way", self.loss);
        }
        text
    }
}
