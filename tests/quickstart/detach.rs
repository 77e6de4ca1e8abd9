//! Can a shell work with a detached cluster, and does `--stop` end exactly that?

use std::path::Path;

use crate::harness::{Home, Process, wait_until};

#[test]
fn four_nodes_are_used_by_eval() {
    let home = Home::new();
    let ran = home
        .sh("exports=$(\"$penstock\" quickstart --nodes 4 --detach --dir \"$dir\")
             printf '%s\\n' \"$exports\"; eval \"$exports\"
             for name in sbatch srun penstock; do command -v $name; done
             echo nodes: $(sinfo -h -o '%D %T %N')
             sbatch -W --array=1-8 -o %a.out --wrap 'echo $SLURM_ARRAY_TASK_ID $SLURMD_NODENAME'
             echo queue: $(squeue -h | wc -l)
             srun -l -N 4 printenv SLURMD_NODENAME | sort; srun false || echo srun: $?
             penstock quickstart --status --dir \"$dir\" >/dev/null && echo status: $?")
        .ok();
    let dir = home.dir().display();
    assert_eq!(
        ran.out,
        format!(
            "export PENSTOCK_CONFIG={dir}/cluster.toml\nexport PATH={dir}/bin:\"$PATH\"\n\
             {dir}/bin/sbatch\n{dir}/bin/srun\n{dir}/bin/penstock\n\
             nodes: 4 idle node[1-4]\nSubmitted batch job 1\nqueue: 0\n\
             0: node1\n1: node2\n2: node3\n3: node4\nsrun: 1\nstatus: 0\n"
        )
    );
    ran.says("srun: error: node1: task 0: Exited with exit code 1\n");
    for task in 1..=8 {
        let line = home.read(&format!("{task}.out"));
        assert!(line.starts_with(&format!("{task} node")), "{line:?}");
    }
}

#[test]
fn stop_ends_exactly_the_processes_of_its_folder() {
    let (home, other) = (Home::new(), Home::new());
    home.quickstart("--nodes 2 --detach").ok();
    other.quickstart("--detach").ok();
    let running = home.running();
    let names: Vec<&str> = running.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["node1", "node2", "controller"]);
    for (name, pid) in &running {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).expect("it runs");
        assert_eq!(exe, Path::new(env!("CARGO_BIN_EXE_penstock")), "{name}");
    }
    let status = home.quickstart("--status").ok();
    let log = home.dir().join("node2/log");
    status.shows(&["NAME ", "PID STATE", &log.display().to_string(), "\ndetached, agents dial "]);
    let (one, two) = (
        home.submit("-w node1", "sleep 1000"),
        home.submit("-w node2", "setsid sleep 1000 & sleep 1000"),
    );
    let foreign = other.submit("", "sleep 1000");
    home.await_state(one, "RUNNING");
    home.await_state(two, "RUNNING");
    other.await_state(foreign, "RUNNING");

    // Controller, agents, their launchers, two shepherds and two jobs at least. A job counts as
    // running once it has its place, a moment before its processes are there.
    wait_until("the jobs' processes", || {
        home.processes().len() >= 9 && other.processes().len() >= 5
    });
    let (ours, theirs) = (home.processes(), other.processes());
    let stop = home.quickstart("--stop").ok();
    stop.shows(&["cancelling 2 job(s)", "stopped 3 process(es)"]);
    assert!(ours.iter().all(|process| !process.lives()));
    home.assert_nothing_left();
    assert!(theirs.iter().all(Process::lives));
    other.await_state(foreign, "RUNNING");
    other.quickstart("--stop").ok();
    other.assert_nothing_left();
}

#[test]
fn stop_after_everything_was_killed_ends_the_jobs_too() {
    let home = Home::new();
    home.quickstart("--detach").ok();
    let job = home.submit("", "sleep 1000");
    home.await_state(job, "RUNNING");
    for (name, _) in home.running() {
        home.process(&name).kill();
    }
    let stop = home.quickstart("--stop").ok();
    stop.shows(&["starting what is missing", "cancelling 1 job(s)", "stopped 2 process(es)"]);
    home.assert_nothing_left();
}

#[test]
fn stop_after_idle_daemons_were_killed_leaves_nothing() {
    let home = Home::new();
    home.quickstart("--nodes 2 --detach").ok();
    for (name, _) in home.running() {
        home.process(&name).kill();
    }
    home.quickstart("--stop").ok().shows(&["nothing runs in "]);
    home.assert_nothing_left();
}
