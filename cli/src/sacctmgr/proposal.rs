//! What is a command about to change, and how is that told?

use penstock_proto::v1;
use penstock_proto::v1::account_change::Change;

/// Changes, with the lines that tell of them.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Proposal {
    /// Carried out all or none.
    pub(super) changes: Vec<v1::AccountChange>,
    /// Lines on standard output.
    pub(super) lines: Vec<String>,
    /// Whether the lines are printed before the changes are carried out, as Slurm does where
    /// something is added; else once they are.
    pub(super) announced: bool,
}

impl Proposal {
    /// Adds a change.
    pub(super) fn push(&mut self, change: Change) {
        self.changes.push(v1::AccountChange { change: Some(change) });
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }
}

/// `C = bench      A = p1                   U = bin      `, as modified associations are told.
pub(super) fn place_line(cluster: &str, parent: &str, assoc: &v1::Association) -> String {
    let (account, user, partition) = (&assoc.account, &assoc.user, &assoc.partition);
    match (user.as_str(), partition.as_str(), parent) {
        ("", _, "") => format!("  C = {cluster:<10} A = {account}"),
        ("", _, parent) => format!("  C = {cluster:<10} A = {account} of {parent}"),
        (user, "", _) => format!("  C = {cluster:<10} A = {account:<20} U = {user:<9}"),
        (user, partition, _) => {
            format!("  C = {cluster:<10} A = {account:<20} U = {user:<9} P = {partition}")
        }
    }
}

/// `C = bench      A = p1         U = bin      `, as deleted associations are told.
pub(super) fn gone_line(cluster: &str, assoc: &v1::Association) -> String {
    let (account, user) = (&assoc.account, &assoc.user);
    let partition = match assoc.partition.as_str() {
        "" => String::new(),
        name => format!(" P = {name}"),
    };
    format!("  C = {cluster:<10} A = {account:<10} U = {user:<9}{partition}")
}
