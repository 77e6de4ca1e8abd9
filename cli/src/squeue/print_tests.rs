use jiff::tz::TimeZone;
use penstock_proto::v1;
use penstock_vocab::{JobFlag, JobState};

use crate::listing::testing::{START, job};

use super::super::options::{Choice, read};
use super::*;

/// Jobs as in a small cluster after four seconds; priorities fall as in Slurm.
fn world() -> Vec<v1::JobInfo> {
    let builders = [
        job(1).running("n1"),
        job(2)
            .name("a job with long name")
            .running("n2")
            .ended(JobState::Cancelled, v1::EndCause::Cancelled, 1)
            .run(|run| run.exit_signal = 15),
        job(3)
            .running("n[1-3]")
            .with(|info| info.num_nodes = 3)
            .ended(JobState::Failed, v1::EndCause::Exited, 0)
            .reason("NonZeroExitCode"),
        job(4).reason("JobHeldUser"),
        job(5).reason("JobArrayTaskLimit").rest(&[3, 9, 1], 2),
        job(6).reason("JobArrayTaskLimit").rest(&[7, 901, 3], 2),
        job(11).running("n1").task(5, 1),
        job(12).running("n1").task(5, 2),
        job(15).running("n2").flag(JobFlag::Completing),
        job(17).partition("a_very_long_partition").reason("Resources").with(|info| {
            info.expected_start_ms = START + 3_600_000;
        }),
    ];
    let mut infos: Vec<v1::JobInfo> = builders.map(|builder| builder.build()).into();
    for (info, priority) in infos.iter_mut().zip((1..=20).rev()) {
        let held = info.reason == "JobHeldUser";
        info.priority = if held { 0 } else { 4_294_901_740 + priority };
    }
    infos
}

fn squeue(line: &[&str]) -> String {
    let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
    let Ok(Choice::List(options)) = read("squeue", &args, &|_| None) else {
        panic!("{line:?} is refused");
    };
    let clock = Clock::new(TimeZone::UTC, None, START + 4000);
    let shown = |info: &v1::JobInfo| {
        let state = JobRow::live(info, 0).base_state();
        (options.ended || !state.is_finished())
            && (options.filter.states.is_empty()
                || options.filter.states.iter().any(|name| name == state.name()))
    };
    let jobs = world().into_iter().filter(shown).collect();
    print(&options, &clock, v1::ListJobsReply { jobs, unknown: Vec::new() }, &mut |_| {})
}

