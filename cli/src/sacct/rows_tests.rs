use jiff::tz::TimeZone;
use penstock_vocab::{JobFlag, JobState};

use crate::listing::testing::{START, job};

use super::super::options::{Choice, read};
use super::*;

/// Jobs as in a small cluster after half a minute.
fn world() -> Vec<v1::JobInfo> {
    let four = |info: &mut v1::JobInfo| {
        info.num_cpus = 4;
        info.num_tasks = 2;
        info.tres_requested = "billing=4,cpu=4,mem=10M,node=1".into();
        info.tres_allocated = info.tres_requested.clone();
    };
    let usage = v1::Usage {
        user_cpu_usec: 32_000,
        system_cpu_usec: 93_000,
        peak_memory_bytes: 3_047_424,
        memory_limit_bytes: 0,
        tasks: None,
    };
    vec![
        job(1).running("n1").build(),
        job(2)
            .name("a job with long name")
            .running("n2")
            .with(four)
            .record(|job| job.time_limit_secs = 93_840)
            .ended(JobState::Cancelled, v1::EndCause::Cancelled, 1)
            .run(|run| {
                run.shares[0].cpu_ranges = vec![0, 3];
                run.exit_signal = 15;
            })
            .build(),
        job(3)
            .running("n1")
            .ended(JobState::Failed, v1::EndCause::Exited, 0)
            .run(|run| {
                run.exit_status = 3;
                run.derived_status = 4;
                run.usage = Some(usage);
            })
            .reason("NonZeroExitCode")
            .build(),
        job(5).rest(&[3, 9, 1], 2).record(|job| job.eligible_ms = 0).build(),
        job(9)
            .running("n2")
            .ended(JobState::Failed, v1::EndCause::Exited, 0)
            .run(|run| run.exit_signal = 9)
            .build(),
        job(11).running("n1").task(5, 1).build(),
        job(12)
            .running("n1")
            .task(5, 2)
            .ended(JobState::Timeout, v1::EndCause::TimeLimit, 60)
            .build(),
    ]
}

fn sacct_of(infos: Vec<v1::JobInfo>, line: &[&str]) -> String {
    let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
    let now = "2026-11-24T08:06:19+00:00[UTC]".parse().expect("a time");
    let Ok(Choice::List(options)) = read("sacct", &args, &|_| None, &now) else {
        panic!("{line:?} is refused");
    };
    let clock = Clock::new(TimeZone::UTC, None, START + 30_000);
    let mut out = Vec::new();
    print(&options, infos, &[], "bench", &clock, &mut |bytes| out.extend_from_slice(bytes));
    String::from_utf8(out).expect("UTF-8")
}

fn sacct(line: &[&str]) -> String {
    sacct_of(world(), line)
}

#[test]
fn default_listing_is_slurms() {
    let expect = "\
JobID           JobName  Partition    Account  AllocCPUS      State ExitCode \n\
------------ ---------- ---------- ---------- ---------- ---------- -------- \n\
1                  wrap       main      acct1          1    RUNNING      0:0 \n\
1.batch           batch                 acct1          1    RUNNING      0:0 \n\
2            a job wit+       main      acct1          4 CANCELLED+      0:0 \n\
2.batch           batch                 acct1          4  CANCELLED     0:15 \n\
3                  wrap       main      acct1          1     FAILED      3:0 \n\
3.batch           batch                 acct1          1     FAILED      3:0 \n\
9                  wrap       main      acct1          1     FAILED      0:9 \n\
9.batch           batch                 acct1          1  CANCELLED      0:9 \n\
5_1                wrap       main      acct1          1    RUNNING      0:0 \n\
5_1.batch         batch                 acct1          1    RUNNING      0:0 \n\
5_2                wrap       main      acct1          1    TIMEOUT      0:0 \n\
5_2.batch         batch                 acct1          1  CANCELLED     0:15 \n";
    assert_eq!(sacct(&[]), expect);
    // Tasks that wait for their array's throttle are told to who asks for it.
    assert!(sacct(&["-j", "5"]).contains("\n5_[3-9%2]          wrap "));
}

#[test]
fn allocations_and_brief_are_slurms() {
    let brief = sacct(&["-bX"]);
    assert_eq!(
        brief.lines().take(4).collect::<Vec<_>>(),
        [
            "JobID             State ExitCode ",
            "------------ ---------- -------- ",
            "1               RUNNING      0:0 ",
            "2            CANCELLED+      0:0 ",
        ]
    );
    assert!(!brief.contains("batch"), "{brief}");
    assert_eq!(sacct(&["-nXPj", "2", "-o", "state"]).lines().nth(1), Some("CANCELLED by 0"));
}

