use jiff::tz::TimeZone;
use penstock_vocab::{ArrayTaskId, JobId, JobState};

use crate::listing::testing::{START, SUBMIT, job};

use super::*;

fn clock() -> Clock {
    Clock::new(TimeZone::UTC, None, START + 29_000)
}

fn show(info: &v1::JobInfo, flags: Flags) -> String {
    let clock = clock();
    record(&JobRow::live(info, clock.now_ms()), flags, &clock)
}

#[test]
fn running_job_is_slurms() {
    let info = job(1).priority(4_294_901_759).running("n1").build();
    let plain = "\
JobId=1 JobName=wrap
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   Priority=4294901759 Nice=0 Account=acct1 QOS=normal
   JobState=RUNNING Reason=None Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0
   DerivedExitCode=0:0
   RunTime=00:00:29 TimeLimit=01:00:00 TimeMin=N/A
   SubmitTime=2026-11-24T08:05:47 EligibleTime=2026-11-24T08:05:47
   AccrueTime=2026-11-24T08:05:47
   StartTime=2026-11-24T08:05:49 EndTime=2026-11-24T09:05:49 Deadline=N/A
   SuspendTime=None SecsPreSuspend=0 LastSchedEval=2026-11-24T08:05:49 Scheduler=Main
   Partition=main AllocNode:Sid=localhost:7266
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList=n1
   BatchHost=n1
   NumNodes=1 NumCPUs=1 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
   TRES=cpu=1,mem=10M,node=1,billing=1
   Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=*
   JOB_GRES=(null)
     Nodes=n1 CPU_IDs=0 Mem=10 GRES=
   MinCPUsNode=1 MinMemoryNode=10M MinTmpDiskNode=0
   Features=(null) DelayBoot=00:00:00
   OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null)
   Command=(null)
   WorkDir=/tmp/rs/w
   StdErr=/tmp/rs/w/slurm-1.out
   StdIn=/dev/null
   StdOut=/tmp/rs/w/slurm-1.out
   Power=
   

";
    assert_eq!(show(&info, Flags { details: true, ..Flags::default() }), plain);
    let line = show(&info, Flags { oneline: true, details: true, ..Flags::default() });
    let expect = plain.trim_end().replace("\n   ", " ");
    assert_eq!(line, format!("{expect} \n"));
}

