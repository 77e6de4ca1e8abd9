//! How does a replay look over time?
//!
//! One SVG with two panels over one axis of time: the part of the units in use, and the jobs that
//! wait. Each of [`COLUMNS`] columns shows the mean over its span, so that a year fits a screen and
//! nothing is lost between two samples.

use std::fmt::Write as _;

use super::{Report, Run};
use crate::simulate::drive::Sample;

/// Columns, a picture's element each.
const COLUMNS: usize = 860;
const LEFT: f64 = 70.0;
const TOP: f64 = 48.0;
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 190.0;
const GAP: f64 = 46.0;
const COLOURS: [&str; 2] = ["#1f5fa8", "#d9662b"];
/// About so many marks on an axis.
const MARKS: f64 = 6.0;

const FONT: &str = "font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\"";

/// The span that is drawn, in seconds of the trace.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: i64,
    to: i64,
}

/// One panel: where it is, and what its axis tells.
struct Panel {
    top: f64,
    title: &'static str,
    most: f64,
    unit: &'static str,
}

/// The drawing.
pub(in crate::simulate) fn plot(report: &Report<'_>) -> String {
    let samples = report.runs.iter().flat_map(|run| &run.outcome.samples);
    let from = samples.clone().map(|sample| sample.at).min().unwrap_or(0);
    let to = samples.map(|sample| sample.at).max().unwrap_or(0).max(from + 1);
    let span = Span { from, to };
    let capacity = number(report.machine.capacity(report.workload.unit)).max(1.0);
    let used: Vec<Vec<f64>> = report
        .runs
        .iter()
        .map(|run| means(&run.outcome.samples, span, |s| 100.0 * number(s.used) / capacity))
        .collect();
    let queue: Vec<Vec<f64>> = report
        .runs
        .iter()
        .map(|run| means(&run.outcome.samples, span, |s| f64::from(s.queue)))
        .collect();
    let longest = queue.iter().flatten().copied().fold(1.0, f64::max);
    let upper = Panel { top: TOP, title: "units in use", most: 100.0, unit: " %" };
    let lower = Panel { top: TOP + HEIGHT + GAP, title: "jobs that wait", most: longest, unit: "" };
    let total = LEFT + WIDTH + 20.0;
    let bottom = lower.top + HEIGHT + 50.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total}\" height=\"{bottom}\" \
         viewBox=\"0 0 {total} {bottom}\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    legend(&mut svg, report);
    for (panel, values) in [(&upper, &used), (&lower, &queue)] {
        frame(&mut svg, panel, span);
        for (values, colour) in values.iter().zip(COLOURS) {
            line(&mut svg, panel, values, colour, report.runs.len() == 1);
        }
    }
    time_axis(&mut svg, &lower, span);
    svg.push_str("</svg>\n");
    svg
}

fn number(count: u64) -> f64 {
    count as f64
}

fn secs(secs: i64) -> f64 {
    secs as f64
}

/// The mean of a value over each column.
fn means(samples: &[Sample], span: Span, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; COLUMNS];
    let column = secs(span.to - span.from) / number(COLUMNS as u64);
    for (at, sample) in samples.iter().enumerate() {
        let next = samples.get(at + 1).map_or(span.to, |next| next.at);
        let (from, to) = (secs(sample.at - span.from) / column, secs(next - span.from) / column);
        spread(&mut sums, from, to, value(sample));
    }
    sums
}

/// Adds a value that held from one place to another, both in columns.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "both lie between 0 and the number of columns"
)]
fn spread(sums: &mut [f64], from: f64, to: f64, value: f64) {
    let mut at = from as usize;
    while let Some(sum) = sums.get_mut(at)
        && number(at as u64) < to
    {
        let (begin, end) = (number(at as u64), number(at as u64 + 1));
        *sum += value * (to.min(end) - from.max(begin)).max(0.0);
        at += 1;
    }
}

fn legend(svg: &mut String, report: &Report<'_>) {
    let title = format!("{} on {}", report.source.name, report.machine.title);
    put(svg, &format!("<text x=\"{LEFT}\" y=\"20\" {FONT}>{}</text>", escaped(&title)));
    let names = report.runs.iter().map(|run: &Run| run.policy.as_str());
    for (at, (name, colour)) in names.zip(COLOURS).enumerate() {
        let x = LEFT + WIDTH - 130.0 * (number(report.runs.len() as u64) - number(at as u64));
        put(
            svg,
            &format!(
                "<rect x=\"{x:.0}\" y=\"11\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
                 <text x=\"{:.0}\" y=\"21\" {FONT}>{}</text>",
                x + 18.0,
                escaped(name)
            ),
        );
    }
}

