//! How are the numbers laid out?

use std::cmp::Reverse;
use std::fmt::Write as _;

use penstock_proto::v1;

use crate::listing::Clock;

const RULE: &str = "*******************************************************";

/// Order of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortBy {
    Count,
    Name,
    Total,
    Average,
}

/// The whole output.
pub(super) fn text(reply: &v1::DiagnoseReply, sort: SortBy, clock: &Clock) -> String {
    let mut out = Lines { text: String::new() };
    let when = |ms: i64| format!("{} ({})", clock.date_of(ms), ms.div_euclid(1000));
    out.line(RULE);
    out.line(&format!("sdiag output at {}", when(reply.now_ms)));
    out.line(&format!("Data since      {}", when(reply.since_ms)));
    out.line(RULE);
    push_counts(&mut out, reply, &when(reply.now_ms));
    push_schedule(&mut out, reply);
    let last = if reply.last_plan_ms == 0 { "N/A".to_owned() } else { when(reply.last_plan_ms) };
    push_backfill(&mut out, reply, &last);
    push_rpcs(&mut out, reply, sort);
    push_phases(&mut out, reply);
    out.text
}

struct Lines {
    text: String,
}

impl Lines {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A line in a block.
    fn inner(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.text, "\t{name}{value}").expect("writing to a String cannot fail");
    }
}

fn phase<'r>(reply: &'r v1::DiagnoseReply, name: &str) -> Option<&'r v1::Phase> {
    reply.phases.iter().find(|phase| phase.name == name)
}

fn mean(total: u64, count: u64) -> u64 {
    total.checked_div(count).unwrap_or(0)
}

fn push_counts(out: &mut Lines, reply: &v1::DiagnoseReply, now: &str) {
    out.line("Server thread count:  1");
    out.line(&format!("Agent queue size:     {}", reply.queued_commands));
    out.line(&format!("Agent count:          {}", reply.agents_connected));
    out.line("Agent thread count:   0");
    out.line("DBD Agent queue size: 0");
    out.line("");
    out.line(&format!("Jobs submitted: {}", reply.jobs_submitted));
    out.line(&format!("Jobs started:   {}", reply.jobs_started));
    out.line(&format!("Jobs completed: {}", reply.jobs_completed));
    out.line(&format!("Jobs canceled:  {}", reply.jobs_cancelled));
    out.line(&format!("Jobs failed:    {}", reply.jobs_failed));
    out.line("");
    out.line(&format!("Job states ts:  {now}"));
    out.line(&format!("Jobs pending:   {}", reply.jobs_pending));
    out.line(&format!("Jobs running:   {}", reply.jobs_running));
    out.line("");
}

fn push_schedule(out: &mut Lines, reply: &v1::DiagnoseReply) {
    let plan = phase(reply, "plan").cloned().unwrap_or_default();
    out.line("Main schedule statistics (microseconds):");
    out.inner("Last cycle:   ", plan.last_us);
    out.inner("Max cycle:    ", plan.max_us);
    out.inner("Total cycles: ", reply.plans);
    if plan.count > 0 {
        out.inner("Mean cycle:   ", mean(plan.total_us, plan.count));
        out.inner("Mean depth cycle:  ", reply.last_depth);
    }
    let minutes = u64::try_from(reply.now_ms.saturating_sub(reply.since_ms)).unwrap_or(0) / 60_000;
    if let Some(plans) = reply.plans.checked_div(minutes) {
        out.inner("Cycles per minute: ", plans);
    }
    out.inner("Last queue length: ", reply.last_queue_length);
    out.line("");
}

fn push_backfill(out: &mut Lines, reply: &v1::DiagnoseReply, last: &str) {
    let backfill = phase(reply, "backfill").cloned().unwrap_or_default();
    out.line("Backfilling stats");
    out.inner("Total backfilled jobs (since last slurm start): ", reply.backfilled);
    out.inner("Total backfilled jobs (since last stats cycle start): ", reply.backfilled);
    out.inner("Total backfilled heterogeneous job components: ", 0);
    out.inner("Total cycles: ", reply.full_plans);
    out.inner("Last cycle when: ", last);
    out.inner("Last cycle: ", backfill.last_us);
    out.inner("Max cycle:  ", backfill.max_us);
    if backfill.count > 0 {
        out.inner("Mean cycle: ", mean(backfill.total_us, backfill.count));
    }
    out.inner("Last depth cycle: ", reply.last_depth);
    out.inner("Last depth cycle (try sched): ", reply.backfilled_last);
    out.inner("Last queue length: ", reply.last_queue_length);
    out.inner("Last table size: ", reply.last_reservations);
    out.line("");
}

fn push_rpcs(out: &mut Lines, reply: &v1::DiagnoseReply, sort: SortBy) {
    let mut rpcs: Vec<&v1::RpcStatistics> = reply.rpcs.iter().collect();
    rpcs.sort_by(|a, b| a.method.cmp(&b.method));
    let average = |rpc: &v1::RpcStatistics| mean(rpc.total_us, rpc.count);
    match sort {
        SortBy::Name => {}
        SortBy::Count => rpcs.sort_by_key(|rpc| Reverse(rpc.count)),
        SortBy::Total => rpcs.sort_by_key(|rpc| Reverse(rpc.total_us)),
        SortBy::Average => rpcs.sort_by_key(|rpc| Reverse(average(rpc))),
    }
    out.line("Remote Procedure Call statistics by message type");
    // Calls here have names and no numbers.
    for rpc in rpcs {
        out.line(&format!(
            "\t{:<40}({:>5}) count:{:<6} ave_time:{:<6} total_time:{}",
            rpc.method,
            0,
            rpc.count,
            average(rpc),
            rpc.total_us
        ));
    }
    out.line("");
    out.line("Pending RPC statistics");
    out.line("\tNo pending RPCs");
}

