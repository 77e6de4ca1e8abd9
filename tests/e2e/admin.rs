//! Does the cluster obey its admins while it runs?

use std::fs;

use crate::harness::{Cluster, Options, PATIENCE, root_and_other_user, wait_until};

/// Changes the cluster's file.
fn edit(cluster: &Cluster, change: impl FnOnce(String) -> String) {
    let path = cluster.dir().join("cluster.toml");
    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, change(text)).expect("written");
}

#[test]
fn a_changed_file_is_taken_without_a_restart() {
    let mut cluster = Cluster::start(Options::one_node(4));
    let running = cluster.wrap("", "while [ ! -e go ]; do sleep 0.05; done").id();
    cluster.await_state(running, "RUNNING");
    cluster.wrap("-p extra", "true").fails().says("Invalid partition name specified");
    edit(&cluster, |text| {
        text + "[[partition]]\nname = \"extra\"\nnodes = \"ALL\"\nmax_time = \"5\"\n"
    });
    cluster.scontrol("reconfigure");
    let id = cluster.wrap("-p extra", "true").id();
    let job = cluster.await_end(id);
    assert_eq!((job.state(), job.get("TimeLimit")), ("COMPLETED", "00:05:00"));
    let too_long = cluster.wrap("-p extra -t 10", "true").run();
    if too_long.code == 0 {
        let id: u32 = too_long.out.trim().parse().expect("an id");
        cluster.await_reason(id, "PartitionTimeLimit");
    } else {
        too_long.says("time limit");
    }

    // A mistake is told with its line, and what was in force stays.
    edit(&cluster, |text| text.replace("max_time = \"5\"", "max_tiem = \"5\""));
    let refused = cluster.cmd("scontrol").arg("reconfigure").fails();
    refused.says("max_tiem");
    let id = cluster.wrap("-p extra", "true").id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    edit(&cluster, |text| text.replace("max_tiem", "max_time"));
    fs::write(cluster.work().join("go"), "").expect("written");
    assert_eq!(cluster.await_end(running).state(), "COMPLETED");
    assert!(cluster.controller.as_mut().is_some_and(|daemon| daemon.lives()));
}

#[test]
fn users_in_the_list_of_admins_are_admins() {
    if !root_and_other_user() {
        return;
    }
    let cluster = Cluster::start(Options::one_node(2));
    let drain = || cluster.cmd("scontrol").words("update NodeName=n1 State=DRAIN Reason=listed");
    drain().by_nobody().fails();
    edit(&cluster, |text| text.replace("[controller]", "[controller]\nadmins = [\"nobody\"]"));
    cluster.scontrol("reconfigure");
    drain().by_nobody().ok();
    let listed = cluster.cmd("sinfo").words("-h -R -o").arg("%E %u").ok();
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["listed", "nobody"]);
    let roots = cluster.wrap("-H", "true").id();
    cluster.cmd("scancel").arg(roots.to_string()).by_nobody().ok();
    assert_eq!(cluster.await_end(roots).state(), "CANCELLED");
}

#[test]
fn a_partition_is_open_to_whom_its_rules_say() {
    if !root_and_other_user() {
        return;
    }
    let mut options = Options::one_node(2);
    options.sections = "[[partition]]\nname = \"main\"\ndefault = true\nnodes = \"ALL\"\n\
                        [[partition]]\nname = \"mine\"\nnodes = \"ALL\"\n\
                        allow_groups = [\"root\"]\n\
                        [[partition]]\nname = \"closed\"\nnodes = \"ALL\"\nstate = \"DOWN\"\n"
        .to_owned();
    let cluster = Cluster::start(options);
    let id = cluster.wrap("-p mine", "true").id();
    assert_eq!(cluster.await_end(id).state(), "COMPLETED");
    let refused = cluster.wrap("-p mine", "true").by_nobody().fails();
    refused.says("User's group not permitted to use this partition");
    let id = cluster.wrap("-p closed", "true").id();
    cluster.await_reason(id, "PartitionDown");
    let id = cluster.wrap("", "true").by_nobody().id();
    wait_until("the other user's job ends", PATIENCE, || cluster.job(id).is_over());
}
