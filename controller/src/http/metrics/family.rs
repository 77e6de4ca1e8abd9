//! How is a metric written?

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Labels with their values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A histogram: the sum of all, how many, and how many in each bucket by its upper bound.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Histogram {
    pub(super) sum: f64,
    pub(super) count: u64,
    pub(super) buckets: Vec<(f64, u64)>,
}

/// What a metric measures.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    /// What goes up and down.
    Gauge(Vec<(Labels, f64)>),
    /// What goes up until the controller starts again.
    Counter(Vec<(Labels, f64)>),
    /// Durations.
    Histogram(Vec<(Labels, Histogram)>),
}

/// A metric: its name (a counter's without `_total`), what it says, and its values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) values: Values,
}

impl Family {
    /// A gauge with labels.
    pub(super) fn gauges(
        name: &'static str,
        help: &'static str,
        values: Vec<(Labels, f64)>,
    ) -> Self {
        Self { name, help, values: Values::Gauge(values) }
    }

    /// A gauge without labels.
    pub(super) fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self::gauges(name, help, vec![(Labels::new(), value)])
    }

    /// A counter with labels.
    pub(super) fn counters(
        name: &'static str,
        help: &'static str,
        values: Vec<(Labels, f64)>,
    ) -> Self {
        Self { name, help, values: Values::Counter(values) }
    }

    /// A counter without labels.
    pub(super) fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::counters(name, help, vec![(Labels::new(), float(value))])
    }

    /// OpenMetrics' word for what it is.
    fn kind(&self) -> MetricType {
        match self.values {
            Values::Gauge(_) => MetricType::Gauge,
            Values::Counter(_) => MetricType::Counter,
            Values::Histogram(_) => MetricType::Histogram,
        }
    }
}

/// A count as Prometheus keeps it.
#[expect(clippy::cast_precision_loss, reason = "Prometheus keeps every number as a double")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in &self.0 {
            let kind = family.kind();
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            match &family.values {
                Values::Gauge(values) => {
                    for (labels, value) in values {
                        with(&mut metric, labels, |one| one.encode_gauge(value))?;
                    }
                }
                Values::Counter(values) => {
                    for (labels, value) in values {
                        with(&mut metric, labels, |one| {
                            one.encode_counter::<NoLabelSet, f64, u64>(value, None)
                        })?;
                    }
                }
                Values::Histogram(values) => {
                    for (labels, value) in values {
                        let (sum, count, buckets) = (value.sum, value.count, &value.buckets);
                        with(&mut metric, labels, |one| {
                            one.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Encodes a value with its labels; without any there are no braces either.
fn with(
    metric: &mut MetricEncoder<'_>,
    labels: &Labels,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), std::fmt::Error>,
) -> Result<(), std::fmt::Error> {
    match labels.is_empty() {
        true => encode(metric),
        false => encode(&mut metric.encode_family(labels)?),
    }
}

/// All metrics in the format of OpenMetrics, or in Prometheus' older one.
pub(super) fn text(families: Vec<Family>, open: bool) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut out = String::new();
    prometheus_client::encoding::text::encode(&mut out, &registry)
        .expect("writing to a String cannot fail");
    if open { out } else { older(&out) }
}

/// In the older format a counter's description bears the name of its values, and nothing marks the end.
fn older(text: &str) -> String {
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut out = String::with_capacity(text.len() + 64 * counters.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(&name) => {
                out.push_str(&format!("# {what} {name}_total {rest}\n"));
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<Family> {
        let labels = vec![("state", "a\"b\\c\n".to_owned())];
        let waits = Histogram { sum: 1.5, count: 2, buckets: vec![(1.0, 1), (f64::INFINITY, 1)] };
        vec![
            Family::gauges("penstock_x", "X.", vec![(labels, 2.0)]),
            Family::counter("penstock_y", "Y.", 3),
            Family {
                name: "penstock_z_seconds",
                help: "Z.",
                values: Values::Histogram(vec![(Labels::new(), waits)]),
            },
        ]
    }

    #[test]
    fn both_formats_say_the_same() {
        let open = text(families(), true);
        assert!(open.contains("# TYPE penstock_y counter\npenstock_y_total 3.0\n"), "{open}");
        assert!(open.ends_with("# EOF\n"));
        let older = text(families(), false);
        assert!(older.contains("# HELP penstock_y_total Y.\n# TYPE penstock_y_total counter\n"));
        assert!(older.contains("penstock_x{state=\"a\\\"b\\\\c\\n\"} 2.0\n"), "{older}");
        assert!(older.contains("penstock_z_seconds_bucket{le=\"+Inf\"} 2\n"), "{older}");
        assert!(!older.contains("EOF"));
    }
}
