//! `scontrol show job`: everything about one job, all tasks of an array, or every job.

use penstock_proto::v1;
use penstock_vocab::JobSelector;

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;
use crate::listing::job_values::{files, identity, size, times};
use crate::listing::{
    Clock, Dialect, JobRow, Part, Render, Value, derived_exit, first_index, indices,
    list_limit_from_env, live_exit_code, push_ranges, share_text,
};
use crate::output::{note, print_line, write_bytes};

use super::record::Record;
use super::{FAILED, Flags};

/// Prints the job or task `id`, or all.
pub(super) fn show(
    client: &Client,
    id: Option<&str>,
    flags: Flags,
    clock: &Clock,
) -> Result<i32, RemoteError> {
    let selector = match id.map(|id| id.parse::<JobSelector>().map_err(|_| id)) {
        None => None,
        Some(Ok(selector)) => Some(selector),
        Some(Err(_)) => {
            note("scontrol_print_job error: Invalid job id specified");
            return Ok(FAILED);
        }
    };
    let selectors = id.into_iter().map(str::to_owned).collect();
    let filter = Some(v1::JobFilter { selectors, ..v1::JobFilter::default() });
    let request =
        v1::ListJobsRequest { filter, all_states: true, full: true, expand_arrays: false };
    let replies = client.collect(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_jobs(request).await }
    })?;
    let infos: Vec<&v1::JobInfo> = replies.iter().flat_map(|reply| &reply.jobs).collect();
    let rows = rows(&infos, selector.as_ref(), clock);
    if rows.is_empty() {
        return Ok(none(id, selector.as_ref()));
    }
    let text: String = rows.iter().map(|row| record(row, flags, clock)).collect();
    write_bytes(text.as_bytes());
    Ok(0)
}

/// What is said when there is nothing to show.
fn none(id: Option<&str>, selector: Option<&JobSelector>) -> i32 {
    match (id, selector) {
        (Some(id), Some(JobSelector::Task(..) | JobSelector::Tasks(..))) => {
            print_line(&format!("Job {id} not found"));
            FAILED
        }
        (Some(_), _) => {
            note("slurm_load_jobs error: Invalid job id specified");
            FAILED
        }
        (None, _) => {
            print_line("No jobs in the system");
            0
        }
    }
}

/// One row a record; of an array's rest the tasks that are meant, and the rest before its tasks.
fn rows<'a>(
    infos: &[&'a v1::JobInfo],
    selector: Option<&JobSelector>,
    clock: &Clock,
) -> Vec<JobRow<'a>> {
    let limit = list_limit_from_env();
    let mut rows = Vec::new();
    for info in infos {
        let mut row = JobRow::live(info, clock.now_ms());
        row.list_limit = limit;
        let tasks = row.pending_tasks();
        match (selector, tasks) {
            (Some(JobSelector::Task(_, wanted)), Some(tasks)) => {
                let meant = indices(tasks).filter(|task| *task == wanted.0);
                rows.extend(meant.map(|task| row.with_part(Part::Task(task))));
            }
            (Some(JobSelector::Tasks(_, wanted)), Some(tasks)) => {
                let meant = indices(tasks).filter(|task| wanted.contains(*task));
                rows.extend(meant.map(|task| row.with_part(Part::Task(task))));
            }
            (_, _) => rows.push(row),
        }
    }
    if selector.is_some() {
        let place = |row: &JobRow<'_>| match (row.part, row.pending_tasks()) {
            (Part::Whole, Some(tasks)) => (false, first_index(tasks)),
            _ => (true, row.task_id()),
        };
        rows.sort_by_key(place);
    }
    rows
}

/// Writes values in scontrol's dialect.
struct Words<'r> {
    render: Render<'r>,
}

impl Words<'_> {
    fn of(&self, value: &Value<'_>) -> String {
        self.render.text(value)
    }
}

