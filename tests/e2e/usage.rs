//! Is it told what jobs use, while they run and after, and only to whom it concerns?

use crate::harness::{Cluster, Options, PATIENCE, root_and_other_user, wait_until};

/// Holds so many MiB and waits for the end of its input's writer, or a file `go`.
fn hold(mib: u32) -> String {
    format!(
        "exec python3 -c 'x = b\"x\" * ({mib} << 20); import os, time\nwhile not os.path.exists(\"go\"): time.sleep(0.05)'"
    )
}

#[test]
fn steps_are_measured_by_task_and_node_while_they_run_and_when_they_ended() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let step = format!("if [ $SLURM_PROCID = 1 ]; then {}; else {}; fi", hold(40), hold(8));
    let text = "#!/bin/sh\nsrun -n 2 -N 2 sh step.sh\n";
    std::fs::write(cluster.work().join("step.sh"), step).expect("written");
    let script = cluster.script("job.sh", text);
    let id = cluster.cmd("sbatch").words("--parsable -N 2 -n 2 --acctg-freq=1").arg(&script).id();
    let stat = |words: &str| {
        let job = id.to_string();
        cluster.cmd("sstat").words("-n -P").words(words).arg("-j").arg(job).ok()
    };
    let large = |text: &str, column: usize| {
        let word = text.trim().split('|').nth(column).unwrap_or_default().to_owned();
        word.trim_end_matches('K').parse::<u64>().unwrap_or(0) >= 40 << 10
    };
    wait_until("task 1 has its memory", PATIENCE, || large(&stat("-o jobid,maxrss"), 1));
    let told = stat("-o jobid,maxrssnode,maxrsstask,tresusageinminnode,ntasks,nodelist");
    assert!(told.starts_with(&format!("{id}.0|n2|1|")), "{told}");
    assert!(told.contains("mem=n1") && told.ends_with("|2|n[1-2]\n"), "{told}");
    let all = stat("-a -o jobid,nodelist");
    assert_eq!(all, format!("{id}.batch|n1\n{id}.0|n[1-2]\n"));
    let pids = stat("-i -a");
    assert_eq!(pids.lines().count(), 3, "{pids}");
    assert!(pids.lines().all(|line| line.split('|').nth(2).is_some_and(|p| !p.is_empty())));
    let seff = cluster.cmd("seff").arg(id.to_string()).ok();
    assert!(seff.contains("State: RUNNING") && seff.contains("Memory Utilized: "), "{seff}");
    std::fs::write(cluster.work().join("go"), "").expect("written");
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    let ended = cluster.sacct(&format!(
        "-n -P -j {id} -o jobid,maxrss,maxrssnode,maxrsstask,ntasks,avediskread,tresusageinmintask"
    ));
    let step = ended.lines().find(|line| line.starts_with(&format!("{id}.0|"))).expect("a row");
    assert!(large(step, 1) && step.contains("|n2|1|2|") && step.contains("mem=0"), "{ended}");
    let job = ended.lines().next().expect("a row");
    assert_eq!(job, format!("{id}||||||"));
    let gone = cluster.cmd("sstat").arg("-n").arg(id.to_string()).run();
    gone.says(&format!("sstat: error: No steps running for job {id}"));
    cluster.await_quiet();
}

#[test]
fn what_jobs_use_is_told_to_their_owner_alone() {
    if !root_and_other_user() {
        return;
    }
    let cluster = Cluster::start(Options::one_node(2));
    let id = cluster.wrap("", "sleep 300").id();
    cluster.await_state(id, "RUNNING");
    let own = cluster.cmd("sstat").words("-n -P -o jobid,ntasks -a").arg(id.to_string());
    assert_eq!(own.ok(), format!("{id}.batch|1\n"));
    let other = cluster.cmd("sstat").words("-n -a").arg(id.to_string()).by_nobody().run();
    assert_eq!(other.out, "", "{other}");
    other.says("Invalid user id").says("you are uid 65534");
    cluster.cmd("scancel").arg(id.to_string()).ok();
    cluster.await_end(id);
}
