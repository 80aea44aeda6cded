//! The demo as a picture: replies a second and latency over time, the phases behind them.

use std::fmt::Write as _;

use super::{
    lab::PORTS,
    story::{Played, Seen, samples},
};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 170.0;
const TOPS: [f64; 2] = [56.0, 276.0];
const COLOURS: [&str; 2] = ["#d1495b", "#2e6f95"];
/// Latency axis, logarithmic, in milliseconds.
const LOW_MS: f64 = 0.05;
const HIGH_MS: f64 = 5000.0;

/// The picture as SVG.
#[expect(clippy::cast_precision_loss, reason = "counts of a demo are far below 2^52")]
pub(crate) fn svg(seen: &[Seen], played: &[Played]) -> String {
    let end = seen.last().map_or(1.0, |seen| seen.at).max(1.0);
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - RIGHT);
    let period = super::client::SAMPLE_PERIOD.as_secs_f64();
    let rate = |replies: u64| replies as f64 / period;
    let best =
        PORTS.iter().flat_map(|&port| samples(seen, port)).map(|(_, s)| rate(s.replies)).fold(1.0, f64::max);
    let y_rate = |value: f64| TOPS[0] + PANEL * (1.0 - value / best);
    let y_ms = |value: f64| {
        TOPS[1] + PANEL * (1.0 - (value.clamp(LOW_MS, HIGH_MS) / LOW_MS).ln() / (HIGH_MS / LOW_MS).ln())
    };
    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"490\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    bands(&mut svg, played, &x);
    for (value, label) in [(0.0, "0".to_owned()), (best, format!("{best:.0}"))] {
        axis(&mut svg, y_rate(value), &label);
    }
    for value in [0.1, 1.0, 10.0, 100.0, 1000.0] {
        axis(&mut svg, y_ms(value), &format!("{value}"));
    }
    text(&mut svg, LEFT, TOPS[0] - 8.0, "requests per second", "#333");
    text(&mut svg, LEFT, TOPS[1] - 8.0, "p99 latency in ms (logarithmic)", "#333");
    for (port, colour) in PORTS.into_iter().zip(COLOURS) {
        let rates: Vec<_> =
            samples(seen, port).map(|(at, s)| Some((x(at), y_rate(rate(s.replies))))).collect();
        line(&mut svg, &rates, colour);
        let p99 = samples(seen, port).map(|(at, s)| s.latency.quantile_ms(0.99).map(|ms| (x(at), y_ms(ms))));
        line(&mut svg, &p99.collect::<Vec<_>>(), colour);
    }
    for (n, (port, role)) in PORTS.into_iter().zip(["target", "control"]).enumerate() {
        let colour = COLOURS.get(n).copied().unwrap_or("black");
        text(&mut svg, WIDTH - 310.0 + n as f64 * 150.0, 484.0, &format!("— port {port} ({role})"), colour);
    }
    for second in (0..).step_by(5).map(f64::from).take_while(|second| *second <= end) {
        text(&mut svg, x(second) - 5.0, TOPS[1] + PANEL + 20.0, &format!("{second} s"), "#666");
    }
    svg.push_str("</svg>\n");
    svg
}

fn bands(svg: &mut String, played: &[Played], x: &impl Fn(f64) -> f64) {
    let height = TOPS[1] + PANEL - TOPS[0] + 22.0;
    for phase in played {
        let fill = match phase.name {
            "loss" => "#fdf1d6",
            "partition" => "#f8dcdc",
            "heal" => "#e3f2e3",
            _ => "#f4f4f4",
        };
        let (from, to) = (x(phase.begin_s), x(phase.end_s));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>",
            TOPS[0] - 22.0,
            (to - from).max(0.0)
        );
        text(svg, from + 4.0, TOPS[0] - 26.0, phase.name, "#333");
    }
}

fn axis(svg: &mut String, y: f64, label: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ccc\"/>",
        WIDTH - RIGHT
    );
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\">{label}</text>",
        LEFT - 6.0,
        y + 4.0
    );
}

fn text(svg: &mut String, x: f64, y: f64, text: &str, fill: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{fill}\">{text}</text>");
}

/// A line that is interrupted where there is no value.
fn line(svg: &mut String, points: &[Option<(f64, f64)>], colour: &str) {
    for run in points.split(Option::is_none).filter(|run| !run.is_empty()) {
        let list: Vec<String> = run.iter().flatten().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" points=\"{}\"/>",
            list.join(" ")
        );
    }
}
