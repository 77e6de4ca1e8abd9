//! Does a job run as its script and options say, and is its end told right?

use std::collections::BTreeMap;

use crate::harness::{Cluster, Options, is_root};

#[test]
fn a_job_writes_its_output_and_ends_well() {
    let cluster = Cluster::start(Options::one_node(2));
    let said = cluster.cmd("sbatch").arg("--wrap").arg("echo hello; echo oops >&2; pwd").ok();
    assert_eq!(said, "Submitted batch job 1\n");
    assert_eq!(cluster.await_end(1).end(), "COMPLETED 0:0 None");
    let work = cluster.work();
    assert_eq!(cluster.read("slurm-1.out"), format!("hello\noops\n{}\n", work.display()));
    assert_eq!(cluster.squeue(""), "");
    let job = cluster.job(1);
    assert_eq!(job.get("StdOut"), work.join("slurm-1.out").to_str().expect("text"));
    assert_eq!((job.get("NodeList"), job.get("BatchHost")), ("n1", "n1"));
    let rows = cluster.cmd("sacct").words("-n -P -j 1 -o JobID,JobName,State,ExitCode").ok();
    assert_eq!(rows, "1|wrap|COMPLETED|0:0\n1.batch|batch|COMPLETED|0:0\n");
    cluster.await_quiet();
}

#[test]
fn a_job_sees_slurms_environment() {
    let cluster = Cluster::start(Options::one_node(4));
    let words = "-J probe -n 2 -c 2 --mem 100M -t 5 --comment hi -o env.out --export=ALL,MINE=1";
    let id = cluster.wrap(words, "env").env("FROM_HERE", "yes").env("SLURM_NTASKS", "77").id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    let text = cluster.read("env.out");
    let found: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    let (work, id) = (cluster.work(), id.to_string());
    let uid = nix::unistd::getuid().to_string();
    let expect = [
        ("SLURM_JOB_ID", id.as_str()),
        ("SLURM_JOBID", id.as_str()),
        ("SLURM_JOB_NAME", "probe"),
        ("SLURM_JOB_UID", uid.as_str()),
        ("SLURM_JOB_PARTITION", "main"),
        ("SLURM_CLUSTER_NAME", "test"),
        ("SLURM_JOB_NODELIST", "n1"),
        ("SLURM_NODELIST", "n1"),
        ("SLURM_JOB_NUM_NODES", "1"),
        ("SLURM_NNODES", "1"),
        ("SLURM_JOB_CPUS_PER_NODE", "4"),
        ("SLURM_CPUS_ON_NODE", "4"),
        ("SLURM_TASKS_PER_NODE", "2"),
        ("SLURM_NTASKS", "2"),
        ("SLURM_NPROCS", "2"),
        ("SLURM_CPUS_PER_TASK", "2"),
        ("SLURM_MEM_PER_NODE", "100"),
        ("SLURM_SUBMIT_DIR", work.to_str().expect("text")),
        ("SLURMD_NODENAME", "n1"),
        ("SLURM_NODEID", "0"),
        ("SLURM_PROCID", "0"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_TOPOLOGY_ADDR", "n1"),
        ("ENVIRONMENT", "BATCH"),
        ("FROM_HERE", "yes"),
        ("MINE", "1"),
    ];
    for (name, value) in expect {
        assert_eq!(found.get(name).copied(), Some(value), "{name} in\n{text}");
    }
    for name in ["SLURM_SUBMIT_HOST", "SLURM_TASK_PID", "SLURM_GTIDS", "TMPDIR", "HOSTNAME"] {
        assert!(found.contains_key(name), "no {name} in\n{text}");
    }
    for name in ["SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT", "CUDA_VISIBLE_DEVICES"] {
        assert!(!found.contains_key(name), "{name} in\n{text}");
    }
}

#[test]
fn exit_codes_and_signals_are_told() {
    let cluster = Cluster::start(Options::one_node(2));
    let three = cluster.wrap("", "exit 3").id();
    let killed = cluster.wrap("", "kill -9 $$").id();
    assert_eq!(cluster.await_end(three).end(), "FAILED 3:0 NonZeroExitCode");
    let job = cluster.await_end(killed);
    assert_eq!((job.state(), job.get("ExitCode")), ("FAILED", "0:9"));
    let lines = cluster.squeue(&format!("-t all -j {three} -o %T|%R"));
    assert_eq!(lines, "FAILED|(NonZeroExitCode)\n");
    let rows = cluster.sacct(&format!("-X -j {three},{killed} -o State,ExitCode"));
    assert_eq!(rows, "FAILED|3:0\nFAILED|0:9\n");
    let waited = cluster.wrap("-W", "exit 5").run();
    assert_eq!(waited.code, 5, "{waited}");
    let waited = cluster.wrap("-W -a 0-2", "exit $SLURM_ARRAY_TASK_ID").run();
    assert_eq!(waited.code, 2, "{waited}");
}

#[test]
fn listings_have_slurms_columns() {
    let cluster = Cluster::start(Options::one_node(2));
    let id = cluster.wrap("-J sleeper -t 10", "sleep 300").id();
    cluster.await_state(id, "RUNNING");
    let waits = cluster.wrap("-J waits -n 2", "true").id();
    cluster.await_reason(waits, "Resources");
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).expect("passwd").expect("known");
    let lines = cluster.cmd("squeue").ok();
    let rows: Vec<Vec<&str>> =
        lines.lines().map(|line| line.split_whitespace().collect()).collect();
    let header = "JOBID PARTITION NAME USER ST TIME NODES NODELIST(REASON)";
    assert_eq!(rows[0].join(" "), header);
    assert_eq!(
        rows[1].join(" "),
        format!("{waits} main waits {} PD 0:00 1 (Resources)", user.name)
    );
    assert_eq!(rows[2][..5], [&id.to_string(), "main", "sleeper", user.name.as_str(), "R"]);
    assert_eq!(rows[2][6..], ["1", "n1"]);
    assert!(lines.starts_with("             JOBID PARTITION     NAME     USER ST       TIME"));
    let shown = cluster.scontrol(&format!("show job {id}"));
    for line in [
        format!("JobId={id} JobName=sleeper"),
        "   JobState=RUNNING Reason=None Dependency=(null)".to_owned(),
        "   NodeList=n1".to_owned(),
        "   NumNodes=1 NumCPUs=1 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:*".to_owned(),
        format!("   WorkDir={}", cluster.work().display()),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no {line:?} in\n{shown}");
    }
    assert!(shown.contains("TimeLimit=00:10:00"), "{shown}");
    let rows = cluster.cmd("sacct").words("-X -j").arg(id.to_string()).ok();
    let words: Vec<&str> = rows.lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(
        words,
        ["JobID", "JobName", "Partition", "Account", "AllocCPUS", "State", "ExitCode"]
    );
    assert!(rows.contains("RUNNING"), "{rows}");
    let nodes = cluster.cmd("sinfo").words("-h -N -o").arg("%N %t %C").ok();
    assert_eq!(nodes, "n1 mix 1/1/0/2\n");
    let unknown = cluster.cmd("squeue").words("-j 999").fails();
    unknown.says("slurm_load_jobs error: Invalid job id specified");
    cluster.cmd("scancel").words("999").ok();
}

