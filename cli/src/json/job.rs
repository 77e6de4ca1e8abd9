//! How does squeue tell of a job in Slurm's JSON?

use penstock_proto::v1;
use penstock_vocab::JobState;

use crate::listing::job_values::{files, identity, size, times};
use crate::listing::{
    Clock, Dialect, JobRow, Render, Value, in_id_order, live_exit_code, share_text,
};

use super::{Json, map};

/// A record for each job.
pub(crate) fn queued_jobs<'a>(
    rows: impl IntoIterator<Item = JobRow<'a>>,
    clock: &Clock,
) -> Vec<Json> {
    rows.into_iter().map(|row| job(&row, clock)).collect()
}

fn job(row: &JobRow<'_>, clock: &Clock) -> Json {
    let words = Words { render: Render::new(Dialect::Accounting, clock) };
    let mut entries = Vec::with_capacity(112);
    push_identity(&mut entries, row, &words);
    push_requests(&mut entries, row, &words);
    if let Some(run) = row.run {
        entries.push(("job_resources", resources(row, run)));
    }
    push_state(&mut entries, row);
    push_shape(&mut entries, row);
    push_terms(&mut entries, row, &words);
    push_files(&mut entries, row, &words);
    map(entries)
}

type Entries = Vec<(&'static str, Json)>;

struct Words<'r> {
    render: Render<'r>,
}

impl Words<'_> {
    /// The value as sacct would write it, in which nothing is what is unset.
    fn of(&self, value: &Value<'_>) -> Json {
        Json::Text(self.render.text(value))
    }
}

/// What nobody can ask for here.
fn unset() -> Json {
    Json::text("")
}

fn zero() -> Json {
    Json::Int(0)
}

fn push_identity(entries: &mut Entries, row: &JobRow<'_>, words: &Words<'_>) {
    let mut tasks = String::new();
    row.push_pending_tasks(&mut tasks);
    let array = if row.is_array() { row.array_job_id() } else { 0 };
    entries.extend([
        ("account", Json::text(&row.spec.account)),
        ("accrue_time", Json::time(row.job.eligible_ms)),
        ("admin_comment", unset()),
        ("array_job_id", Json::count(array)),
        ("array_task_id", row.task_id().map_or(Json::Null, Json::count)),
        ("array_max_tasks", Json::count(row.throttle())),
        ("array_task_string", Json::Text(tasks)),
        ("association_id", Json::count(row.job.association)),
        ("batch_features", unset()),
        ("batch_flag", Json::Bool(!row.spec.allocation)),
        ("batch_host", Json::text(if row.run.is_some() { files::batch_node(row) } else { "" })),
        ("flags", flags(row)),
        ("burst_buffer", unset()),
        ("burst_buffer_state", unset()),
        ("cluster", Json::text(row.cluster)),
        ("cluster_features", unset()),
        ("command", words.of(&files::command(row))),
        ("comment", Json::text(&row.spec.comment)),
        ("container", Json::text(&row.spec.container)),
    ]);
}

fn flags(row: &JobRow<'_>) -> Json {
    let spec = row.spec;
    let memory = spec.mem_per_node_mib.is_some() || spec.mem_per_cpu_mib.is_some();
    let flags = [
        (row.run.is_some_and(|run| run.end_ms == 0), "JOB_WAS_RUNNING"),
        (spec.kill_on_invalid_dep, "KILL_INVALID_DEPENDENCY"),
        (spec.cpus_per_task.is_some(), "JOB_CPUS_SET"),
        (memory, "JOB_MEM_SET"),
    ];
    Json::List(flags.iter().filter(|(set, _)| *set).map(|(_, name)| Json::text(*name)).collect())
}

