//! Profiles: every number is one that the fault kinds read.

use chaos_common::{
    fault::Faults,
    profile::{PROFILES, Profile, Way},
};

#[test]
fn names_are_distinct_and_found() {
    for (at, profile) in PROFILES.iter().enumerate() {
        assert_eq!(Profile::named(profile.name).map(|found| found.source), Some(profile.source));
        assert!(PROFILES.iter().skip(at + 1).all(|other| other.name != profile.name));
        assert!(!profile.source.is_empty(), "{} does not say where its numbers come from", profile.name);
    }
    assert!(Profile::named("5g").is_none());
}

#[test]
fn each_way_has_half_of_the_round_trip() {
    for profile in PROFILES {
        assert_eq!(profile.rtt_ms % 2, 0, "{}", profile.name);
        assert!(profile.jitter_ms <= profile.rtt_ms / 2, "{}: a delay below zero", profile.name);
        let of = |way| profile.settings(way).into_iter().find(|(kind, _)| *kind == "delay");
        assert_eq!(of(Way::Up), of(Way::Down), "{}", profile.name);
    }
    let lossy = Profile::named("wifi-lossy").unwrap();
    let settings = lossy.settings(Way::Up);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(kind, value)| (*kind, value.as_str())).collect();
    assert_eq!(settings, [("rate", "33Mbit/s"), ("delay", "20ms±10ms"), ("loss", "2%")]);
    assert_eq!(
        lossy.describe(),
        "40Mbit/s down, 33Mbit/s up, 40 ms round trip, jitter of 10 ms each way, loss of 2% each way"
    );
}

#[test]
fn what_the_user_gives_is_left_to_the_user() {
    let lossy = Profile::named("wifi-lossy").unwrap();
    let mut faults = Faults::default();
    lossy.apply(Way::Up, &["rate", "rtt", "loss"], &mut faults).unwrap();
    assert!(faults.is_off(), "every kind was given, nothing is left of the profile");
    lossy.apply(Way::Up, &["rate", "delay"], &mut faults).unwrap();
    assert!(!faults.is_off(), "its loss is left");
}

#[test]
fn every_profile_can_be_applied() {
    for profile in PROFILES {
        for way in [Way::Up, Way::Down] {
            let mut faults = Faults::default();
            profile.apply(way, &[], &mut faults).unwrap();
            assert!(!faults.is_off(), "{}", profile.name);
        }
    }
}
