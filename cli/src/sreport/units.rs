//! In which unit is usage told?

use penstock_proto::v1;

use crate::listing::money;
use crate::words::find_name;

/// A unit of `-t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Minutes,
    Hours,
    Percent,
    SecondsPercent,
    MinutesPercent,
    HoursPercent,
    /// Ours: what it costs by the rates of the cluster file.
    Cost,
}

/// Names, which may be cut short.
const UNITS: &[(&str, Unit)] = &[
    ("Second", Unit::Seconds),
    ("Seconds", Unit::Seconds),
    ("Minute", Unit::Minutes),
    ("Minutes", Unit::Minutes),
    ("Hour", Unit::Hours),
    ("Hours", Unit::Hours),
    ("Percent", Unit::Percent),
    ("SecPer", Unit::SecondsPercent),
    ("MinPer", Unit::MinutesPercent),
    ("HourPer", Unit::HoursPercent),
    ("Cost", Unit::Cost),
];

impl Unit {
    /// By its name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        find_name(UNITS, text)
    }

    /// How the heading calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "Seconds",
            Self::Minutes => "Minutes",
            Self::Hours => "Hours",
            Self::Percent => "Percentage of Total",
            Self::SecondsPercent => "Seconds/Percentage of Total",
            Self::MinutesPercent => "Minutes/Percentage of Total",
            Self::HoursPercent => "Hours/Percentage of Total",
            Self::Cost => "Cost",
        }
    }

    /// Whether a value has two parts, and needs a wide column.
    pub(super) const fn is_double(self) -> bool {
        matches!(self, Self::SecondsPercent | Self::MinutesPercent | Self::HoursPercent)
    }

    /// Amount times seconds as it is told, `total` being all that there was.
    pub(super) fn text(self, secs: u64, total: u64) -> String {
        let (secs, total) = (wide(secs), wide(total));
        let share = if total > 0.0 { secs / total * 100.0 } else { 0.0 };
        match self {
            Self::Seconds | Self::Cost => format!("{secs:.0}"),
            Self::Minutes => format!("{:.0}", secs / 60.0),
            Self::Hours => format!("{:.0}", secs / 3600.0),
            Self::Percent => format!("{share:.2}%"),
            Self::SecondsPercent => format!("{secs:.0}({share:.2}%)"),
            Self::MinutesPercent => format!("{:.0}({share:.2}%)", secs / 60.0),
            Self::HoursPercent => format!("{:.0}({share:.2}%)", secs / 3600.0),
        }
    }
}

/// A count as a number with a fraction; beyond 2^53 the last digits are lost, which no report shows.
#[expect(clippy::cast_precision_loss, reason = "shown with at most two decimals of a share")]
fn wide(count: u64) -> f64 {
    count as f64
}

/// What amounts times seconds cost, in hundredths of the currency told without its name.
pub(super) fn cost(amounts: &[v1::TresAmount], rates: &[v1::TresAmount]) -> String {
    let of_kind = |amount: &v1::TresAmount| {
        let rate = rates.iter().find(|rate| rate.kind == amount.kind)?;
        Some(u128::from(amount.count) * u128::from(rate.count) / 3600)
    };
    let millionths: u128 = amounts.iter().filter_map(of_kind).sum();
    money(u64::try_from(millionths).unwrap_or(u64::MAX), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_told_in_every_unit() {
        for (name, expect) in [
            ("seconds", "5400"),
            ("min", "?"),
            ("Minutes", "90"),
            ("minu", "90"),
            ("hours", "2"),
            ("percent", "25.00%"),
            ("hourper", "2(25.00%)"),
            ("secper", "5400(25.00%)"),
        ] {
            let told =
                Unit::parse(name).map_or_else(|| "?".to_owned(), |unit| unit.text(5400, 21_600));
            assert_eq!(told, expect, "{name}");
        }
        assert_eq!(Unit::Percent.text(5, 0), "0.00%");
    }

    #[test]
    fn cost_is_the_sum_over_resources() {
        let of = |kind: &str, count| v1::TresAmount { kind: kind.into(), count };
        let rates = [of("cpu", 20_000), of("gres/gpu", 2_000_000)];
        let used = [of("cpu", 36_000), of("gres/gpu", 7200), of("mem", 1 << 40)];
        assert_eq!(cost(&used, &rates), "4.20");
    }
}
