//! What tasks of a step read and write, through srun, terminals and files.

use std::fs;
use std::time::{Duration, Instant};

use penstock_proto::v1;
use penstock_proto::v1::step_frame::{Frame, Setup, WindowSize};

use crate::srun::{SECRET, Srun, shell};
use crate::steps::{begin, forget, in_work_dir, key};
use crate::world::World;

#[test]
fn input_goes_to_all_or_to_one_and_is_acknowledged() {
    let mut world = World::new();
    let (_srun, mut call) = begin(&world, 2, shell("cat"));
    call.input(None, "all\n", false);
    call.input(Some(1), "one\n", false);
    call.until("credit", |heard| heard.credit == 8);
    call.input(None, "", true);
    let heard = call.finish();
    assert_eq!((heard.said(0).as_str(), heard.said(1).as_str()), ("all\n", "all\none\n"));
    assert_eq!(world.end(key()).wait_status, 0);
}

#[test]
fn only_one_task_reads_where_that_is_wanted_and_none_where_not() {
    let mut world = World::new();
    let setup = Setup { input_task: Some(1), ..shell("cat") };
    let (_srun, mut call) = begin(&world, 2, setup);
    call.input(None, "words", true);
    let heard = call.finish();
    assert_eq!((heard.said(0).as_str(), heard.said(1).as_str()), ("", "words"));
    world.end(key());
    forget(&world);
    let (_srun, call) = begin(&world, 1, Setup { no_input: true, ..shell("cat") });
    assert_eq!(call.finish().exits[&0], 0);
}

#[test]
fn input_that_nobody_reads_gets_no_credit_and_signals_still_pass() {
    let mut world = World::new();
    let script = "trap 'echo hit' USR1; echo up; while :; do sleep 0.05; done";
    let (_srun, mut call) = begin(&world, 1, shell(script));
    call.until("the task", |heard| heard.said(0) == "up\n");
    let window = usize::try_from(penstock_proto::step_io::STEP_INPUT_WINDOW_BYTES).unwrap();
    call.input(None, &"x".repeat(window), false);
    call.input(None, &"x".repeat(window), false);
    call.signal(10, None);
    call.until("the signal", |heard| heard.said(0) == "up\nhit\n");
    assert!(call.heard.credit < 2 * window as u64, "{}", call.heard.credit);
    call.signal(9, None);
    let heard = call.finish();
    assert_eq!((heard.exits[&0], heard.credit), (9, 2 * window as u64), "nobody will read it");
    world.end(key());
}

/// Whether the program that the shell `task` runs waits for its shepherd, which waits for others: it
/// would have been woken by the first byte that it wants.
fn stands_still(task: u32) -> bool {
    let of = |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let status = |pid: u32| of(pid, "status").unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').trim().to_owned()
    };
    let asleep = |text: &str| field(text, "State").starts_with('S');
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let children = of(task, &format!("task/{task}/children")).unwrap_or_default();
    let program = children.split_whitespace().next().and_then(number);
    let shepherd = number(&field(&status(task), "PPid"));
    let (Some(program), Some(shepherd)) = (program, shepherd) else { return false };
    let before = status(shepherd);
    let waits = asleep(&before) && asleep(&status(program));
    let after = status(shepherd);
    let switches = |text: &str| field(text, "voluntary_ctxt_switches");
    waits && asleep(&after) && switches(&before) == switches(&after)
}

#[test]
fn output_that_srun_does_not_take_holds_the_task_back() {
    let mut world = World::new();
    let script = "dd if=/dev/zero bs=65536 count=400 2>/dev/null; echo done > done";
    let (_srun, mut call) = begin(&world, 1, in_work_dir(&world, script));
    call.until("the start", |heard| heard.pids.is_some());
    let task = call.heard.pids.as_ref().unwrap()[0];
    let began = Instant::now();
    while !stands_still(task) && world.read("done").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "neither held back nor done");
        std::thread::yield_now();
    }
    assert_eq!(world.read("done"), "");
    let heard = call.finish();
    assert_eq!(heard.stdout[&0].len(), 400 * 65_536);
    assert_eq!(world.read("done"), "done\n");
    assert_eq!(world.end(key()).wait_status, 0);
}

#[test]
fn the_end_of_a_step_is_known_before_srun_takes_its_last_output() {
    let mut world = World::new();
    let script = "python3 -c 'import os; os.set_blocking(1, False); \
        [os.write(1, b\"x\" * 65536) for _ in range(1)]'";
    let (_srun, mut call) = begin(&world, 50, shell(script));
    call.until("the start", |heard| heard.pids.is_some());
    assert_eq!(world.end(key()).wait_status, 0);
    let heard = call.finish();
    assert!((0..50).all(|task| heard.stdout[&task].len() == 65_536));
}

