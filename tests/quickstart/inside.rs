//! Does a job find its cluster and its nodes?

use crate::harness::{Home, is_root};

/// Whether jobs can have an /etc/hosts of their own: as root, or in a user namespace.
fn can_resolve() -> bool {
    let namespaces = || {
        let mut command = std::process::Command::new("unshare");
        command.args(["-Urm", "true"]).status().is_ok_and(|status| status.success())
    };
    let can = is_root() || namespaces();
    if !can {
        println!("skipped: not root, and no user namespaces");
    }
    can
}

#[test]
fn node_names_resolve_inside_jobs_and_only_there() {
    if !can_resolve() {
        return;
    }
    let home = Home::new();
    home.quickstart("--nodes 3 --detach").ok();
    let script = "for name in $(scontrol show hostnames node[1-3]); do getent hosts $name; done
        getent hosts localhost >/dev/null && echo localhost";
    let job = home.submit("-W -N 2 -o out", script);
    let out = home.read("out");
    let words: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    let expect = [
        vec!["127.0.0.2", "node1"],
        vec!["127.0.0.3", "node2"],
        vec!["127.0.0.4", "node3"],
        vec!["localhost"],
    ];
    assert_eq!(words, expect, "job {job}: {out}");
    assert!(!std::fs::read_to_string("/etc/hosts").expect("readable").contains("node3"));
}

#[test]
fn commands_find_the_controller_without_any_slurm_variable() {
    let home = Home::new();
    home.quickstart("--detach").ok();
    let script = "for name in $(compgen -v); do
            case $name in SLURM*) unset \"$name\" ;; esac
        done
        env | grep -c ^SLURM
        command -v sbatch srun
        sbatch --parsable -o second --wrap 'echo second on $SLURMD_NODENAME'
        squeue -h -o '%i %T' -j ${id:-1}
        sinfo -h -o %D
        sacct -n -P -X -o jobid,state -j 1";
    let dir = home.dir().display();
    for (words, first) in [("--export=NONE", 1), ("--export=ALL", 3)] {
        let script = script.replace("${id:-1}", &first.to_string());
        let script = script.replace("-j 1", &format!("-j {first}"));
        let job = home.submit(&format!("-W -o out {words}"), &script);
        assert_eq!(job, first);
        let next = first + 1;
        assert_eq!(
            home.read("out"),
            format!(
                "0\n{dir}/bin/sbatch\n{dir}/bin/srun\n{next}\n{first} RUNNING\n1\n\
                 {first}|RUNNING\n"
            ),
            "{words}"
        );
        home.await_state(next, "COMPLETED");
        assert_eq!(home.read("second"), "second on node1\n");
    }
}
