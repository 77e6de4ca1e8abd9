use std::path::Path;

use proptest::prelude::*;

use penstock_core::model::Scheduling;
use penstock_vocab::{Mib, Walltime};

use super::*;

const PATH: &str = "cluster.toml";

/// Nobody but alice exists.
fn problems(text: &str) -> Vec<String> {
    let existing = Existing { user: &|name| name == "alice", group: &|name| name == "physics" };
    let report = check(Path::new(PATH), text, &existing);
    assert_eq!(
        report.file.is_some(),
        !report.agent_only
            && report.problems.iter().all(|problem| problem.severity != Severity::Error)
    );
    report.problems.iter().map(ToString::to_string).collect()
}

/// Checks that `text` with a partition after it has exactly one problem that holds all of `expect`.
fn one(text: &str, expect: &[&str]) {
    let found = problems(&format!("{text}\n[[partition]]\nname = \"ok\"\n"));
    assert_eq!(found.len(), 1, "{text}: {found:#?}");
    for part in expect {
        assert!(found[0].contains(part), "{text}: {:?} lacks {part:?}", found[0]);
    }
}

#[test]
fn smallest_file_has_every_default() {
    let file = ClusterFile::parse(Path::new(PATH), "[[partition]]\nname = \"main\"\n").unwrap();
    assert_eq!(file.cluster, ClusterSection::default());
    assert_eq!(file.policy, PolicySection::default());
    assert!(file.controller.listen.ip().is_loopback());
    let partition = &file.partitions[0];
    assert!(partition.default, "the only partition is the default");
    assert_eq!(partition.nodes, PartitionNodes::All);
    assert_eq!(partition.max_time, Walltime::Unlimited);
    assert_eq!(partition.default_time, None);
    assert_eq!(file.comments, []);
}

#[test]
fn every_value_arrives() {
    let text = r#"
[cluster]
name = "demo"
resolve_nodes = true
[controller]
listen = "0.0.0.0:7000"
socket = "/run/p.sock"
state_dir = "/srv/p"
admins = ["alice"]
[policy]
node_timeout_secs = 60
kill_wait_secs = 5
[[partition]]
name = "main"
default = true
nodes = "gpu[001-128]"
max_time = "2-00:00:00"
default_time = 90
def_mem_per_cpu = "4G"
max_mem_per_cpu = 8192
allow_groups = ["physics"]
exclusive = true
state = "drain"
[[node]]
name = "gpu[001-128]"
cpus = 64
memory = "512G"
gres = ["gpu:h100:8"]
features = ["h100", "ib"]
weight = 10
[agent]
controller = "127.0.0.1:7000"
"#;
    assert_eq!(problems(text), Vec::<String>::new());
    let file = ClusterFile::parse(Path::new(PATH), text).unwrap();
    assert_eq!(file.cluster.name, "demo");
    assert!(file.cluster.resolve_nodes);
    assert_eq!(file.controller.listen, "0.0.0.0:7000".parse().unwrap());
    assert_eq!((file.policy.node_timeout_secs, file.policy.heartbeat_secs), (60, 5));
    let partition = &file.partitions[0];
    assert_eq!(partition.max_time, Walltime::Limited(2 * 86_400));
    assert_eq!(partition.default_time, Some(Walltime::Limited(90 * 60)));
    assert_eq!(partition.def_mem_per_cpu, Some(Mib(4096)));
    assert_eq!(partition.max_mem_per_cpu, Some(Mib(8192)));
    assert_eq!(partition.state, PartitionState::Drain);
    let PartitionNodes::Named(names) = &partition.nodes else { panic!("a list was given") };
    assert_eq!((names.len(), names[127].as_str()), (128, "gpu128"));
    let node = &file.nodes[0];
    assert_eq!((node.names.len(), node.cpus, node.weight), (128, Some(64), 10));
    assert_eq!(node.memory, Some(Mib(512 * 1024)));
    assert_eq!(node.gres[0].count, 8);
    assert_eq!(file.agent.unwrap()["controller"].as_str(), Some("127.0.0.1:7000"));
}

