//! Where do the numbers come from?

use penstock_proto::v1;
use penstock_vocab::Timestamp;

use super::family::{Family, Histogram, Labels, Values, float};
use super::{jobs, machine};
use crate::http::web::Web;
use crate::listing::{self, View};

/// Everything that is measured.
pub(super) fn all(web: &Web) -> Vec<Family> {
    let (snapshot, plan, now) = (web.shared.snapshot(), web.shared.plan(), web.now());
    let cluster = &snapshot.cluster;
    let view = View { cluster, plan: &plan };
    let mut families = vec![Family::gauges(
        "penstock_build_info",
        "Version of the controller; always 1.",
        vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
    )];
    families.extend(jobs::families(&view, now));
    let report = web.shared.statistics.report();
    families.extend(counted(&report));
    families.extend(scheduler(&report, &plan, now));
    families.push(Family::gauge(
        "penstock_queued_commands",
        "Commands that wait to be carried out.",
        float(web.shared.writer.waiting().try_into().unwrap_or(u64::MAX)),
    ));
    let load = |index| {
        let (node, _) = cluster.node(index)?;
        web.shared.links.vitals(node.name.as_str())
    };
    let nodes = listing::list_nodes(cluster, &v1::ListNodesRequest::default(), &load);
    let mut nodes = nodes.map(|reply| reply.nodes).unwrap_or_default();
    nodes.iter_mut().for_each(|node| crate::rpc::add_samples(&web.shared, node));
    let silence = |name: &str| web.shared.links.silence(name, now, web.shared.started);
    let silent = nodes.iter().filter_map(|info| silence(&info.node.as_ref()?.name)).max();
    let silent_ms = silent.map_or(0, |silence| silence.0);
    families.extend(machine::families(&nodes, silent_ms));
    families.extend(budgets(&listing::list_shares(cluster, now)));
    families.extend(traffic(web, now));
    families
}

/// What happened to jobs since counting began.
fn counted(report: &v1::DiagnoseReply) -> Vec<Family> {
    vec![
        Family::counter(
            "penstock_jobs_submitted",
            "Jobs and arrays that were submitted.",
            report.jobs_submitted,
        ),
        Family::counter("penstock_jobs_started", "Runs that began.", report.jobs_started),
        Family::counters(
            "penstock_jobs_ended",
            "Jobs that ended, by how.",
            [
                ("completed", report.jobs_completed),
                ("cancelled", report.jobs_cancelled),
                ("failed", report.jobs_failed),
            ]
            .map(|(how, count)| (vec![("outcome", how.to_owned())], float(count)))
            .into(),
        ),
        Family::counter("penstock_jobs_preempted", "Runs that had to make room.", report.preempted),
        Family::counter(
            "penstock_jobs_backfilled",
            "Jobs that started ahead of one that waits.",
            report.backfilled,
        ),
        Family::counters(
            "penstock_rpc_requests",
            "Calls of commands and agents, by method.",
            report.rpcs.iter().map(|rpc| (method(rpc), float(rpc.count))).collect(),
        ),
        Family::counters(
            "penstock_rpc_seconds",
            "Time until calls were answered, by method.",
            report.rpcs.iter().map(|rpc| (method(rpc), float(rpc.total_us) / 1e6)).collect(),
        ),
    ]
}

fn method(rpc: &v1::RpcStatistics) -> Labels {
    vec![("method", rpc.method.clone())]
}

/// What plans are made, and how long the parts of the work take.
fn scheduler(
    report: &v1::DiagnoseReply,
    plan: &penstock_core::scheduler::Plan,
    now: Timestamp,
) -> Vec<Family> {
    let phases =
        report.phases.iter().map(|phase| (vec![("phase", phase.name.clone())], histogram(phase)));
    let stats = &plan.stats;
    vec![
        Family::counter("penstock_scheduler_plans", "Plans that were made.", report.plans),
        Family::counter(
            "penstock_scheduler_full_plans",
            "Plans that looked at everything.",
            report.full_plans,
        ),
        Family::counter(
            "penstock_scheduler_cut_plans",
            "Plans that a bound on their work cut short.",
            report.plans_cut,
        ),
        Family::counter(
            "penstock_scheduler_refused_lines",
            "Lines of plans that were out of date when they were carried out.",
            report.refused_lines,
        ),
        Family::gauge(
            "penstock_scheduler_plan_age_seconds",
            "How old the newest plan is.",
            float(now.since(plan.made_at).0) / 1e3,
        ),
        Family::gauge(
            "penstock_scheduler_queue_length",
            "Jobs and arrays that waited when the newest plan was made.",
            stats.waiting.into(),
        ),
        Family::gauge(
            "penstock_scheduler_reservations",
            "Jobs for which the newest plan keeps a place.",
            stats.reservations.into(),
        ),
        Family {
            name: "penstock_phase_duration_seconds",
            help: "How long making a plan, carrying it out, and making changes durable (fsync) take.",
            values: Values::Histogram(phases.collect()),
        },
    ]
}

