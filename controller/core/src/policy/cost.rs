//! What does it cost to hold so much for so long, in money?

use penstock_vocab::{Tres, TresKind};

use crate::model::CostRates;

/// MiB in the GiB for which memory's rate is given.
const MIB_A_GIB: u128 = 1_024;
const HOUR_SECS: u128 = 3_600;

/// Cost in millionths of a unit of the currency, rounded to the nearest; capped.
#[must_use]
pub fn cost(rates: &CostRates, tres: &Tres, secs: u64) -> u64 {
    // In MiB-hours' parts, so that there is one division and no loss before it.
    let sum = rates.per_hour.iter().fold(0u128, |sum, (kind, rate)| {
        let amount = match kind {
            TresKind::Mem => u128::from(tres.mem.0),
            TresKind::Cpu
            | TresKind::Node
            | TresKind::Billing
            | TresKind::Gres(_)
            | TresKind::License(_) => u128::from(tres.get(kind)) * MIB_A_GIB,
        };
        sum.saturating_add(amount.saturating_mul(u128::from(*rate)))
    });
    let divisor = MIB_A_GIB * HOUR_SECS;
    let total = sum.saturating_mul(u128::from(secs)).saturating_add(divisor / 2) / divisor;
    u64::try_from(total).unwrap_or(u64::MAX)
}

/// Millionths of a unit of a currency as people write them: `41.20 EUR`, rounded to the nearest.
#[must_use]
pub fn money(rates: &CostRates, millionths: u64) -> String {
    let cents = millionths.saturating_add(5_000) / 10_000;
    let currency = &rates.currency;
    let space = if currency.is_empty() { "" } else { " " };
    format!("{}.{:02}{space}{currency}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_rate_times_amount_times_time() {
        let rates = CostRates {
            currency: "EUR".into(),
            per_hour: [("cpu", 10_000), ("mem", 2_000), ("gres/gpu", 1_500_000)]
                .into_iter()
                .map(|(kind, rate)| (kind.parse().unwrap(), rate))
                .collect(),
        };
        for (tres, secs, expect) in [
            ("cpu=1", 3_600, 10_000),
            ("cpu=8,mem=16G,gres/gpu=2", 3_600, 80_000 + 32_000 + 3_000_000),
            ("cpu=8,mem=16G,gres/gpu=2", 1, 864),
            ("mem=512", 3_600, 1_000),
            ("node=5,billing=7", 3_600, 0),
            ("cpu=1", 0, 0),
        ] {
            assert_eq!(cost(&rates, &tres.parse().unwrap(), secs), expect, "{tres} for {secs} s");
        }
        assert_eq!(cost(&rates, &"cpu=1000000".parse().unwrap(), u64::MAX), u64::MAX);
        assert_eq!(money(&rates, 41_204_999), "41.20 EUR");
        assert_eq!(money(&rates, 41_195_000), "41.20 EUR");
        assert_eq!(money(&CostRates::default(), 5_000), "0.01");
    }
}
