//! Do the site's own scripts run, and does what they say happen?

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Options, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster whose sections name scripts in its own work folder, which `$W` stands for.
fn hooked(nodes: u32, sections: &str, scripts: &[(&str, &str)]) -> Cluster {
    let cluster = Cluster::start(Options::nodes(nodes, 2));
    let work = cluster.work().display().to_string();
    for (name, text) in scripts {
        cluster.script(name, &text.replace("$W", &work));
    }
    let file = cluster.dir().join("cluster.toml");
    let text = fs::read_to_string(&file).expect("the cluster file is there");
    fs::write(&file, format!("{text}\n{}\n", sections.replace("$W", &work)))
        .expect("the cluster file can be written");
    cluster.scontrol("reconfigure");
    cluster
}

#[test]
fn prolog_and_epilog_go_round_a_job_on_each_of_its_nodes() {
    let sections =
        "[hooks]\nprolog = \"$W/prolog\"\nepilog = \"$W/epilog\"\ntask_prolog = \"$W/task\"";
    let wait = "#!/bin/sh\necho $SLURM_SCRIPT_CONTEXT $SLURM_JOB_ID $SLURM_JOB_NODELIST >> $W/log\n\
                while [ ! -e $W/go ]; do sleep 0.05; done\n";
    let scripts = [
        ("prolog", wait),
        ("epilog", "#!/bin/sh\necho $SLURM_SCRIPT_CONTEXT $SLURM_JOB_EXIT_CODE2 >> $W/log\n"),
        ("task", "#!/bin/sh\necho export SITE=yes\necho print hello\n"),
    ];
    let cluster = hooked(2, sections, &scripts);
    let id = cluster.wrap("-N 2 -o out", "echo SITE=$SITE; exit 3").id();
    cluster.await_text("log", &format!("prolog_slurmd {id} n[1-2]\nprolog_slurmd {id} n[1-2]\n"));
    assert_eq!(cluster.job(id).state(), "CONFIGURING");
    assert_eq!(cluster.job(id).get("Reason"), "Prolog");
    assert_eq!(cluster.read("out"), "");
    fs::write(cluster.work().join("go"), "").unwrap();
    assert_eq!(cluster.await_end(id).end(), "FAILED 3:0 NonZeroExitCode");
    assert_eq!(cluster.read("out"), "hello\nSITE=yes\n");
    // Until it is over, both epilogs have run.
    let log = cluster.read("log");
    assert_eq!(log.matches("epilog_slurmd 3:0\n").count(), 2, "{log}");
}

#[test]
fn a_prolog_that_fails_drains_the_node_and_holds_the_job() {
    let sections = "[hooks]\nprolog = \"$W/prolog\"";
    let cluster = hooked(1, sections, &[("prolog", "#!/bin/sh\n[ ! -e $W/bad ]\n")]);
    let bad = cluster.work().join("bad");
    fs::write(&bad, "").unwrap();
    let id = cluster.wrap("-o out", "echo ran").id();
    cluster.await_reason(id, "launch_failed_requeued_held");
    let node = cluster.scontrol("show node n1");
    assert!(node.contains("Reason=Prolog error ["), "{node}");
    assert!(cluster.node_state("n1").contains("DRAIN"), "{node}");
    fs::remove_file(bad).unwrap();
    cluster.scontrol("update nodename=n1 state=resume");
    cluster.scontrol(&format!("release {id}"));
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    assert_eq!(cluster.read("out"), "ran\n");
}

#[test]
fn an_agent_killed_during_a_prolog_goes_on_with_it() {
    let text = "#!/bin/sh\necho ran >> $W/log\nwhile [ ! -e $W/go ]; do sleep 0.05; done\n";
    let mut cluster = hooked(1, "[hooks]\nprolog = \"$W/prolog\"", &[("prolog", text)]);
    let id = cluster.wrap("-o out", "echo job").id();
    cluster.await_text("log", "ran");
    cluster.kill_agent(0);
    cluster.restart_agent(0, None);
    fs::write(cluster.work().join("go"), "").unwrap();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    assert_eq!((cluster.read("log"), cluster.read("out")), ("ran\n".into(), "job\n".into()));
}

