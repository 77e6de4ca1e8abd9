//! In which order are associations told, and which kinds of resources are there?

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_core::Cluster;
use penstock_core::cluster::Accounts;
use penstock_core::model::{AssocId, Association};
use penstock_vocab::{GresName, TresKind};

/// Associations, parents before children; of siblings users before accounts, each by name.
#[must_use]
pub fn in_tree_order(accounts: &Accounts) -> Vec<&Arc<Association>> {
    let mut found = Vec::new();
    let mut waiting: Vec<&Arc<Association>> = accounts.assoc(AssocId::ROOT).into_iter().collect();
    while let Some(assoc) = waiting.pop() {
        found.push(assoc);
        let mut below: Vec<_> = accounts.children(assoc.id).collect();
        below.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
        waiting.extend(below.into_iter().rev());
    }
    found
}

/// By which siblings are ordered; no two have the same.
fn place(assoc: &Association) -> impl Ord + use<'_> {
    (assoc.user.is_none(), &assoc.user, &assoc.account, &assoc.partition)
}

/// Names of all kinds of resources that the cluster counts, in Slurm's order.
#[must_use]
pub fn tres_kinds(cluster: &Cluster) -> Vec<String> {
    let mut gres: BTreeSet<GresName> = BTreeSet::new();
    for (_, node, _) in cluster.nodes() {
        for offered in &node.inventory.gres {
            gres.insert(offered.name.untyped());
            gres.insert(offered.name.clone());
        }
    }
    let licenses = cluster.config().scheduling.licenses.keys().cloned().map(TresKind::License);
    [TresKind::Cpu, TresKind::Mem, TresKind::Node, TresKind::Billing]
        .into_iter()
        .chain(gres.into_iter().map(TresKind::Gres))
        .chain(licenses)
        .map(|kind| kind.to_string())
        .collect()
}