#[test]
fn a_terminal_is_one_with_a_size_and_an_end() {
    let mut world = World::new();
    let window = Some(WindowSize { rows: 33, columns: 99 });
    let script = "stty size; tty >/dev/null && echo tty; trap 'stty size; exit 6' WINCH; \
        read word; echo \"got $word\"; echo ready; while :; do sleep 0.05; done";
    let (_srun, mut call) = begin(&world, 2, Setup { pty: true, window, ..shell(script) });
    call.until("the terminal", |heard| heard.said(0).contains("tty\r\n"));
    assert!(call.heard.said(0).starts_with("33 99\r\n"), "{}", call.heard.said(0));
    call.input(None, "word\n", false);
    call.until("the answer", |heard| heard.said(0).contains("got word\r\nready"));
    call.say(Frame::Window(WindowSize { rows: 20, columns: 50 }));
    call.until("the end", |heard| heard.exits.contains_key(&0));
    call.signal(9, None);
    let heard = call.finish();
    assert!(heard.said(0).contains("20 50"), "{}", heard.said(0));
    assert_eq!((heard.exits[&0], heard.said(1).as_str()), (6 << 8, ""));
    world.end(key());
}

#[test]
fn files_are_opened_by_their_patterns_and_shared_ones_once() {
    let mut world = World::new();
    fs::write(world.work_dir().join("shared"), "old\n").unwrap();
    fs::write(world.work_dir().join("in-1"), "read\n").unwrap();
    fs::write(world.work_dir().join("in-0"), "").unwrap();
    let mut setup = in_work_dir(&world, "cat; echo out $SLURM_PROCID; echo err >&2");
    setup.stdout = "%j.%s-%2t-%N-%n".to_owned();
    setup.stderr = "shared".to_owned();
    setup.stdin = "in-%t".to_owned();
    let (_srun, call) = begin(&world, 2, setup);
    let heard = call.finish();
    assert_eq!((heard.said(0).as_str(), heard.ended), ("", 0));
    world.end(key());
    assert_eq!(world.read("7.3-00-n1-0"), "out 0\n");
    assert_eq!(world.read("7.3-01-n1-0"), "read\nout 1\n");
    assert_eq!(world.read("shared"), "err\nerr\n");
}

#[test]
fn lines_in_files_are_labelled_too() {
    let mut world = World::new();
    let mut setup = in_work_dir(&world, "echo one; echo two; printf end");
    (setup.stdout, setup.label) = ("out-%t".to_owned(), true);
    let (_srun, call) = begin(&world, 11, setup);
    assert_eq!(call.finish().ended, 0);
    world.end(key());
    assert_eq!(world.read("out-3"), " 3: one\n 3: two\n 3: end\n");
    assert_eq!(world.read("out-10"), "10: one\n10: two\n10: end\n");
}

#[test]
fn a_file_that_cannot_be_opened_stops_the_step() {
    let mut world = World::new();
    let mut setup = in_work_dir(&world, "echo never > ran");
    setup.stdout = "no/such/folder/%t".to_owned();
    let (_srun, call) = begin(&world, 2, setup);
    let heard = call.finish();
    let expect = "Could not open stdout file no/such/folder/0: No such file or directory";
    assert_eq!(heard.error, expect);
    let (error, node_fault) = world.failure(key());
    assert!(!node_fault && error == expect, "{error}");
    assert_eq!(world.read("ran"), "");
}

#[test]
fn others_can_listen_and_speak() {
    let mut world = World::new();
    let script = "read word; echo $word; read word; echo $word";
    let (_srun, mut call) = begin(&world, 1, shell(script));
    call.until("the start", |heard| heard.pids.is_some());
    let other = Srun::new();
    let listener = v1::AttachListener {
        job_id: 7,
        attempt: 0,
        step: 3,
        addresses: vec!["127.0.0.1".to_owned()],
        port: other.port(),
        secret: SECRET.to_vec().into(),
    };
    world.spool().attach(listener).unwrap();
    let mut attached = other.run(Setup { listener: true, ..Setup::default() });
    attached.until("the start", |heard| heard.pids.is_some());
    attached.input(None, "there\n", true);
    attached.until("its words", |heard| heard.said(0) == "there\n");
    call.input(None, "here\n", true);
    assert_eq!(attached.finish().said(0), "there\nhere\n");
    assert_eq!(call.finish().said(0), "there\nhere\n");
    assert_eq!(world.end(key()).wait_status, 0);
}
