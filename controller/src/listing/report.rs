//! What was used within a time, by account and user, and what of the cluster was not?

use std::collections::BTreeMap;

use penstock_core::model::Inventory;
use penstock_proto::v1;
use penstock_vocab::{Timestamp, Tres, TresKind};

use super::accounting::{ListError, Scan, accounting};
use super::{View, facts};
use crate::convert::limits::tres_to_wire;
use crate::convert::spec::gres_list;

/// Bounds of the classes of jobs by their CPUs, as `sreport job SizesByAccount` has them.
const SIZES: [u64; 4] = [50, 250, 500, 1_000];

/// Amounts times seconds.
type Amounts = BTreeMap<TresKind, u64>;

/// Sums up the runs within the time; a run that lasts beyond it counts for its part.
///
/// # Errors
/// If the history can't be read.
pub fn report_usage(
    view: &View<'_>,
    request: &v1::ReportUsageRequest,
    scan: Scan<'_>,
) -> Result<v1::ReportUsageReply, ListError> {
    let now = view.cluster.now();
    let (from, to) = (Timestamp(request.start_ms), Timestamp(request.end_ms).min(now));
    let asked = v1::ListAccountingRequest {
        from_ms: from.0,
        to_ms: to.0,
        duplicates: true,
        all_users: true,
        ..v1::ListAccountingRequest::default()
    };
    let mut lines: BTreeMap<(String, u32), Line> = BTreeMap::new();
    let mut waited: u64 = 0;
    for info in accounting(view, &asked, scan)? {
        let Some(job) = &info.job else { continue };
        let (Some(run), Some(spec)) = (&job.run, &job.spec) else { continue };
        let secs = overlap_secs(run.start_ms, run.end_ms, from, to);
        let held = run_tres(run);
        let eligible = if job.eligible_ms == 0 { job.submit_ms } else { job.eligible_ms };
        let wait = overlap_secs(eligible, run.start_ms, from, to);
        waited = waited.saturating_add(wait.saturating_mul(held.cpu));
        let line = lines.entry((spec.account.clone(), job.uid)).or_default();
        line.user.clone_from(&info.user_name);
        line.jobs += 1;
        let class = SIZES.iter().position(|bound| held.cpu < *bound).unwrap_or(SIZES.len());
        let cpu_secs = held.cpu.saturating_mul(secs);
        line.by_size[class] = line.by_size[class].saturating_add(cpu_secs);
        add(&mut line.tres, &held, secs);
    }
    let (capacity, down, planned_down) = capacity(view, from, to);
    let used = lines.values().filter_map(|line| line.tres.get(&TresKind::Cpu)).sum::<u64>();
    let cpus = |amounts: &Amounts| amounts.get(&TresKind::Cpu).copied().unwrap_or(0);
    let free = cpus(&capacity)
        .saturating_sub(cpus(&down))
        .saturating_sub(cpus(&planned_down))
        .saturating_sub(used);
    let planned = Amounts::from([(TresKind::Cpu, waited.min(free))]);
    let cost = &view.cluster.config().scheduling.cost;
    Ok(v1::ReportUsageReply {
        cluster: view.cluster.config().cluster.to_string(),
        lines: lines.into_iter().map(Line::into_wire).collect(),
        capacity_secs: tres_to_wire(&capacity),
        down_secs: tres_to_wire(&down),
        planned_down_secs: tres_to_wire(&planned_down),
        planned_secs: tres_to_wire(&planned),
        cost_per_hour: tres_to_wire(&cost.per_hour),
        currency: cost.currency.to_string(),
    })
}

#[derive(Default)]
struct Line {
    user: String,
    jobs: u64,
    by_size: [u64; SIZES.len() + 1],
    tres: Amounts,
}

impl Line {
    fn into_wire(((account, uid), line): ((String, u32), Self)) -> v1::UsageLine {
        v1::UsageLine {
            account,
            uid,
            user: line.user,
            tres_secs: tres_to_wire(&line.tres),
            jobs: line.jobs,
            cpu_secs_by_size: line.by_size.to_vec(),
        }
    }
}

