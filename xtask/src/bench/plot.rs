//! Charts as SVG, one below the other.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "numbers of series and places, and none is negative"
)]

use anyhow::{Result, anyhow};
use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    },
    prelude::*,
};

use super::document::{Chart, Point};

const WIDTH: u32 = 860;
const HEIGHT: u32 = 360;
const MARGIN: u32 = 12;
/// What the words beside the y axis take.
const LEFT: u32 = 70;
/// What the legend takes.
const LEGEND: u32 = 180;
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x2e, 0x6f, 0x95),
    RGBColor(0xd1, 0x49, 0x5b),
    RGBColor(0x3a, 0x8f, 0x5c),
    RGBColor(0xed, 0xae, 0x49),
    RGBColor(0x7d, 0x5b, 0xa6),
    RGBColor(0x55, 0x55, 0x55),
];
/// Of the place between two names, what the bars of one name take.
const BARS: f64 = 0.8;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The picture.
///
/// # Errors
/// When it cannot be drawn.
pub(super) fn svg(charts: &[Chart]) -> Result<String> {
    let mut text = String::new();
    let panels = u32::try_from(charts.len())?.max(1);
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT * panels)).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, chart) in root.split_evenly((charts.len().max(1), 1)).iter().zip(charts) {
            let (left, right) = area.split_horizontally(WIDTH - LEGEND);
            let drawn = draw(&left, chart).and_then(|()| legend(&right, chart));
            drawn.map_err(|error| anyhow!("drawing `{}`: {error:#}", chart.title))?;
        }
        root.present()?;
    }
    Ok(text)
}

fn draw(area: &Area<'_>, chart: &Chart) -> Result<()> {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    if points().next().is_none() {
        return Ok(());
    }
    let x = if chart.x.places.is_empty() {
        around(points().map(|point| point.x), chart.x.log)
    } else {
        (-0.5, chart.x.places.len() as f64 - 0.5)
    };
    let y = around(points().flat_map(|point| [point.low, point.high]), chart.y.log);
    match (chart.x.log, chart.y.log) {
        (false, false) => on(area, chart, x.0..x.1, y.0..y.1),
        (true, false) => on(area, chart, (x.0..x.1).log_scale(), y.0..y.1),
        (false, true) => on(area, chart, x.0..x.1, (y.0..y.1).log_scale()),
        (true, true) => on(area, chart, (x.0..x.1).log_scale(), (y.0..y.1).log_scale()),
    }
}

/// Where an axis begins and ends; one that is not logarithmic begins at zero.
fn around(values: impl Iterator<Item = f64>, is_log: bool) -> (f64, f64) {
    let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (if value > 0.0 || !is_log { least.min(value) } else { least }, most.max(value))
    });
    if is_log { (least / 1.2, most.max(least) * 1.2) } else { (least.min(0.0), most.max(f64::EPSILON) * 1.1) }
}

fn on<X, Y>(area: &Area<'_>, chart: &Chart, x: X, y: Y) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut builder = ChartBuilder::on(area);
    builder.caption(&chart.title, ("sans-serif", 16)).margin(MARGIN);
    builder.x_label_area_size(36).y_label_area_size(LEFT);
    let mut context = builder.build_cartesian_2d(x, y)?;
    let places = &chart.x.places;
    let name = |value: &f64| {
        if places.is_empty() {
            return figure(*value);
        }
        let is_place = value.fract() == 0.0 && *value >= 0.0;
        let place = is_place.then(|| places.get(*value as usize)).flatten();
        place.cloned().unwrap_or_default()
    };
    let mut mesh = context.configure_mesh();
    mesh.light_line_style(WHITE)
        .label_style(("sans-serif", 12))
        .x_desc(&chart.x.label)
        .y_desc(&chart.y.label);
    mesh.x_labels(if places.is_empty() { 10 } else { 2 * places.len() + 1 });
    mesh.x_label_formatter(&name).y_label_formatter(&|value| figure(*value)).draw()?;
    let count = chart.series.len().max(1) as f64;
    for (number, series) in chart.series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let whisker = move |point: &Point, at: f64| {
            PathElement::new(vec![(at, point.low), (at, point.high)], colour.stroke_width(1))
        };
        if places.is_empty() {
            let line = series.points.iter().map(|point| (point.x, point.y));
            context.draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(3))?;
            context.draw_series(series.points.iter().map(|point| whisker(point, point.x)))?;
        } else {
            let width = BARS / count;
            let left = move |point: &Point| point.x - BARS / 2.0 + width * number as f64;
            let bar = |point: &Point| {
                let corners = [(left(point), 0.0), (left(point) + width * 0.9, point.y)];
                Rectangle::new(corners, colour.mix(0.6).filled())
            };
            context.draw_series(series.points.iter().map(bar))?;
            let middle = move |point: &Point| whisker(point, left(point) + width * 0.45);
            context.draw_series(series.points.iter().map(middle))?;
        }
    }
    Ok(())
}

/// Beside what is drawn, where it hides nothing.
fn legend(area: &Area<'_>, chart: &Chart) -> Result<()> {
    for (number, series) in chart.series.iter().enumerate() {
        let y = (3 * MARGIN) as i32 + 18 * number as i32;
        let colour = COLOURS[number % COLOURS.len()];
        area.draw(&Rectangle::new([(0, y), (12, y + 8)], colour.filled()))?;
        area.draw(&Text::new(series.name.clone(), (18, y - 2), ("sans-serif", 12)))?;
    }
    Ok(())
}

/// As short as it can be said.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", value / 1e6),
        size if size >= 1e4 => format!("{}k", value / 1e3),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.3}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(log: bool, places: &[&str]) -> Chart {
        let points: Vec<_> = [1.0, 2.0, 4.0]
            .map(|x| serde_json::json!({"x": x, "y": x * 2.0, "low": x, "high": x * 3.0}))
            .into();
        let axis = |places: &[&str]| serde_json::json!({"label": "L", "log": log, "places": places});
        serde_json::from_value(serde_json::json!({
            "title": "T", "x": axis(places), "y": axis(&[]), "series": [{"name": "S", "points": points}],
        }))
        .expect("a chart")
    }

    #[test]
    fn curves_and_bars_are_drawn() {
        for charts in [[chart(false, &[])], [chart(true, &[])], [chart(false, &["a", "b", "c", "d", "e"])]] {
            let svg = svg(&charts).expect("a picture");
            assert!(svg.starts_with("<svg") && svg.contains('S') && !svg.contains("NaN"), "{svg}");
        }
        assert!(svg(&[chart(false, &["first", "second"])]).expect("a picture").contains("second"));
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0.5, 0.975, 3.0, 250.4, 20_000.0, 1.5e6].map(figure),
            ["0.5", "0.975", "3", "250", "20k", "1.5M"]
        );
    }
}
