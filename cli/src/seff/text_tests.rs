use super::*;

fn info() -> v1::JobInfo {
    v1::JobInfo {
        job: Some(v1::Job {
            id: 12,
            state: JobState::Completed.code(),
            spec: Some(v1::JobSpec::default()),
            run: Some(v1::Run {
                attempt: 1,
                start_ms: 1_000,
                end_ms: 601_000,
                end_state: JobState::Completed.code(),
                end_cause: v1::EndCause::Exited.into(),
                usage: Some(v1::Usage {
                    user_cpu_usec: 500_000_000,
                    system_cpu_usec: 100_000_000,
                    peak_memory_bytes: 1 << 30,
                    memory_limit_bytes: 0,
                    tasks: None,
                }),
                shares: vec![v1::NodeShare {
                    node: "n1".to_owned(),
                    gres: vec![v1::GresShare {
                        name: "gpu".to_owned(),
                        r#type: "h100".to_owned(),
                        ids: vec![0, 1],
                        ..v1::GresShare::default()
                    }],
                    ..v1::NodeShare::default()
                }],
                ..v1::Run::default()
            }),
            ..v1::Job::default()
        }),
        user_name: "ada".to_owned(),
        group_name: "users".to_owned(),
        num_nodes: 1,
        num_cpus: 4,
        memory_mib: 4_096,
        ..v1::JobInfo::default()
    }
}

fn usage(gpu: u32, mean: Option<u32>, idle_ms: Option<u64>) -> v1::GpuUsage {
    v1::GpuUsage {
        node: "n1".to_owned(),
        gpu,
        r#type: "h100".to_owned(),
        memory_mib: 81_559,
        utilization_mean: mean,
        utilization_p50: mean,
        utilization_p95: mean,
        idle_ms,
        seen_ms: if mean.is_some() { 600_000 } else { 0 },
        ..v1::GpuUsage::default()
    }
}

#[test]
fn what_was_used_is_set_against_what_was_asked() {
    let mut info = info();
    let run = info.job.as_mut().unwrap().run.as_mut().unwrap();
    run.gpus = vec![usage(0, Some(90), Some(0)), usage(1, Some(0), Some(600_000))];
    run.gpus[0].peak_memory_mib = Some(40_960);
    run.gpus[0].energy_mj = Some(120_000_000);
    assert_eq!(
        report(&info, &[], "c", 700_000),
        "Job ID: 12\n\
         Cluster: c\n\
         User/Group: ada/users\n\
         State: COMPLETED (exit code 0)\n\
         Nodes: 1\n\
         Cores per node: 4\n\
         CPU Utilized: 00:10:00\n\
         CPU Efficiency: 25.00% of 00:40:00 core-walltime\n\
         Job Wall-clock time: 00:10:00\n\
         Memory Utilized: 1.00 GB\n\
         Memory Efficiency: 25.00% of 4.00 GB\n\
         GPUs: 2, 1 never used\n\
         GPU Efficiency: 45.00% of 00:20:00 GPU-time seen\n\
         GPU Energy: 120000 J\n  \
         n1 GPU 0 (h100): utilization mean 90%, median 90%, p95 90%; memory 40.00 GB of 79.64 GB\n  \
         n1 GPU 1 (h100): utilization mean 0%, median 0%, p95 0%; memory unknown\n\
         Advice:\n  \
         asked 4 CPUs, 2 would have done on average\n  \
         asked 4.00 GB of memory and used 1.00 GB; --mem=1228M leaves room\n  \
         asked 2 GPUs, 1 was never used\n"
    );
}

#[test]
fn what_is_unknown_is_not_shown_as_nothing_and_gives_no_advice() {
    let mut info = info();
    let run = info.job.as_mut().unwrap().run.as_mut().unwrap();
    run.usage = None;
    run.gpus = vec![usage(0, None, None)];
    let text = report(&info, &[], "c", 700_000);
    for part in
        ["CPU Utilized: unknown", "Memory Utilized: unknown", "GPUs: 2, utilization unknown"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("Advice") && !text.contains("0%"), "{text}");
}

#[test]
fn little_use_of_whole_gpus_asks_for_a_slice() {
    let mut low = usage(0, Some(12), Some(0));
    low.peak_memory_mib = Some(9_216);
    let lines = gpus::advice(&[low], 1);
    assert_eq!(lines, ["peak 9.00 GB, at most 12% busy on average: a smaller slice would do"]);
}

#[test]
fn a_job_that_waits_has_used_nothing_yet() {
    let mut info = info();
    let job = info.job.as_mut().unwrap();
    (job.run, job.state) = (None, JobState::Pending.code());
    let text = report(&info, &[], "c", 700_000);
    assert!(text.ends_with("It has not run yet, so that nothing was used.\n"), "{text}");
}

#[test]
fn sizes_and_durations_are_seffs() {
    assert_eq!(
        (size(0), size(1_536), size(3 << 30)),
        ("0.00 B".into(), "1.50 KB".into(), "3.00 GB".into())
    );
    assert_eq!((duration(59), duration(90_061)), ("00:00:59".into(), "1-01:01:01".into()));
}
