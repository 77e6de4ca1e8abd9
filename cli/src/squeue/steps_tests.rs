use jiff::tz::TimeZone;
use penstock_vocab::JobState;

use crate::listing::testing::{START, job};

use super::*;

fn step(job: u32, number: u32, name: &str, start: i64) -> StepRecord {
    let spec = v1::StepSpec { name: name.into(), ..v1::StepSpec::default() };
    let share =
        v1::NodeShare { node: "n1".into(), cpu_ranges: vec![0, 1], ..v1::NodeShare::default() };
    StepRecord::new(v1::StepInfo {
        step: Some(v1::Step {
            job_id: job,
            step: number,
            spec: Some(spec),
            start_ms: start,
            state: JobState::Running.code(),
            shares: vec![v1::StepShare {
                share: Some(share),
                tasks: vec![0],
                ..v1::StepShare::default()
            }],
            ..v1::Step::default()
        }),
        nodelist: "n1".into(),
        ..v1::StepInfo::default()
    })
}

fn squeue(asked: Asked) -> String {
    let infos = [
        job(1).running("n1").build(),
        job(13).running("n1").task(12, 1).partition("long").build(),
        job(14).running("n2").spec(|spec| spec.allocation = true).build(),
        job(15).build(),
    ];
    let steps = [step(1, 0, "train", START + 10_000), step(14, 0, "bash", START)];
    let clock = Clock::new(TimeZone::UTC, None, START + 14_000);
    let options = StepOptions::new("squeue", asked);
    String::from_utf8(text(&options, &infos, &steps, "bench", &clock)).expect("UTF-8")
}

#[test]
fn steps_are_listed_as_slurm_does() {
    // The first lines are what Slurm 22.05.8 printed for such jobs, spaces included.
    assert_eq!(
        squeue(Asked::default()),
        "         STEPID     NAME PARTITION     USER      TIME NODELIST
     12_1.batch    batch      long     root      0:14 n1
            1.0    train      main     root      0:04 n1
        1.batch    batch      main     root      0:14 n1
           14.0     bash      main     root      0:14 n1
"
    );
}

#[test]
fn steps_have_names_and_letters_of_their_own() {
    let asked = |format: &str| Asked {
        format: Some(Source::Names(format.to_owned())),
        no_header: true,
        steps: read_steps("squeue", "1.0,12_1.batch").expect("steps"),
        ..Asked::default()
    };
    assert_eq!(
        squeue(asked("stepid:8,stepname:6,stepstate:8,numtasks:2,numcpus:2,nodes:3,cluster:5")),
        "12_1.batbatch RUNNING 1 0 n1 bench\n1.0     train RUNNING 1 2 n1 bench\n"
    );
    assert_eq!(
        squeue(asked("jobid:3,arrayjobid:3,arraytaskid:4,tres-per-step:7,timelimit:9")),
        "13 12 1   (null) UNLIMITED\n1  0  N/A (null) UNLIMITED\n"
    );
    assert_eq!(read_steps("squeue", "1"), Err(1));
}

#[test]
fn order_is_asked_for() {
    let asked = |sort: &str| Asked {
        format: Some(Source::Letters("%i".to_owned())),
        sort: Some(sort.to_owned()),
        no_header: true,
        ..Asked::default()
    };
    assert_eq!(squeue(asked("i")), "1.0\n1.batch\n12_1.batch\n14.0\n");
    assert_eq!(squeue(asked("-i")), "14.0\n12_1.batch\n1.batch\n1.0\n");
    assert_eq!(squeue(asked("M,-i")), "1.0\n14.0\n12_1.batch\n1.batch\n");
}
