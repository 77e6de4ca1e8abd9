//! What is told of plans and reservations?

use penstock_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

use super::time;

/// Why a job waits, until when, and what would start it sooner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ExplainView {
    /// Job, as commands print it.
    pub job: String,
    /// Slurm's word.
    pub state: String,
    /// The first thing that is in its way, in one sentence.
    pub summary: String,
    /// Everything that must be so before it starts.
    pub gates: Vec<GateView>,
    /// Jobs ahead of it.
    pub ahead: Vec<AheadView>,
    /// How many those are in all.
    pub ahead_count: u32,
    /// When it is expected to start.
    pub expected_start_ms: Option<i64>,
    /// Where, a hostlist.
    pub expected_nodes: String,
    /// In which partition.
    pub expected_partition: String,
    /// What moved that time when it last moved.
    pub moved_by: String,
    /// Changes that would start it sooner.
    pub suggestions: Vec<SuggestionView>,
    /// The controller's time.
    pub now_ms: i64,
}

/// One thing that must be so before the job starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct GateView {
    /// held, dependency, begin, partition, limits, reservation, priority or resources.
    pub name: String,
    /// It is so.
    pub open: bool,
    /// Slurm's reason while it is not.
    pub reason: String,
    /// One sentence with numbers.
    pub detail: String,
    /// When it opens at the latest.
    pub opens_ms: Option<i64>,
}

/// A job ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct AheadView {
    /// Job, as commands print it.
    pub job: String,
    /// Login name.
    pub user: String,
    /// Priority.
    pub priority: u32,
    /// Why it is ahead.
    pub why: String,
    /// When it is expected to start.
    pub expected_start_ms: Option<i64>,
    /// Where, a hostlist.
    pub nodes: String,
}

/// A change that would start a job sooner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct SuggestionView {
    /// As an option of sbatch.
    #[schema(example = "--time=2:00:00")]
    pub change: String,
    /// When it would start then.
    pub start_ms: i64,
    /// Where, a hostlist.
    pub nodes: String,
}

/// Who would start when if something were otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct WhatIfView {
    /// Jobs whose start changes; the one that is to be submitted comes first.
    pub rows: Vec<WhatIfRow>,
    /// How many jobs stay as they are.
    pub unchanged: u32,
    /// Sentences.
    pub notes: Vec<String>,
    /// CPUs that the new job would get.
    pub cpus: u32,
    /// The controller's time.
    pub now_ms: i64,
}

/// A job whose start changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct WhatIfRow {
    /// Job, as commands print it.
    pub job: String,
    /// Login name.
    pub user: String,
    /// When it would start as things are.
    pub before_ms: Option<i64>,
    /// When it would start then.
    pub after_ms: Option<i64>,
    /// Where as things are, a hostlist.
    pub nodes_before: String,
    /// Where then.
    pub nodes_after: String,
    /// Partition.
    pub partition: String,
    /// Why it would not start at once.
    pub reason_after: String,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ReservationView {
    /// Name.
    pub name: String,
    /// When it begins.
    pub start_ms: i64,
    /// When it ends.
    pub end_ms: i64,
    /// Nodes, a hostlist.
    pub nodes: String,
    /// Partition; empty: any.
    pub partition: String,
    /// Login names of who may use it.
    pub users: Vec<String>,
    /// Accounts that may use it.
    pub accounts: Vec<String>,
    /// Users and accounts are those who may not.
    pub deny: bool,
    /// Slurm's flags.
    pub flags: Vec<String>,
    /// Comment.
    pub comment: String,
}

impl ExplainView {
    pub(in crate::http) fn of(reply: v1::ExplainReply) -> Self {
        Self {
            job: reply.job,
            state: reply.state,
            summary: reply.summary,
            gates: reply.gates.into_iter().map(GateView::of).collect(),
            ahead: reply.ahead.into_iter().map(AheadView::of).collect(),
            ahead_count: reply.ahead_count,
            expected_start_ms: time(reply.expected_start_ms),
            expected_nodes: reply.expected_nodes,
            expected_partition: reply.expected_partition,
            moved_by: reply.moved_by,
            suggestions: reply.suggestions.into_iter().map(SuggestionView::of).collect(),
            now_ms: reply.now_ms,
        }
    }
}

impl GateView {
    fn of(gate: v1::Gate) -> Self {
        Self {
            name: gate.name,
            open: gate.open,
            reason: gate.reason,
            detail: gate.detail,
            opens_ms: time(gate.opens_ms),
        }
    }
}

impl AheadView {
    fn of(ahead: v1::JobAhead) -> Self {
        Self {
            job: ahead.job,
            user: ahead.user,
            priority: ahead.priority,
            why: ahead.why,
            expected_start_ms: time(ahead.expected_start_ms),
            nodes: ahead.nodes,
        }
    }
}

impl SuggestionView {
    fn of(one: v1::Suggestion) -> Self {
        Self { change: one.change, start_ms: one.start_ms, nodes: one.nodes }
    }
}

impl WhatIfView {
    pub(in crate::http) fn of(reply: v1::WhatIfReply) -> Self {
        Self {
            rows: reply.rows.into_iter().map(WhatIfRow::of).collect(),
            unchanged: reply.unchanged,
            notes: reply.notes,
            cpus: reply.cpus,
            now_ms: reply.now_ms,
        }
    }
}

impl WhatIfRow {
    fn of(row: v1::WhatIfRow) -> Self {
        Self {
            job: row.job,
            user: row.user,
            before_ms: time(row.before_ms),
            after_ms: time(row.after_ms),
            nodes_before: row.nodes_before,
            nodes_after: row.nodes_after,
            partition: row.partition,
            reason_after: row.reason_after,
        }
    }
}

impl ReservationView {
    pub(in crate::http) fn of(one: v1::Reservation) -> Self {
        Self {
            nodes: penstock_vocab::compress(one.nodes.iter().map(String::as_str)),
            name: one.name,
            start_ms: one.start_ms,
            end_ms: one.end_ms,
            partition: one.partition,
            users: one.users,
            accounts: one.accounts,
            deny: one.deny,
            flags: one.flags,
            comment: one.comment,
        }
    }
}
