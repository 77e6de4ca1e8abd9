//! Does a step work whose nodes cannot reach srun, and does it stay within its bounds?

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::harness::{Cluster, Cmd, Options, is_root};

const SAID: &str = "srun: nodes cannot reach this host: the controller relays what tasks read and \
    write, at most 256 KiB a second";

/// srun in a network of its own, where nobody reaches it; `None`, with a word, where that can't be.
fn srun(cluster: &Cluster, words: &str) -> Option<Cmd> {
    let works = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["-n", "ip", "link", "set", "lo", "up"]).stderr(Stdio::null());
        unshare.status().is_ok_and(|status| status.success())
    };
    if !is_root() || !works() {
        println!("skipped: no network namespace can be made here");
        return None;
    }
    let srun = cluster.bin("srun").display().to_string();
    let line = format!("ip link set lo up; exec {srun} {words} \"$@\"");
    let unshare = Cmd::new(Path::new("unshare")).dir(&cluster.work());
    Some(unshare.env("PENSTOCK_SOCKET", cluster.socket()).words("-n sh -c").arg(line).arg("srun"))
}

#[test]
fn output_input_and_exits_come_through_the_controller() {
    let cluster = Cluster::start(Options::nodes(3, 2));
    let Some(hostnames) = srun(&cluster, "-n 6 -N 3 -l") else { return };
    let ran = hostnames.words("sh -c").arg("echo $SLURM_NODEID; exit $SLURM_PROCID").run();
    assert_eq!(ran.code, 5, "{ran}");
    let mut lines: Vec<&str> = ran.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0: 0", "1: 0", "2: 1", "3: 1", "4: 2", "5: 2"]);
    ran.says(SAID).says("srun: error: n3: task 5: Exited with exit code 5");
    let text = "0123456789abcdef\n".repeat(20_000);
    let Some(cat) = srun(&cluster, "-n 1") else { return };
    assert_eq!(cat.arg("cat").stdin(text.clone()).ok(), text);
    cluster.await_quiet();
}

#[test]
fn a_flood_keeps_to_its_pace_and_signals_pass_it() {
    let cluster = Cluster::start(Options::nodes(1, 2));
    let Some(flood) = srun(&cluster, "-n 1") else { return };
    let begun = Instant::now();
    let said = flood.words("head -c 1000000 /dev/zero").ok();
    let secs = begun.elapsed().as_secs_f64();
    assert_eq!(said.len(), 1_000_000);
    assert!(secs > 2.5, "1 MB at 256 KiB a second came in {secs} s");
    let Some(endless) = srun(&cluster, "-n 1") else { return };
    let mut endless =
        endless.words("sh -c").arg("trap 'exit 7' INT; while :; do echo y >&2; done").spawn();
    endless.hears("y\ny\n");
    let begun = Instant::now();
    // Twice within a second ends the step; two at once would be one.
    endless.signal(Signal::SIGINT);
    endless.hears("one more within 1 sec to abort");
    endless.signal(Signal::SIGINT);
    let ran = endless.wait();
    assert_ne!(ran.code, 0);
    assert!(begun.elapsed().as_secs() < 20, "it took {:?}", begun.elapsed());
    cluster.await_quiet();
}

#[test]
fn an_srun_that_is_killed_leaves_nothing_behind() {
    let cluster = Cluster::start(Options::nodes(2, 1));
    let Some(sleeper) = srun(&cluster, "-n 2 -N 2") else { return };
    let mut sleeper = sleeper.words("sh -c").arg("echo up >&2; sleep 1000").spawn();
    sleeper.hears("up\n");
    sleeper.signal(Signal::SIGKILL);
    sleeper.wait();
    cluster.await_quiet();
}