#[test]
fn mistakes_are_explained() {
    let table: &[(&str, &[&str])] = &[
        ("[clutser]\nname = \"a\"", &["cluster.toml:1:2: error:", "did you mean \"cluster\"?"]),
        ("[policy]\nkill_wait = 3", &["toml:2:1: error: [policy] has no key", "kill_wait_secs"]),
        ("[cluster]\ncolour = 1", &["no key \"colour\"; it has name, resolve_nodes"]),
        ("[policy]\nkill_wait_secs = \"30\"", &["the text \"30\"", "kill_wait_secs = 1"]),
        ("[policy]\nkill_wait_secs = 0", &["is 0; give a number from 1 to 3600"]),
        ("[policy]\nkill_wait_secs = 1.5", &["the fraction 1.5, and a whole number is wanted"]),
        ("[policy]\nkill_wait_secs = -1", &["is -1; give a number from 1"]),
        ("[policy]\nheartbeat_secs = 200", &["raise it to 600 or more"]),
        ("[policy]\nnode_timeout_secs = 14", &["toml:2:21: error", "raise it to 15 or more"]),
        ("[policy]\nmax_array_size = 4000002", &["from 1 to 4000001"]),
        ("[cluster]\nname = \"Demo\"", &["\"Demo\" is no name of a cluster"]),
        ("[cluster]\nresolve_nodes = 1", &["true or false is wanted"]),
        ("[[cluster]]\nname = \"a\"", &["cluster must be one table; write [cluster]"]),
        ("[controller]\nlisten = \"ctl:6820\"", &["no address with a port; write 0.0.0.0:6820"]),
        ("[controller]\nlisten = \"127.0.0.1\"", &["no address with a port"]),
        ("[controller]\nsocket = \"run/p.sock\"", &["no absolute path"]),
        ("[controller]\nadmins = [\"alice\", \"bob\"]", &[":20: warning:", "no user \"bob\""]),
        ("[controller]\nadmins = [7]", &["the number 7, and a list of texts is wanted"]),
        ("[node]\nname = \"a\"", &["write [[node]], with two brackets"]),
        ("[[node]]\ncpus = 4", &["toml:1:1: error: [[node]] has no name"]),
        ("[[node]]\nname = \"a[1-\"", &["brackets do not match"]),
        ("[[node]]\nname = \"a[3-1]\"", &["runs backwards"]),
        ("[[node]]\nname = \"a/b\"", &["has '/'"]),
        ("[[node]]\nname = \"\"", &["names no node"]),
        ("[[node]]\nname = \"a\"\nmemory = \"12 apples\"", &["\"12 apples\" is not understood"]),
        ("[[node]]\nname = \"a\"\nmemory = 0", &["memory is 0"]),
        ("[[node]]\nname = \"a\"\ngres = [\"gpu:1:2:3\"]", &["gres \"gpu:1:2:3\""]),
        ("[[node]]\nname = \"a\"\nfeatures = [\"a&b\"]", &["\"a&b\" is no name of a feature"]),
        ("[[node]]\nname = \"a\"\n[[node]]\nname = \"a\"", &["toml:4:8", "first on line 2"]),
        ("[[node]]\nname = \"a,a\"", &["a is described twice"]),
        ("[agent]\n[[node]]\nname = \"a\"\nvaria = 1", &["no key \"varia\""]),
        ("agent = 3", &["agent must be a table"]),
    ];
    for (text, expect) in table {
        one(text, expect);
    }
}

#[test]
fn mistakes_of_partitions_are_explained() {
    let table: &[(&str, &[&str])] = &[
        ("", &["no partition, so no job could run"]),
        ("[[partition]]\nmax_time = 1", &["toml:1:1: error: [[partition]] has no name"]),
        ("[[partition]]\nname = \"a b\"", &["has ' '"]),
        ("[partition]\nname = \"a\"", &["with two brackets"]),
        ("[[partition]]\nname = \"a\"\nmax_tme = 1", &["[[partition]] \"a\"", "\"max_time\"?"]),
        ("[[partition]]\nname = \"a\"\nmax_time = \"soon\"", &["\"soon\" is not understood"]),
        ("[[partition]]\nname = \"a\"\nnodes = \"n[1\"", &["brackets do not match"]),
        ("[[partition]]\nname = \"a\"\nnodes = \" \"", &["names no node"]),
        ("[[partition]]\nname = \"a\"\nstate = \"ON\"", &["give UP, DOWN, DRAIN or INACTIVE"]),
        (
            "[[partition]]\nname = \"a\"\nmax_time = 10\ndefault_time = 20",
            &["default_time 00:20:00 is longer than max_time 00:10:00"],
        ),
        ("[[partition]]\nname = \"a\"\nmin_nodes = 3\nmax_nodes = 2", &["min_nodes 3 is more"]),
        (
            "[[partition]]\nname = \"a\"\ndef_mem_per_cpu = 1\ndef_mem_per_node = 1",
            &["keep one of them"],
        ),
        (
            "[[partition]]\nname = \"a\"\ndef_mem_per_cpu = \"2G\"\nmax_mem_per_cpu = \"1G\"",
            &["def_mem_per_cpu 2G is more than max_mem_per_cpu 1G"],
        ),
        ("[[partition]]\nname = \"a\"\nallow_groups = []", &["an empty list"]),
        ("[[partition]]\nname = \"a\"\nallow_groups = [\"x\"]", &["warning", "no group \"x\""]),
        (
            "[[partition]]\nname = \"a\"\ndefault = true\n[[partition]]\nname = \"a\"",
            &["toml:5:8", "described twice, first on line 2"],
        ),
        (
            "[[partition]]\nname = \"a\"\ndefault = true\n[[partition]]\nname = \"b\"\ndefault = true",
            &["\"b\" is a second default; \"a\" on line 2"],
        ),
        (
            "[[partition]]\nname = \"a\"\n[[partition]]\nname = \"b\"",
            &["warning", "every job must name one with -p"],
        ),
        (
            "[[node]]\nname = \"n1\"\n[[partition]]\nname = \"a\"\nnodes = \"n[1-3]\"",
            &["note", "has n[2-3], which no [[node]] describes"],
        ),
        (
            "[[node]]\nname = \"n[1-2]\"\n[[partition]]\nname = \"a\"",
            &["note: the controller listens on 127.0.0.1:6820, which only"],
        ),
    ];
    for (text, expect) in table {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        for part in *expect {
            assert!(found[0].contains(part), "{text}: {:?} lacks {part:?}", found[0]);
        }
    }
}

