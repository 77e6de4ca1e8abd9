//! How does sacct tell of a job and its steps in Slurm's JSON?

use penstock_proto::v1;
use penstock_vocab::{ExitCode, Signal, expand};

use crate::listing::job_values::{files, identity, size, times};
use crate::listing::{Clock, Dialect, JobRow, Part, Render, Value};

use super::{Json, map};

/// Slurm's numbers of the countable resources.
const TRES: [(&str, i64); 5] = [("cpu", 1), ("mem", 2), ("energy", 3), ("node", 4), ("billing", 5)];

/// A job's own row and those of its steps.
pub(crate) type JobRows<'a> = (JobRow<'a>, Vec<JobRow<'a>>);

/// A record for each job, its steps inside.
pub(crate) fn accounted_jobs<'a>(
    rows: impl IntoIterator<Item = JobRows<'a>>,
    clock: &Clock,
) -> Vec<Json> {
    let render = Render::new(Dialect::Accounting, clock);
    rows.into_iter().map(|(row, steps)| job(&row, &steps, &render)).collect()
}

fn job(row: &JobRow<'_>, steps: &[JobRow<'_>], render: &Render<'_>) -> Json {
    let text = |value: &Value<'_>| Json::Text(render.text(value));
    let mut entries = identity_of(row);
    entries.extend([
        ("constraints", or_blank(&row.spec.constraint)),
        ("container", or_null(&row.spec.container)),
        ("derived_exit_code", exit_code(crate::listing::derived_exit(row))),
        ("time", times_of(row)),
        ("exit_code", exit_code(crate::listing::row_exit_code(row))),
        ("flags", flags(row)),
        ("group", Json::text(&row.info.group_name)),
        ("het", map(vec![("job_id", Json::Int(0)), ("job_offset", Json::Null)])),
        ("job_id", Json::count(row.job.id)),
        ("name", Json::text(&row.spec.name)),
        ("mcs", map(vec![("label", Json::Blank)])),
        ("nodes", text(&files::accounted_nodes(row))),
        ("partition", text(&identity::partition(row))),
        ("priority", Json::count(row.info.priority)),
        ("qos", Json::text(&row.spec.qos)),
        ("required", required(row)),
        ("kill_request_user", killer(row)),
        ("reservation", map(vec![("id", Json::Int(0)), ("name", reservation(row))])),
        ("state", state(row, render)),
        ("steps", Json::List(steps.iter().map(|step| step_of(step, render)).collect())),
        ("tres", tres(row)),
        ("user", Json::text(&row.info.user_name)),
        (
            "wckey",
            map(vec![("wckey", or_blank(&row.spec.wckey)), ("flags", Json::List(Vec::new()))]),
        ),
        ("working_directory", Json::text(&row.spec.work_dir)),
    ]);
    map(entries)
}

fn identity_of(row: &JobRow<'_>) -> Vec<(&'static str, Json)> {
    let mut pending = String::new();
    row.push_pending_tasks(&mut pending);
    let array = if row.is_array() { row.array_job_id() } else { 0 };
    let most = if row.pending_tasks().is_some() { row.throttle() } else { 0 };
    let running = map(vec![("tasks", Json::count(most))]);
    let limits = map(vec![("max", map(vec![("running", running)]))]);
    let nodes = if row.run.is_some() { row.info.num_nodes } else { 0 };
    vec![
        ("account", Json::text(&row.spec.account)),
        (
            "comment",
            map(vec![
                ("administrator", Json::Null),
                ("job", or_null(&row.spec.comment)),
                ("system", Json::Null),
            ]),
        ),
        ("allocation_nodes", Json::count(nodes)),
        (
            "array",
            map(vec![
                ("job_id", Json::count(array)),
                ("limits", limits),
                ("task", or_null(&pending)),
                ("task_id", row.task_id().map_or(Json::Null, Json::count)),
            ]),
        ),
        (
            "association",
            map(vec![
                ("account", Json::text(&row.spec.account)),
                ("cluster", Json::text(row.cluster)),
                ("partition", Json::Null),
                ("user", Json::text(&row.info.user_name)),
            ]),
        ),
        ("cluster", Json::text(row.cluster)),
    ]
}

