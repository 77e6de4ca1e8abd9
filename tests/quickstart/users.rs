//! Does all of it work for somebody who is not root?

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::harness::{Cmd, Home, NOBODY, is_root};

#[test]
fn another_user_gets_the_whole_tour() {
    let Some(home) = Home::of_nobody() else { return };
    let ran = home.quickstart("--exit").ok();
    ran.shows(&[
        "\nnot root: jobs run as you only, and memory and CPUs of a job are counted, not enforced\n",
        "Submitted batch job 1\n",
        "Hello from job 1 on node1, started by nobody",
        "COMPLETED      0:0",
        "stopped 2 process(es)",
    ]);
    home.assert_nothing_left();
    assert_eq!(fs::metadata(home.dir().join("slurm-1.out")).expect("there").uid(), NOBODY);

    home.quickstart("--nodes 2 --detach").ok();
    let id = home.submit("-N 2 -W -o out --export=NONE", "id -u; squeue -h -o %u; sinfo -h -o %D");
    assert_eq!(home.read("out"), "65534\nnobody\n2\n");
    assert_eq!(home.end(id), "COMPLETED|0:0");
    for process in home.processes() {
        let owner = fs::metadata(format!("/proc/{}", process.pid)).map(|meta| meta.uid());
        assert!(owner.is_ok_and(|uid| uid == NOBODY) || !process.lives(), "{}", process.pid);
    }
    home.quickstart("--stop").ok();
    home.assert_nothing_left();
}

#[test]
fn other_users_submit_to_roots_cluster() {
    if !is_root() {
        println!("skipped: not root");
        return;
    }
    let home = Home::new();
    home.quickstart("--detach").ok();
    let nobody = |name: &str, words: &str| {
        let cmd = Cmd::new(&home.dir().join("bin").join(name)).dir(&home.work());
        let cmd = cmd.env("PENSTOCK_CONFIG", home.dir().join("cluster.toml"));
        cmd.words(words).uid(Some(NOBODY))
    };
    if nobody("sinfo", "--version").run().code != 0 {
        println!("skipped: `nobody` can't run the binary");
        return;
    }
    nobody("sbatch", "-W -o theirs --wrap").arg("id -un; squeue -h -o %u").ok();
    assert_eq!(home.read("theirs"), "nobody\nnobody\n");
    let refused = nobody("scontrol", "update nodename=node1 state=drain reason=x").run();
    assert_ne!(refused.code, 0, "{refused}");
    for secret in ["controller/state", "node1/state", "node1/token"] {
        let path = home.dir().join(secret);
        let mode = fs::metadata(&path).expect("there").mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}