fn record(row: &JobRow<'_>, flags: Flags, clock: &Clock) -> String {
    let words = Words { render: Render::new(Dialect::Record, clock) };
    let mut record = Record::new(flags.oneline);
    push_identity(&mut record, row, &words, flags);
    push_times(&mut record, row, &words);
    push_placement(&mut record, row, &words, flags);
    push_needs(&mut record, row, &words);
    push_files(&mut record, row, &words);
    record.finish()
}

fn push_identity(record: &mut Record, row: &JobRow<'_>, words: &Words<'_>, flags: Flags) {
    record.push(&format!("JobId={} ", row.job.id));
    if row.is_array() {
        let task = words.of(&identity::array_task(row));
        record.push(&format!("ArrayJobId={} ArrayTaskId={task} ", row.array_job_id()));
        if row.throttle() > 0 {
            record.push(&format!("ArrayTaskThrottle={} ", row.throttle()));
        }
    }
    record.push(&format!("JobName={}", row.spec.name));
    record.line(&format!(
        "UserId={}({}) GroupId={}({}) MCS_label=N/A",
        row.info.user_name, row.job.uid, row.info.group_name, row.job.gid
    ));
    record.line(&format!(
        "Priority={} Nice={} Account={} QOS={}{}",
        row.info.priority,
        row.spec.nice,
        words.of(&identity::account(row)),
        words.of(&identity::qos(row)),
        match row.spec.wckey.as_str() {
            "" => String::new(),
            wckey => format!(" WCKey={wckey}"),
        }
    ));
    record.line(&format!(
        "JobState={} Reason={} Dependency={}",
        words.of(&identity::state(row)),
        identity::reason_text(row).replace(' ', "_"),
        words.of(&identity::dependency(row))
    ));
    record.line(&format!(
        "Requeue={} Restarts={} BatchFlag=1 Reboot=0 ExitCode={}",
        words.of(&identity::requeue(row)),
        row.job.restarts,
        live_exit_code(row)
    ));
    if flags.details {
        record.line(&format!("DerivedExitCode={}", derived_exit(row)));
    }
}

fn push_times(record: &mut Record, row: &JobRow<'_>, words: &Words<'_>) {
    let eligible = words.of(&times::eligible_time(row));
    record.line(&format!(
        "RunTime={} TimeLimit={} TimeMin={}",
        words.of(&times::time_used(row)),
        words.of(&times::time_limit(row)),
        match row.spec.min_time_secs {
            None | Some(0) => "N/A".to_owned(),
            Some(_) => words.of(&times::time_min(row)),
        }
    ));
    record.line(&format!(
        "SubmitTime={} EligibleTime={eligible}",
        words.of(&times::submit_time(row))
    ));
    record.line(&format!("AccrueTime={}", words.of(&times::accrue_time(row))));
    record.line(&format!(
        "StartTime={} EndTime={} Deadline={}",
        words.of(&times::start_time(row)),
        words.of(&times::end_time(row)),
        match row.spec.deadline_ms {
            0 => "N/A".to_owned(),
            _ => words.of(&times::deadline(row)),
        }
    ));
    if let Some(cron) = &row.job.cron {
        record.line(&format!("CronJob=Yes CrontabSpec=\"{}\"", cron.spec));
    }
    let since = row.run.map_or(0, |run| run.suspended_since_ms);
    let (suspended, before) = match since {
        0 => ("None".to_owned(), 0),
        since => (words.of(&Value::Time(since)), row.used_secs()),
    };
    record.line(&format!(
        "SuspendTime={suspended} SecsPreSuspend={before} LastSchedEval={} Scheduler=Main",
        words.of(&times::last_evaluation(row))
    ));
}