#[test]
fn the_sites_lua_script_refuses_changes_and_is_stopped() {
    let lua = "
        function slurm_job_submit(desc, parts, uid)
            if desc.name == 'loop' then while true do pcall(function() while true do end end) end end
            if desc.name == 'bad' then
                slurm.log_user('not this one\\nask')
                return slurm.ESLURM_INVALID_ACCOUNT
            end
            if desc.time_limit == slurm.NO_VAL then desc.time_limit = 7 end
            slurm.user_msg('limit ' .. desc.time_limit)
            return slurm.SUCCESS
        end
        function slurm_job_modify(desc, rec, parts, uid) return slurm.ESLURM_ACCESS_DENIED end";
    let cluster =
        hooked(1, "[hooks]\njob_submit = \"$W/job_submit.lua\"", &[("job_submit.lua", lua)]);
    let ran = cluster.cmd("sbatch").words("--parsable -o /dev/null --wrap true").run();
    ran.says("sbatch: limit 7");
    let id: u32 = ran.out.trim().parse().unwrap();
    assert_eq!(cluster.job(id).get("TimeLimit"), "00:07:00");
    let refused = cluster.cmd("sbatch").words("-J bad --wrap true").fails();
    assert_eq!(
        refused.err,
        "sbatch: error: not this one\nsbatch: error: ask\nsbatch: error: Batch job submission \
         failed: Invalid account or account/partition combination specified\n"
    );
    let begun = Instant::now();
    let refused = cluster.cmd("sbatch").words("-J loop --wrap true").fails();
    refused.says("longer than it may");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let held = cluster.wrap("-H", "true").id();
    let words = format!("update JobId={held} Comment=x");
    cluster.cmd("scontrol").words(&words).fails().says("Access/permission denied");
    fs::write(cluster.work().join("job_submit.lua"), "this is no lua").unwrap();
    cluster.scontrol("reconfigure");
    cluster
        .cmd("sbatch")
        .words("--wrap true")
        .fails()
        .says("cannot be used: syntax error: job_submit.lua:1:");
}

#[test]
fn controller_scripts_and_mail_come_with_a_job() {
    let sections = "[hooks]\ncontroller_prolog = \"$W/site\"\ncontroller_epilog = \"$W/site\"\n\
                    [mail]\nprogram = \"$W/mail\"\ndomain = \"example.org\"";
    let scripts = [
        ("site", "#!/bin/sh\necho $SLURM_SCRIPT_CONTEXT $SLURM_JOB_NAME >> $W/log\n"),
        ("mail", "#!/bin/sh\necho \"$1 $2 | $3 $SLURM_JOB_ID\" >> $W/mails\n"),
    ];
    let cluster = hooked(1, sections, &scripts);
    let id = cluster.wrap("-J probe --mail-type=ALL --mail-user=me -o /dev/null", "exit 4").id();
    cluster.await_end(id);
    wait_until("both letters", PATIENCE, || cluster.read("mails").lines().count() == 2);
    let mails = cluster.read("mails");
    let lines: Vec<&str> = mails.lines().collect();
    let began = format!("-s Slurm Job_id={id} Name=probe Began, Queued time 00:00:0");
    assert!(lines[0].starts_with(&began), "{mails}");
    assert!(lines[0].ends_with(&format!(" | me@example.org {id}")), "{mails}");
    let failed = format!("-s Slurm Job_id={id} Name=probe Failed, Run time 00:00:0");
    assert!(
        lines[1].starts_with(&failed) && lines[1].contains(", FAILED, ExitCode 4 | "),
        "{mails}"
    );
    cluster.await_text("log", "prolog_slurmctld probe\nepilog_slurmctld probe\n");
}
