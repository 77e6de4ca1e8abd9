//! What stands in a line about a GPU, or a slice of one?

use std::fmt::Write as _;

use penstock_proto::v1;

/// One line's words; the last two are shown on wish.
type Row = [String; 12];

const HEADER: [&str; 12] = [
    "NODE", "GPU", "TYPE", "STATE", "MEMORY", "USED", "UTIL", "POWER", "JOB", "HEALTH", "PCI",
    "UUID",
];

/// How many columns are shown without UUIDs.
const SHORT: usize = 10;

/// What is not known; 0 is something else.
const UNKNOWN: &str = "-";

/// The table; empty if there is no GPU. A GPU that is cut has a line, and each of its slices one
/// below it.
pub(super) fn table(nodes: &[&v1::NodeInfo], long: bool, header: bool) -> String {
    let mut rows: Vec<Row> = Vec::new();
    for info in nodes {
        let node = info.node.clone().unwrap_or_default();
        let inventory = node.inventory.unwrap_or_default();
        for gpu in &inventory.gpus {
            let told = info.gpus.iter().find(|told| told.index == gpu.index);
            let told = told.cloned().unwrap_or_default();
            rows.push(of_gpu(&node.name, gpu, &told));
            rows.extend(gpu.slices.iter().map(|slice| of_slice(&node.name, gpu, slice, &told)));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    if header {
        rows.insert(0, HEADER.map(str::to_owned));
    }
    let shown = if long { HEADER.len() } else { SHORT };
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..shown).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (word, width) in row.iter().zip(&widths) {
            write!(line, "{word:<width$}  ").expect("writing to a String cannot fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Why nodes tell of no GPUs, one line each.
pub(super) fn problems(nodes: &[&v1::NodeInfo]) -> Vec<String> {
    let problem = |info: &&v1::NodeInfo| {
        let node = info.node.clone()?;
        let why = node.inventory?.gpu_error;
        (!why.is_empty()).then(|| format!("{}: {why}", node.name))
    };
    nodes.iter().filter_map(problem).collect()
}

fn of_gpu(node: &str, gpu: &v1::Gpu, told: &v1::GpuInfo) -> Row {
    let sample = told.samples.iter().find(|sample| sample.gi.is_none());
    let whole = told.holders.iter().filter(|holder| holder.start.is_none());
    let cut = gpu.mig() == v1::MigMode::On;
    // What is cut is held slice by slice.
    let holders = if cut { String::new() } else { held_by(whole) };
    [
        node.to_owned(),
        gpu.index.to_string(),
        if gpu.r#type.is_empty() { UNKNOWN.to_owned() } else { gpu.r#type.clone() },
        state(told, cut),
        gib(gpu.memory_mib),
        used(sample),
        util(sample),
        power(sample),
        holders,
        health(gpu, told),
        gpu.pci.clone(),
        gpu.uuid.clone(),
    ]
}

fn of_slice(node: &str, gpu: &v1::Gpu, slice: &v1::MigSlice, told: &v1::GpuInfo) -> Row {
    let sample = told.samples.iter().find(|sample| sample.gi == Some(slice.gi));
    let holders: Vec<_> =
        told.holders.iter().filter(|holder| holder.start == Some(slice.start)).collect();
    let state = if holders.is_empty() { "IDLE" } else { "ALLOCATED" };
    [
        node.to_owned(),
        format!("{}:{}", gpu.index, slice.start),
        slice.profile.clone(),
        state.to_owned(),
        gib(slice.memory_mib),
        used(sample),
        util(sample),
        // Power is the board's.
        UNKNOWN.to_owned(),
        held_by(holders.into_iter()),
        String::new(),
        gpu.pci.clone(),
        slice.uuid.clone(),
    ]
}

fn state(told: &v1::GpuInfo, cut: bool) -> String {
    let state = if told.state.is_empty() { UNKNOWN } else { &told.state };
    if cut { format!("{state}+MIG") } else { state.to_owned() }
}

fn held_by<'a>(holders: impl Iterator<Item = &'a v1::GpuHolder>) -> String {
    let one = |holder: &v1::GpuHolder| {
        let shards = match holder.shards {
            0 => String::new(),
            shards => format!(" {shards} shard(s)"),
        };
        format!("{} {}{shards}", holder.job_id, holder.user_name)
    };
    holders.map(one).collect::<Vec<_>>().join(", ")
}

fn health(gpu: &v1::Gpu, told: &v1::GpuInfo) -> String {
    match (&told.drain, gpu.fault.is_empty()) {
        (Some(drain), false) if !drain.reason.contains(&gpu.fault) => {
            format!("drained: {}; {}", drain.reason, gpu.fault)
        }
        (Some(drain), _) => format!("drained: {}", drain.reason),
        (None, false) => gpu.fault.clone(),
        (None, true) if gpu.fake => "ok (fake)".to_owned(),
        (None, true) => "ok".to_owned(),
    }
}

/// GiB with one digit, rounded down.
fn gib(mib: u64) -> String {
    let tenths = mib * 10 / 1024;
    format!("{}.{}G", tenths / 10, tenths % 10)
}

fn used(sample: Option<&v1::GpuSample>) -> String {
    let used = sample.and_then(|sample| sample.memory_used_mib);
    used.map_or_else(|| UNKNOWN.to_owned(), gib)
}

fn util(sample: Option<&v1::GpuSample>) -> String {
    let percent = sample.and_then(|sample| sample.utilization);
    percent.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{percent}%"))
}

fn power(sample: Option<&v1::GpuSample>) -> String {
    let watts = sample.and_then(|sample| sample.power_mw);
    watts.map_or_else(|| UNKNOWN.to_owned(), |power| format!("{}W", power / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> v1::NodeInfo {
        let gpu = |index: u32| v1::Gpu {
            index,
            r#type: "h100".to_owned(),
            uuid: format!("GPU-{index}"),
            pci: "0000:1b:00.0".to_owned(),
            memory_mib: 81_559,
            fake: index == 0,
            ..v1::Gpu::default()
        };
        let slice = |start: u32| v1::MigSlice {
            uuid: format!("MIG-{start}"),
            profile: "1g.10gb".to_owned(),
            gi: start + 7,
            start,
            memory_mib: 9_984,
            ..v1::MigSlice::default()
        };
        let cut =
            v1::Gpu { mig: v1::MigMode::On.into(), slices: vec![slice(0), slice(1)], ..gpu(1) };
        let bad = v1::Gpu { fault: "lost: it has fallen off the bus".to_owned(), ..gpu(2) };
        let holder = |job_id: u32, start: Option<u32>| v1::GpuHolder {
            job_id,
            user_name: "ann".to_owned(),
            start,
            ..v1::GpuHolder::default()
        };
        let sample = |gi: Option<u32>, utilization: Option<u32>| v1::GpuSample {
            gi,
            utilization,
            memory_used_mib: Some(2_048),
            power_mw: gi.is_none().then_some(300_500),
            ..v1::GpuSample::default()
        };
        let told = |index: u32, state: &str| v1::GpuInfo {
            index,
            state: state.to_owned(),
            ..v1::GpuInfo::default()
        };
        let first = v1::GpuInfo {
            holders: vec![holder(7, None)],
            samples: vec![sample(None, Some(93))],
            ..told(0, "ALLOCATED")
        };
        let second = v1::GpuInfo {
            holders: vec![holder(8, Some(1))],
            samples: vec![sample(None, None), sample(Some(8), Some(0))],
            ..told(1, "MIXED")
        };
        let inventory = v1::Inventory {
            gpus: vec![gpu(0), cut, bad],
            gpu_error: "probe_lost: it ended".to_owned(),
            ..v1::Inventory::default()
        };
        v1::NodeInfo {
            node: Some(v1::Node {
                name: "n1".to_owned(),
                inventory: Some(inventory),
                ..v1::Node::default()
            }),
            gpus: vec![first, second, told(2, "IDLE")],
            ..v1::NodeInfo::default()
        }
    }

    #[test]
    fn gpus_and_slices_stand_in_columns() {
        let node = node();
        let expect = "\
NODE  GPU  TYPE     STATE      MEMORY  USED  UTIL  POWER  JOB    HEALTH
n1    0    h100     ALLOCATED  79.6G   2.0G  93%   300W   7 ann  ok (fake)
n1    1    h100     MIXED+MIG  79.6G   2.0G  -     300W          ok
n1    1:0  1g.10gb  IDLE       9.7G    -     -     -
n1    1:1  1g.10gb  ALLOCATED  9.7G    2.0G  0%    -      8 ann
n1    2    h100     IDLE       79.6G   -     -     -             lost: it has fallen off the bus
";
        assert_eq!(table(&[&node], false, true), expect);
        let long = table(&[&node], true, false);
        assert!(long.starts_with("n1  0 ") && long.contains("0000:1b:00.0  MIG-1"), "{long}");
        assert_eq!(problems(&[&node]), ["n1: probe_lost: it ended"]);
        assert_eq!(table(&[&v1::NodeInfo::default()], false, true), "");
    }
}
