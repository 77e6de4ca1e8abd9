//! Are GPUs that somebody holds and does not use seen, told of, and taken back, and only those?

use crate::harness::{Home, wait_until};

/// Rules with short times.
const RULE: &str = "\n[[idle_reclaim]]\nname = \"film\"\nwindow_secs = 6\ncoverage_percent = 50\n\
    start_grace_secs = 0\nwarnings = 2\ngrace_secs = 6\naction = \"cancel\"\ndry_run = false\n";

#[test]
fn idle_gpus_are_taken_back_after_every_notice_and_busy_ones_are_not() {
    let home = Home::new();
    home.quickstart("--fake-gpus h100:4 --cpus 8 --detach").ok();
    home.sh(&format!(
        "export PENSTOCK_CONFIG=\"$dir/cluster.toml\" PATH=\"$dir/bin:$PATH\"
         printf '{}' >> \"$PENSTOCK_CONFIG\"
         scontrol reconfigure
         sub() {{ sbatch --gres=gpu:1 -t 60 \"$@\" --wrap 'exec sleep 600'; }}
         FAKE_GPU_PERCENT=0 FAKE_GPU_MIB=100 sub -o idle.out
         FAKE_GPU_PERCENT=90 sub -o busy.out
         FAKE_GPU_PERCENT=0 FAKE_GPU_MIB=70000 sub -o loaded.out
         FAKE_GPU_PERCENT=0 FAKE_GPU_MIB=100 sub -o meant.out --idle-ok='a debugger is attached'",
        RULE.replace('\n', "\\n")
    ))
    .ok();
    let ask = |script: &str| {
        let text = "export PENSTOCK_CONFIG=\"$dir/cluster.toml\" PATH=\"$dir/bin:$PATH\"\n";
        home.sh(&format!("{text}{script}")).ok().out
    };
    wait_until("the job's reason tells of its idle GPU", || {
        ask("squeue -h -j 1 -o %r").trim() == "IdleGpus"
    });
    let shown = ask("scontrol show job 1");
    assert!(shown.contains("IdleGpus=1_of_1_GPUs_idle_for_"), "{shown}");
    assert!(shown.contains(" Rule=film Action=cancel At="), "{shown}");
    wait_until("it is taken back", || {
        ask("squeue -h -j 1 -t R -o %T 2>/dev/null || true").is_empty()
    });
    let out = home.read("idle.out");
    for told in ["(notice 1 of 2); the job is cancelled in", "(notice 2 of 2)", "--idle-ok=REASON"]
    {
        assert!(out.contains(told), "{told}: {out}");
    }
    assert!(out.contains("slurmstepd: error: job 1 cancelled: 1 of 1 GPUs idle for "), "{out}");
    assert_eq!(ask("squeue -h -t R -o %i | sort"), "2\n3\n4\n");
    let meant = ask("scontrol show job 4");
    assert!(meant.contains("IdleOk=a debugger is attached"), "{meant}");
    assert_eq!(home.read("meant.out") + &home.read("busy.out") + &home.read("loaded.out"), "");
    let report = ask("penstock idle --report");
    assert!(report.contains("rule film "), "{report}");
    assert!(
        report.contains("1 runs were told, something was done to 1; recovered: 0.9"),
        "{report}"
    );
    let ended = ask("scontrol show job 1");
    assert!(ended.contains("JobState=CANCELLED"), "{ended}");
    assert!(ended.contains("ReasonDetail=1 of 1 GPUs idle for "), "{ended}");
    assert!(ended.contains("(idle_reclaim film)"), "{ended}");
}

#[test]
fn a_rule_that_is_only_tried_out_tells_nobody_and_a_held_gpu_without_a_process_is_seen() {
    let home = Home::new();
    home.quickstart("--fake-gpus h100:1 --cpus 8 --detach").ok();
    let rule = RULE.replace("dry_run = false\n", "").replace('\n', "\\n");
    let ask = |script: &str| {
        let text = "export PENSTOCK_CONFIG=\"$dir/cluster.toml\" PATH=\"$dir/bin:$PATH\"\n";
        home.sh(&format!("{text}{script}")).ok().out
    };
    ask(&format!("printf '{rule}' >> \"$PENSTOCK_CONFIG\"; scontrol reconfigure"));
    // It is given a GPU, and its process has taken the variable away.
    ask("sbatch --gres=gpu:1 -t 60 -o held.out --wrap 'exec env -i sleep 600'");
    wait_until("it would have been ended", || {
        ask("penstock idle --minutes 0").contains("cancelled (dry run)")
    });
    assert_eq!(ask("squeue -h -o '%i %T %r'"), "1 RUNNING None\n");
    assert_eq!(home.read("held.out"), "");
    let log = std::fs::read_to_string(home.dir().join("controller.log")).unwrap_or_default();
    assert!(log.is_empty() || log.contains("dry run"), "{log}");
}

#[test]
fn a_drain_says_what_is_in_the_way_and_ends_it_at_its_deadline() {
    let home = Home::new();
    home.quickstart("--fake-gpus h100:2 --cpus 8 --detach").ok();
    let ask = |script: &str| {
        let text = "export PENSTOCK_CONFIG=\"$dir/cluster.toml\" PATH=\"$dir/bin:$PATH\"\n";
        home.sh(&format!("{text}{script}")).ok().out
    };
    ask("sbatch --gres=gpu:1 -t 30 -o one.out --wrap 'exec sleep 600'
         sbatch --gres=gpu:1 -t 10 --no-requeue -o two.out --wrap 'exec sleep 600'");
    wait_until("both run", || ask("squeue -h -t R -o %i | sort") == "1\n2\n");
    let plan = ask("scontrol drain node1 --plan");
    assert!(plan.starts_with("node node1: is empty by "), "{plan}");
    assert!(plan.contains("yes") && plan.contains("no"), "{plan}");
    let one = ask("scontrol drain node1 --gpu=1 --plan --deadline=now+1hour --json");
    assert!(one.contains("\"gpu\":1") && one.contains("\"beyond_deadline\":false"), "{one}");
    assert_eq!(ask("sinfo -h -o %T"), "mixed\n", "a plan changes nothing");
    ask("scontrol drain node1 --deadline=now+3seconds reason=fan");
    wait_until("what still runs is ended", || {
        ask("squeue -h -t R -o %i").is_empty() && ask("squeue -h -t PD -o %i") == "1\n"
    });
    let (one, two) = (home.read("one.out"), home.read("two.out"));
    assert!(one.contains("job 1: node node1 is drained for fan"), "{one}");
    assert!(one.contains("is requeued") && two.contains("is cancelled"), "{one}{two}");
    let ended = ask("scontrol show job 2");
    assert!(ended.contains("JobState=CANCELLED"), "{ended}");
    assert!(ended.contains("node node1 was drained by its deadline: fan"), "{ended}");
    ask("scontrol undrain node1");
    wait_until("it runs again", || ask("squeue -h -t R -o %i") == "1\n");
}

#[test]
fn a_health_program_of_the_admin_drains_its_node() {
    let home = Home::new();
    home.quickstart("--cpus 2 --detach").ok();
    let ask = |script: &str| {
        let text = "export PENSTOCK_CONFIG=\"$dir/cluster.toml\" PATH=\"$dir/bin:$PATH\"\n";
        home.sh(&format!("{text}{script}")).ok().out
    };
    ask("cat > \"$dir/check\" <<'EOF'
#!/bin/sh
scontrol update NodeName=$SLURMD_NODENAME State=DRAIN Reason=unwell
exit 3
EOF
chmod 755 \"$dir/check\"
printf '\\n[health_check]\\nprogram = \"%s\"\\ninterval_secs = 1\\nnode_state = \"IDLE\"\\n' \"$dir/check\" \\
  >> \"$PENSTOCK_CONFIG\"
scontrol reconfigure");
    wait_until("it drains its node", || ask("sinfo -h -o '%T %E'").starts_with("drained unwell"));
}