fn push_requests(entries: &mut Entries, row: &JobRow<'_>, words: &Words<'_>) {
    let spec = row.spec;
    let billing = row.run.map(|run| run.billing);
    #[expect(clippy::cast_precision_loss, reason = "Slurm keeps billing as a double")]
    let billing = billing.map_or(Json::Null, |units| Json::Float(units as f64));
    let shares = row.run.map_or(&[][..], |run| &run.shares);
    let gres = shares.iter().filter(|share| !share.gres.is_empty()).map(gres_of).collect();
    entries.extend([
        ("contiguous", Json::Bool(false)),
        ("core_spec", Json::Null),
        ("thread_spec", Json::Null),
        ("cores_per_socket", Json::Null),
        ("billable_tres", billing),
        ("cpus_per_task", spec.cpus_per_task.map_or(Json::Null, Json::count)),
        ("cpu_frequency_minimum", Json::Null),
        ("cpu_frequency_maximum", Json::Null),
        ("cpu_frequency_governor", Json::Null),
        ("cpus_per_tres", unset()),
        ("deadline", Json::time(spec.deadline_ms)),
        ("delay_boot", zero()),
        ("dependency", Json::text(&row.info.dependency)),
        ("derived_exit_code", Json::Int(crate::listing::derived_exit(row).to_wait_status().into())),
        ("eligible_time", Json::time(times::eligible_ms(row))),
        ("end_time", end_time(row)),
        ("excluded_nodes", Json::Text(files::node_names(&spec.excluded_nodes))),
        ("exit_code", Json::Int(live_exit_code(row).to_wait_status().into())),
        ("features", words.of(&files::features(row))),
        ("federation_origin", unset()),
        ("federation_siblings_active", unset()),
        ("federation_siblings_viable", unset()),
        ("gres_detail", Json::List(gres)),
        ("group_id", Json::count(row.job.gid)),
        ("group_name", Json::text(&row.info.group_name)),
        ("job_id", Json::count(row.job.id)),
    ]);
}

/// When it ended, or when its limit will end it; 0 while nobody knows.
fn end_time(row: &JobRow<'_>) -> Json {
    match times::end_time(row) {
        Value::Time(ms) => Json::time(ms),
        _ => zero(),
    }
}

fn gres_of(share: &v1::NodeShare) -> Json {
    let parts: Vec<String> = share.gres.iter().map(share_text).collect();
    Json::Text(parts.join(","))
}

/// What the run has: where, and which CPUs of each node.
fn resources(row: &JobRow<'_>, run: &v1::Run) -> Json {
    let nodes = run.shares.iter().map(|share| {
        let all = share.cpu_ranges.chunks_exact(2).flat_map(|range| range[0]..=range[1]);
        let cores = all.map(|cpu| (cpu.to_string().into(), Json::text("allocated"))).collect();
        let cores = map(vec![("cores", Json::Map(cores))]);
        map(vec![
            ("sockets", map(vec![("0", cores)])),
            ("nodename", Json::text(&share.node)),
            ("cpus_used", zero()),
            ("memory_used", zero()),
            ("memory_allocated", Json::count(share.memory_mib)),
        ])
    });
    map(vec![
        ("nodes", Json::text(&row.info.nodelist)),
        ("allocated_cpus", Json::count(row.info.num_cpus)),
        ("allocated_hosts", Json::count(run.shares.len() as u64)),
        ("allocated_nodes", Json::List(nodes.collect())),
    ])
}

fn push_state(entries: &mut Entries, row: &JobRow<'_>) {
    let state = penstock_vocab::display_state(row.base_state(), row.flags());
    let evaluated = match times::last_evaluation(row) {
        Value::Time(ms) => Json::time(ms),
        _ => zero(),
    };
    entries.extend([
        ("job_state", Json::text(state)),
        ("last_sched_evaluation", evaluated),
        ("licenses", Json::Text(license_list(row))),
        ("max_cpus", zero()),
        ("max_nodes", Json::count(if row.run.is_some() { 0 } else { row.spec.nodes_max })),
        ("mcs_label", unset()),
        ("memory_per_tres", unset()),
        ("name", Json::text(&row.spec.name)),
        ("nodes", Json::text(if row.run.is_some() { &row.info.nodelist } else { "" })),
        (
            "nice",
            Some(row.spec.nice)
                .filter(|nice| *nice != 0)
                .map_or(Json::Null, |nice| Json::Int(nice.into())),
        ),
    ]);
}

fn license_list(row: &JobRow<'_>) -> String {
    let entry = |license: &v1::LicenseCount| format!("{}:{}", license.name, license.count);
    row.spec.licenses.iter().map(entry).collect::<Vec<_>>().join(",")
}

