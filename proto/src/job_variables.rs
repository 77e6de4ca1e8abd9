//! Which variables describe a job to its own processes, wherever these run?
//!
//! The batch script, the tasks of steps and what salloc runs all see them (sbatch(1), OUTPUT
//! ENVIRONMENT VARIABLES); what is true of one node or one task only is added where that runs.

use penstock_vocab::compress;

use crate::v1;

/// Names and values, each name once. `job` has its current run alone in the place of all; of a job
/// without a run everything about nodes is left out.
#[must_use]
pub fn job_variables(job: &v1::Job, cluster: &str) -> Vec<(String, String)> {
    let mut vars = Variables(Vec::with_capacity(48));
    let none = v1::JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&none);
    of_the_job(&mut vars, job, spec);
    vars.text("SLURM_CLUSTER_NAME", cluster);
    if let Some(run) = &job.run {
        of_the_request(&mut vars, run, spec);
        of_the_run(&mut vars, job, run);
        of_the_nodes(&mut vars, spec, &run.shares);
    }
    vars.0
}

/// The same as `NAME=VALUE`.
#[must_use]
pub fn job_environment(job: &v1::Job, cluster: &str) -> Vec<String> {
    let joined = |(name, value): (String, String)| format!("{name}={value}");
    job_variables(job, cluster).into_iter().map(joined).collect()
}

struct Variables(Vec<(String, String)>);

impl Variables {
    fn set(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), value.to_string()));
    }

    fn given(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.given(name, Some(value).filter(|text| !text.is_empty()));
    }
}

fn of_the_job(vars: &mut Variables, job: &v1::Job, spec: &v1::JobSpec) {
    vars.set("SLURM_JOB_ID", job.id);
    vars.set("SLURM_JOBID", job.id);
    vars.set("SLURM_JOB_NAME", &spec.name);
    vars.text("SLURM_JOB_USER", &spec.user_name);
    vars.text("SLURM_JOB_GROUP", &spec.group_name);
    vars.set("SLURM_JOB_UID", job.uid);
    vars.set("SLURM_JOB_GID", job.gid);
    vars.text("SLURM_JOB_ACCOUNT", &spec.account);
    vars.text("SLURM_JOB_QOS", &spec.qos);
    vars.text("SLURM_CONTAINER", &spec.container);
    vars.text("SLURM_JOB_COMMENT", &spec.comment);
    vars.text("SLURM_JOB_DEPENDENCY", &spec.dependency);
    vars.text("SLURM_JOB_RESERVATION", &spec.reservation);
    if let Some(task) = job.array_task_id {
        let array = job.array.unwrap_or_default();
        vars.set("SLURM_ARRAY_JOB_ID", job.array_job_id);
        vars.set("SLURM_ARRAY_TASK_ID", task);
        vars.set("SLURM_ARRAY_TASK_COUNT", array.task_count);
        vars.set("SLURM_ARRAY_TASK_MIN", array.task_min);
        vars.set("SLURM_ARRAY_TASK_MAX", array.task_max);
        vars.set("SLURM_ARRAY_TASK_STEP", array.task_step.max(1));
    }
    vars.given("SLURM_RESTART_COUNT", Some(job.restarts).filter(|&count| count > 0));
    vars.text("SLURM_SUBMIT_DIR", &spec.work_dir);
    vars.text("SLURM_SUBMIT_HOST", &spec.submit_host);
}