#[test]
fn scripts_come_from_files_and_from_standard_input() {
    let cluster = Cluster::start(Options::one_node(2));
    let text = "#!/bin/bash\n#SBATCH -J fromfile --output=file-%x-%j.out\n\
                #SBATCH -t 5\necho \"$0 got $# arguments: $*\"\n";
    let path = cluster.script("my.sh", text);
    let id = cluster.cmd("sbatch").words("--parsable").arg(&path).words("one two").id();
    cluster.script("my.sh", "#!/bin/sh\necho changed after submission\n");
    assert_eq!(cluster.await_end(id).get("JobName"), "fromfile");
    let out = cluster.read(&format!("file-fromfile-{id}.out"));
    assert!(out.ends_with("got 2 arguments: one two\n"), "{out}");
    let kept = cluster.scontrol(&format!("write batch_script {id} -"));
    assert_eq!(kept, text);

    let id = cluster.cmd("sbatch").words("--parsable -J piped").stdin("#!/bin/sh\necho in\n").id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    assert_eq!(cluster.read(&format!("slurm-{id}.out")), "in\n");

    let bad = cluster.cmd("sbatch").stdin("echo no interpreter\n").fails();
    bad.says("This does not look like a batch script");
    let bad = cluster.cmd("sbatch").words("--nonsense").fails();
    assert_eq!(bad.code, 255, "{bad}");
}