fn or_null(text: &str) -> Json {
    if text.is_empty() { Json::Null } else { Json::text(text) }
}

fn or_blank(text: &str) -> Json {
    if text.is_empty() { Json::Blank } else { Json::text(text) }
}

fn reservation(row: &JobRow<'_>) -> Json {
    match row.spec.reservation.as_str() {
        "" => Json::Int(0),
        name => Json::text(name),
    }
}

fn flags(row: &JobRow<'_>) -> Json {
    let names: &[&str] =
        if row.run.is_some() { &["CLEAR_SCHEDULING", "STARTED_ON_SCHEDULE"] } else { &[] };
    Json::List(names.iter().map(|name| Json::text(*name)).collect())
}

fn required(row: &JobRow<'_>) -> Json {
    let memory = size::memory_per_cpu(row).or_else(|| size::memory_per_node(row)).unwrap_or(0);
    map(vec![("CPUs", Json::count(row.info.num_cpus)), ("memory", Json::count(memory))])
}

/// Who asked for the end.
fn killer(row: &JobRow<'_>) -> Json {
    let uid = match (row.step, row.run) {
        (Some(step), _) => step.run.ended_by_user.then_some(step.run.ended_by_uid),
        (None, _) if row.part == Part::Batch => None,
        (None, Some(run)) => run.ended_by_user.then_some(run.ended_by_uid),
        (None, None) => row.job.cancelled_by_user.then_some(row.job.cancelled_by_uid),
    };
    let name = |uid: u32| {
        uzers::get_user_by_uid(uid)
            .map_or_else(|| uid.to_string(), |user| user.name().to_string_lossy().into_owned())
    };
    uid.map_or(Json::Null, |uid| Json::Text(name(uid)))
}

fn state(row: &JobRow<'_>, render: &Render<'_>) -> Json {
    map(vec![
        ("current", Json::text(crate::listing::row_state(row).name())),
        ("reason", Json::Text(render.text(&identity::accounted_reason(row)))),
    ])
}

/// Seconds and microseconds.
fn duration(usec: u64) -> Json {
    map(vec![
        ("seconds", Json::count(usec / 1_000_000)),
        ("microseconds", Json::count(usec % 1_000_000)),
    ])
}

fn cpu_times(row: &JobRow<'_>) -> (u64, u64) {
    let used = row.run.and_then(|run| run.usage.as_ref());
    used.map_or((0, 0), |used| (used.user_cpu_usec, used.system_cpu_usec))
}

fn times_of(row: &JobRow<'_>) -> Json {
    let (user, system) = cpu_times(row);
    let eligible = match times::eligible_ms(row) {
        0 => Json::Null,
        ms => Json::time(ms),
    };
    let start = match times::accounted_start(row) {
        Value::Time(ms) => ms,
        _ => 0,
    };
    let limit = row.limit_secs().map_or(Json::Null, |secs| Json::count(secs.div_ceil(60)));
    map(vec![
        ("elapsed", Json::count(row.used_secs())),
        ("eligible", eligible),
        ("end", Json::time(row.ended_ms())),
        ("start", Json::time(start)),
        ("submission", Json::time(row.job.submit_ms)),
        ("suspended", Json::count(row.suspended_ms() / 1000)),
        ("system", duration(system)),
        ("limit", limit),
        ("total", duration(user.saturating_add(system))),
        ("user", duration(user)),
    ])
}

fn exit_code(code: ExitCode) -> Json {
    if code.signal != 0 {
        let name = signal_text(code.signal);
        let signal = vec![("signal_id", Json::count(code.signal)), ("name", Json::text(name))];
        return map(vec![
            ("status", Json::text("SIGNALED")),
            ("return_code", Json::Null),
            ("signal", map(signal)),
        ]);
    }
    let status = if code.status == 0 { "SUCCESS" } else { "ERROR" };
    map(vec![("status", Json::text(status)), ("return_code", Json::count(code.status))])
}

