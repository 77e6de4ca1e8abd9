//! `scontrol show step`: which steps run, and what do they have?

use penstock_proto::v1;
use penstock_vocab::{JobSelector, StepId, StepSelector, Walltime};

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;
use crate::listing::job_values::{files, identity, size};
use crate::listing::{
    Clock, Dialect, JobRow, Part, Render, StepRecord, has_batch_step, in_id_order, list_steps,
};
use crate::output::{note, print_line, write_bytes};

use super::record::Record;
use super::{FAILED, Flags};

/// Which steps are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    All,
    OfJob,
    One(StepId),
}

/// Prints the step `id`, the steps of a job, or every running one.
pub(super) fn show(
    client: &Client,
    id: Option<&str>,
    flags: Flags,
    clock: &Clock,
) -> Result<i32, RemoteError> {
    let Some((selector, wanted)) = read(id) else {
        note("slurm_get_job_steps error: Invalid job id specified");
        return Ok(FAILED);
    };
    let filter = v1::JobFilter { selectors: selector.into_iter().collect(), ..Default::default() };
    let request = v1::ListJobsRequest {
        filter: Some(filter.clone()),
        all_states: false,
        full: true,
        expand_arrays: false,
    };
    let replies = client.collect(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_jobs(request).await }
    })?;
    let infos: Vec<&v1::JobInfo> = replies.iter().flat_map(|reply| &reply.jobs).collect();
    if infos.is_empty() && id.is_some() {
        note("slurm_get_job_steps error: Invalid job id specified");
        return Ok(FAILED);
    }
    let steps = list_steps(client, filter, false)?;
    let rows = rows(&infos, &steps, &wanted, clock);
    if rows.is_empty() {
        return Ok(none(id));
    }
    let text: String = rows.iter().map(|row| record(row, flags, clock)).collect();
    write_bytes(text.as_bytes());
    Ok(0)
}

fn none(id: Option<&str>) -> i32 {
    match id {
        Some(id) => {
            print_line(&format!("Job step {id} not found"));
            FAILED
        }
        None => {
            print_line("No job steps in the system");
            0
        }
    }
}

/// The job to ask for and which of its steps; `None`: neither a job nor a step.
fn read(id: Option<&str>) -> Option<(Option<String>, Wanted)> {
    let Some(id) = id else { return Some((None, Wanted::All)) };
    if let Some((job, _)) = id.split_once('.') {
        let step = id.parse::<StepSelector>().ok()?;
        return Some((Some(job.to_owned()), Wanted::One(step.step)));
    }
    id.parse::<JobSelector>().ok()?;
    Some((Some(id.to_owned()), Wanted::OfJob))
}

/// Batch steps come before those of srun, job by job.
fn rows<'a>(
    infos: &[&'a v1::JobInfo],
    steps: &'a [StepRecord],
    wanted: &Wanted,
    clock: &Clock,
) -> Vec<JobRow<'a>> {
    let mut rows = Vec::new();
    for info in infos {
        let row = JobRow::live(info, clock.now_ms());
        if row.run.is_none_or(|run| run.end_ms != 0) {
            continue;
        }
        if has_batch_step(&row) && wanted.is(StepId::Batch) {
            rows.push(row.with_part(Part::Batch));
        }
        let own = steps.iter().filter(|step| {
            step.step().job_id == row.job.id && step.step().end_ms == 0 && wanted.is(step.id())
        });
        rows.extend(own.map(|step| row.with_step(step)));
    }
    rows
}

impl Wanted {
    fn is(&self, step: StepId) -> bool {
        match self {
            Self::All | Self::OfJob => true,
            Self::One(wanted) => *wanted == step,
        }
    }
}

