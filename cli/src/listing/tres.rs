//! In which order are the countable resources of a job written?
//!
//! sacct sorts them by name (`billing=1,cpu=1,mem=10M,node=1`); scontrol and squeue keep Slurm's
//! order of ids (`cpu=1,mem=10M,node=1,billing=1`, then gres).

/// The kinds with a fixed place, in their order; any other comes behind them.
const BY_ID: [&str; 4] = ["cpu", "mem", "node", "billing"];

/// The same list in the order of ids.
pub(crate) fn in_id_order(list: &str) -> String {
    let rank = |entry: &&str| {
        let name = entry.split('=').next().unwrap_or_default();
        BY_ID.iter().position(|known| *known == name).unwrap_or(BY_ID.len())
    };
    let mut entries: Vec<&str> = list.split(',').filter(|entry| !entry.is_empty()).collect();
    entries.sort_by_key(rank);
    entries.join(",")
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
}