#[test]
fn output_goes_where_the_options_say() {
    let cluster = Cluster::start(Options::one_node(2));
    let dir = cluster.work().join("sub");
    std::fs::create_dir(&dir).expect("new");
    let words = format!("-D {} -J x -o o-%j-%x.txt -e e-%N.txt", dir.display());
    let id = cluster.wrap(&words, "pwd; echo bad >&2").id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    assert_eq!(cluster.read(&format!("sub/o-{id}-x.txt")), format!("{}\n", dir.display()));
    assert_eq!(cluster.read("sub/e-n1.txt"), "bad\n");

    for (mode, expect) in [("truncate", "two\n"), ("append", "two\nthree\n")] {
        let text = expect.lines().last().expect("a line");
        std::fs::write(cluster.work().join("seed.txt"), "").expect("written");
        let words = format!("-o both.txt --open-mode={mode}");
        if mode == "truncate" {
            std::fs::write(cluster.work().join("both.txt"), "one\n").expect("written");
        }
        let id = cluster.wrap(&words, &format!("echo {text}")).id();
        cluster.await_end(id);
        assert_eq!(cluster.read("both.txt"), expect);
    }

    std::fs::write(cluster.work().join("in.txt"), "given\n").expect("written");
    let id = cluster.wrap("-i in.txt -o cat.out", "cat").id();
    cluster.await_end(id);
    assert_eq!(cluster.read("cat.out"), "given\n");

    let id = cluster.wrap("-o missing/x.out", "true").id();
    assert_eq!(cluster.await_end(id).state(), "FAILED");
}

#[test]
fn commands_inside_a_job_find_the_cluster() {
    let cluster = Cluster::start(Options::one_node(2));
    let script = "scontrol show job $SLURM_JOB_ID -o | tr ' ' '\\n' | grep -cE 'JobState=(RUNNING|CONFIGURING)'; \
                  sbatch --parsable -o inner.out --wrap 'echo inner'; srun hostname; echo srun: $?";
    let id = cluster.wrap("--export=NONE -o outer.out", script).env("SECRET", "x").id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    let out = cluster.read("outer.out");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["1", &(id + 1).to_string()], "{out}");
    assert_eq!(lines[3..], ["srun: 0"], "{out}");
    assert_eq!(cluster.await_end(id + 1).state(), "COMPLETED");
    assert_eq!(cluster.read("inner.out"), "inner\n");
}

#[test]
fn a_job_without_sleep_ends_when_it_is_cancelled() {
    let cluster = Cluster::start(Options::one_node(4));
    let running = cluster.wrap("", "sleep 300").id();
    let waiting = cluster.wrap("-H", "true").id();
    let trapped =
        cluster.wrap("-o trap.out", "trap 'echo got usr1' USR1; while :; do sleep 0.05; done").id();
    cluster.await_state(running, "RUNNING");
    cluster.await_state(trapped, "RUNNING");
    cluster.cmd("scancel").arg(waiting.to_string()).ok();
    assert_eq!(cluster.await_end(waiting).state(), "CANCELLED");
    cluster.cmd("scancel").arg(running.to_string()).ok();
    let uid = nix::unistd::getuid();
    let job = cluster.await_end(running);
    assert_eq!((job.state(), job.get("ExitCode")), ("CANCELLED", "0:15"));
    let rows = cluster.sacct(&format!("-j {running} -o State,ExitCode"));
    assert_eq!(rows, format!("CANCELLED by {uid}|0:0\nCANCELLED|0:15\n"));
    cluster.cmd("scancel").words("-s USR1 -b").arg(trapped.to_string()).ok();
    cluster.await_text("trap.out", "got usr1");
    assert_eq!(cluster.job(trapped).state(), "RUNNING");
    let name = nix::unistd::User::from_uid(uid).expect("passwd").expect("known").name;
    let more = cluster.wrap("-a 0-9 -H", "true").id();
    cluster.cmd("scancel").words("-u").arg(&name).ok();
    assert_eq!(cluster.await_end(trapped).state(), "CANCELLED");
    assert_eq!(cluster.await_end(more).get("ArrayTaskId"), "0-9");
    let line = cluster.squeue(&format!("-t all -j {more} -o %i|%t"));
    assert_eq!(line, format!("{more}_[0-9]|CA\n"));
    let rows = cluster.sacct(&format!("-X -j {more} -o JobID,State"));
    assert_eq!(rows, format!("{more}_[0-9]|CANCELLED by {uid}\n"));
    assert_eq!(cluster.squeue(""), "");
    if is_root() {
        let id = cluster.wrap("", "setsid sh -c 'trap \"\" TERM; sleep 300' & sleep 300").id();
        cluster.await_state(id, "RUNNING");
        cluster.cmd("scancel").arg(id.to_string()).ok();
        cluster.await_end(id);
        cluster.await_quiet();
    }
}