#[test]
fn pending_job_has_no_nodes_and_maybe_an_expected_start() {
    let info = job(16)
        .reason("Dependency")
        .partition("main,long")
        .with(|info| info.dependency = "afterany:1(unfulfilled)".into())
        .spec(|spec| {
            spec.required_nodes = vec!["n2".into()];
            spec.excluded_nodes = vec!["n1".into()];
            spec.mem_per_node_mib = None;
            spec.mem_per_cpu_mib = Some(1024);
            spec.command = "/tmp/rs/w/x.sh".into();
            spec.script_arguments = vec!["a1".into(), "b 2".into()];
            spec.stdout = "out_%j_%x".into();
            spec.stderr = "err.%A".into();
            spec.nodes_max = 2;
            spec.begin_time_ms = START + 7_200_000;
        })
        .record(|job| job.time_limit_secs = 0)
        .build();
    let text = show(&info, Flags::default());
    for line in [
        "   JobState=PENDING Reason=Dependency Dependency=afterany:1(unfulfilled)\n",
        "   RunTime=00:00:00 TimeLimit=UNLIMITED TimeMin=N/A\n",
        "   StartTime=2026-11-24T10:05:49 EndTime=Unknown Deadline=N/A\n",
        "   Partition=main,long AllocNode:Sid=localhost:7266\n",
        "   ReqNodeList=n2 ExcNodeList=n1\n   NodeList=\n   NumNodes=1-2 NumCPUs=1 ",
        "   MinCPUsNode=1 MinMemoryCPU=1G MinTmpDiskNode=0\n",
        "   Command=/tmp/rs/w/x.sh a1 b 2\n",
        "   StdErr=/tmp/rs/w/err.16\n   StdIn=/dev/null\n   StdOut=/tmp/rs/w/out_16_wrap\n",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn arrays_show_the_rest_and_every_task() {
    let infos = [
        job(11).running("n1").task(5, 1).record(|job| {
            job.array = Some(v1::ArraySummary { throttle: 2, ..v1::ArraySummary::default() });
        }),
        job(5).reason("JobArrayTaskLimit").rest(&[3, 9, 1], 2),
    ]
    .map(|builder| builder.build());
    let infos: Vec<&v1::JobInfo> = infos.iter().collect();
    let clock = clock();
    let first_lines = |selector: Option<&JobSelector>| -> Vec<String> {
        let rows = rows(&infos, selector, &clock);
        let texts = rows.iter().map(|row| record(row, Flags::default(), &clock));
        texts.filter_map(|text| text.lines().next().map(str::to_owned)).collect()
    };
    assert_eq!(
        first_lines(Some(&JobSelector::Job(JobId(5)))),
        [
            "JobId=5 ArrayJobId=5 ArrayTaskId=3-9%2 ArrayTaskThrottle=2 JobName=wrap",
            "JobId=11 ArrayJobId=5 ArrayTaskId=1 ArrayTaskThrottle=2 JobName=wrap",
        ]
    );
    let text = show(infos[1], Flags::default());
    assert!(text.contains("StdOut=/tmp/rs/w/slurm-5_4294967294.out\n"), "{text}");
    let seventh = JobSelector::Task(JobId(5), ArrayTaskId(7));
    let rows = rows(&infos[1..], Some(&seventh), &clock);
    let text = record(&rows[0], Flags::default(), &clock);
    assert!(
        text.starts_with("JobId=5 ArrayJobId=5 ArrayTaskId=7 ArrayTaskThrottle=2 JobName=wrap\n")
    );
    assert!(text.contains("StdOut=/tmp/rs/w/slurm-5_7.out\n"), "{text}");
}

#[test]
fn nodes_that_give_the_same_share_a_line() {
    let gpu = |ids: &[u32]| v1::GresShare {
        name: "gpu".into(),
        r#type: "h100".into(),
        ids: ids.to_vec(),
        ..v1::GresShare::default()
    };
    let share = |node: &str, ids: &[u32]| v1::NodeShare {
        node: node.into(),
        cpu_ranges: vec![0, 3, 8, 8],
        memory_mib: 20,
        tasks: 1,
        gres: vec![gpu(ids)],
        ..v1::NodeShare::default()
    };
    let info = job(3)
        .running("n1")
        .run(|run| run.shares = vec![share("n1", &[0, 1]), share("n2", &[0, 1]), share("n3", &[2])])
        .spec(|spec| {
            spec.gres_per_node =
                vec![v1::GresCount { name: "gpu".into(), r#type: "h100".into(), count: 2 }];
            spec.comment = "hi".into();
        })
        .build();
    let text = show(&info, Flags { details: true, ..Flags::default() });
    for line in [
        "   JOB_GRES=gpu:h100:5\n     Nodes=n[1-2] CPU_IDs=0-3,8 Mem=20 GRES=gpu:h100:2(IDX:0-1)\n",
        "     Nodes=n3 CPU_IDs=0-3,8 Mem=20 GRES=gpu:h100:1(IDX:2)\n",
        "   WorkDir=/tmp/rs/w\n   Comment=hi \n   StdErr=",
        "   Power=\n   TresPerNode=gres:gpu:h100:2\n   \n\n",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn ended_job_keeps_its_nodes_and_code() {
    let info = job(3)
        .running("n1")
        .ended(JobState::Failed, v1::EndCause::Exited, 0)
        .run(|run| run.exit_status = 3)
        .reason("NonZeroExitCode")
        .build();
    let text = show(&info, Flags::default());
    for line in [
        "   JobState=FAILED Reason=NonZeroExitCode Dependency=(null)\n",
        "ExitCode=3:0\n",
        "   StartTime=2026-11-24T08:05:49 EndTime=2026-11-24T08:05:49 Deadline=N/A\n",
        "   NodeList=n1\n   BatchHost=n1\n",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
    assert_eq!(SUBMIT + 2000, START);
}

#[test]
fn what_a_job_waits_for_and_may_use_is_shown() {
    let info = job(12)
        .spec(|spec| {
            spec.reservation = "root_1".into();
            spec.deadline_ms = SUBMIT + 7_200_000;
            spec.min_time_secs = Some(120);
            spec.exclusive_user = true;
            spec.licenses = vec![v1::LicenseCount { name: "matlab".into(), count: 3 }];
            spec.switches = Some(v1::SwitchRequest { count: 1, max_wait_secs: 300 });
        })
        .with(|info| info.expected_nodes = "n[1-2]".into())
        .build();
    let text = show(&info, Flags::default());
    for part in [
        " TimeMin=00:02:00\n",
        " Deadline=2026-11-24T10:05:47\n",
        "   SchedNodeList=n[1-2]\n",
        "   Reservation=root_1\n   OverSubscribe=USER Contiguous=0 Licenses=matlab:3 Network=(null)\n",
        "   Switches=1@00:05:00\n   Power=\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn a_job_that_stands_still_says_since_when() {
    let info = job(3)
        .running("n1")
        .run(|run| {
            run.suspended_since_ms = START + 20_000;
            run.suspended_ms = 5000;
        })
        .build();
    let text = show(&info, Flags::default());
    assert!(text.contains("RunTime=00:00:15 "), "{text}");
    assert!(text.contains("SuspendTime=2026-11-24T08:06:09 SecsPreSuspend=15 "), "{text}");
    assert!(text.contains(" EndTime=2026-11-24T09:06:03 "), "{text}");
}
