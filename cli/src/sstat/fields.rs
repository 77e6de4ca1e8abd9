//! Which columns does a format of sstat ask for, and what stands in them?

use std::borrow::Cow;

use penstock_proto::v1;
use penstock_vocab::{Measure, StepId};

use crate::listing::{Stats, TableColumn, Value, Way, Which};

/// A step, or with `-i` its part on one node.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) part: &'a v1::StatPart,
    pub(super) id: StepId,
    pub(super) nodes: &'a [v1::StatNode],
    pub(super) nodelist: &'a str,
    pub(super) stats: Stats<'a>,
}

type FieldValue = for<'a> fn(&Row<'a>) -> Value<'a>;

/// A column and where its value comes from.
#[derive(Clone)]
pub(super) struct Field {
    /// Name and width.
    pub(super) column: TableColumn,
    /// The value.
    pub(super) value: FieldValue,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Field").field("column", &self.column).finish_non_exhaustive()
    }
}

/// sstat's columns when none are named.
pub(super) const DEFAULT: &str = "jobid,maxvmsize,maxvmsizenode,maxvmsizetask,avevmsize,maxrss,\
    maxrssnode,maxrsstask,averss,maxpages,maxpagesnode,maxpagestask,avepages,mincpu,mincpunode,\
    mincputask,avecpu,ntasks,avecpufreq,reqcpufreqmin,reqcpufreqmax,reqcpufreqgov,consumedenergy,\
    maxdiskread,maxdiskreadnode,maxdiskreadtask,avediskread,maxdiskwrite,maxdiskwritenode,\
    maxdiskwritetask,avediskwrite,tresusageinave,tresusageinmax,tresusageinmaxnode,\
    tresusageinmaxtask,tresusageinmin,tresusageinminnode,tresusageinmintask,tresusageintot,\
    tresusageoutave,tresusageoutmax,tresusageoutmaxnode,tresusageoutmaxtask,tresusageoutmin,\
    tresusageoutminnode,tresusageoutmintask,tresusageouttot";

/// Those of `-i`.
pub(super) const PIDS: &str = "jobid,nodelist,pids";

/// A number over all tasks.
macro_rules! number {
    ($which:ident, $measure:ident, $show:expr) => {
        |row| row.stats.get(Which::$which, Measure::$measure).map_or(Value::Empty, $show)
    };
}

/// The node of the highest or the lowest.
macro_rules! node {
    ($which:ident, $measure:ident) => {
        |row| {
            let found = row.stats.extreme(Which::$which, Measure::$measure);
            found.map_or(Value::Empty, |found| Value::word(found.node))
        }
    };
}

/// Its task.
macro_rules! task {
    ($which:ident, $measure:ident) => {
        |row| {
            let found = row.stats.extreme(Which::$which, Measure::$measure);
            found.map_or(Value::Empty, |found| Value::number(found.task))
        }
    };
}

fn secs(usec: u64) -> Value<'static> {
    Value::Elapsed(usec / 1_000_000)
}

fn joules(millijoules: u64) -> Value<'static> {
    Value::Joules(millijoules / 1_000)
}

fn step(row: &Row<'_>) -> Value<'static> {
    Value::Word(Cow::Owned(format!("{}.{}", row.part.job_id, row.id)))
}

fn pids(row: &Row<'_>) -> Value<'static> {
    let pids = row.nodes.iter().flat_map(|node| &node.pids).map(ToString::to_string);
    Value::Word(Cow::Owned(pids.collect::<Vec<_>>().join(",")))
}

/// Nobody asks for one; Slurm says 0 of batch scripts.
fn frequency<'a>(row: &Row<'a>) -> Value<'a> {
    if row.id == StepId::Batch { Value::Number(0) } else { Value::word("Unknown") }
}

