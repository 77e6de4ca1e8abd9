use super::words::{cpu_bind, distribution, mpi};
use super::*;

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|&word| word.to_owned()).collect()
}

fn srun(line: &[&str], env: &[(&str, &str)]) -> Result<Order, Stop> {
    read(Command::Srun, &words(line), &|name| {
        env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn refusals_have_slurms_texts_and_codes() {
    let table: &[(&[&str], &str, i32)] = &[
        (&["--foo"], "unrecognized option '--foo'", 255),
        (&["-1"], "invalid option -- '1'", 255),
        (&["-n0"], "Invalid numeric value \"0\" for --ntasks.", 1),
        (&["--mem=x"], "Invalid --mem specification", 255),
        (&["-m", "foo"], "Invalid --distribution specification", 255),
        (&["--mpi=foo"], "Invalid MPI type 'foo', --mpi=list for acceptable types", 1),
        (&["--mpi=pmix_vx"], "Invalid MPI type 'pmix_vx', --mpi=list for acceptable types", 1),
        (&["--het-group=0"], "--het-group is not built yet", 1),
        (&["-W", "x"], "Invalid numeric value \"x\" for --wait.", 1),
        (&["--wrap=x"], "unrecognized option '--wrap=x'", 255),
        (&["--cpu-bind=foo"], "Failed to parse --cpu-bind= values.", 1),
    ];
    for (line, text, code) in table {
        let stop = srun(line, &[]).expect_err(text);
        let last = match &stop {
            Stop::Usage(usage) => usage.to_string(),
            Stop::Value(lines) => lines.last().cloned().unwrap_or_default(),
        };
        assert_eq!((last.as_str(), stop.report("srun")), (*text, *code), "{line:?}");
    }
}

#[test]
fn options_end_at_the_command() {
    let order = srun(&["-l", "-K", "-I5", "-n", "2", "ls", "-l"], &[]).expect("valid");
    assert!(order.extras.label && order.extras.kill_on_bad_exit);
    assert_eq!(order.extras.immediate, Some(5));
    assert_eq!(order.request.ntasks, Some(2));
    assert_eq!(order.operands, ["ls", "-l"]);
}

#[test]
fn variables_stand_for_options_and_lose_against_them() {
    let env = [
        ("SLURM_LABELIO", "1"),
        ("SLURM_UNBUFFEREDIO", "0"),
        ("SLURM_NTASKS", "4"),
        ("SLURM_NNODES", "2"),
        ("SLURM_WAIT", "7"),
        ("SLURM_KILL_BAD_EXIT", "1"),
        ("SLURM_IMMEDIATE", "30"),
        ("SLURM_JOB_NAME", "outer"),
        ("SLURM_MEM_PER_NODE", "10"),
    ];
    let order = srun(&["-n1", "--mem-per-cpu=5", "true"], &env).expect("valid");
    assert!(order.extras.label && !order.extras.unbuffered && order.extras.kill_on_bad_exit);
    assert_eq!(order.request.ntasks, Some(1));
    assert_eq!(order.request.nodes, Some((2, 2)));
    assert_eq!((order.extras.wait_secs, order.extras.immediate), (7, Some(30)));
    assert_eq!(order.extras.step_name, None, "the job's name is not the step's");
    let named = srun(&["-J", "inner", "true"], &env).expect("valid");
    assert_eq!(named.extras.step_name.as_deref(), Some("inner"));
}

#[test]
fn words_are_checked() {
    for text in ["block", "cyclic:cyclic", "plane=2", "arbitrary", "block:*:fcyclic", "*,pack"] {
        assert!(distribution(text).is_ok(), "{text}");
    }
    for text in ["", "plane=0", "plane", "block:foo", "block:a:b:c", "block,x"] {
        assert!(distribution(text).is_err(), "{text}");
    }
    for text in ["none", "quiet,cores", "v,rank", "map_cpu:0,1*2", "verbose,mask_cpu:0x3,ff"] {
        assert!(cpu_bind(text).is_ok(), "{text}");
    }
    for text in ["foo", "map_cpu:", "map_cpu:z", "cores,foo", "x:1"] {
        assert!(cpu_bind(text).is_err(), "{text}");
    }
    for (text, good) in [("pmi2", true), ("none", true), ("torch", true), ("pmix_v4", true)] {
        assert_eq!(mpi(text).is_ok(), good, "{text}");
    }
}