fn of_the_request(vars: &mut Variables, run: &v1::Run, spec: &v1::JobSpec) {
    let by_node = spec.ntasks_per_node.map(|_| run.shares.iter().map(|share| share.tasks).sum());
    let ntasks: Option<u32> = spec.overcommit_tasks.or(spec.ntasks).or(by_node);
    vars.given("SLURM_NTASKS", ntasks);
    vars.given("SLURM_NPROCS", ntasks);
    vars.given("SLURM_NTASKS_PER_NODE", spec.ntasks_per_node);
    vars.given("SLURM_CPUS_PER_TASK", spec.cpus_per_task);
    if let Some(total) = &spec.gpus_total {
        vars.set("SLURM_GPUS", counted(total));
    }
    if let Some(gpus) = spec.gres_per_node.iter().find(|gres| gres.name == "gpu") {
        vars.set("SLURM_GPUS_PER_NODE", counted(gpus));
    }
    vars.given("SLURM_GPUS_PER_TASK", spec.gpus_per_task.as_ref().map(counted));
    vars.given("SLURM_GPUS_PER_SOCKET", spec.gpus_per_socket.as_ref().map(counted));
    vars.given("SLURM_CPUS_PER_GPU", spec.cpus_per_gpu);
    vars.given("SLURM_MEM_PER_GPU", spec.mem_per_gpu_mib);
    vars.text("SLURM_GPU_BIND", &spec.gpu_bind);
    match spec.distribution.split_once('=') {
        Some((kind, size)) => {
            vars.set("SLURM_DISTRIBUTION", kind);
            vars.set("SLURM_DIST_PLANESIZE", size);
        }
        None => vars.text("SLURM_DISTRIBUTION", &spec.distribution),
    }
    if spec.overcommit {
        vars.set("SLURM_OVERCOMMIT", 1);
    }
}

fn of_the_run(vars: &mut Variables, job: &v1::Job, run: &v1::Run) {
    vars.text("SLURM_JOB_PARTITION", &run.partition);
    let start = run.start_ms.div_euclid(1_000);
    vars.set("SLURM_JOB_START_TIME", start);
    if job.time_limit_secs != 0 {
        vars.set("SLURM_JOB_END_TIME", start.saturating_add_unsigned(job.time_limit_secs));
    }
}

fn of_the_nodes(vars: &mut Variables, spec: &v1::JobSpec, shares: &[v1::NodeShare]) {
    let nodes = compress(shares.iter().map(|share| share.node.as_str()));
    vars.set("SLURM_JOB_NODELIST", &nodes);
    vars.set("SLURM_NODELIST", &nodes);
    vars.set("SLURM_JOB_NUM_NODES", shares.len());
    vars.set("SLURM_NNODES", shares.len());
    vars.set("SLURM_JOB_CPUS_PER_NODE", repeated(shares.iter().map(cpus)));
    let tasks = match spec.overcommit_tasks {
        Some(tasks) => repeated(spread(tasks.into(), shares.len() as u64)),
        None => repeated(shares.iter().map(|share| u64::from(share.tasks.max(1)))),
    };
    vars.set("SLURM_TASKS_PER_NODE", tasks);
    vars.set("SLURM_NODE_ALIASES", "(null)");
    let Some(first) = shares.first() else { return };
    match spec.mem_per_cpu_mib {
        Some(per_cpu) if per_cpu > 0 => vars.set("SLURM_MEM_PER_CPU", per_cpu),
        _ if spec.mem_per_gpu_mib.is_some() => {}
        // With --mem=0 the share says what all memory of the node is.
        _ => {
            let given = spec.mem_per_node_mib.filter(|&mib| mib > 0).unwrap_or(first.memory_mib);
            vars.given("SLURM_MEM_PER_NODE", Some(given).filter(|&mib| mib > 0));
        }
    }
    let of_gpus = || first.gres.iter().filter(|gres| gres.name == "gpu");
    let ids: Vec<String> = of_gpus().flat_map(|gpus| &gpus.ids).map(u32::to_string).collect();
    let count: u64 = of_gpus().map(|gpus| gpus.count.max(gpus.ids.len() as u64)).sum();
    if count > 0 {
        vars.set("SLURM_GPUS_ON_NODE", count);
        vars.text("SLURM_JOB_GPUS", &ids.join(","));
    }
}

/// GPUs as the variables count them: `h100:4`, or `4` without a type.
#[must_use]
pub fn counted(gres: &v1::GresCount) -> String {
    if gres.r#type.is_empty() {
        gres.count.to_string()
    } else {
        format!("{}:{}", gres.r#type, gres.count)
    }
}