/// What the C library says of a signal, which is what Slurm calls its name here.
fn signal_text(number: u8) -> &'static str {
    match number {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        5 => "Trace/breakpoint trap",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        10 => "User defined signal 1",
        11 => "Segmentation fault",
        12 => "User defined signal 2",
        13 => "Broken pipe",
        14 => "Alarm clock",
        15 => "Terminated",
        24 => "CPU time limit exceeded",
        25 => "File size limit exceeded",
        other => Signal::new(other).and_then(Signal::name).unwrap_or_default(),
    }
}

fn tres(row: &JobRow<'_>) -> Json {
    let allocated = if row.run.is_some() { row.info.tres_allocated.as_str() } else { "" };
    let mut list = tres_list(allocated);
    // Energy is allocated to whoever has anything, and never counted.
    if !list.is_empty() {
        let at = list.len().min(2);
        list.insert(at, tres_entry("energy", None));
    }
    map(vec![
        ("allocated", Json::List(list)),
        ("requested", Json::List(tres_list(&row.info.tres_requested))),
    ])
}

fn tres_entry(kind: &str, count: Option<u64>) -> Json {
    let (kind, name) = match kind.split_once('/') {
        Some((kind, name)) => (kind, Json::text(name)),
        None => (kind, Json::Null),
    };
    let id = TRES.iter().find(|(known, _)| *known == kind).map_or(1001, |(_, id)| *id);
    map(vec![
        ("type", Json::text(kind)),
        ("name", name),
        ("id", Json::Int(id)),
        ("count", count.map_or(Json::Null, Json::count)),
    ])
}

/// A list such as `cpu=1,mem=10M`, in the order of ids.
fn tres_list(list: &str) -> Vec<Json> {
    let ordered = crate::listing::in_id_order(list);
    let entry = |word: &str| {
        let (kind, count) = word.split_once('=')?;
        let count = match kind {
            "mem" => penstock_vocab::parse_memory(count).ok()?.0,
            _ => count.parse().ok()?,
        };
        Some(tres_entry(kind, Some(count)))
    };
    ordered.split(',').filter_map(entry).collect()
}

fn step_of(row: &JobRow<'_>, render: &Render<'_>) -> Json {
    let text = |value: &Value<'_>| render.text(value);
    let range = text(&files::accounted_nodes(row));
    let names = expand(&range).unwrap_or_default();
    let nodes = vec![
        ("list", Json::List(names.iter().map(Json::text).collect())),
        ("count", Json::count(names.len() as u64)),
        ("range", Json::Text(range)),
    ];
    let (user, system) = cpu_times(row);
    let times = vec![
        ("elapsed", Json::count(row.used_secs())),
        ("end", Json::time(row.ended_ms())),
        ("start", Json::time(row.start_ms())),
        ("suspended", Json::count(row.suspended_ms() / 1000)),
        ("system", duration(system)),
        ("total", duration(user.saturating_add(system))),
        ("user", duration(user)),
    ];
    let tasks = match size::step_tasks(row) {
        Value::Number(tasks) => Json::Int(tasks),
        _ => Json::Int(1),
    };
    let spec = row.step.and_then(|step| step.step().spec.as_ref());
    let distribution = spec.map_or("", |spec| spec.distribution.as_str());
    let id = row.step.map_or_else(|| "batch".to_owned(), |step| step.id().to_string());
    let frequency = map(vec![("min", Json::Int(0)), ("max", Json::Int(0))]);
    map(vec![
        ("nodes", map(nodes)),
        ("tres", step_tres(row, &text(&size::accounted_tres(row)))),
        ("time", map(times)),
        ("exit_code", exit_code(crate::listing::row_exit_code(row))),
        ("tasks", map(vec![("count", tasks)])),
        ("pid", Json::Null),
        (
            "CPU",
            map(vec![("requested_frequency", frequency), ("governor", Json::List(Vec::new()))]),
        ),
        ("kill_request_user", killer(row)),
        ("state", Json::text(crate::listing::row_state(row).name())),
        (
            "statistics",
            map(vec![
                ("CPU", map(vec![("actual_frequency", Json::Int(0))])),
                ("energy", map(vec![("consumed", Json::Int(0))])),
            ]),
        ),
        (
            "step",
            map(vec![
                ("job_id", Json::count(row.job.id)),
                ("het", map(vec![("component", Json::Null)])),
                ("id", Json::Text(id)),
                ("name", Json::Text(text(&identity::name(row)))),
            ]),
        ),
        (
            "task",
            map(vec![(
                "distribution",
                Json::text(if distribution.is_empty() { "Unknown" } else { distribution }),
            )]),
        ),
    ])
}