/// Ours: what planning and storing cost.
fn push_phases(out: &mut Lines, reply: &v1::DiagnoseReply) {
    out.line("");
    out.line("Planning");
    out.inner(
        "Plans, of which whole, of which cut short: ",
        format!("{}, {}, {}", reply.plans, reply.full_plans, reply.plans_cut),
    );
    out.inner(
        "Last: jobs waiting, shapes, looked at, reservations in time, work: ",
        format!(
            "{}, {}, {}, {}, {}",
            reply.last_queue_length,
            reply.last_classes,
            reply.last_depth,
            reply.last_reservations,
            reply.last_work
        ),
    );
    out.inner(
        "Jobs backfilled, starts refused, jobs preempted: ",
        format!("{}, {}, {}", reply.backfilled, reply.refused_lines, reply.preempted),
    );
    out.inner(
        "Nodes, of which agents are connected: ",
        format!("{}, {}", reply.nodes, reply.agents_connected),
    );
    if reply.phases.is_empty() {
        return;
    }
    out.line("");
    out.line("Phases (microseconds)");
    out.line(&format!(
        "\t{:<16}{:>10}{:>12}{:>12}{:>12}{:>16}",
        "phase", "count", "last", "mean", "max", "total"
    ));
    for phase in &reply.phases {
        out.line(&format!(
            "\t{:<16}{:>10}{:>12}{:>12}{:>12}{:>16}",
            phase.name,
            phase.count,
            phase.last_us,
            mean(phase.total_us, phase.count),
            phase.max_us,
            phase.total_us
        ));
    }
    out.line("");
    out.line("Phases, how many took less than so many microseconds more than the class before");
    for phase in reply.phases.iter().filter(|phase| phase.histogram.iter().any(|n| *n > 0)) {
        let classes = phase.histogram.iter().enumerate().filter(|(_, count)| **count > 0);
        let classes: Vec<String> = classes
            .map(|(power, count)| match 1_u64.checked_shl(u32::try_from(power).unwrap_or(64)) {
                Some(below) => format!("<{below}: {count}"),
                None => format!("more: {count}"),
            })
            .collect();
        out.line(&format!("\t{:<16}{}", phase.name, classes.join("  ")));
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    fn reply() -> v1::DiagnoseReply {
        let phase = |name: &str, count, last_us, max_us, total_us| v1::Phase {
            name: name.into(),
            count,
            last_us,
            max_us,
            total_us,
            histogram: vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        };
        let rpc = |method: &str, count, total_us| v1::RpcStatistics {
            method: method.into(),
            count,
            total_us,
        };
        v1::DiagnoseReply {
            now_ms: 1_795_519_099_000,
            since_ms: 1_795_519_055_000,
            jobs_submitted: 8,
            jobs_started: 1,
            jobs_pending: 5,
            jobs_running: 1,
            agents_connected: 4,
            nodes: 4,
            plans: 2,
            full_plans: 1,
            last_queue_length: 5,
            last_classes: 4,
            last_depth: 3,
            phases: vec![phase("plan", 2, 619, 619, 642)],
            rpcs: vec![rpc("ListShares", 20, 1467), rpc("SubmitJob", 6, 2854)],
            ..v1::DiagnoseReply::default()
        }
    }

    fn shown(sort: SortBy) -> String {
        text(&reply(), sort, &Clock::new(TimeZone::UTC, None, 0))
    }

    #[test]
    fn blocks_are_slurms() {
        let text = shown(SortBy::Count);
        let expect = "\
*******************************************************
sdiag output at Tue Nov 24 11:18:19 2026 (1795519099)
Data since      Tue Nov 24 11:17:35 2026 (1795519055)
*******************************************************
Server thread count:  1
Agent queue size:     0
Agent count:          4
Agent thread count:   0
DBD Agent queue size: 0

Jobs submitted: 8
Jobs started:   1
Jobs completed: 0
Jobs canceled:  0
Jobs failed:    0

Job states ts:  Tue Nov 24 11:18:19 2026 (1795519099)
Jobs pending:   5
Jobs running:   1

Main schedule statistics (microseconds):
\tLast cycle:   619
\tMax cycle:    619
\tTotal cycles: 2
\tMean cycle:   321
\tMean depth cycle:  3
\tLast queue length: 5

Backfilling stats
\tTotal backfilled jobs (since last slurm start): 0
\tTotal backfilled jobs (since last stats cycle start): 0
\tTotal backfilled heterogeneous job components: 0
\tTotal cycles: 1
\tLast cycle when: N/A
\tLast cycle: 0
\tMax cycle:  0
\tLast depth cycle: 3
\tLast depth cycle (try sched): 0
\tLast queue length: 5
\tLast table size: 0

Remote Procedure Call statistics by message type
\tListShares                              (    0) count:20     ave_time:73     total_time:1467
\tSubmitJob                               (    0) count:6      ave_time:475    total_time:2854

Pending RPC statistics
\tNo pending RPCs
";
        assert!(text.starts_with(expect), "{text}");
        assert!(text.ends_with("\tplan            <512: 1  <1024: 1\n"), "{text}");
    }

    #[test]
    fn calls_are_sorted_on_request() {
        let first = |sort| shown(sort).find("ListShares") < shown(sort).find("SubmitJob");
        assert!(first(SortBy::Name));
        assert!(!first(SortBy::Total));
        assert!(!first(SortBy::Average));
    }
}
