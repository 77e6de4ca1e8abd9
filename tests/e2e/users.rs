//! Is everybody who they are, and nobody else?

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use penstock_proto::{GID_HEADER, UID_HEADER, v1};
use tonic::Request;

use crate::harness::{
    AgentOptions, Cluster, NOBODY, Options, as_nobody, block_on, root_and_other_user, rpc_at,
};

#[test]
fn a_users_job_runs_as_that_user() {
    if !root_and_other_user() {
        return;
    }
    let cluster = Cluster::start(Options::one_node(2));
    let script = "id -u; id -g; id -G; id -un; grep CapEff /proc/self/status; umask";
    let id = cluster.wrap("-o who.out", script).by_nobody().id();
    let job = cluster.await_end(id);
    assert_eq!((job.state(), job.get("UserId")), ("COMPLETED", "nobody(65534)"));
    let out = cluster.read("who.out");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..4], ["65534", "65534", "65534", "nobody"], "{out}");
    assert!(lines[4].ends_with("0000000000000000"), "no capability is left: {out}");
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata(cluster.work().join("who.out")).expect("there");
    assert_eq!((meta.uid(), meta.gid()), (NOBODY, NOBODY));
    let listed = cluster.cmd("squeue").words("-h -t all -o %u").by_nobody().ok();
    assert_eq!(listed, "nobody\n");
}

#[test]
fn a_user_may_touch_only_what_is_its_own() {
    if !root_and_other_user() {
        return;
    }
    let cluster = Cluster::start(Options::one_node(4));
    let roots = cluster.wrap("-J roots", "sleep 300").id();
    cluster.await_state(roots, "RUNNING");
    let ran = cluster.cmd("scancel").arg(roots.to_string()).by_nobody().fails();
    ran.says("Access/permission denied");
    for verb in ["hold", "release", "requeue"] {
        let ran = cluster.cmd("scontrol").words(&format!("{verb} {roots}")).by_nobody().fails();
        assert!(format!("{}{}", ran.out, ran.err).contains("denied"), "{ran}");
    }
    let ran = cluster.cmd("scontrol").words(&format!("update JobId={roots} TimeLimit=1"));
    ran.by_nobody().fails();
    let ran = cluster.cmd("scontrol").words(&format!("write batch_script {roots} -")).by_nobody();
    let ran = ran.fails();
    assert!(!ran.out.contains("sleep 300"), "{ran}");
    cluster.cmd("scancel").words("-u root").by_nobody().run();
    let drain = "update NodeName=n1 State=DRAIN Reason=mine";
    let ran = cluster.cmd("scontrol").words(drain).by_nobody().fails();
    assert!(format!("{}{}", ran.out, ran.err).contains("denied"), "{ran}");
    cluster.penstock("token create").by_nobody().fails().says("may not");
    cluster.penstock("host revoke n1").by_nobody().fails().says("may not");
    cluster.cmd("scontrol").arg("reconfigure").by_nobody().fails();
    assert_eq!(cluster.job(roots).state(), "RUNNING");
    assert_eq!(cluster.node_state("n1"), "MIXED");

    let own = cluster.wrap("", "sleep 300").by_nobody().id();
    cluster.await_state(own, "RUNNING");
    cluster.cmd("scancel").arg(own.to_string()).by_nobody().ok();
    assert_eq!(cluster.await_end(own).state(), "CANCELLED");
    let held = cluster.wrap("", "sleep 300").by_nobody().id();
    cluster.scontrol(&format!("requeuehold {held}"));
    cluster.await_reason(held, "JobHeld");
    let boosted = cluster.wrap("--priority=4000000000", "true").by_nobody().run();
    assert!(boosted.code != 0 || cluster.job(held + 1).get("Priority") != "4000000000");
}

#[test]
fn no_path_that_a_user_names_is_opened_by_root() {
    if !root_and_other_user() {
        return;
    }
    let cluster = Cluster::start(Options::one_node(2));
    let secret = cluster.dir().join("private").join("secret");
    fs::write(&secret, "root's own\n").expect("written");
    // Even where the folder can be passed, the file is root's.
    let open = cluster.dir().join("open");
    fs::create_dir(&open).expect("new");
    fs::write(open.join("roots.txt"), "root's own\n").expect("written");
    fs::set_permissions(open.join("roots.txt"), fs::Permissions::from_mode(0o600)).expect("ours");
    for (name, target) in [("link1", secret.clone()), ("link2", open.join("roots.txt"))] {
        symlink(&target, cluster.work().join(name)).expect("new");
        let own = Some(NOBODY);
        std::os::unix::fs::lchown(cluster.work().join(name), own, own).expect("root gives away");
        let id = cluster.wrap(&format!("-o {name}"), "echo overwritten").by_nobody().id();
        assert_eq!(cluster.await_end(id).state(), "FAILED", "{name}");
        let id = cluster.wrap(&format!("-i {name} -o read.out"), "cat").by_nobody().id();
        assert_eq!(cluster.await_end(id).state(), "FAILED", "{name}");
        assert!(!cluster.read("read.out").contains("root's"));
        assert_eq!(fs::read_to_string(&target).expect("there"), "root's own\n");
    }
    let inside = cluster.dir().join("private").join("new.out");
    let id = cluster.wrap(&format!("-o {}", inside.display()), "true").by_nobody().id();
    assert_eq!(cluster.await_end(id).state(), "FAILED");
    assert!(!inside.exists());
    let ran = cluster.cmd("sbatch").arg(&secret).by_nobody().fails();
    ran.says("Unable to open file");
    assert_eq!(cluster.node_state("n1"), "IDLE", "a user's mistake drains no node");
}