/// Seconds of a span within the time; an end of 0 is none.
fn overlap_secs(start_ms: i64, end_ms: i64, from: Timestamp, to: Timestamp) -> u64 {
    if start_ms == 0 {
        return 0;
    }
    let end = if end_ms == 0 { to } else { Timestamp(end_ms).min(to) };
    end.since(Timestamp(start_ms).max(from)).as_secs()
}

fn add(sum: &mut Amounts, tres: &Tres, secs: u64) {
    for (kind, amount) in tres.entries() {
        let entry = sum.entry(kind).or_insert(0);
        *entry = entry.saturating_add(amount.saturating_mul(secs));
    }
}

/// What a run held.
fn run_tres(run: &v1::Run) -> Tres {
    let mut tres = Tres { node: run.shares.len() as u64, billing: run.billing, ..Tres::default() };
    for share in &run.shares {
        let cpus = share.cpu_ranges.chunks_exact(2);
        let count = cpus.map(|pair| u64::from(pair[1].saturating_sub(pair[0])) + 1).sum::<u64>();
        tres.cpu = tres.cpu.saturating_add(count);
        tres.mem.0 = tres.mem.0.saturating_add(share.memory_mib);
        let counts: Vec<_> = share
            .gres
            .iter()
            .map(|gres| v1::GresCount {
                name: gres.name.clone(),
                r#type: gres.r#type.clone(),
                count: gres.count.max(gres.ids.len() as u64),
            })
            .collect();
        for gres in gres_list(&counts).unwrap_or_default() {
            facts::count_gres(&mut tres.gres, &gres.name, gres.count);
        }
    }
    tres
}

fn inventory_tres(inventory: &Inventory) -> Tres {
    let mut tres = Tres {
        cpu: u64::from(inventory.cpus),
        mem: inventory.memory,
        node: 1,
        billing: u64::from(inventory.cpus),
        ..Tres::default()
    };
    for gres in &inventory.gres {
        facts::count_gres(&mut tres.gres, &gres.name, gres.count);
    }
    tres
}

/// What the nodes had to give, what of it was down, and what an admin had taken out of service.
/// Nodes count from when they joined. Of outages only those that last are known.
fn capacity(view: &View<'_>, from: Timestamp, to: Timestamp) -> (Amounts, Amounts, Amounts) {
    let (mut all, mut down, mut planned) = (Amounts::new(), Amounts::new(), Amounts::new());
    for (_, node, used) in view.cluster.nodes() {
        let Some(joined) = node.registered else { continue };
        let tres = inventory_tres(&node.inventory);
        add(&mut all, &tres, to.since(joined.max(from)).as_secs());
        if let Some(outage) = &node.down {
            add(&mut down, &tres, to.since(outage.at.max(from)).as_secs());
        } else if node.admin.drain
            && used.jobs.is_empty()
            && let Some((_, at)) = node.admin.reason_by
        {
            let since = node.last_busy.map_or(at, |busy| busy.max(at));
            add(&mut planned, &tres, to.since(since.max(from)).as_secs());
        }
    }
    (all, down, planned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_within_the_time_counts() {
        let (from, to) = (Timestamp::from_secs(100), Timestamp::from_secs(200));
        for (start, end, secs) in
            [(50, 150, 50), (150, 0, 50), (150, 160, 10), (50, 90, 0), (250, 0, 0), (0, 150, 0)]
        {
            assert_eq!(overlap_secs(start * 1_000, end * 1_000, from, to), secs, "{start}..{end}");
        }
    }

    #[test]
    fn a_run_holds_its_shares() {
        let gres = v1::GresShare {
            name: "gpu".into(),
            r#type: "h100".into(),
            ids: vec![0, 3],
            count: 2,
            slices: Vec::new(),
        };
        let share = v1::NodeShare {
            cpu_ranges: vec![0, 3, 8, 8],
            memory_mib: 100,
            gres: vec![gres],
            ..Default::default()
        };
        let run = v1::Run { shares: vec![share.clone(), share], billing: 7, ..Default::default() };
        let tres = run_tres(&run);
        let shown: Vec<_> = tres.entries().iter().map(|(k, n)| format!("{k}={n}")).collect();
        assert_eq!(shown.join(","), "cpu=10,mem=200,node=2,billing=7,gres/gpu=4,gres/gpu:h100=4");
    }
}
