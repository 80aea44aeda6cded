//! The dashboard and the alert rules of `deploy/` against a running agent: every name that they use is there.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{fs, path::Path};

use chaos_tests::{
    api::Agent,
    lab::{
        alone,
        shapes::{B4, Pair},
    },
    metrics::Scrape,
    monitoring::{Known, check_alerts, check_dashboard},
    require_root,
};
use serde_json::{Value, json};

/// Checks a text and counts its expressions.
type Check = fn(&str, &Known) -> anyhow::Result<usize>;

/// What is changed in the dashboard, into what, and what is said then.
const WRONG_DASHBOARDS: &[(&str, &str, &str)] = &[
    ("sum(chaos_rules{", "sum(chaos_rule{", "no series is called `chaos_rule`"),
    ("chaos_fault_delay_seconds_bucket", "chaos_fault_delay_seconds", "no series"),
    ("sum by (verdict)", "sum by (verdicts)", "no label `verdicts`"),
    ("{{direction}}", "{{way}}", "`way`"),
    ("[$__rate_interval]", "", "does not parse"),
    ("~\\\"$instance\\\"", "~\\\"$node\\\"", "a variable that is not there"),
    ("label_values(chaos_build_info,", "label_values(chaos_build,", "no series"),
    ("\"unit\": \"pps\"", "\"unit\": \"ppm\"", "the unit `ppm`"),
    ("\"refId\": \"B\"", "\"refId\": \"A\"", "two targets"),
    ("\"uid\": \"chaos\"", "\"uid\": \"\"", "the uid"),
    ("\"uid\": \"chaos\",", "", "missing field `uid`"),
    ("\"id\": 2,", "\"id\": 1,", "another's number"),
    ("\"x\": 4,", "\"x\": 3,", "covers"),
    ("\"x\": 18,", "\"x\": 19,", "it stands at"),
    ("${datasource}", "${source}", "is not the one that is chosen"),
];

/// The same of the alerts.
const WRONG_ALERTS: &[(&str, &str, &str)] = &[
    ("chaos_errors_total", "chaos_error_total", "no series is called `chaos_error_total`"),
    ("by (instance, fault)", "by (instance, rule)", "no label `rule`"),
    ("lease|unheld", "lease|held_not", "is never `held_not`"),
    ("$labels.fault }}", "$labels.rule }}", "$labels.rule"),
    ("chaos_fault_unmatched == 1", "chaos_fault_unmatched", "always be firing"),
    ("for: 1m", "for: soon", "for: soon"),
    ("severity: info", "severity: low", "the severity low"),
    ("summary:", "title:", "summary"),
    ("description: >-", "text: >-", "description"),
    ("alert: ChaosEventsLost", "alert: ChaosErrors", "twice"),
];

/// A file of `deploy/`.
fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What Prometheus knows of an agent that holds a fault and has held another.
fn scraped() -> Known {
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let body = json!({"target": format!("netns:{}", pair.a.name()),
        "faults": {"loss": "1%", "delay": "2ms"}, "match": {"proto": "icmp"}, "duration": "1m", "lease": "30s"});
    assert_eq!(agent.ask("PUT", "/v1/faults/first", &body).unwrap().status, 201);
    let _ = pair.a.run(&format!("ping -c 5 -i 0.01 -W 0.2 -q {B4}"));
    assert_eq!(agent.ask("DELETE", "/v1/faults/first", &Value::Null).unwrap().status, 200);
    assert_eq!(agent.ask("PUT", "/v1/faults/second", &body).unwrap().status, 201);
    let answer = agent.ask("GET", "/metrics", &Value::Null).unwrap();
    agent.stop().unwrap();
    Known::of(&Scrape::parse(answer.body.as_str().unwrap()).unwrap()).unwrap()
}

#[test]
fn dashboard_and_alerts_name_what_is_there() {
    require_root!();
    let _alone = alone().unwrap();
    let known = scraped();
    let (dashboard, alerts) = (read("grafana/chaos.json"), read("prometheus/chaos-alerts.yaml"));
    let expressions = check_dashboard(&dashboard, &known).unwrap();
    let rules = check_alerts(&alerts, &known).unwrap();
    println!("{expressions} expressions of the dashboard, {rules} alerts");
    assert!(expressions >= 16 && rules >= 8, "the files have lost something");
    is_seen(check_dashboard, &dashboard, WRONG_DASHBOARDS, &known);
    is_seen(check_alerts, &alerts, WRONG_ALERTS, &known);
}

/// The check would see each of these.
fn is_seen(check: Check, text: &str, changes: &[(&str, &str, &str)], known: &Known) {
    for (from, to, why) in changes {
        assert!(text.contains(from), "{from} is not there to be changed");
        let error = check(&text.replacen(from, to, 1), known).expect_err(from);
        assert!(format!("{error:#}").contains(why), "{from} -> {to}: {error:#}");
    }
}