fn push_placement(record: &mut Record, row: &JobRow<'_>, words: &Words<'_>, flags: Flags) {
    record.line(&format!(
        "Partition={} AllocNode:Sid={}:{}",
        words.of(&identity::partition(row)),
        words.of(&files::submit_host(row)),
        row.spec.submit_sid
    ));
    record.line(&format!(
        "ReqNodeList={} ExcNodeList={}",
        or_null(&files::node_names(&row.spec.required_nodes)),
        or_null(&files::node_names(&row.spec.excluded_nodes))
    ));
    record.line(&format!("NodeList={}", words.of(&files::nodelist(row))));
    if row.run.is_none() && !row.info.expected_nodes.is_empty() {
        record.line(&format!("SchedNodeList={}", row.info.expected_nodes));
    }
    let batch_host = if row.run.is_some() { files::batch_node(row) } else { "" };
    if !batch_host.is_empty() {
        record.line(&format!("BatchHost={batch_host}"));
    }
    let (nodes, most) = (row.info.num_nodes, row.spec.nodes_max);
    let ended = row.base_state().is_finished();
    // Slurm says so too where the two are the same, if somebody asked for a number of nodes.
    let asked = most > nodes || (row.spec.nodes_min > 0 && most == nodes);
    let range =
        if row.run.is_none() && !ended && asked { format!("-{most}") } else { String::new() };
    record.line(&format!(
        "NumNodes={nodes}{range} NumCPUs={} NumTasks={} CPUs/Task={} ReqB:S:C:T=0:0:*:*",
        row.info.num_cpus,
        words.of(&size::record_tasks(row)),
        words.of(&size::cpus_per_task(row))
    ));
    record.line(&format!("TRES={}", words.of(&size::tres_allocated(row))));
    record.line(&format!(
        "Socks/Node=* NtasksPerN:B:S:C={}:0:*:* CoreSpec=*",
        words.of(&size::tasks_per_node(row))
    ));
    if flags.details
        && let Some(run) = row.run
    {
        push_shares(record, &run.shares);
    }
}

/// What each node gives; neighbours that give the same share a line.
fn push_shares(record: &mut Record, shares: &[v1::NodeShare]) {
    record.line(&format!("JOB_GRES={}", or_null(&job_gres(shares))));
    let same = |left: &v1::NodeShare, right: &v1::NodeShare| {
        left.cpu_ranges == right.cpu_ranges
            && left.memory_mib == right.memory_mib
            && left.gres == right.gres
    };
    for alike in shares.chunk_by(same) {
        let [first, ..] = alike else { continue };
        let names = penstock_vocab::compress(alike.iter().map(|share| share.node.as_str()));
        let runs = first.cpu_ranges.chunks_exact(2).flat_map(|run| [run[0], run[1], 1]).collect();
        let mut cpus = String::new();
        push_ranges(&mut cpus, &v1::IndexRuns { runs });
        let gres: Vec<String> = first.gres.iter().map(share_text).collect();
        record.line(&format!(
            "  Nodes={names} CPU_IDs={cpus} Mem={} GRES={}",
            first.memory_mib,
            gres.join(",")
        ));
    }
}

/// `gpu:h100:4`: what all nodes give together.
fn job_gres(shares: &[v1::NodeShare]) -> String {
    let mut totals: Vec<(String, u64)> = Vec::new();
    for gres in shares.iter().flat_map(|share| &share.gres) {
        let kind = if gres.r#type.is_empty() { String::new() } else { format!(":{}", gres.r#type) };
        let name = format!("{}{kind}", gres.name);
        let count = size::gres_count(gres);
        match totals.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += count,
            None => totals.push((name, count)),
        }
    }
    let entries = totals.into_iter().map(|(name, count)| format!("{name}:{count}"));
    entries.collect::<Vec<_>>().join(",")
}

fn push_needs(record: &mut Record, row: &JobRow<'_>, words: &Words<'_>) {
    let memory = if size::memory_per_cpu(row).is_some() { "MinMemoryCPU" } else { "MinMemoryNode" };
    record.line(&format!(
        "MinCPUsNode={} {memory}={} MinTmpDiskNode=0",
        words.of(&size::min_cpus(row)),
        words.of(&size::min_memory(row))
    ));
    record.line(&format!("Features={} DelayBoot=00:00:00", words.of(&files::features(row))));
    if !row.spec.reservation.is_empty() {
        record.line(&format!("Reservation={}", row.spec.reservation));
    }
    record.line(&format!(
        "OverSubscribe={} Contiguous=0 Licenses={} Network=(null)",
        words.of(&files::over_subscribe(row)),
        words.of(&files::licenses(row))
    ));
}

