//! Do tasks and scripts run in the containers that they ask for?
//!
//! A bundle is made of the host's own shell and the libraries that it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, Options, is_root};

const CONFIG: &str = r#"{
  "ociVersion": "1.0.2",
  "root": { "path": "rootfs" },
  "process": { "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "cwd": "/",
    "env": ["PATH=/bin", "INSIDE=yes"] },
  "mounts": [ { "destination": "/proc", "type": "proc", "source": "proc" } ],
  "linux": { "namespaces": [ { "type": "pid" }, { "type": "mount" }, { "type": "ipc" } ] }
}"#;

/// The runtime is there, and works here at all.
fn works(bundle: &Path) -> bool {
    let id = format!("penstock-test-{}", std::process::id());
    // As the shepherd does for root: crun does not go with all arrangements of cgroups.
    let line = "mount -t tmpfs -o ro none /sys/fs/cgroup; exec crun --cgroup-manager=disabled run \
        --bundle \"$1\" \"$2\"";
    let mut crun = Command::new("unshare");
    crun.args(["-m", "sh", "-c", line, "crun"]).arg(bundle).arg(id);
    let works = crun.output().is_ok_and(|output| output.status.success());
    if !is_root() || !works {
        println!("skipped: no crun that can run containers here");
    }
    is_root() && works
}

/// A folder with a shell in it, and what that needs.
fn bundle(cluster: &Cluster) -> PathBuf {
    let bundle = cluster.work().join("bundle");
    let rootfs = bundle.join("rootfs");
    for dir in ["bin", "dev", "proc", "tmp", "run"] {
        fs::create_dir_all(rootfs.join(dir)).expect("made");
    }
    copy(Path::new("/bin/sh"), &rootfs);
    fs::write(
        bundle.join("config.json"),
        CONFIG.replace("[\"sh\"]", "[\"sh\", \"-c\", \"exit 0\"]"),
    )
    .expect("written");
    fs::write(rootfs.join("inside"), "the inside\n").expect("written");
    bundle
}

/// A program, and the libraries that the loader names for it.
fn copy(program: &Path, rootfs: &Path) {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([program.to_str().expect("text")]) {
        let to = rootfs.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(path, to).expect("copied");
    }
}

#[test]
fn tasks_run_in_a_bundle_with_their_streams_signals_and_exits() {
    let cluster = Cluster::start(Options::nodes(2, 2));
    let bundle = bundle(&cluster);
    if !works(&bundle) {
        return;
    }
    let srun = |words: &str, script: &str| {
        let srun = cluster.cmd("srun").arg("--container").arg(&bundle).words(words);
        srun.words("/bin/sh -c").arg(script)
    };
    let script = "read a </inside; read b; echo $a $b $INSIDE $SLURM_PROCID; echo oops >&2; exit 3";
    let ran = srun("-n 2 -N 2", script).stdin("words\n").run();
    assert_eq!(ran.code, 3, "{ran}");
    let mut lines: Vec<&str> = ran.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["the inside words yes 0", "the inside words yes 1"]);
    ran.says("oops\n").says("n1: task 0: Exited with exit code 3");
    let path = bundle.display().to_string();
    assert_eq!(srun("", "echo $SLURM_CONTAINER").ok(), format!("{path}\n"));
    let mut sleeper = srun(
        "",
        "trap 'echo hit; exit 9' TERM; echo up >&2; while :; do read x </proc/uptime; done",
    )
    .spawn();
    sleeper.hears("up\n");
    cluster.cmd("scancel").words("-s TERM --name=sh").ok();
    let ran = sleeper.wait();
    assert_eq!(ran.code, 9, "{ran}");
    cluster.await_quiet();
}

#[test]
fn a_script_runs_in_a_bundle_and_listings_name_it() {
    let cluster = Cluster::start(Options::nodes(1, 1));
    let bundle = bundle(&cluster);
    if !works(&bundle) {
        return;
    }
    let script = cluster.script("job", "#!/bin/sh\nread a </inside; echo $a $1 $SLURM_JOB_ID\n");
    let id = cluster
        .cmd("sbatch")
        .words("--parsable -o out --container bundle")
        .arg(script)
        .arg("word")
        .id();
    let ended = cluster.await_end(id);
    assert_eq!(ended.state(), "COMPLETED", "{}", cluster.read("out"));
    assert_eq!(cluster.read("out"), format!("the inside word {id}\n"));
    let path = bundle.display().to_string();
    assert!(cluster.scontrol(&format!("show job {id}")).contains(&format!("Container={path}\n")));
    assert_eq!(cluster.squeue("-t all -h -O container:200").trim(), path);
    cluster.await_quiet();
}

#[test]
fn what_cannot_be_run_is_said() {
    let cluster = Cluster::start(Options::nodes(1, 1));
    let refused = cluster.cmd("srun").words("--container-image=ubuntu:22.04 true").fails();
    if !["apptainer", "singularity", "enroot"]
        .iter()
        .any(|name| Path::new("/usr/bin").join(name).exists())
    {
        refused.says(
            "--container-image=ubuntu:22.04: this node has no apptainer, singularity or enroot",
        );
    }
    let both = cluster.cmd("srun").words("--container-image=x --container=/y true").fails();
    both.says("--container and --container-image exclude each other");
    let bundle = bundle(&cluster);
    if works(&bundle) {
        let missing = cluster.cmd("srun").words("--container=no/such true").fails();
        missing.says("no/such: No such file or directory");
        fs::write(bundle.join("config.json"), "{").expect("written");
        let broken = cluster.cmd("srun").words("--container=bundle true").fails();
        broken.says("config.json cannot be used");
    }
    cluster.await_quiet();
}
