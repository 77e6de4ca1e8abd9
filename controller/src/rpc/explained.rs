//! How do explanations travel?

use penstock_core::Cluster;
use penstock_core::command::Unit;
use penstock_core::explain::{Ahead, Explanation, Gate, Row, Suggestion, WhatIf};
use penstock_proto::v1;
use penstock_vocab::{PartitionName, PendingReason, Timestamp};

use crate::listing::shown_id;

/// The owner's login name, as the job's own record has it.
pub(super) fn user_of(cluster: &Cluster, unit: Unit, uid: u32) -> String {
    let spec = match unit {
        Unit::Job(id) => cluster.job(id).map(|job| &job.spec),
        Unit::Array(id) => cluster.array(id).map(|array| &array.spec),
    };
    let name = spec.map(|spec| spec.details.user_name.to_string()).unwrap_or_default();
    if name.is_empty() { uid.to_string() } else { name }
}

fn ms(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| at.0)
}

fn text(partition: Option<&PartitionName>) -> String {
    partition.map(ToString::to_string).unwrap_or_default()
}

pub(super) fn explanation_to_wire(cluster: &Cluster, found: &Explanation) -> v1::ExplainReply {
    v1::ExplainReply {
        job: shown_id(cluster, found.unit),
        state: found.state.name().to_owned(),
        summary: found.summary.clone(),
        gates: found.gates.iter().map(gate_to_wire).collect(),
        ahead: found.ahead.iter().map(|ahead| ahead_to_wire(cluster, ahead)).collect(),
        ahead_count: found.ahead_count,
        expected_start_ms: ms(found.start),
        expected_nodes: found.nodes.clone(),
        expected_partition: text(found.partition.as_ref()),
        moved_by: found.moved_by.as_deref().unwrap_or_default().to_owned(),
        suggestions: Vec::new(),
        now_ms: found.now.0,
        priority: None,
    }
}

fn gate_to_wire(gate: &Gate) -> v1::Gate {
    let shut = gate.reason != PendingReason::None;
    v1::Gate {
        name: gate.kind.name().to_owned(),
        open: gate.open,
        reason: if shut { gate.reason.name().to_owned() } else { String::new() },
        detail: gate.detail.clone(),
        opens_ms: ms(gate.opens),
    }
}

fn ahead_to_wire(cluster: &Cluster, ahead: &Ahead) -> v1::JobAhead {
    v1::JobAhead {
        job: shown_id(cluster, ahead.unit),
        user: user_of(cluster, ahead.unit, ahead.uid.0),
        priority: ahead.priority,
        why: ahead.why.clone(),
        expected_start_ms: ms(ahead.start),
        nodes: ahead.nodes.clone(),
    }
}

pub(super) fn suggestion_to_wire(suggestion: &Suggestion) -> v1::Suggestion {
    v1::Suggestion {
        change: suggestion.change.clone(),
        start_ms: suggestion.start.0,
        nodes: suggestion.nodes.clone(),
    }
}

/// `asker` and its name own the job that were submitted.
pub(super) fn what_if_to_wire(
    cluster: &Cluster,
    found: &WhatIf,
    asker: (u32, &str),
) -> v1::WhatIfReply {
    let owner = |row: &Row| {
        let known = match row.unit {
            Unit::Job(id) => cluster.job(id).is_some(),
            Unit::Array(id) => cluster.array(id).is_some(),
        };
        let own = !known && row.uid.0 == asker.0;
        if own { asker.1.to_owned() } else { user_of(cluster, row.unit, row.uid.0) }
    };
    let row = |row: &Row| v1::WhatIfRow {
        job: shown_id(cluster, row.unit),
        user: owner(row),
        before_ms: ms(row.before),
        after_ms: ms(row.after),
        nodes_before: row.nodes_before.clone(),
        nodes_after: row.nodes_after.clone(),
        partition: text(row.partition.as_ref()),
        reason_after: row
            .reason_after
            .as_ref()
            .map(|waiting| waiting.reason.name().to_owned())
            .unwrap_or_default(),
    };
    v1::WhatIfReply {
        rows: found.rows.iter().map(row).collect(),
        unchanged: found.unchanged,
        notes: found.notes.clone(),
        now_ms: found.now.0,
        cpus: found.cpus,
    }
}