/// Every field, in Slurm's order: the first that begins as typed is meant.
#[rustfmt::skip] // One line a field, so that the table can be read as one.
const FIELDS: &[(&str, i16, FieldValue)] = &[
    ("AveCPU", 10, number!(Mean, Cpu, secs)),
    ("AveCPUFreq", 10, |_| Value::Empty),
    ("AveDiskRead", 12, number!(Mean, Read, Value::Count)),
    ("AveDiskWrite", 12, number!(Mean, Written, Value::Count)),
    ("AvePages", 10, number!(Mean, Pages, Value::Count)),
    ("AveRSS", 10, number!(Mean, Rss, Value::Bytes)),
    ("AveVMSize", 10, number!(Mean, VmSize, Value::Bytes)),
    ("ConsumedEnergy", 14, number!(Total, Energy, joules)),
    ("ConsumedEnergyRaw", 17, number!(Total, Energy, |energy| Value::number(energy / 1_000))),
    ("JobID", -12, |row| step(row)),
    ("MaxDiskRead", 12, number!(Max, Read, Value::Count)),
    ("MaxDiskReadNode", 15, node!(Max, Read)),
    ("MaxDiskReadTask", 15, task!(Max, Read)),
    ("MaxDiskWrite", 12, number!(Max, Written, Value::Count)),
    ("MaxDiskWriteNode", 16, node!(Max, Written)),
    ("MaxDiskWriteTask", 16, task!(Max, Written)),
    ("MaxPages", 8, number!(Max, Pages, Value::Count)),
    ("MaxPagesNode", 12, node!(Max, Pages)),
    ("MaxPagesTask", 14, task!(Max, Pages)),
    ("MaxRSS", 10, number!(Max, Rss, Value::Bytes)),
    ("MaxRSSNode", 10, node!(Max, Rss)),
    ("MaxRSSTask", 10, task!(Max, Rss)),
    ("MaxVMSize", 10, number!(Max, VmSize, Value::Bytes)),
    ("MaxVMSizeNode", 14, node!(Max, VmSize)),
    ("MaxVMSizeTask", 14, task!(Max, VmSize)),
    ("MinCPU", 10, number!(Min, Cpu, secs)),
    ("MinCPUNode", 10, node!(Min, Cpu)),
    ("MinCPUTask", 10, task!(Min, Cpu)),
    ("Nodelist", 20, |row| Value::word(row.nodelist)),
    ("NTasks", 8, |row| Value::number(row.part.tasks)),
    ("Pids", 20, |row| pids(row)),
    ("ReqCPUFreq", 10, frequency),
    ("ReqCPUFreqMin", 13, frequency),
    ("ReqCPUFreqMax", 13, frequency),
    ("ReqCPUFreqGov", 13, frequency),
    ("TRESUsageInAve", 14, |row| row.stats.amounts(Way::In, Which::Mean)),
    ("TRESUsageInMax", 14, |row| row.stats.amounts(Way::In, Which::Max)),
    ("TRESUsageInMaxNode", 18, |row| row.stats.nodes(Way::In, Which::Max)),
    ("TRESUsageInMaxTask", 18, |row| row.stats.tasks(Way::In, Which::Max)),
    ("TRESUsageInMin", 14, |row| row.stats.amounts(Way::In, Which::Min)),
    ("TRESUsageInMinNode", 18, |row| row.stats.nodes(Way::In, Which::Min)),
    ("TRESUsageInMinTask", 18, |row| row.stats.tasks(Way::In, Which::Min)),
    ("TRESUsageInTot", 14, |row| row.stats.amounts(Way::In, Which::Total)),
    ("TRESUsageOutAve", 15, |row| row.stats.amounts(Way::Out, Which::Mean)),
    ("TRESUsageOutMax", 15, |row| row.stats.amounts(Way::Out, Which::Max)),
    ("TRESUsageOutMaxNode", 19, |row| row.stats.nodes(Way::Out, Which::Max)),
    ("TRESUsageOutMaxTask", 19, |row| row.stats.tasks(Way::Out, Which::Max)),
    ("TRESUsageOutMin", 15, |row| row.stats.amounts(Way::Out, Which::Min)),
    ("TRESUsageOutMinNode", 19, |row| row.stats.nodes(Way::Out, Which::Min)),
    ("TRESUsageOutMinTask", 19, |row| row.stats.tasks(Way::Out, Which::Min)),
    ("TRESUsageOutTot", 15, |row| row.stats.amounts(Way::Out, Which::Total)),
];

/// Reads `name[%[-]width],...`; names may be cut short.
///
/// # Errors
/// With the name that no field begins with.
pub(super) fn parse(format: &str) -> Result<Vec<Field>, String> {
    /// Widest column; more would only waste memory.
    const MAX: i64 = 4096;
    let words = format.split(',').map(str::trim).filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (name, width) = match word.split_once('%') {
                Some((name, width)) => (name, width.trim().parse::<i64>().unwrap_or(0)),
                None => (word, 0),
            };
            let begins = |known: &str| {
                known.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
            };
            let found = FIELDS.iter().find(|(known, ..)| begins(known));
            let (name, own, value) = found.ok_or_else(|| name.to_owned())?;
            let width = i16::try_from(width.clamp(-MAX, MAX)).unwrap_or(0);
            let width = if width == 0 { *own } else { width };
            Ok(Field { column: TableColumn { name, width }, value: *value })
        })
        .collect()
}

