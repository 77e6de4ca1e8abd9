//! Do programs of Debian's two MPI libraries find each other, over nodes and within one?
//!
//! They are compiled here; where a compiler is missing the test says so. `.ci/run` sees to it that
//! none is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, Cmd, Options};

const HELLO: &str = include_str!("programs/hello.c");
const ABORT: &str = include_str!("programs/abort.c");

/// The compiled program, in the cluster's folder; `None`, with a word, without the compiler.
fn compiled(cluster: &Cluster, compiler: &str, name: &str, text: &str) -> Option<PathBuf> {
    let there =
        Command::new(compiler).arg("--version").output().is_ok_and(|it| it.status.success());
    if !there {
        println!("skipped: no {compiler}; apt-get install openmpi-bin libopenmpi-dev libmpich-dev");
        return None;
    }
    let (source, program) = (cluster.work().join(format!("{name}.c")), cluster.work().join(name));
    std::fs::write(&source, text).expect("written");
    let output = Command::new(compiler).arg("-o").arg(&program).arg(&source).output();
    let output = output.expect("the compiler runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}

fn run(cluster: &Cluster, words: &str, program: &Path) -> Cmd {
    // All nodes are this machine, which may have no other network than the loopback.
    let srun = cluster.cmd("srun").words(words).arg(program);
    srun.env("OMPI_MCA_btl", "self,tcp").env("OMPI_MCA_btl_tcp_if_include", "lo")
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

const THREE: [&str; 3] = ["rank 0 of 3: sum 6", "rank 1 of 3: sum 6", "rank 2 of 3: sum 6"];

#[test]
fn openmpi_programs_find_each_other_by_pmix() {
    let cluster = Cluster::start(Options::nodes(3, 3));
    let Some(hello) = compiled(&cluster, "mpicc.openmpi", "hello", HELLO) else { return };
    assert_eq!(sorted(&run(&cluster, "--mpi=pmix -n 3 -N 3", &hello).ok()), THREE);
    assert_eq!(sorted(&run(&cluster, "--mpi=pmix -n 3 -N 1", &hello).ok()), THREE);
    let cyclic = run(&cluster, "--mpi=pmix -n 6 -N 3 -m cyclic", &hello).ok();
    assert_eq!(sorted(&cyclic)[5], "rank 5 of 6: sum 21");
    // Values that are fetched when they are needed, not at a fence.
    let direct = run(&cluster, "--mpi=pmix -n 3 -N 3", &hello)
        .env("OMPI_MCA_pmix_base_async_modex", "1")
        .env("OMPI_MCA_pmix_base_collect_data", "0");
    assert_eq!(sorted(&direct.ok()), THREE);
    let none = run(&cluster, "--mpi=pmix_v9 -n 1", &hello).fails();
    none.says("--mpi=pmix_v9 is not there: libpmix is of version ");
    let list = cluster.cmd("srun").arg("--mpi=list").ok();
    assert!(list.contains("\n\tpmix\n") && list.contains("available: pmix_v"), "{list}");
    cluster.await_quiet();
}

#[test]
fn an_openmpi_program_ends_as_a_whole_when_a_rank_aborts() {
    let cluster = Cluster::start(Options::nodes(3, 1));
    let Some(abort) = compiled(&cluster, "mpicc.openmpi", "abort", ABORT) else { return };
    // Whether the rank leaves by itself before it is ended with the others is a race.
    let ran = run(&cluster, "--mpi=pmix -n 3 -N 3", &abort).fails();
    ran.says("task 1 ends the step with exit code 7");
    cluster.await_quiet();
}

#[test]
fn mpich_programs_find_each_other_by_pmi2() {
    let cluster = Cluster::start(Options::nodes(3, 2));
    let Some(hello) = compiled(&cluster, "mpicc.mpich", "hello", HELLO) else { return };
    assert_eq!(sorted(&run(&cluster, "--mpi=pmi2 -n 3 -N 3", &hello).ok()), THREE);
    let six = run(&cluster, "--mpi=pmi2 -n 6 -N 3", &hello).ok();
    assert_eq!(sorted(&six)[5], "rank 5 of 6: sum 21");
    cluster.await_quiet();
}
