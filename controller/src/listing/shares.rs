//! What is everybody's fair share, with the numbers that it comes from?

use std::collections::BTreeMap;

use penstock_core::Cluster;
use penstock_core::model::{ONE_MILLIONTHS, Shares};
use penstock_core::policy::FairShare;
use penstock_core::policy::limits::Owner;
use penstock_proto::v1;
use penstock_vocab::{Timestamp, TresKind};

use super::in_tree_order;
use crate::convert::limits::tres_to_wire;

/// A row for each association, in the order of the tree.
#[must_use]
pub fn list_shares(cluster: &Cluster, now: Timestamp) -> v1::ListSharesReply {
    let fair = FairShare::new(cluster, now);
    let scheduling = &cluster.config().scheduling;
    let mut rows = Vec::new();
    for assoc in in_tree_order(cluster.accounts()) {
        let Some(row) = fair.row(assoc.id) else { continue };
        let used = cluster.subtree_usage(assoc.id, now);
        let mins = |kind: &TresKind| used.mins(kind);
        let kinds = used.kinds().filter(|kind| mins(kind) > 0);
        let used: BTreeMap<TresKind, u64> = kinds.map(|kind| (kind.clone(), mins(kind))).collect();
        let left = cluster.limits().held(&Owner::Assoc(assoc.id));
        let run_mins: BTreeMap<TresKind, u64> = left.map_or_else(BTreeMap::new, |held| {
            let kinds = held.tres().entries().into_iter().map(|(kind, _)| kind);
            let mins = |kind: &TresKind| u64::try_from(held.run_ms(kind, now) / 60_000);
            kinds.map(|kind| (kind.clone(), mins(&kind).unwrap_or(u64::MAX))).collect()
        });
        rows.push(v1::ShareRow {
            association: assoc.id.0,
            parent: assoc.parent.map_or(0, |parent| parent.0),
            account: assoc.account.to_string(),
            user: assoc.user.as_deref().unwrap_or_default().to_owned(),
            partition: assoc.partition.as_ref().map(ToString::to_string).unwrap_or_default(),
            depth: row.depth,
            raw_shares: match row.raw_shares {
                Shares::Raw(shares) => Some(shares),
                Shares::Parent => None,
            },
            norm_shares: ratio(row.norm_shares),
            raw_usage: row.raw_usage,
            norm_usage: ratio(row.norm_usage),
            effective_usage: ratio(row.effective_usage),
            level_fs: row.level_fs.map_or(f64::INFINITY, ratio),
            fair_share: row.is_user.then(|| ratio(row.factor)),
            rank: row.rank,
            grp_tres_mins: tres_to_wire(&assoc.group.tres_mins),
            tres_run_mins: tres_to_wire(&run_mins),
            used_tres_mins: tres_to_wire(&used),
        });
    }
    v1::ListSharesReply {
        rows,
        fairshare_weight: scheduling.weights.fairshare,
        half_life_secs: scheduling.fairshare.half_life_secs,
        users: fair.users(),
        now_ms: now.0,
    }
}

/// Millionths as a fraction, for people.
#[expect(clippy::cast_precision_loss, reason = "what is shown has six decimals")]
fn ratio(millionths: u64) -> f64 {
    millionths as f64 / ONE_MILLIONTHS as f64
}
