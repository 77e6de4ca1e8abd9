//! What does seff say of one job?

use penstock_proto::v1;
use penstock_vocab::JobState;

use super::gpus;
use super::used::Used;
use crate::listing::JobRow;

/// Of the CPUs less than so many percent is worth a word.
const LOW_CPU_PERCENT: u64 = 50;
/// Of the memory.
const LOW_MEMORY_PERCENT: u64 = 50;
/// Less memory is not advised, MiB: a shell and what it loads need some.
const LEAST_MIB: u64 = 64;
/// Shorter runs say little, seconds.
const SHORT_SECS: u64 = 60;

/// The report, with its last newline; `live`: what parts of running jobs use now.
pub(super) fn report(
    info: &v1::JobInfo,
    live: &[v1::StatPart],
    cluster: &str,
    now_ms: i64,
) -> String {
    let row = JobRow::accounted(info, now_ms);
    let mut out = String::new();
    head(&mut out, info, &row, cluster);
    let Some(run) = row.run else {
        out.push_str("It has not run yet, so that nothing was used.\n");
        return out;
    };
    let running = run.end_ms == 0;
    let cores = u64::from(info.num_cpus.max(1));
    let wall = row.used_secs();
    let used = Used::of(info, run, live);
    cpus(&mut out, info, &used, cores, wall);
    memory(&mut out, info, &used);
    let usage = gpus::of(info, run);
    gpus::lines(&mut out, &usage, gpus_held(run));
    if running {
        out.push_str("WARNING: Efficiency statistics may be misleading for RUNNING jobs.\n");
    }
    let advice = advice(info, run, &used, wall, &usage);
    if !advice.is_empty() {
        out.push_str("Advice:\n");
        advice.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
    }
    out
}

fn head(out: &mut String, info: &v1::JobInfo, row: &JobRow<'_>, cluster: &str) {
    let job = row.job;
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("Job ID: {}", job.id));
    if let Some(task) = job.array_task_id {
        line(format!("Array Job ID: {}_{task}", job.array_job_id));
    }
    line(format!("Cluster: {cluster}"));
    line(format!("User/Group: {}/{}", info.user_name, info.group_name));
    let state = row.base_state();
    let exit = row.exit_code();
    match state {
        JobState::Pending | JobState::Running | JobState::Suspended => {
            line(format!("State: {}", state.name()));
        }
        _ => line(format!("State: {} (exit code {})", state.name(), exit.status)),
    }
    if let Some(fault) = row.run.map(|run| &run.gpu_fault).filter(|fault| !fault.is_empty()) {
        line(format!("GPU fault: {fault}"));
    }
}

fn cpus(out: &mut String, info: &v1::JobInfo, used: &Used, cores: u64, wall: u64) {
    let nodes = u64::from(info.num_nodes.max(1));
    let shape = if cores == 1 {
        "Cores: 1".to_owned()
    } else {
        format!("Nodes: {nodes}\nCores per node: {}", cores / nodes)
    };
    out.push_str(&shape);
    out.push('\n');
    let core_wall = cores.saturating_mul(wall);
    match used.cpu_usec {
        Some(usec) => {
            let secs = usec / 1_000_000;
            let percent = hundredths(secs, core_wall);
            out.push_str(&format!("CPU Utilized: {}", duration(secs)));
            out.push('\n');
            out.push_str(&format!(
                "CPU Efficiency: {percent}% of {} core-walltime",
                duration(core_wall)
            ));
            out.push('\n');
        }
        None => out.push_str("CPU Utilized: unknown\n"),
    }
    out.push_str(&format!("Job Wall-clock time: {}", duration(wall)));
    out.push('\n');
}

fn memory(out: &mut String, info: &v1::JobInfo, used: &Used) {
    let asked = info.memory_mib.saturating_mul(1 << 20);
    match used.memory_bytes {
        Some(peak) => {
            let estimated = if used.estimated { " (estimated maximum)" } else { "" };
            out.push_str(&format!("Memory Utilized: {}{estimated}", size(peak)));
            out.push('\n');
            let percent = hundredths(peak, asked);
            if asked > 0 {
                out.push_str(&format!("Memory Efficiency: {percent}% of {}", size(asked)));
                out.push('\n');
            }
        }
        None => out.push_str("Memory Utilized: unknown\n"),
    }
}

/// GPUs and slices that the run held.
fn gpus_held(run: &v1::Run) -> u64 {
    let gres = run.shares.iter().flat_map(|share| &share.gres).filter(|gres| gres.name == "gpu");
    gres.map(|gres| gres.count.max(gres.ids.len() as u64)).sum()
}

/// What to ask for next time.
fn advice(
    info: &v1::JobInfo,
    run: &v1::Run,
    used: &Used,
    wall: u64,
    usage: &[v1::GpuUsage],
) -> Vec<String> {
    let mut lines = Vec::new();
    if wall >= SHORT_SECS {
        let cores = u64::from(info.num_cpus);
        let usec = used.cpu_usec.unwrap_or(0);
        let busy = usec / 1_000_000 / wall.max(1);
        if usec > 0 && cores > 1 && busy * 100 < cores * LOW_CPU_PERCENT {
            let enough = busy + 1;
            lines.push(format!("asked {cores} CPUs, {enough} would have done on average"));
        }
        if let Some(peak) = used.memory_bytes {
            let asked = info.memory_mib;
            let used_mib = peak.div_ceil(1 << 20);
            if asked > 1_024 && used_mib * 100 < asked * LOW_MEMORY_PERCENT {
                let enough = (used_mib + used_mib / 5).max(LEAST_MIB);
                lines.push(format!(
                    "asked {} of memory and used {}; --mem={enough}M leaves room",
                    size(asked << 20),
                    size(peak)
                ));
            }
        }
    }
    lines.extend(gpus::advice(usage, gpus_held(run)));
    lines
}

/// A part in percent with two places; `0.00` of nothing.
pub(super) fn hundredths(part: u64, whole: u64) -> String {
    let scaled = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02}", scaled / 100, scaled % 100)
}

/// `1-02:03:04`, days where there are some.
pub(super) fn duration(secs: u64) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}-{clock}") } else { clock }
}

/// `1.50 GB`, as seff writes sizes.
pub(super) fn size(bytes: u64) -> String {
    let (mut unit, mut scale) = ("B", 1u64);
    for (name, next) in [("KB", 1u64 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40)] {
        if bytes >= next {
            (unit, scale) = (name, next);
        }
    }
    let hundredths = u128::from(bytes) * 100 / u128::from(scale);
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