/// All names, four in a line, as `--helpformat` shows them.
pub(super) fn help() -> String {
    let mut out = String::new();
    for line in FIELDS.chunks(4) {
        let names: Vec<String> = line.iter().map(|(name, ..)| format!("{name:<19}")).collect();
        out.push_str(&names.join(" "));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use penstock_proto::usage::task_usage_to_wire;
    use penstock_vocab::{Spread, TaskUsage};

    use super::*;
    use crate::listing::{Clock, Dialect, Render, Units};

    #[test]
    fn names_may_be_cut_short_and_have_a_width() {
        let names = |format: &str| {
            let fields = parse(format).unwrap();
            let shown: Vec<_> = fields.iter().map(|it| (it.column.name, it.column.width)).collect();
            shown
        };
        assert_eq!(
            names("jobid%20,MAXRSS%5,pids%-8"),
            [("JobID", 20), ("MaxRSS", 5), ("Pids", -8)]
        );
        // The first that begins so.
        assert_eq!(names("max, n,avecpu"), [("MaxDiskRead", 12), ("Nodelist", 20), ("AveCPU", 10)]);
        assert_eq!(parse("jobid,foo").unwrap_err(), "foo");
        assert!(
            help().ends_with("\nTRESUsageOutMinNode TRESUsageOutMinTask TRESUsageOutTot    \n")
        );
    }

    /// The line that Slurm printed for a step of two nodes, with the numbers that it had.
    #[test]
    fn a_step_is_shown_as_slurm_showed_it() {
        let node = |name: &str, task: u32, rss: u64, cpu: u64| {
            let mut tasks = TaskUsage::of(1);
            for (measure, value) in [
                (Measure::Cpu, cpu),
                (Measure::Rss, rss << 10),
                (Measure::VmSize, 36_100 << 10),
                (Measure::Pages, 0),
                (Measure::Read, 1_353_169),
                (Measure::Written, 52_431_594),
            ] {
                tasks.set(measure, Some(Spread::of(task, value)));
            }
            let usage = v1::Usage { tasks: task_usage_to_wire(&tasks), ..v1::Usage::default() };
            v1::StatNode {
                node: name.into(),
                tasks: 1,
                usage: Some(usage),
                pids: vec![20_538 - 2 * task],
                ..v1::StatNode::default()
            }
        };
        let part = v1::StatPart {
            job_id: 1,
            step: 0,
            tasks: 2,
            nodelist: "node[1-2]".into(),
            nodes: vec![node("node1", 0, 32_976, 1_990_000), node("node2", 1, 32_736, 1_980_000)],
            ..v1::StatPart::default()
        };
        let nodes = part.nodes.iter().map(|node| (&*node.node, node.usage.as_ref().unwrap()));
        let row = Row {
            part: &part,
            id: StepId::Number(0),
            nodes: &part.nodes,
            nodelist: &part.nodelist,
            stats: Stats::of(nodes),
        };
        let clock = Clock::new(jiff::tz::TimeZone::UTC, None, 0);
        let show = |format: &str, units: Units| {
            let render = Render { dialect: Dialect::Accounting, clock: &clock, units };
            let fields = parse(format).unwrap();
            let texts = fields.iter().map(|field| render.text(&(field.value)(&row)));
            texts.collect::<Vec<_>>().join("|")
        };
        let format = "jobid,maxvmsize,maxvmsizenode,maxrss,maxrssnode,maxrsstask,averss,maxpages,\
                      mincpu,mincpunode,mincputask,avecpu,ntasks,maxdiskread,maxdiskreadtask,\
                      avediskwrite,nodelist,pids";
        assert_eq!(
            show(format, Units::Exact),
            "1.0|36100K|node1|32976K|node1|0|32856K|0|00:00:01|node2|1|00:00:01|2|1353169|0|\
             52431594|node[1-2]|20538,20536"
        );
        assert_eq!(show("maxrss,averss,maxvmsize", Units::Raw), "33767424|33644544|36966400");
        // Energy that nobody measured is left out.
        assert_eq!(
            show(
                "tresusageinave,tresusageintot,tresusageinminnode,tresusageinmintask",
                Units::Exact
            ),
            "cpu=00:00:01,fs/disk=1353169,mem=32856K,pages=0,vmem=36100K|\
             cpu=00:00:03,fs/disk=2706338,mem=65712K,pages=0,vmem=72200K|\
             cpu=node2,fs/disk=node1,mem=node2,pages=node1,vmem=node1|\
             cpu=1,fs/disk=0,mem=1,pages=0,vmem=0"
        );
        assert_eq!(
            show("tresusageoutmax,tresusageoutmaxtask", Units::Exact),
            "fs/disk=52431594|fs/disk=0"
        );
        assert_eq!(show("avecpufreq,consumedenergy,reqcpufreq", Units::Exact), "||Unknown");
    }
}