fn push_shape(entries: &mut Entries, row: &JobRow<'_>) {
    let some = |number: Option<u64>| number.map_or(Json::Null, Json::count);
    // Of a job that was cancelled while it waited Slurm has forgotten them.
    let forgot = row.run.is_none() && row.base_state() == JobState::Cancelled;
    let per_cpu = size::memory_per_cpu(row);
    let per_node = size::memory_per_node(row).filter(|_| per_cpu.is_none());
    entries.extend([
        ("tasks_per_core", Json::Null),
        ("tasks_per_node", Json::count(row.spec.ntasks_per_node.unwrap_or(0))),
        ("tasks_per_socket", Json::Null),
        ("tasks_per_board", zero()),
        ("cpus", if forgot { Json::Null } else { Json::count(row.info.num_cpus) }),
        ("node_count", Json::count(row.info.num_nodes)),
        ("tasks", if forgot { Json::Null } else { Json::count(row.info.num_tasks) }),
        ("het_job_id", zero()),
        ("het_job_id_set", unset()),
        ("het_job_offset", zero()),
        ("partition", Json::text(&row.info.partition)),
        ("prefer", unset()),
        ("memory_per_node", some(per_node)),
        ("memory_per_cpu", some(per_cpu)),
        ("minimum_cpus_per_node", least(row)),
        ("minimum_tmp_disk_per_node", zero()),
        ("preempt_time", zero()),
        ("pre_sus_time", zero()),
        ("priority", Json::count(row.info.priority)),
        ("profile", Json::Null),
        ("qos", Json::text(&row.spec.qos)),
    ]);
}

fn least(row: &JobRow<'_>) -> Json {
    match size::min_cpus(row) {
        Value::Number(cpus) => Json::Int(cpus),
        _ => zero(),
    }
}

fn push_terms(entries: &mut Entries, row: &JobRow<'_>, words: &Words<'_>) {
    let shown = ["SHOW_ALL", "SHOW_DETAIL", "SHOW_LOCAL"].map(Json::text);
    let reason = match row.base_state() {
        JobState::Pending => identity::reason_text(row).split(',').next().unwrap_or_default(),
        _ => identity::reason_text(row),
    };
    entries.extend([
        ("reboot", Json::Bool(false)),
        ("required_nodes", Json::Text(files::node_names(&row.spec.required_nodes))),
        ("requeue", Json::Bool(row.spec.requeue.unwrap_or(true))),
        ("resize_time", zero()),
        ("restart_cnt", Json::count(row.job.restarts)),
        ("resv_name", Json::text(&row.spec.reservation)),
        ("shared", if row.spec.exclusive { Json::text("none") } else { Json::Null }),
        ("show_flags", Json::List(shown.into())),
        ("sockets_per_board", zero()),
        ("sockets_per_node", Json::Null),
        ("start_time", Json::time(row.start_ms())),
        ("state_description", unset()),
        ("state_reason", Json::text(reason)),
        ("standard_error", typed(&row.spec.stderr, words.of(&files::queued_stderr(row)))),
        ("standard_input", words.of(&files::stdin(row))),
        ("standard_output", typed(&row.spec.stdout, words.of(&files::queued_stdout(row)))),
        ("submit_time", Json::time(row.job.submit_ms)),
        ("suspend_time", Json::time(row.run.map_or(0, |run| run.suspended_since_ms))),
        ("system_comment", unset()),
    ]);
}

/// Slurm names only files that somebody asked for.
fn typed(asked: &str, path: Json) -> Json {
    if asked.is_empty() { unset() } else { path }
}

fn push_files(entries: &mut Entries, row: &JobRow<'_>, words: &Words<'_>) {
    let limit = row.limit_secs().map(|secs| secs.div_ceil(60));
    let least = row.spec.min_time_secs.unwrap_or(0).div_ceil(60);
    let allocated = if row.run.is_some() { row.info.tres_allocated.as_str() } else { "" };
    entries.extend([
        ("time_limit", limit.map_or(Json::Null, Json::count)),
        ("time_minimum", Json::count(least)),
        ("threads_per_core", Json::Null),
        ("tres_bind", unset()),
        ("tres_freq", unset()),
        ("tres_per_job", words.of(&size::tres_per_job(row))),
        ("tres_per_node", words.of(&size::tres_per_node(row))),
        ("tres_per_socket", unset()),
        ("tres_per_task", unset()),
        ("tres_req_str", Json::Text(in_id_order(&row.info.tres_requested))),
        ("tres_alloc_str", Json::Text(in_id_order(allocated))),
        ("user_id", Json::count(row.job.uid)),
        ("user_name", Json::text(&row.info.user_name)),
        ("wckey", Json::text(&row.spec.wckey)),
        ("current_working_directory", Json::text(&row.spec.work_dir)),
    ]);
}
