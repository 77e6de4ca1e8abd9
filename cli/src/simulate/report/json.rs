//! How does a program read the figures of a replay?

use std::fmt::Write as _;

use super::figures::{Fairness, Figures, Spread};
use super::{Report, Run};
use crate::simulate::job::{Counts, Unit};

/// An object under construction; members keep the order in which they are added.
struct Object {
    text: String,
    indent: usize,
    empty: bool,
}

impl Object {
    fn new(indent: usize) -> Self {
        Self { text: String::from("{"), indent, empty: true }
    }

    /// Adds a member whose value is JSON already.
    fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        let comma = if self.empty { "" } else { "," };
        self.empty = false;
        let margin = " ".repeat(self.indent + 2);
        write!(self.text, "{comma}\n{margin}{}: {value}", quoted(key))
            .expect("a String takes all text");
        self
    }

    fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, &quoted(value))
    }

    fn flag(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(key, if value { "true" } else { "false" })
    }

    fn count(&mut self, key: &str, value: impl ToString) -> &mut Self {
        self.raw(key, &value.to_string())
    }

    fn fraction(&mut self, key: &str, value: f64) -> &mut Self {
        // JSON has no infinities; none of the figures can be one.
        self.raw(key, &if value.is_finite() { format!("{value:.6}") } else { "null".to_owned() })
    }

    fn end(&mut self) -> String {
        let margin = " ".repeat(self.indent);
        format!("{}\n{margin}}}", self.text)
    }
}

/// The whole report as JSON, ended by a newline.
pub(in crate::simulate) fn json(report: &Report<'_>) -> String {
    let workload = report.workload;
    let mut root = Object::new(0);
    root.text("trace", &report.source.name);
    root.text("format", report.source.format.map_or("history", |format| format.word()));
    root.flag("format_guessed", report.source.guessed);
    root.text("cluster", &report.machine.title);
    let cut = !report.machine.profiles.is_empty();
    root.text(
        "unit",
        match workload.unit {
            Unit::Gpu if cut => "compute_slice",
            Unit::Gpu => "gpu",
            Unit::Cpu => "cpu",
        },
    );
    root.count("capacity", report.machine.capacity(workload.unit));
    root.count("jobs", workload.jobs.len());
    root.raw("records", &counts(&workload.counts, 2));
    let runs: Vec<String> =
        report.runs.iter().map(|run| format!("\n    {}", of_run(run, 4))).collect();
    root.raw("runs", &format!("[{}\n  ]", runs.join(",")));
    root.end() + "\n"
}

fn counts(counts: &Counts, indent: usize) -> String {
    Object::new(indent)
        .count("all", counts.records)
        .count("broken", counts.broken)
        .count("never_ran", counts.no_run)
        .count("without_size", counts.no_size)
        .count("too_large", counts.too_large)
        .count("beyond_jobs", counts.beyond)
        .count("overran", counts.overrun)
        .count("without_request", counts.no_request)
        .count("gpu_fractions", counts.fractions)
        .end()
}

fn of_run(run: &Run, indent: usize) -> String {
    let figures: &Figures = &run.figures;
    let inner = indent + 2;
    let mut object = Object::new(indent);
    object
        .text("policy", &run.policy)
        .flag("preemption_left_out", run.preempts)
        .count("ended", figures.ended)
        .count("endless", figures.endless)
        .count("never_started", figures.waiting)
        .count("refused", figures.refused)
        .count("backfilled", figures.backfilled)
        .count("plans", figures.plans)
        .count("makespan_secs", figures.makespan_secs)
        .fraction("utilisation", figures.utilisation)
        .fraction("in_use_at_end", figures.allocated)
        .raw("wait_secs", &spread(&figures.wait, inner))
        .raw("bounded_slowdown", &spread(&figures.slowdown, inner))
        .raw("users", &fairness(&figures.users, inner))
        .raw("accounts", &fairness(&figures.accounts, inner));
    if let Some(gpus) = &figures.gpus {
        let value = Object::new(inner)
            .fraction("idle_of_no_use", gpus.fragmented)
            .fraction("idle_of_no_use_at_end", gpus.fragmented_last)
            .count("idle_at_end", gpus.idle_last)
            .end();
        object.raw("gpus", &value);
    }
    object.end()
}

fn spread(spread: &Spread, indent: usize) -> String {
    Object::new(indent)
        .fraction("mean", spread.mean)
        .fraction("median", spread.median)
        .fraction("p95", spread.p95)
        .fraction("p99", spread.p99)
        .fraction("max", spread.max)
        .end()
}

fn fairness(fairness: &Fairness, indent: usize) -> String {
    Object::new(indent)
        .count("groups", fairness.groups)
        .fraction("jain", fairness.jain)
        .fraction("lowest_mean_slowdown", fairness.lowest)
        .fraction("highest_mean_slowdown", fairness.highest)
        .text("highest_of", &fairness.worst)
        .end()
}

/// A text as JSON writes it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            letter if letter < ' ' => {
                write!(out, "\\u{:04x}", u32::from(letter)).expect("a String takes all text");
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_objects_closed() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
        let mut object = Object::new(0);
        object.count("a", 1).text("b", "x");
        assert_eq!(object.end(), "{\n  \"a\": 1,\n  \"b\": \"x\"\n}");
        assert_eq!(Object::new(0).fraction("x", f64::NAN).end(), "{\n  \"x\": null\n}");
    }
}