/// What a step had and what its tasks used of it, where that was measured.
fn step_tres(row: &JobRow<'_>, allocated: &str) -> Json {
    let used = row.run.and_then(|run| run.usage.as_ref());
    let consumed = used.filter(|_| row.ended_ms() != 0).map_or_else(Vec::new, consumed);
    let lists = |list: &[Json]| {
        map(vec![
            ("max", Json::List(list.to_vec())),
            ("min", Json::List(list.to_vec())),
            ("average", Json::List(list.to_vec())),
            ("total", Json::List(list.to_vec())),
        ])
    };
    map(vec![
        ("requested", lists(&consumed)),
        ("consumed", lists(&[])),
        ("allocated", Json::List(tres_list(allocated))),
    ])
}

/// CPU time in milliseconds and memory in bytes, as Slurm counts them there.
fn consumed(used: &v1::Usage) -> Vec<Json> {
    let cpu = used.user_cpu_usec.saturating_add(used.system_cpu_usec) / 1000;
    let mut list = vec![tres_entry("cpu", Some(cpu))];
    if used.peak_memory_bytes > 0 {
        list.push(tres_entry("mem", Some(used.peak_memory_bytes)));
    }
    list
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use penstock_vocab::JobState;

    use crate::listing::testing::{START, job as example};

    use super::*;

    #[test]
    fn a_failed_job_and_its_batch_step_are_told() {
        let info = example(3)
            .running("node1")
            .ended(JobState::Failed, v1::EndCause::Exited, 1)
            .run(|run| run.exit_status = 3)
            .build();
        let clock = Clock::new(TimeZone::UTC, None, START + 5000);
        let row = JobRow::accounted(&info, clock.now_ms());
        let records = accounted_jobs([(row, vec![row.with_part(Part::Batch)])], &clock);
        let record = &records[0];
        let inside = |record: &Json, path: &[&str]| {
            path.iter().try_fold(record.clone(), |value, key| value.get(key).cloned())
        };
        assert_eq!(inside(record, &["state", "current"]), Some(Json::text("FAILED")));
        assert_eq!(inside(record, &["exit_code", "return_code"]), Some(Json::Int(3)));
        assert_eq!(inside(record, &["time", "elapsed"]), Some(Json::Int(1)));
        let Some(Json::List(steps)) = record.get("steps") else { panic!("no steps") };
        assert_eq!(inside(&steps[0], &["step", "id"]), Some(Json::text("batch")));
        assert_eq!(
            inside(&steps[0], &["nodes", "list"]),
            Some(Json::List(vec![Json::text("node1")]))
        );
        let Some(Json::List(allocated)) = inside(record, &["tres", "allocated"]) else {
            panic!("none")
        };
        let kinds: Vec<_> = allocated.iter().filter_map(|entry| entry.get("id").cloned()).collect();
        assert_eq!(kinds, [1, 2, 3, 4, 5].map(Json::Int));
    }
}