/// All that is printed; `write` sees each part.
fn print(
    options: &Options,
    clock: &Clock,
    reply: v1::ListJobsReply,
    write: &mut dyn FnMut(&[u8]),
) -> String {
    let page = Page { options, clock, cluster: "", list_limit: Some(64), limit_given: false };
    let mut lines = page.lines();
    page.take(&mut lines, &reply);
    let mut out = Vec::new();
    page.print(lines, &mut |bytes| {
        out.extend_from_slice(bytes);
        write(bytes);
    });
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn default_listing_is_slurms() {
    assert_eq!(
        squeue(&[]),
        "             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)
                17 a_very_lo     wrap     root PD       0:00      1 (Resources)
                15      main     wrap     root CG       0:04      1 n2
         5_[3-9%2]      main     wrap     root PD       0:00      1 (JobArrayTaskLimit)
     6_[7-901:3%2]      main     wrap     root PD       0:00      1 (JobArrayTaskLimit)
                 4      main     wrap     root PD       0:00      1 (JobHeldUser)
                 1      main     wrap     root  R       0:04      1 n1
               5_1      main     wrap     root  R       0:04      1 n1
               5_2      main     wrap     root  R       0:04      1 n1
"
    );
}

#[test]
fn long_listing_has_the_date_and_start_listing_its_order() {
    let long = squeue(&["-l"]);
    let lines: Vec<&str> = long.lines().take(3).collect();
    assert_eq!(
        lines,
        [
            "Tue Nov 24 08:05:53 2026",
            "             JOBID PARTITION     NAME     USER    STATE       TIME TIME_LIMI  NODES NODELIST(REASON)",
            "                17 a_very_lo     wrap     root  PENDING       0:00   1:00:00      1 (Resources)",
        ]
    );
    let start = squeue(&["--start"]);
    let lines: Vec<&str> = start.lines().take(3).collect();
    assert_eq!(
        lines,
        [
            "             JOBID PARTITION     NAME     USER ST          START_TIME  NODES SCHEDNODES           NODELIST(REASON)",
            "                17 a_very_lo     wrap     root PD 2026-11-24T09:05:49      1 (null)               (Resources)",
            "                 4      main     wrap     root PD                 N/A      1 (null)               (JobHeldUser)",
        ]
    );
}

#[test]
fn waiting_tasks_are_told_apart_on_request() {
    let each = squeue(&["-hr", "-o", "%i"]);
    assert!(each.starts_with("17\n15\n5_3\n5_4\n5_5\n5_6\n5_7\n5_8\n5_9\n6_7\n6_10\n"), "{each}");
    assert_eq!(
        squeue(&["-h", "-o", "%i", "-t", "PD", "-j", "5_7,5_[3-4]"])
            .lines()
            .filter(|id| id.starts_with("5_"))
            .collect::<Vec<_>>(),
        ["5_3", "5_4", "5_7"]
    );
}

#[test]
fn every_letter_shows_what_slurm_shows() {
    let expect: &[(&str, [&str; 4])] = &[
        // Of a running job, a cancelled one, a failed one, and the rest of an array.
        ("A", ["1", "2", "3", "5"]),
        ("b", ["N/A"; 4]),
        ("B", ["n1", "n2", "n[1-3]", "n/a"]),
        ("c", ["1"; 4]),
        ("C", ["1"; 4]),
        ("D", ["1", "1", "3", "1"]),
        ("e", ["2026-11-24T09:05:49", "2026-11-24T08:05:50", "2026-11-24T08:05:49", "N/A"]),
        ("E", ["(null)"; 4]),
        ("F", ["1", "2", "3", "5"]),
        ("h", ["OK"; 4]),
        ("H", ["*"; 4]),
        ("i", ["1", "2", "3", "5_[3-9%2]"]),
        ("k", ["(null)"; 4]),
        ("K", ["N/A", "N/A", "N/A", "3-9%2"]),
        ("l", ["1:00:00"; 4]),
        ("L", ["59:56", "59:59", "1:00:00", "1:00:00"]),
        ("m", ["10M"; 4]),
        ("M", ["0:04", "0:01", "0:00", "0:00"]),
        ("n", [""; 4]),
        ("N", ["n1", "n2", "n[1-3]", ""]),
        ("o", ["(null)"; 4]),
        ("p", ["0.99998474121093", "0.99998474097810", "0.99998474074527", "0.99998474027961"]),
        ("q", ["normal"; 4]),
        ("Q", ["4294901760", "4294901759", "4294901758", "4294901756"]),
        ("r", ["None", "None", "NonZeroExitCode", "JobArrayTaskLimit"]),
        ("R", ["n1", "n2", "(NonZeroExitCode)", "(JobArrayTaskLimit)"]),
        ("s", [""; 4]),
        ("S", ["2026-11-24T08:05:49", "2026-11-24T08:05:49", "2026-11-24T08:05:49", "N/A"]),
        ("t", ["R", "CA", "F", "PD"]),
        ("T", ["RUNNING", "CANCELLED", "FAILED", "PENDING"]),
        ("v", ["(null)"; 4]),
        ("X", ["N/A"; 4]),
        ("y", ["0"; 4]),
        ("z", ["*:*:*"; 4]),
        ("Z", ["/tmp/rs/w"; 4]),
    ];
    for (letter, values) in expect {
        let format = format!("%A|%{letter}");
        let text = squeue(&["-h", "-t", "all", "-S", "A", "-o", &format]);
        let shown = ["1|", "2|", "3|", "5|"].map(|id| {
            let line = text.lines().find(|line| line.starts_with(id)).unwrap_or_default();
            line[id.len()..].to_owned()
        });
        if *letter != "p" && *letter != "Q" {
            assert_eq!(shown, *values, "%{letter}");
        } else {
            assert_eq!(shown[0].len(), values[0].len(), "%{letter}: {shown:?}");
        }
    }
}

#[test]
fn formats_have_widths_literals_and_suffixes() {
    assert_eq!(
        squeue(&["-t", "R", "-o", "%.3i,%2t%5j|%foo"]).lines().next(),
        Some("JOB,STNAME |FEATURESoo")
    );
    assert_eq!(
        squeue(&["-h", "-t", "R", "-S", "i", "-O", "jobid:5,name:.10,state::xx"]).lines().next(),
        Some("1          wrapRUNNING:xx")
    );
    assert_eq!(squeue(&["-h", "-O", "foo", "-t", "R"]), "\n\n\n\n");
    let all = squeue(&["-o", "%all"]);
    let header = all.lines().next().unwrap_or_default();
    assert_eq!(header.matches('|').count(), 51);
    assert!(
        header.starts_with("ACCOUNT|TRES_PER_NODE|MIN_CPUS|MIN_TMP_DISK|END_TIME|"),
        "{header}"
    );
    assert!(header.ends_with("|SCHEDNODES|WORK_DIR"), "{header}");
}

#[test]
fn many_jobs_go_through_one_buffer() {
    let jobs = (1..=5000).map(|id| job(id).running("n1").build()).collect();
    let Ok(Choice::List(options)) = read("squeue", &["-h".to_owned()], &|_| None) else {
        panic!("refused");
    };
    let clock = Clock::new(TimeZone::UTC, None, START);
    let mut writes = 0;
    let reply = v1::ListJobsReply { jobs, unknown: Vec::new() };
    let text = print(&options, &clock, reply, &mut |_| writes += 1);
    assert_eq!(text.lines().count(), 5000);
    assert!(writes < 10, "{writes} writes");
}

/// Waiting jobs, of which one has an expected start and one is in a reservation.
fn waiting() -> v1::ListJobsReply {
    let jobs = vec![
        job(1).reason("Priority").build(),
        job(2)
            .reason("Resources")
            .with(|info| {
                info.expected_start_ms = START + 60_000;
                info.expected_nodes = "n[1-2]".into();
            })
            .build(),
        job(3)
            .reason("Reservation")
            .spec(|spec| {
                spec.reservation = "maint".into();
                spec.licenses = vec![v1::LicenseCount { name: "matlab".into(), count: 2 }];
            })
            .build(),
    ];
    v1::ListJobsReply { jobs, unknown: Vec::new() }
}

fn squeue_waiting(line: &[&str]) -> String {
    let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
    let Ok(Choice::List(options)) = read("squeue", &args, &|_| None) else {
        panic!("{line:?} is refused");
    };
    let clock = Clock::new(TimeZone::UTC, None, START);
    print(&options, &clock, waiting(), &mut |_| {})
}

#[test]
fn expected_starts_come_first_and_tell_their_nodes() {
    assert_eq!(
        squeue_waiting(&["--start"]),
        "             JOBID PARTITION     NAME     USER ST          START_TIME  NODES SCHEDNODES           NODELIST(REASON)
                 2      main     wrap     root PD 2026-11-24T08:06:49      1 n[1-2]               (Resources)
                 1      main     wrap     root PD                 N/A      1 (null)               (Priority)
                 3      main     wrap     root PD                 N/A      1 (null)               (Reservation)
"
    );
}

#[test]
fn jobs_are_chosen_by_reservation_and_license() {
    for line in [&["-R", "maint"][..], &["-L", "ansys,matlab"]] {
        let line: Vec<&str> = line.iter().copied().chain(["-ho", "%i %v %W"]).collect();
        assert_eq!(squeue_waiting(&line), "3 maint matlab:2\n", "{line:?}");
    }
    assert_eq!(squeue_waiting(&["-h", "-R", "other"]), "");
}
