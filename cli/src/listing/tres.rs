//! In which order are the countable resources of a job written?
//!
//! sacct sorts them by name (`billing=1,cpu=1,mem=10M,node=1`); scontrol and squeue keep Slurm's
//! order of ids (`cpu=1,mem=10M,node=1,billing=1`, then gres).

use penstock_proto::v1;
use penstock_vocab::Mib;

/// The kinds with a fixed place, in their order; any other comes behind them.
const BY_ID: [&str; 4] = ["cpu", "mem", "node", "billing"];

/// The same list in the order of ids.
pub(crate) fn in_id_order(list: &str) -> String {
    let mut entries: Vec<&str> = list.split(',').filter(|entry| !entry.is_empty()).collect();
    entries.sort_by_key(|entry| rank(entry.split('=').next().unwrap_or_default()));
    entries.join(",")
}

/// Amounts as Slurm's accounting writes limits: in the order of ids, memory with its unit.
pub(crate) fn amounts(list: &[v1::TresAmount]) -> String {
    written(list, |amount| match amount.kind.as_str() {
        "mem" if amount.count > 0 => format!("mem={}", Mib(amount.count).to_arg()),
        kind => format!("{kind}={}", amount.count),
    })
}

/// The same with plain numbers, as minutes and seconds of resources are written.
pub(crate) fn raw_amounts(list: &[v1::TresAmount]) -> String {
    written(list, |amount| format!("{}={}", amount.kind, amount.count))
}

fn written(list: &[v1::TresAmount], word: impl Fn(&v1::TresAmount) -> String) -> String {
    let mut sorted: Vec<&v1::TresAmount> = list.iter().collect();
    sorted.sort_by(|a, b| rank(&a.kind).cmp(&rank(&b.kind)).then_with(|| a.kind.cmp(&b.kind)));
    sorted.into_iter().map(word).collect::<Vec<_>>().join(",")
}

/// Millionths of a currency, rounded to hundredths: `12.34 EUR`.
pub(crate) fn money(millionths: u64, currency: &str) -> String {
    let hundredths = millionths.saturating_add(5000) / 10_000;
    let amount = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    if currency.is_empty() { amount } else { format!("{amount} {currency}") }
}

fn rank(kind: &str) -> usize {
    BY_ID.iter().position(|known| *known == kind).unwrap_or(BY_ID.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_put_in_the_order_of_ids() {
        assert_eq!(
            in_id_order("billing=3,cpu=3,gres/gpu:h100=4,gres/gpu=4,mem=30M,node=2"),
            "cpu=3,mem=30M,node=2,billing=3,gres/gpu:h100=4,gres/gpu=4"
        );
        assert_eq!(in_id_order(""), "");
    }

    #[test]
    fn money_is_rounded_to_hundredths() {
        assert_eq!(money(41_204_999, "EUR"), "41.20 EUR");
        assert_eq!(money(5000, "EUR"), "0.01 EUR");
        assert_eq!(money(0, ""), "0.00");
    }

    #[test]
    fn memory_has_a_unit_in_limits_only() {
        let of = |kind: &str, count| v1::TresAmount { kind: kind.into(), count };
        let list = [of("gres/gpu", 2), of("node", 0), of("mem", 8192), of("cpu", 4)];
        assert_eq!(amounts(&list), "cpu=4,mem=8G,node=0,gres/gpu=2");
        assert_eq!(raw_amounts(&list), "cpu=4,mem=8192,node=0,gres/gpu=2");
    }
}
