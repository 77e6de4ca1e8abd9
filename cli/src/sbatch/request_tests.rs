//! Tables of values that options take and refuse.

use super::*;
use crate::options::{Operands, parse};
use crate::sbatch::table::TABLE;

fn read(line: &[&str]) -> Result<Request, Vec<String>> {
    let mut request = Request::default();
    add(&mut request, line, Source::CommandLine)?;
    request.told.clear();
    Ok(request)
}

fn add(request: &mut Request, line: &[&str], source: Source) -> Result<(), Vec<String>> {
    let words: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
    let parsed = parse(TABLE, Operands::EndOptions, &words).map_err(|e| vec![e.to_string()])?;
    for given in &parsed.given {
        request.apply(given, source).map_err(|error| error.0)?;
    }
    Ok(())
}

fn gpu(kind: &str, count: u64) -> v1::GresCount {
    v1::GresCount { name: "gpu".into(), r#type: kind.into(), count }
}

#[test]
fn values_are_read() {
    type Set = fn(&mut Request);
    let table: &[(&[&str], Set)] = &[
        (&["-A", "acct"], |r| r.account = "acct".into()),
        (&["-a", "0-15:4%2"], |r| r.array = "0-15:4%2".into()),
        (&["--begin=uts5"], |r| r.begin_ms = 5_000),
        (&["-D", "sub"], |r| r.chdir = Some("sub".into())),
        (&["-c4"], |r| r.cpus_per_task = Some(4)),
        (&["-C", "a&b"], |r| r.constraint = "a&b".into()),
        (&["-d", "afterok:1:2"], |r| r.dependency = "afterok:1:2".into()),
        (&["-e", "x.err", "-o", "none"], |r| {
            r.error = "x.err".into();
            r.output = "/dev/null".into();
        }),
        (&["-x", "n[1-2]", "-w", "m1,m2"], |r| {
            r.exclude = vec!["n1".into(), "n2".into()];
            r.nodelist = vec!["m1".into(), "m2".into()];
        }),
        (&["--exclusive"], |r| r.exclusive = true),
        (&["-G", "4"], |r| r.gpus = Some(gpu("", 4))),
        (&["--gpus=h100:2"], |r| r.gpus = Some(gpu("h100", 2))),
        (&["--gpus-per-node", "h100:1,a100:2"], |r| {
            r.gpus_per_node = vec![gpu("h100", 1), gpu("a100", 2)];
        }),
        (&["--gres=gpu"], |r| r.gres = vec![gpu("", 1)]),
        (&["--gres=gpu:8", "--gres=none"], |_| {}),
        (&["-H", "-J", "x y"], |r| {
            r.hold = true;
            r.job_name = Some("x y".into());
        }),
        (&["--mem=4G"], |r| r.memory = Some((Memory::PerNode(Mib(4096)), Source::CommandLine))),
        (&["--mem-per-cpu", "512m"], |r| {
            r.memory = Some((Memory::PerCpu(Mib(512)), Source::CommandLine));
        }),
        (&["--mem=1000k"], |r| r.memory = Some((Memory::PerNode(Mib(1)), Source::CommandLine))),
        (&["--nice"], |r| r.nice = 100),
        (&["--nice=-7"], |r| r.nice = -7),
        (&["-N2"], |r| r.nodes = Some((2, 2))),
        (&["-N", "2-1k"], |r| r.nodes = Some((2, 1024))),
        (&["-n", "3", "--ntasks-per-node=2"], |r| {
            r.ntasks = Some(3);
            r.ntasks_per_node = Some(2);
        }),
        (&["--open-mode=append"], |r| r.open_mode = v1::OpenMode::Append),
        (&["--open-mode=T"], |r| r.open_mode = v1::OpenMode::Truncate),
        (&["-p", "a,b"], |r| r.partitions = vec!["a".into(), "b".into()]),
        (&["--priority=7"], |r| r.priority = Some(7)),
        (&["--no-requeue"], |r| r.requeue = Some(false)),
        (&["--no-requeue", "--requeue"], |r| r.requeue = Some(true)),
        (&["-t", "1-0"], |r| r.time = Some(Walltime::Limited(86_400))),
        (&["-t", "0"], |r| r.time = Some(Walltime::Unlimited)),
        (&["-vv", "-W", "-Q", "--parsable"], |r| {
            r.verbose = 2;
            r.wait = true;
            r.quiet = true;
            r.parsable = true;
        }),
        (&["--get-user-env=L", "--ignore-pbs", "--mail-type=NONE"], |_| {}),
        (&["--kill-on-invalid-dep=yes"], |r| r.kill_on_invalid_dep = true),
        (&["--propagate=NONE"], |r| r.manner.limits = Some(Vec::new())),
        (&["-V", "--help"], |r| r.ask = Some(Ask::Version)),
    ];
    for (line, set) in table {
        let mut expect = Request::default();
        set(&mut expect);
        assert_eq!(read(line), Ok(expect), "{line:?}");
    }
}

#[test]
fn signals_are_read() {
    let request = read(&["--signal", "B:USR2@30"]).expect("valid");
    let signal = request.signal.expect("given");
    assert_eq!((signal.signal.number(), signal.lead_secs, signal.batch_only), (12, 30, true));
}

#[test]
fn what_a_job_waits_for_and_may_use_is_read() {
    let line = [
        "--reservation=r1",
        "-L",
        "matlab:3,ansys",
        "--time-min=30",
        "--switches=2@10",
        "--exclusive=user",
        "--deadline=now+1hour",
        "--test-only",
    ];
    let request = read(&line).expect("valid");
    assert_eq!(request.reservation, "r1");
    assert_eq!(request.time_min, Some(Walltime::from_minutes(30)));
    let switches = request.switches.expect("given");
    assert_eq!((switches.count, switches.max_wait_secs), (2, 600));
    assert!(request.exclusive_user && !request.exclusive && request.test_only);
    assert!(request.deadline_ms > 0);
    let counts = parse_licenses(&request.licenses).expect("valid");
    let counts: Vec<(&str, u64)> = counts.iter().map(|l| (l.name.as_str(), l.count)).collect();
    assert_eq!(counts, [("matlab", 3), ("ansys", 1)]);
    for wrong in [",:", "matlab:x", "matlab:0", ":3", ""] {
        assert!(parse_licenses(wrong).is_err(), "{wrong}");
    }
    let any_wait = read(&["--switches=1"]).expect("valid").switches.expect("given");
    assert_eq!(any_wait.max_wait_secs, 300);
}

#[test]
fn bad_values_end_with_slurms_line() {
    let table: &[(&[&str], &str)] = &[
        (&["--mem=foo"], "Invalid --mem specification"),
        (&["--mem-per-cpu=-1"], "Invalid --mem-per-cpu specification"),
        (&["-t", "abc"], "Invalid --time specification"),
        (&["--begin=xyz"], "Invalid --begin specification"),
        (&["-n", "foo"], "Invalid numeric value \"foo\" for --ntasks."),
        (&["-n0"], "Invalid numeric value \"0\" for --ntasks."),
        (&["-c", "-1"], "Invalid numeric value \"-1\" for --cpus-per-task."),
        (&["-N", "0"], "invalid --nodes specification"),
        (&["-N", "3-2"], "Minimum node count > maximum node count (3 > 2)"),
        (&["--gres=gpu:a:b:c"], "Invalid generic resource (gres) specification"),
        (&["--gres=help"], "--gres=help is not built yet"),
        (&["-w", "n[1"], "Invalid --nodelist specification"),
        (&["-w", "/no/such/file"], "Invalid --nodelist specification"),
        (&["--signal=FOO"], "Invalid --signal specification"),
        (&["--signal=R:USR1"], "--signal=R: is not built yet"),
        (&["--open-mode=x"], "Invalid --open-mode specification"),
        (&["--nice=x"], "Invalid --nice specification"),
        (&["--nice=99999999999"], "Nice value out of range (+/- 2147483645). Value ignored"),
        (&["--priority=-1"], "Priority must be >= 0"),
        (&["--acctg-freq=often"], "Invalid --acctg-freq specification"),
        (&["--acctg-freq="], "Invalid --acctg-freq specification"),
        (&["--acctg-freq=task=10,energy=5"], "--acctg-freq=energy= is not built yet"),
        (&["--exclusive=mcs"], "--exclusive=mcs is not built yet"),
        (&["--exclusive=foo"], "Invalid --exclusive specification"),
        (&["--mail-type=ENDS"], "Invalid --mail-type specification"),
        (&["--mail-user=|sh"], "Invalid --mail-user specification"),
        (&["--deadline=xyz"], "Invalid --deadline specification"),
        (&["--time-min=xyz"], "Invalid --time-min specification"),
        (&["--switches=x"], "Invalid numeric value \"x\" for --switches."),
        (&["--switches=1@x"], "Invalid --switches specification"),
        (&["--contiguous"], "--contiguous is not built yet"),
        (&["--propagate=FOO"], "--propagate=FOO is not valid."),
        (
            &["--mem=1", "--mem-per-cpu=1"],
            "--mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.",
        ),
        (&["--foo"], "unrecognized option '--foo'"),
    ];
    for (line, last) in table {
        let lines = read(line).expect_err(last);
        assert_eq!(lines.last().map(String::as_str), Some(*last), "{line:?}");
    }
    let begin = read(&["-b", "xyz"]).expect_err("no time");
    assert_eq!(begin[0], "Invalid time specification (pos=0): xyz");
}

#[test]
fn a_later_source_replaces_the_kind_of_memory() {
    let mut request = Request::default();
    add(&mut request, &["--mem=4G"], Source::Script).expect("valid");
    add(&mut request, &["--mem-per-cpu=1G"], Source::CommandLine).expect("valid");
    assert_eq!(request.memory, Some((Memory::PerCpu(Mib(1024)), Source::CommandLine)));
}

#[test]
fn a_file_names_nodes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("hosts");
    std::fs::write(&file, "n1\n# spare\nn[3-4],n7\n\n").expect("written");
    let named = file.to_str().expect("plain path");
    let request = read(&["-w", named]).expect("valid");
    assert_eq!(request.nodelist, ["n1", "n3", "n4", "n7"]);
}