#[test]
fn job_and_step_rows_share_the_fields_as_in_slurm() {
    let only = |id: u32| {
        world().into_iter().filter(move |info| info.job.as_ref().is_some_and(|job| job.id == id))
    };
    let fields = "jobidraw,user,uid,alloctres,reqtres,reqmem,timelimit,timelimitraw,totalcpu,maxrss,\
                  maxrssnode,ntasks,nnodes,allocnodes,nodelist,eligible,submit,start,end,elapsed,\
                  elapsedraw,cputimeraw,qos,cluster,workdir,reserved,reason,derivedexitcode";
    let of = |id: u32| sacct_of(only(id).collect(), &["-nP", "-j", &id.to_string(), "-o", fields]);
    assert_eq!(
        of(3),
        "3|root|0|billing=1,cpu=1,mem=10M,node=1|billing=1,cpu=1,mem=10M,node=1|10M|01:00:00|60|\
         00:00.125|||" // No peak memory on the job's row.
            .to_owned()
            + "|1|1|n1|2026-11-24T08:05:47|2026-11-24T08:05:47|2026-11-24T08:05:49|\
               2026-11-24T08:05:49|00:00:00|0|0|normal|bench|/tmp/rs/w|00:00:02|None|4:0\n\
               3.batch|||cpu=1,mem=10M,node=1|||||00:00.125|2976K|n1|1|1|1|n1|2026-11-24T08:05:49|\
               2026-11-24T08:05:49|2026-11-24T08:05:49|2026-11-24T08:05:49|00:00:00|0|0||bench||||\n"
    );
    assert_eq!(
        of(5),
        "5|root|0||billing=1,cpu=1,mem=10M,node=1|10M|01:00:00|60|00:00:00||||1|0|None assigned|\
         Unknown|2026-11-24T08:05:47|Unknown|Unknown|00:00:00|0|0|normal|bench|/tmp/rs/w||None|0:0\n"
    );
}

#[test]
fn parsable_rows_have_delimiters() {
    let two = |flag: &str| sacct(&[flag, "-nj", "2", "--delimiter=;;", "-o", "jobid,state"]);
    assert!(two("-p").contains("2;;CANCELLED by 0;;\n2.batch;;CANCELLED;;\n"));
    assert!(two("-P").contains("2;;CANCELLED by 0\n2.batch;;CANCELLED\n"));
}

#[test]
fn steps_are_shown_alone_when_asked_for_alone() {
    let only: Vec<v1::JobInfo> = world()
        .into_iter()
        .filter(|info| info.job.as_ref().is_some_and(|job| job.id == 3))
        .collect();
    let of = |jobs: &str| sacct_of(only.clone(), &["-nP", "-o", "jobid", "-j", jobs]);
    assert_eq!(of("3"), "3\n3.batch\n");
    assert_eq!(of("3.batch"), "3.batch\n");
    assert_eq!(of("3.0"), "");
    assert_eq!(of("3,3.batch"), "3\n3.batch\n");
}

#[test]
fn requeued_runs_and_checks() {
    let requeued = job(7)
        .running("n1")
        .ended(JobState::Cancelled, v1::EndCause::Requeue, 5)
        .state(JobState::Pending)
        .build();
    assert_eq!(sacct_of(vec![requeued], &["-nXPo", "state,exitcode"]), "REQUEUED|0:0\n");
    let lost = job(7)
        .running("n1")
        .ended(JobState::Pending, v1::EndCause::NodeFail, 5)
        .flag(JobFlag::Requeued)
        .build();
    assert_eq!(sacct_of(vec![lost], &["-nXPo", "state"]), "NODE_FAIL\n");
    assert_eq!(sacct(&["-nXPo", "jobid", "-I", "2-8"]), "2\n");
    assert_eq!(sacct(&["-nXPo", "jobid", "-q", "other"]), "");
    let exits = sacct(&["-nXPo", "jobid,exitcode,derivedexitcode"]);
    assert!(exits.contains("3|3:0|4:0\n") && exits.contains("1|0:0|0:0\n"), "{exits}");
    assert_eq!(sacct(&["-nXPo", "jobid", "-I", "2-8", "-M", "all"]), "2\n");
    assert_eq!(sacct(&["-nXPo", "jobid", "-I", "2-8", "--clusters=other,bench"]), "2\n");
    assert_eq!(sacct(&["-nXPo", "jobid", "-M", "other"]), "");
    assert_eq!(sacct(&["-nXPo", "jobid", "-k", "1-00:00:00", "-K", "2-00:00:00"]), "2\n");
}

#[test]
fn times_are_cut_to_the_window() {
    let line = ["-nXPT", "-S", "2026-11-24T08:06:00", "-o", "start,elapsedraw", "-j", "1"];
    assert_eq!(sacct_of(world().into_iter().take(1).collect(), &line), "2026-11-24T08:06:00|19\n");
}
