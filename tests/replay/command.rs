//! Does `penstock simulate` say what it did, refuse what it can't do, and give the same bytes twice?

use crate::binary::{dumped, excerpt, file, printed, refused};

const TWO: &str = "1 0 -1 10 1 -1 -1 1 20 -1 1 7 3 -1 -1 -1 -1 -1\n\
                   2 0 -1 10 1 -1 -1 1 20 -1 1 8 3 -1 -1 -1 -1 -1\n";

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// Texts are in what was printed, however wide the columns are.
fn tells(text: &str, expected: &[&str]) {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for expect in expected {
        assert!(words.contains(expect), "{expect:?} is not in\n{text}");
    }
}

#[test]
fn report_has_its_figures_and_says_what_was_left_out() {
    let trace =
        file(&format!("; comment\n{TWO}3 0 -1 -1 1 -1 -1 1 20 -1 5 8 3 -1 -1 -1 -1 -1\nx y\n"));
    let text = printed(&[path(&trace), "--cluster", "units:1", "--policy", "fcfs"]);
    tells(
        &text,
        &[
            "(swf, told from its content)",
            "cluster 1 units",
            "jobs 2 of 4 records; 1 lines not understood; 1 that never ran",
            "line 5 has 2 columns of 18",
            "makespan 00:00:20",
            "utilisation 100.00 %",
            "wait, mean 00:00:05",
            "wait, longest 00:00:10",
            "bounded slowdown, mean 1.50",
            "users: Jain's index 0.90",
        ],
    );
}

#[test]
fn comparison_shows_both_and_their_ratio() {
    let trace = excerpt();
    let args = [
        trace.to_str().unwrap(),
        "--cluster",
        "units:512",
        "--policy",
        "fcfs",
        "--compare",
        "default",
    ];
    let text = printed(&args);
    assert!(text.contains("fcfs / default"), "{text}");
    assert!(text.lines().any(|l| l.starts_with("utilisation") && l.ends_with("points")), "{text}");
    assert_eq!(text, printed(&args), "another run gives other bytes");
}

#[test]
fn every_output_is_the_same_twice() {
    let trace = excerpt();
    let folder = tempfile::tempdir().unwrap();
    let all = |nth: u32| {
        let at = |ending: &str| folder.path().join(format!("{nth}.{ending}"));
        let (csv, svg) = (at("csv"), at("svg"));
        let trace = trace.to_str().unwrap();
        let text = printed(&[
            trace,
            "--cluster",
            "units:512",
            "--json",
            "--jobs",
            "300",
            "--dump",
            csv.to_str().unwrap(),
            "--plot",
            svg.to_str().unwrap(),
        ]);
        (text, std::fs::read(csv).unwrap(), std::fs::read_to_string(svg).unwrap())
    };
    let (text, csv, svg) = all(1);
    assert_eq!((text.clone(), csv, svg.clone()), all(2));
    assert!(text.contains("\"bounded_slowdown\": {") && text.ends_with("}\n"), "{text}");
    for expect in
        ["<svg ", "units in use", "jobs that wait", "since the first submission", "</svg>"]
    {
        assert!(svg.contains(expect), "{expect:?} is not in the drawing");
    }
}

#[test]
fn nodes_of_a_cluster_file_take_what_fits_them() {
    let cluster = file(
        "[[partition]]\nname = \"main\"\n[[node]]\nname = \"n[1-2]\"\ncpus = 2\nmemory = \"4G\"\n",
    );
    let trace = file(
        "1 0 -1 10 4 -1 -1 4 20 -1 1 7 3 -1 -1 -1 -1 -1\n\
         2 0 -1 10 1 -1 -1 1 20 -1 1 8 3 -1 -1 -1 -1 -1\n\
         3 0 -1 10 5 -1 -1 5 20 -1 1 8 3 -1 -1 -1 -1 -1\n",
    );
    let lines = dumped(trace.path(), &["--cluster", path(&cluster), "--policy", "fcfs"]);
    let starts: Vec<_> = lines.iter().map(|line| (line.job.as_str(), line.start)).collect();
    assert_eq!(starts, [("1", Some(0)), ("2", Some(10))]);
}

#[test]
fn pods_are_packed_on_a_list_of_nodes() {
    let nodes =
        file("sn,cpu_milli,memory_mib,gpu,model\nn1,8000,1000,2,V100\nn2,8000,1000,4,A10\n");
    let pods = file(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n\
         a,1000,1,4,1000,\nb,1000,1,2,1000,V100\nc,1000,1,1,500,A10\nd,1000,1,1,1000,T4\n",
    );
    let text = printed(&[path(&pods), "--cluster", path(&nodes)]);
    tells(
        &text,
        &[
            "(pods, told from its content)",
            "counted in GPUs",
            "1 with part of a GPU, counted as a whole one",
            "refused 1 jobs, the first is d: ",
            "in use at the end 100.00 %",
            "never started 1",
        ],
    );
}

#[test]
fn what_cannot_be_replayed_is_refused_with_the_reason() {
    let trace = file(TWO);
    let trace = path(&trace);
    let policy = file("[backfill]\ndepht = 7\n");
    let empty = file("; nothing\n");
    let wide = file("1 0 -1 10 9 -1 -1 9 20 -1 1 7 3 -1 -1 -1 -1 -1\n");
    let pods = file("name,cpu,memory,gpu\na,1,1,1\n");
    for (args, expect) in [
        (vec!["/nonexistent", "--cluster", "units:4"], "cannot read /nonexistent"),
        (vec![trace, "--cluster", "/nonexistent"], "cannot read cluster file /nonexistent"),
        (vec![trace, "--cluster", "units:0"], "\"0\" is no number of units"),
        (vec![trace, "--cluster", "units:4", "--policy", path(&policy)], "did you mean \"depth\"?"),
        (vec![trace, "--cluster", "units:4", "--policy", "esy"], "cannot read"),
        (vec![trace, "--cluster", "units:4", "--format", "philly"], "needs the column timestamp"),
        (vec![path(&empty), "--cluster", "units:4"], "its format is not recognised"),
        (vec![path(&wide), "--cluster", "units:4"], "no job is left to replay"),
        (vec![path(&pods), "--cluster", "units:4"], "a list of pods needs nodes"),
        (
            vec![trace, "--cluster", "units:4", "--dump", "/nonexistent/x"],
            "cannot write /nonexistent/x",
        ),
    ] {
        let words = refused(&args);
        assert!(words.contains(expect), "{args:?}: {words}");
    }
}