/// A panel's title, axes and grid.
fn frame(svg: &mut String, panel: &Panel, span: Span) {
    let Panel { top, title, most, unit } = panel;
    put(svg, &format!("<text x=\"{LEFT}\" y=\"{:.1}\" {FONT}>{title}</text>", top - 8.0));
    let step = round_step(most / MARKS);
    let mut mark = 0.0;
    while mark <= most * 1.000_001 {
        let y = top + HEIGHT * (1.0 - mark / most);
        put(svg, &rule(LEFT, y, LEFT + WIDTH, y));
        let label = if step < 1.0 { format!("{mark:.1}") } else { format!("{mark:.0}") };
        put(
            svg,
            &format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" {FONT}>{label}{unit}</text>",
                LEFT - 8.0,
                y + 4.0
            ),
        );
        mark += step;
    }
    let (_, step, _) = time_marks(span);
    let mut mark = 0.0;
    while mark <= secs(span.to - span.from) {
        let x = LEFT + WIDTH * mark / secs(span.to - span.from);
        put(svg, &rule(x, *top, x, top + HEIGHT));
        mark += step;
    }
}

/// Labels below the lowest panel.
fn time_axis(svg: &mut String, panel: &Panel, span: Span) {
    let (unit, step, name) = time_marks(span);
    let length = secs(span.to - span.from);
    let mut mark = 0.0;
    while mark <= length {
        let x = LEFT + WIDTH * mark / length;
        put(
            svg,
            &format!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" {FONT}>{:.0}</text>",
                panel.top + HEIGHT + 18.0,
                mark / unit
            ),
        );
        mark += step;
    }
    put(
        svg,
        &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" {FONT}>{name} since the first \
             submission</text>",
            LEFT + WIDTH / 2.0,
            panel.top + HEIGHT + 38.0
        ),
    );
}

/// The unit of the axis of time in seconds, the step of its marks in seconds, and its name.
fn time_marks(span: Span) -> (f64, f64, &'static str) {
    let length = secs(span.to - span.from);
    let units = [(86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")];
    let fits = units.into_iter().find(|(unit, _)| length >= 3.0 * unit);
    let (unit, name) = fits.unwrap_or((1.0, "seconds"));
    (unit, (round_step(length / unit / (2.0 * MARKS)).max(1.0)) * unit, name)
}

/// The next of 1, 2, 5, 10, 20, ... that is not below.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= least).unwrap_or(power * 10.0)
}

fn line(svg: &mut String, panel: &Panel, values: &[f64], colour: &str, alone: bool) {
    let mut points = String::new();
    for (at, value) in values.iter().enumerate() {
        let x = LEFT + number(at as u64) + 0.5;
        let y = panel.top + HEIGHT * (1.0 - (value / panel.most).min(1.0));
        write!(points, "{x:.1},{y:.1} ").expect("a String takes all text");
    }
    let points = points.trim_end();
    if alone {
        let (left, right, base) = (LEFT + 0.5, LEFT + WIDTH - 0.5, panel.top + HEIGHT);
        put(
            svg,
            &format!(
                "<polygon points=\"{left},{base} {points} {right},{base}\" fill=\"{colour}\" \
                 fill-opacity=\"0.15\"/>"
            ),
        );
    }
    put(
        svg,
        &format!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"/>"
        ),
    );
}

fn rule(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#ddd\" stroke-width=\"1\"/>")
}

fn put(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

/// A text as XML writes it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_keep_what_a_column_holds_on_average() {
        let sample = |at, queue| Sample { at, used: 0, waiting: 0, queue };
        let span = Span { from: 0, to: 860 };
        let means = means(
            &[sample(0, 0), sample(10, 4), sample(11, 0), sample(20, 2), sample(860, 9)],
            span,
            |sample| f64::from(sample.queue),
        );
        assert_eq!(
            (means[9], means[10], means[11], means[20], means[859]),
            (0.0, 4.0, 0.0, 2.0, 2.0)
        );
        let coarse = Span { from: 0, to: 8_600 };
        let means = super::means(&[sample(0, 0), sample(5, 4)], coarse, |s| f64::from(s.queue));
        assert!((means[0] - 2.0).abs() < 1e-9 && (means[1] - 4.0).abs() < 1e-9);
    }

    #[test]
    fn steps_are_round() {
        for (least, expect) in [(0.7, 1.0), (1.1, 2.0), (3.0, 5.0), (6.0, 10.0), (16.7, 20.0)] {
            assert!((round_step(least) - expect).abs() < 1e-9, "{least}");
        }
    }
}
