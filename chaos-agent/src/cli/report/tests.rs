use super::{text::live_text, *};
use crate::engine::Counters;

fn stats(matched: u64, dropped: u64) -> RuleStats {
    let egress = Counters {
        matched_packets: matched,
        matched_bytes: matched * 1024,
        dropped_packets: dropped,
        dropped_bytes: dropped * 1024,
        ..Counters::default()
    };
    RuleStats { name: "loss 10%".to_owned(), egress, ..RuleStats::default() }
}

fn progress() -> Progress {
    Progress {
        elapsed: Duration::from_millis(15_010),
        remaining: Duration::from_millis(14_990),
        rules: vec![stats(1000, 98)],
    }
}

#[test]
fn a_rule_in_one_line() {
    assert_eq!(rule_text(&stats(1000, 98)), "loss 10%: 1000 packets matched (1000.0 KiB), 98 dropped (9.8%)");
    assert_eq!(rule_text(&stats(0, 0)), "loss 10%: 0 packets matched, 0 dropped");
    let mut shadow = stats(10, 0);
    shadow.ingress.shadowed_packets = 3;
    shadow.ingress.lease_packets = 2;
    let text = rule_text(&shadow);
    assert!(text.ends_with("3 would have been hit, 2 passed because the lease lapsed"), "{text}");
}

#[test]
fn the_live_line_fits_any_terminal() {
    for width in [1, 10, 40, 80, 200] {
        assert!(live_text(&progress(), width).chars().count() < width.max(1), "{width}");
    }
    let wide = live_text(&progress(), 200);
    assert!(wide.starts_with("[#####     ] 15s left  loss 10%: 1000 packets"), "{wide}");
    let mut long = progress();
    long.rules[0].name = "partition {netns:one,netns:two} <-> {netns:three,netns:four}".to_owned();
    assert!(live_text(&long, 80).contains("...: 1000"), "{}", live_text(&long, 80));
    assert!(live_text(&long, 80).contains("1000 packets"), "{}", live_text(&long, 80));
    assert!(live_text(&progress(), 65).starts_with("15s left"), "counters win over the bar");
}

#[test]
fn json_lines_have_a_type_and_units_in_their_names() {
    let line = serde_json::to_value(JsonLine::Tick(&progress())).unwrap();
    assert_eq!(line["type"], "tick");
    assert_eq!(line["elapsed_ms"], 15_010);
    assert_eq!(line["rules"][0]["egress"]["dropped_packets"], 98);
    let summary = Summary::new(End::TimeOver, Duration::from_secs(30), vec![stats(0, 0)]);
    let line = serde_json::to_value(JsonLine::Summary(&summary)).unwrap();
    assert_eq!((&line["type"], &line["end"]), (&"summary".into(), &"time_over".into()));
    assert_eq!(line["matched"], false);
}
