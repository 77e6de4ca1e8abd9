//! What does seff say of a job's GPUs?

use penstock_proto::v1;

use super::text::{duration, hundredths, size};

/// A GPU that computed less than so many percent of the time was hardly used.
const LOW_PERCENT: u32 = 25;
/// What was seen of less than so many milliseconds says nothing.
const SHORT_MS: u64 = 60_000;

/// What is known of the GPUs: of a run that goes on what is measured now.
pub(super) fn of(info: &v1::JobInfo, run: &v1::Run) -> Vec<v1::GpuUsage> {
    if run.gpus.is_empty() { info.gpus.clone() } else { run.gpus.clone() }
}

/// The lines about `held` GPUs, none where there are none.
pub(super) fn lines(out: &mut String, usage: &[v1::GpuUsage], held: u64) {
    if held == 0 && usage.is_empty() {
        return;
    }
    let held = held.max(usage.len() as u64);
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let known: Vec<_> = usage.iter().filter(|gpu| gpu.utilization_mean.is_some()).collect();
    if known.is_empty() {
        line(format!("GPUs: {held}, utilization unknown"));
    } else {
        let idle = known.iter().filter(|gpu| never_used(gpu)).count();
        let unused = if idle > 0 { format!(", {idle} never used") } else { String::new() };
        let unknown = held.saturating_sub(known.len() as u64);
        let unseen = if unknown > 0 { format!(", {unknown} unknown") } else { String::new() };
        line(format!("GPUs: {held}{unused}{unseen}"));
        let seen: u64 = known.iter().map(|gpu| gpu.seen_ms).sum();
        let busy: u64 = known
            .iter()
            .map(|gpu| gpu.seen_ms.saturating_mul(gpu.utilization_mean.unwrap_or(0).into()) / 100)
            .sum();
        let percent = hundredths(busy, seen);
        line(format!("GPU Efficiency: {percent}% of {} GPU-time seen", duration(seen / 1_000)));
    }
    let energy = usage.iter().filter_map(|gpu| gpu.energy_mj).reduce(u64::saturating_add);
    if let Some(energy) = energy {
        line(format!("GPU Energy: {} J", energy / 1_000));
    }
    for gpu in usage {
        line(one(gpu));
    }
}

fn one(gpu: &v1::GpuUsage) -> String {
    let percent =
        |value: Option<u32>| value.map_or_else(|| "unknown".to_owned(), |v| format!("{v}%"));
    let mut text = format!("  {} {}", gpu.node, name(gpu));
    text.push_str(&format!(
        ": utilization mean {}, median {}, p95 {}",
        percent(gpu.utilization_mean),
        percent(gpu.utilization_p50),
        percent(gpu.utilization_p95)
    ));
    match gpu.peak_memory_mib {
        Some(peak) if gpu.memory_mib > 0 => {
            let (peak, all) = (size(peak << 20), size(gpu.memory_mib << 20));
            text.push_str(&format!("; memory {peak} of {all}"));
        }
        Some(peak) => {
            text.push_str(&format!("; memory {}", size(peak << 20)));
        }
        None => text.push_str("; memory unknown"),
    }
    text
}

/// `GPU 3 (h100)`, `GPU 3 slice 4 (3g.40gb)`.
fn name(gpu: &v1::GpuUsage) -> String {
    let kind = if gpu.r#type.is_empty() { String::new() } else { format!(" ({})", gpu.r#type) };
    match gpu.start {
        Some(start) => format!("GPU {} slice {start}{kind}", gpu.gpu),
        None => format!("GPU {}{kind}", gpu.gpu),
    }
}

fn never_used(gpu: &v1::GpuUsage) -> bool {
    gpu.seen_ms > 0 && gpu.idle_ms == Some(gpu.seen_ms)
}

/// What to ask for next time; nothing from what is unknown.
pub(super) fn advice(usage: &[v1::GpuUsage], held: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let enough = |gpu: &&v1::GpuUsage| gpu.utilization_mean.is_some() && gpu.seen_ms >= SHORT_MS;
    let seen: Vec<_> = usage.iter().filter(enough).collect();
    let unused = seen.iter().filter(|gpu| never_used(gpu)).count() as u64;
    let held = held.max(usage.len() as u64);
    if unused > 0 {
        let were = if unused == 1 { "was" } else { "were" };
        let s = if held == 1 { "" } else { "s" };
        lines.push(format!("asked {held} GPU{s}, {unused} {were} never used"));
        let empty = seen.iter().filter(|gpu| gpu.empty_ms.is_some_and(|ms| ms == gpu.seen_ms));
        let empty = empty.count();
        if empty > 0 {
            lines.push(format!("on {empty} of them no process ever ran"));
        }
    }
    let used: Vec<_> = seen.iter().filter(|gpu| !never_used(gpu)).collect();
    let low = used.iter().all(|gpu| gpu.utilization_mean.unwrap_or(100) < LOW_PERCENT);
    let whole = used.iter().all(|gpu| gpu.start.is_none());
    if low && whole && !used.is_empty() {
        let peak = used.iter().filter_map(|gpu| gpu.peak_memory_mib).max();
        let mean = used.iter().filter_map(|gpu| gpu.utilization_mean).max().unwrap_or(0);
        let memory = peak.map_or_else(String::new, |peak| format!("peak {}, ", size(peak << 20)));
        lines.push(format!("{memory}at most {mean}% busy on average: a smaller slice would do"));
    }
    lines
}