#[test]
fn all_mistakes_come_at_once_in_order_of_lines() {
    let text = "[policy]\nkill_wait_secs = 0\nnope = 1\n[cluster]\nname = 3\n[[partition]]\n";
    let found = problems(text);
    let lines: Vec<_> = found.iter().map(|problem| problem.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["2", "3", "5", "6"]);
    let error = ClusterFile::parse(Path::new(PATH), text).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 4);
}

#[test]
fn syntax_is_judged_alone() {
    let found = problems("[policy]\nkill_wait_secs = = 3\n");
    assert!(!found.is_empty());
    assert!(found.iter().all(|line| line.contains("cluster.toml:2:")), "{found:?}");
}

#[test]
fn file_of_a_node_describes_no_cluster() {
    let text = "[agent]\ncontroller = \"ctl:6820\"\n";
    let report = check(Path::new(PATH), text, &Existing::unasked());
    assert!(report.agent_only && report.file.is_none() && report.problems.is_empty());
    let error = ClusterFile::parse(Path::new(PATH), text).unwrap_err();
    assert!(error.to_string().contains("give the controller one with a [[partition]]"), "{error}");
}

#[test]
fn missing_file_is_named() {
    let error = ClusterFile::read(Path::new("/nonexistent/cluster.toml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read cluster file /nonexistent/cluster.toml");
}

#[test]
fn examples_have_no_problem() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for name in ["one-node.toml", "many-nodes.toml"] {
        let text = std::fs::read_to_string(examples.join(name)).unwrap();
        let existing = Existing::unasked();
        let report = check(Path::new(name), &text, &existing);
        assert_eq!(report.problems, [], "{name}");
        assert!(report.file.is_some(), "{name}");
    }
}

#[test]
fn example_shows_defaults_and_what_is_commented_out_works() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/one-node.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let read = |text: &str| check(Path::new(PATH), text, &Existing::unasked());
    let file = read(&text).file.unwrap();
    assert_eq!(file.scheduling, Scheduling::default());
    let is_key = |rest: &str| {
        let key = rest.split_once(" = ").map(|(key, _)| key);
        let word = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        rest.starts_with('[') && rest.ends_with(']') || key.is_some_and(word)
    };
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_key(rest) => rest,
        Some(_) | None => line,
    });
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let report = read(&text);
    assert_eq!(report.problems, []);
    let scheduling = report.file.unwrap().scheduling;
    assert_eq!(scheduling.licenses.len(), 1);
    assert_eq!(scheduling.cost.per_hour.len(), 3);
    assert_eq!(scheduling.weights.tres.len(), 3);
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z\\[\\]= \"\n0-9é#.-]{0,200}") {
        let report = check(Path::new(PATH), &text, &Existing::unasked());
        prop_assert!(report.file.is_some() || !report.problems.is_empty() || report.agent_only);
    }

    #[test]
    fn no_value_panics(
        section in prop::sample::select(vec!["[policy]", "[cluster]", "[controller]", "[[node]]",
            "[[partition]]", "[agent]"]),
        key in prop::sample::select(vec!["name", "nodes", "admins", "listen", "memory", "gres",
            "kill_wait_secs", "max_time", "default", "features"]),
        value in prop::sample::select(vec!["1", "-1", "1e3", "\"\"", "\"x[1-3]\"", "[]", "[[]]",
            "{}", "true", "2020-01-01", "99999999999999999999", "\"é\""]),
    ) {
        let text = format!("{section}\n{key} = {value}\n");
        drop(check(Path::new(PATH), &text, &Existing::unasked()));
    }
}