/// A histogram of powers of two, of which the bounds are told in seconds.
fn histogram(phase: &v1::Phase) -> Histogram {
    let mut buckets = Vec::with_capacity(phase.histogram.len());
    let last = phase.histogram.len().saturating_sub(1);
    let mut bound = 1e-6;
    for (at, count) in phase.histogram.iter().enumerate() {
        buckets.push((if at == last { f64::INFINITY } else { bound }, *count));
        bound *= 2.0;
    }
    if buckets.is_empty() {
        buckets.push((f64::INFINITY, 0));
    }
    Histogram { sum: float(phase.total_us) / 1e6, count: phase.count, buckets }
}

/// Most accounts of which budgets are told.
const MOST_BUDGETS: usize = 200;

/// Budgets of accounts and what of them is used up.
fn budgets(shares: &v1::ListSharesReply) -> Vec<Family> {
    let (mut limits, mut used) = (Vec::new(), Vec::new());
    let with =
        shares.rows.iter().filter(|row| !row.grp_tres_mins.is_empty() && row.user.is_empty());
    for row in with.take(MOST_BUDGETS) {
        for limit in &row.grp_tres_mins {
            let labels = vec![("account", row.account.clone()), ("tres", limit.kind.clone())];
            let spent = row.used_tres_mins.iter().find(|one| one.kind == limit.kind);
            used.push((labels.clone(), float(spent.map_or(0, |one| one.count)) * 60.0));
            limits.push((labels, float(limit.count) * 60.0));
        }
    }
    vec![
        Family::gauges(
            "penstock_account_budget_tres_seconds",
            "Budget of an account (GrpTRESMins), amount times seconds.",
            limits,
        ),
        Family::gauges(
            "penstock_account_used_tres_seconds",
            "What of the budget is used up, amount times seconds.",
            used,
        ),
    ]
}

/// What is asked over HTTP.
fn traffic(web: &Web, now: Timestamp) -> Vec<Family> {
    let counts = web.traffic.counts();
    let labels =
        |route: &str, class: &str| vec![("route", route.to_owned()), ("status", class.to_owned())];
    let requests = counts.iter().map(|((route, class), (n, _))| (labels(route, class), float(*n)));
    let seconds =
        counts.iter().map(|((route, class), (_, us))| (labels(route, class), float(*us) / 1e6));
    vec![
        Family::counters(
            "penstock_http_requests",
            "Requests over HTTP, by route and kind of status.",
            requests.collect(),
        ),
        Family::counters(
            "penstock_http_seconds",
            "Time until requests over HTTP were answered.",
            seconds.collect(),
        ),
        Family::gauge(
            "penstock_http_connections",
            "Open connections over HTTP.",
            float(web.traffic.connections()),
        ),
        Family::gauge(
            "penstock_http_sessions",
            "Browsers that are signed in.",
            float(web.access.session_count(now).try_into().unwrap_or(u64::MAX)),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two_and_end_in_infinity() {
        let phase = v1::Phase {
            name: "plan".into(),
            count: 3,
            total_us: 2_000_000,
            histogram: vec![1, 0, 1, 1],
            ..v1::Phase::default()
        };
        let found = histogram(&phase);
        assert_eq!(found.sum, 2.0);
        assert_eq!(found.buckets[0], (1e-6, 1));
        assert_eq!(found.buckets[3], (f64::INFINITY, 1));
    }

    #[test]
    fn names_and_words_are_those_of_the_documentation() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let docs = std::fs::read_to_string(docs).unwrap_or_default();
        let empty = v1::DiagnoseReply::default();
        let plan = penstock_core::scheduler::Plan::default();
        let cluster = penstock_core::Cluster::new(std::sync::Arc::default(), Timestamp(0));
        let mut families = counted(&empty);
        families.extend(scheduler(&empty, &plan, Timestamp(0)));
        families.extend(jobs::families(&View { cluster: &cluster, plan: &plan }, Timestamp(0)));
        families.extend(machine::families(&[], 0));
        families.extend(budgets(&v1::ListSharesReply::default()));
        for family in &families {
            let (kind, end) = match family.values {
                Values::Gauge(_) => ("gauge", ""),
                Values::Counter(_) => ("counter", "_total"),
                Values::Histogram(_) => ("histogram", ""),
            };
            let row = format!("| `{}{end}` | {kind} | {} |", family.name, family.help);
            assert!(docs.contains(&row), "docs/metrics.md lacks: {row}");
        }
        assert!(families.len() > 30, "{}", families.len());
    }
}