/// So many tasks over nodes, as evenly as can be.
fn spread(tasks: u64, nodes: u64) -> impl Iterator<Item = u64> {
    (0..nodes).map(move |node| tasks / nodes + u64::from(node < tasks % nodes))
}

/// Logical CPUs of a share.
#[must_use]
pub fn cpus(share: &v1::NodeShare) -> u64 {
    let ranges = share.cpu_ranges.as_chunks::<2>().0;
    ranges.iter().map(|&[first, last]| u64::from(last).saturating_sub(first.into()) + 1).sum()
}

/// Slurm's way to write one number a node: `72(x2),36`.
#[must_use]
pub fn repeated(numbers: impl Iterator<Item = u64>) -> String {
    let mut runs: Vec<(u64, usize)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((last, count)) if *last == number => *count += 1,
            Some(_) | None => runs.push((number, 1)),
        }
    }
    let text = |(number, count)| match count {
        1 => format!("{number}"),
        _ => format!("{number}(x{count})"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_two_nodes_is_described_as_slurm_does() {
        let share = |node: &str, ranges: &[u32], tasks| v1::NodeShare {
            node: node.to_owned(),
            cpu_ranges: ranges.to_vec(),
            memory_mib: 30,
            tasks,
            ..Default::default()
        };
        let shares = vec![share("n1", &[0, 1], 2), share("n2", &[3, 3], 1)];
        let spec = v1::JobSpec { ntasks: Some(3), mem_per_cpu_mib: Some(10), ..Default::default() };
        let run =
            v1::Run { shares, partition: "main".into(), start_ms: 5_000, ..v1::Run::default() };
        let job = v1::Job {
            id: 7,
            spec: Some(spec),
            run: Some(run),
            time_limit_secs: 60,
            ..v1::Job::default()
        };
        let vars = job_environment(&job, "bench");
        for expect in [
            "SLURM_JOB_ID=7",
            "SLURM_JOB_NODELIST=n[1-2]",
            "SLURM_NNODES=2",
            "SLURM_NTASKS=3",
            "SLURM_JOB_CPUS_PER_NODE=2,1",
            "SLURM_TASKS_PER_NODE=2,1",
            "SLURM_MEM_PER_CPU=10",
            "SLURM_CLUSTER_NAME=bench",
            "SLURM_JOB_PARTITION=main",
            "SLURM_JOB_END_TIME=65",
        ] {
            assert!(vars.iter().any(|var| var == expect), "{expect} of {vars:?}");
        }
        assert!(!vars.iter().any(|var| var.starts_with("SLURM_ARRAY")), "{vars:?}");
        let none = v1::Job { run: None, ..job };
        assert!(!job_environment(&none, "bench").iter().any(|var| var.contains("NODELIST")));
    }

    #[test]
    fn more_tasks_than_cpus_are_spread_over_the_nodes() {
        let share = |node: &str| v1::NodeShare { node: node.to_owned(), ..Default::default() };
        let spec = v1::JobSpec {
            ntasks: Some(2),
            overcommit: true,
            overcommit_tasks: Some(7),
            distribution: "plane=4".to_owned(),
            ..Default::default()
        };
        let run = v1::Run { shares: vec![share("n1"), share("n2")], ..v1::Run::default() };
        let job = v1::Job { spec: Some(spec), run: Some(run), ..v1::Job::default() };
        let vars = job_environment(&job, "bench");
        for expect in [
            "SLURM_NTASKS=7",
            "SLURM_TASKS_PER_NODE=4,3",
            "SLURM_OVERCOMMIT=1",
            "SLURM_DISTRIBUTION=plane",
            "SLURM_DIST_PLANESIZE=4",
        ] {
            assert!(vars.iter().any(|var| var == expect), "{expect} of {vars:?}");
        }
    }

    #[test]
    fn equal_neighbours_are_written_once() {
        assert_eq!(repeated([72, 72, 36].into_iter()), "72(x2),36");
        assert_eq!(repeated([2, 1, 2].into_iter()), "2,1,2");
        assert_eq!(repeated(std::iter::empty()), "");
    }
}