fn record(row: &JobRow<'_>, flags: Flags, clock: &Clock) -> String {
    let render = Render::new(Dialect::Record, clock);
    let spec = row.step.and_then(|step| step.step().spec.as_ref());
    let limit = row.step.map_or(0, |step| step.step().time_limit_secs);
    let limit = if limit == 0 { Walltime::Unlimited } else { Walltime::Limited(limit) };
    let mut start = String::new();
    clock.push(&mut start, row.start_ms());
    let mut record = Record::new(flags.oneline);
    record.push(&format!(
        "StepId={} UserId={} StartTime={start} TimeLimit={limit}",
        render.text(&identity::array_id(row)),
        row.job.uid
    ));
    record.line(&format!(
        "State={} Partition={} NodeList={}",
        render.text(&identity::accounted_state(row)),
        row.info.partition,
        render.text(&files::accounted_nodes(row))
    ));
    let cpus = if row.part == Part::Batch { 0 } else { size::cpu_count(row) };
    record.line(&format!(
        "Nodes={} CPUs={cpus} Tasks={} Name={} Network=(null)",
        render.text(&size::num_nodes(row)),
        render.text(&size::step_tasks(row)),
        render.text(&identity::name(row))
    ));
    let tres = row.step.map_or("", |step| &step.info.tres_allocated);
    record.line(&format!(
        "TRES={}",
        if tres.is_empty() { "(null)".to_owned() } else { in_id_order(tres) }
    ));
    record.line("ResvPorts=(null)");
    record.line("CPUFreqReq=Default");
    match spec {
        None => record.line("SrunHost:Pid=(null):0"),
        Some(spec) => {
            if !spec.distribution.is_empty() {
                record.push(&format!(" Dist={}", distribution(&spec.distribution)));
            }
            record.line(&format!("SrunHost:Pid={}:{}", spec.srun_host, spec.srun_pid));
        }
    }
    record.finish()
}

/// `block:cyclic` as Slurm prints it: `Block`, `Cyclic`, with what follows in small letters.
fn distribution(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use penstock_vocab::JobState;

    use crate::listing::testing::{START, job};

    use super::*;

    #[test]
    fn records_are_slurms() {
        let info = job(1).running("node1").build();
        let share =
            v1::NodeShare { node: "node1".into(), cpu_ranges: vec![0, 1], ..Default::default() };
        let step = StepRecord::new(v1::StepInfo {
            step: Some(v1::Step {
                job_id: 1,
                spec: Some(v1::StepSpec {
                    name: "sleep".into(),
                    distribution: "cyclic".into(),
                    srun_host: "vm".into(),
                    srun_pid: 9485,
                    ..Default::default()
                }),
                start_ms: START,
                state: JobState::Running.code(),
                shares: vec![v1::StepShare {
                    share: Some(share),
                    tasks: vec![0],
                    ..Default::default()
                }],
                ..Default::default()
            }),
            nodelist: "node1".into(),
            tres_allocated: "cpu=2,mem=100M,node=1".into(),
            ..Default::default()
        });
        let clock = Clock::new(TimeZone::UTC, None, START + 1000);
        let steps = [step];
        let rows = rows(&[&info], &steps, &Wanted::OfJob, &clock);
        let text: String = rows.iter().map(|row| record(row, Flags::default(), &clock)).collect();
        // As Slurm 22.05.8 printed them.
        assert_eq!(
            text,
            "\
StepId=1.batch UserId=0 StartTime=2026-11-24T08:05:49 TimeLimit=UNLIMITED
   State=RUNNING Partition=main NodeList=node1
   Nodes=1 CPUs=0 Tasks=1 Name=batch Network=(null)
   TRES=(null)
   ResvPorts=(null)
   CPUFreqReq=Default
   SrunHost:Pid=(null):0

StepId=1.0 UserId=0 StartTime=2026-11-24T08:05:49 TimeLimit=UNLIMITED
   State=RUNNING Partition=main NodeList=node1
   Nodes=1 CPUs=2 Tasks=1 Name=sleep Network=(null)
   TRES=cpu=2,mem=100M,node=1
   ResvPorts=(null)
   CPUFreqReq=Default Dist=Cyclic
   SrunHost:Pid=vm:9485

"
        );
    }

    #[test]
    fn jobs_and_steps_are_told_apart() {
        assert_eq!(read(None), Some((None, Wanted::All)));
        assert_eq!(read(Some("7")), Some((Some("7".into()), Wanted::OfJob)));
        let step = Wanted::One(StepId::Number(0));
        assert_eq!(read(Some("7_1.0")), Some((Some("7_1".into()), step)));
        assert_eq!(read(Some("foo")), None);
        assert_eq!(read(Some("7.foo")), None);
    }
}