#[test]
fn scheduling_pools_and_switches_arrive() {
    let text = r#"
[priority]
age = 5
tres = "cpu=7,gres/gpu=9"
[backfill]
depth = 1
[fairshare]
half_life_secs = 3600
reset = "monthly"
billing = "cpu=2,gres/gpu=10"
[preemption]
by = "qos"
mode = "requeue"
[accounting]
enforce = "safe"
[cost]
currency = "CHF"
per_hour = "cpu=0.02"
[licenses]
matlab = 10
[[node]]
name = "a[1-2]"
features = ["fast"]
[[node]]
name = "b[1-2]"
[[node_set]]
name = "pool"
feature = "fast"
nodes = "b2"
[[switch]]
name = "leaf"
nodes = "a[1-2]"
[[switch]]
name = "spine"
switches = ["leaf"]
[[block]]
name = "rack"
nodes = "b[1-2]"
[[partition]]
name = "main"
nodes = "pool"
qos = "limits"
deny_accounts = ["old"]
allow_qos = ["normal"]
billing = "mem=1G"
preempt_mode = "cancel"
grace_secs = 60
"#;
    let file = ClusterFile::parse(Path::new(PATH), text).unwrap();
    let scheduling = &file.scheduling;
    assert_eq!((scheduling.weights.age, scheduling.weights.tres.len()), (5, 2));
    assert_eq!(scheduling.backfill.depth, 1);
    assert_eq!(scheduling.fairshare.half_life_secs, 3600);
    assert_eq!(scheduling.licenses["matlab"], 10);
    assert_eq!(scheduling.cost.per_hour.values().copied().collect::<Vec<_>>(), [20_000]);
    assert_eq!(&*scheduling.topology.switches[1].switches[0], "leaf");
    assert_eq!(scheduling.topology.blocks[0].nodes.len(), 2);
    let partition = &file.partitions[0];
    let PartitionNodes::Named(names) = &partition.nodes else { panic!("named") };
    let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    assert_eq!(names, ["a1", "a2", "b2"]);
    assert_eq!((partition.qos.as_deref(), partition.grace_secs), (Some("limits"), 60));
}

#[test]
fn scheduling_mistakes_are_named() {
    one("[priority]\nage = 4000000000\n", &["age", "100000000"]);
    one("[backfill]\ndepth = \"deep\"\n", &["depth", "\"all\""]);
    one("[fairshare]\nbilling = \"cpu\"\n", &["billing", "cpu=1.0"]);
    one("[preemption]\nby = \"force\"\n", &["by", "none, partition, qos"]);
    one("[accounting]\nenforce = true\n", &["enforce", "text"]);
    one("[licenses]\nmatlab = \"ten\"\n", &["matlab", "whole number"]);
    one("[[node_set]]\nname = \"x\"\nfeature = \"y\"\n", &["no [[node]] has the feature"]);
    one("[[switch]]\nname = \"s\"\n", &["either nodes"]);
    one(
        "[[switch]]\nname = \"s\"\nnodes = \"n1\"\n[[switch]]\nname = \"t\"\nnodes = \"n1\"\n",
        &["n1", "switch s and t"],
    );
    one("[[block]]\nname = \"b\"\nnode = \"n1\"\n", &["did you mean \"nodes\""]);
}

#[test]
fn a_lease_must_be_over_before_its_node_is_down() {
    let with =
        |policy: &str| format!("[policy]\n{policy}\n[[partition]]\nname = \"p\"\nfence = \"self\"");
    assert_eq!(problems(&with("")), Vec::<String>::new());
    assert_eq!(problems(&with("fence_lease_secs = 259")), Vec::<String>::new());
    let file = ClusterFile::parse(Path::new(PATH), &with("")).unwrap();
    assert!(file.partitions[0].fence_self);
    let found = problems(&with("fence_lease_secs = 260"));
    assert_eq!(
        found,
        ["cluster.toml:4:8: error: [[partition]] \"p\" has fence = \"self\", and [policy] \
          fence_lease_secs 260 + kill_wait_secs 30 + 10 s of margin are 300 s, not below \
          node_timeout_secs 300: a job could run on elsewhere; raise node_timeout_secs to 301 or \
          more, or lower fence_lease_secs to 259"]
    );
    let found = problems(&with("node_timeout_secs = 20"));
    assert!(found.len() == 1 && found[0].ends_with("raise node_timeout_secs to 161 or more"));
    let found = problems(&with("fence_lease_secs = 14"));
    assert!(found.len() == 1 && found[0].contains("raise it to 15 or more"), "{found:?}");
    one("[[partition]]\nname = \"p\"\ndefault = true\nfence = \"off\"", &["\"off\"", "\"self\""]);
    // Without such a partition, the numbers do not matter.
    assert_eq!(
        problems("[policy]\nfence_lease_secs = 3600\n[[partition]]\nname = \"p\""),
        Vec::<String>::new()
    );
}
