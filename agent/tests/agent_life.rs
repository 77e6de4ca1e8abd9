//! A whole agent process, from its join to its end, with real shepherds and a small controller.
//!
//! This binary is all three: with `shepherd DIR` a shepherd, with `agent FILE` the agent, without
//! arguments of its own the test.

#![expect(clippy::print_stderr, reason = "a test says what it measured and what it skipped")]

#[path = "agent_life/controller.rs"]
mod controller;
#[path = "agent_life/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use penstock_proto::v1;
use v1::controller_message::Body;

use controller::{Attached, Controller};
use process::Host;

const RUNNING: v1::AttemptPhase = v1::AttemptPhase::Running;
const ENDED: v1::AttemptPhase = v1::AttemptPhase::Ended;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shepherd", dir] => return penstock_agent::launch::shepherd::main(Path::new(dir)),
        ["agent", file] => return process::agent(Path::new(file)),
        _ => {}
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(life());
    eprintln!("test an agent's life ... ok");
    ExitCode::SUCCESS
}

async fn life() {
    let mut controller = Controller::start().await;
    let host = Host::new(&controller);

    let mut agent = host.agent();
    let mut link = registers(&mut controller, &[]).await;
    link.welcome(1, 10).await;
    link.heartbeat().await;
    link.heartbeat().await;
    runs_a_job_and_forgets_it(&host, &mut link).await;
    host.expect_refused_twin();
    let running = runs_until_told(&host, &mut link, 2).await;

    agent.kill();
    let mut agent = host.agent();
    let mut link = registers(&mut controller, &[(2, RUNNING)]).await;
    link.welcome(2, 10).await;
    assert_eq!(link.report().await, (2, 0, RUNNING), "said again in the new session");
    link.launch(&host, 2, &running).await;
    assert_eq!(link.report().await, (2, 0, RUNNING), "not started again");
    host.tell("go2");
    assert_eq!(link.report().await, (2, 0, ENDED));
    assert_eq!(host.read("started2"), "once\n");

    let never = never_starts(&mut link).await;
    runs_until_told(&host, &mut link, 3).await;
    assert!(agent.end(), "SIGTERM is an orderly end");
    let mut agent = host.agent();
    let expect = [(2, ENDED), (3, RUNNING), (never, v1::AttemptPhase::NeverStarted)];
    let mut link = registers(&mut controller, &expect).await;
    link.welcome(3, 10).await;
    for expect in expect {
        let (job, _, phase) = link.report().await;
        assert_eq!((job, phase), expect);
    }
    link.acknowledge(2).await;
    link.acknowledge(never).await;
    ends_a_job(&mut link, 3).await;

    runs_many(&host, &mut link).await;
    agent.rest().await;
    link.close();
    let mut link = registers(&mut controller, &[]).await;
    link.welcome(4, 10).await;
    let left = || std::fs::read_dir(host.spool()).map_or(1, Iterator::count);
    host.wait_until("the tombstone is gone", || left() == 0).await;
    assert!(agent.end(), "SIGTERM is an orderly end");
}

/// The next stream; its registration must name exactly these first attempts of jobs.
async fn registers(controller: &mut Controller, attempts: &[(u32, v1::AttemptPhase)]) -> Attached {
    let (link, register) = controller.attached().await;
    let inventory = register.inventory.expect("always there");
    assert_eq!(register.node, process::node());
    assert_eq!((inventory.cpus, inventory.memory_mib), (2, 1_024));
    let found: Vec<_> = register.attempts.iter().map(|it| (it.job_id, it.phase())).collect();
    assert_eq!(found, attempts);
    link
}

async fn runs_a_job_and_forgets_it(host: &Host, link: &mut Attached) {
    link.launch(host, 1, "echo hello > said; exit 3").await;
    let (result, started) = link.end_of(1).await;
    assert!(started, "the start is reported before the end");
    assert_eq!((result.wait_status, &*result.launch_error), (3 << 8, ""));
    assert_eq!(host.read("said"), "hello\n");
    assert!(host.spool().join("1.0").exists());
    link.acknowledge(1).await;
    host.wait_until("job 1 is forgotten", || !host.spool().join("1.0").exists()).await;
}

/// A job that runs until `go<id>` is there; returns its script.
async fn runs_until_told(host: &Host, link: &mut Attached, id: u32) -> String {
    // It also ends when the test fails and takes its folder away.
    let script = format!(
        "echo once >> started{id}; while [ ! -e go{id} -a -e started{id} ]; do sleep 0.02; done"
    );
    link.launch(host, id, &script).await;
    assert_eq!(link.report_of(id).await, RUNNING);
    host.wait_until("the script runs", || host.read(&format!("started{id}")) == "once\n").await;
    script
}

/// An attempt that is ended before its launch arrives.
async fn never_starts(link: &mut Attached) -> u32 {
    let id = 9;
    link.terminate(id).await;
    assert_eq!(link.report_of(id).await, v1::AttemptPhase::NeverStarted);
    let launch = v1::Launch { job_id: id, ..Default::default() };
    link.say(Body::Launch(launch)).await;
    assert_eq!(link.report_of(id).await, v1::AttemptPhase::NeverStarted);
    id
}

async fn ends_a_job(link: &mut Attached, id: u32) {
    link.terminate(id).await;
    let (result, _) = link.end_of(id).await;
    assert_eq!(result.wait_status & 0x7f, libc::SIGTERM);
    link.acknowledge(id).await;
}

/// Prints how fast jobs that do nothing go through; a number to look at, not a limit.
async fn runs_many(host: &Host, link: &mut Attached) {
    const JOBS: u32 = 300;
    let begun = Instant::now();
    for id in 1_000..1_000 + JOBS {
        link.launch(host, id, "exit 0").await;
    }
    // A slow machine may hear of an end twice.
    let mut running: BTreeSet<u32> = (1_000..1_000 + JOBS).collect();
    while !running.is_empty() {
        let (id, _, phase) = link.report().await;
        if phase == ENDED {
            link.acknowledge(id).await;
            running.remove(&id);
        }
    }
    let took = begun.elapsed();
    eprintln!("{JOBS} jobs in {took:?}: {:.0} a second", f64::from(JOBS) / took.as_secs_f64());
    let left = || std::fs::read_dir(host.spool()).map_or(0, Iterator::count);
    // The tombstone stays until the next session.
    host.wait_until("all are forgotten", || left() == 1).await;
    assert!(host.spool().join("9.0").exists());
}