#[test]
fn scripts_and_state_are_closed_to_others() {
    if !root_and_other_user() {
        return;
    }
    let cluster = Cluster::start(Options::one_node(2));
    let script = "echo $0 > where; cat /proc/self/environ > /dev/null; exec sleep 300";
    let roots = cluster.wrap("", script).env("TOKEN", "s3cret").id();
    cluster.await_text("where", "\n");
    let path = PathBuf::from(cluster.read("where").trim());
    assert!(fs::metadata(&path).is_ok(), "{} is the job's script", path.display());
    let closed = [
        path.clone(),
        path.parent().expect("a folder").to_owned(),
        cluster.state(),
        cluster.state().join("ca").join("ca.key"),
        cluster.dir().join("n1").join("state"),
        cluster.dir().join("n1").join("state").join("identity").join("host.key"),
        cluster.dir().join("n1").join("run"),
    ];
    let open = as_nobody(move || {
        let opens = |path: &PathBuf| fs::File::open(path).is_ok() || fs::read_dir(path).is_ok();
        closed.into_iter().filter(opens).collect::<Vec<_>>()
    });
    assert_eq!(open, Vec::<PathBuf>::new(), "nobody may look there");
    // Its own script, a user may read.
    let own = cluster.wrap("-o own.out", "cat $0").by_nobody().id();
    assert_eq!(cluster.await_end(own).state(), "COMPLETED");
    assert!(cluster.read("own.out").contains("cat $0"));
    let listed = cluster.cmd("scontrol").words(&format!("show job {roots} -dd")).by_nobody().run();
    assert!(!listed.out.contains("s3cret") && !listed.out.contains("exec sleep"), "{listed}");
}

/// Asks the daemon behind `socket` who calls, as `nobody` who says it is root.
fn forged_ping(socket: PathBuf) -> v1::PingReply {
    as_nobody(move || {
        block_on(async {
            let mut rpc = rpc_at(&socket).await;
            let mut request = Request::new(v1::PingRequest {});
            for (name, value) in [(UID_HEADER, "0"), (GID_HEADER, "0"), ("penstock-admin", "1")] {
                request.metadata_mut().insert(name, value.parse().expect("ASCII"));
            }
            rpc.ping(request).await.expect("answered").into_inner()
        })
    })
}

#[test]
fn a_client_that_lies_about_its_uid_is_seen_as_itself() {
    if !root_and_other_user() {
        return;
    }
    let options = Options::one_node(2).and(AgentOptions::login("login1"));
    let cluster = Cluster::start(options);
    for socket in [cluster.socket(), cluster.gate("n1"), cluster.gate("login1")] {
        let reply = forged_ping(socket.clone());
        assert_eq!((reply.uid, reply.admin), (NOBODY, false), "{}", socket.display());
    }
}

#[test]
fn a_cluster_without_root_serves_its_own_user() {
    if !root_and_other_user() {
        return;
    }
    let options = Options { uid: Some(NOBODY), ..Options::one_node(2) };
    let mut cluster = Cluster::start(options);
    let id = cluster.wrap("-o mine.out", "id -un; sleep 0.1; exit 7").by_nobody().id();
    assert_eq!(cluster.await_end(id).end(), "FAILED 7:0 NonZeroExitCode");
    assert_eq!(cluster.read("mine.out"), "nobody\n");
    let long = cluster.wrap("", "setsid sleep 300 & sleep 300").by_nobody().id();
    cluster.await_state(long, "RUNNING");
    cluster.kill_agent(0);
    cluster.restart_agent(0, None);
    assert_eq!(cluster.job(long).state(), "RUNNING");
    cluster.cmd("scancel").arg(long.to_string()).by_nobody().ok();
    assert_eq!(cluster.await_end(long).state(), "CANCELLED");
    let other = cluster.wrap("-o other.out", "true").run();
    if other.code == 0 {
        let id: u32 = other.out.trim().parse().expect("an id");
        let job = cluster.await_end(id);
        assert_eq!((job.state(), job.get("Reason")), ("FAILED", "JobLaunchFailure"));
    } else {
        other.says("uid 0");
    }
    assert_eq!(cluster.node_state("n1"), "IDLE", "another user's job drains no node");
}