fn push_files(record: &mut Record, row: &JobRow<'_>, words: &Words<'_>) {
    record.line(&format!("Command={}", words.of(&files::command(row))));
    record.line(&format!("WorkDir={}", words.of(&files::work_dir(row))));
    if !row.spec.comment.is_empty() {
        record.line(&format!("Comment={} ", row.spec.comment));
    }
    if !row.spec.container.is_empty() {
        record.line(&format!("Container={}", row.spec.container));
    }
    record.line(&format!("StdErr={}", words.of(&files::stderr(row))));
    record.line(&format!("StdIn={}", words.of(&files::stdin(row))));
    record.line(&format!("StdOut={}", words.of(&files::stdout(row))));
    if let Some(switches) = row.spec.switches {
        let wait = words.of(&times::switch_wait(row));
        record.line(&format!("Switches={}@{wait}", switches.count));
    }
    record.line("Power=");
    if !row.spec.mail_type.is_empty() {
        let spec = &row.spec;
        let to = if spec.mail_user.is_empty() { &spec.user_name } else { &spec.mail_user };
        record.line(&format!("MailUser={to} MailType={}", spec.mail_type));
    }
    record.next_line();
    // Ours: the sentence that goes with Reason.
    if !row.info.reason_detail.is_empty() {
        record.push(&format!("ReasonDetail={}", row.info.reason_detail));
        record.next_line();
    }
    // Ours too: why its GPUs may be idle, and what was said to it because they are.
    if !row.spec.idle_ok.is_empty() {
        record.push(&format!("IdleOk={}", row.spec.idle_ok));
        record.next_line();
    }
    if let Some(note) = row.run.and_then(|run| run.idle.as_ref()).filter(|note| !note.dry_run) {
        record.push(&idle_line(note, words));
        record.next_line();
    }
    if row.spec.kill_on_invalid_dep {
        record.push("KillOInInvalidDependent=Yes");
        record.next_line();
    }
    push_tres(record, row, words);
}

/// `IdleGpus=2_of_2_GPUs_idle... Notices=1 Rule=short Action=cancel At=2026-...`.
fn idle_line(note: &v1::IdleNote, words: &Words<'_>) -> String {
    let (word, at) = match note.acted_ms {
        0 => ("At", note.act_at_ms),
        acted => ("Done", acted),
    };
    let at = words.of(&Value::Time(at));
    let evidence = note.evidence.replace(' ', "_");
    format!(
        "IdleGpus={evidence} Notices={} Rule={} Action={} {word}={at}",
        note.warned, note.rule, note.action
    )
}

/// What it asks for of other resources, a line each.
fn push_tres(record: &mut Record, row: &JobRow<'_>, words: &Words<'_>) {
    let spec = row.spec;
    let per_node = !spec.gres_per_node.is_empty() || !spec.gres_choices.is_empty();
    let lines = [
        (spec.cpus_per_gpu.is_some(), "CpusPerTres", size::cpus_per_tres(row)),
        (spec.mem_per_gpu_mib.is_some(), "MemPerTres", size::mem_per_tres(row)),
        (spec.gpus_total.is_some(), "TresPerJob", size::tres_per_job(row)),
        (per_node, "TresPerNode", size::tres_per_node(row)),
        (spec.gpus_per_socket.is_some(), "TresPerSocket", size::tres_per_socket(row)),
        (spec.gpus_per_task.is_some(), "TresPerTask", size::tres_per_task(row)),
    ];
    for (name, value) in lines.iter().filter(|(asked, ..)| *asked).map(|(_, n, v)| (n, v)) {
        record.push(&format!("{name}={}", words.of(value)));
        record.next_line();
    }
    if !spec.gpu_bind.is_empty() {
        record.push(&format!("TresBind=gres:gpu:{}", spec.gpu_bind));
        record.next_line();
    }
}

fn or_null(text: &str) -> &str {
    if text.is_empty() { "(null)" } else { text }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
