//! Where a job's words go, who it is, and why it does not start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use penstock_proto::v1;

use crate::world::{World, job};

#[test]
fn streams_go_where_slurm_puts_them() {
    let mut world = World::new();
    let both = "echo out; echo err >&2";
    let key = world.start(5, job(both));
    world.end(key);
    assert_eq!(world.read("slurm-5.out"), "out\nerr\n");
    let mut task = job(both);
    task.array = Some((6, 3));
    let key = world.start(7, task);
    world.end(key);
    assert_eq!(world.read("slurm-6_3.out"), "out\nerr\n");
    let mut apart = job(both).stdout("%x-%4j-%N.out");
    apart.spec.stderr = "%x.err".to_owned();
    let key = world.start(8, apart);
    world.end(key);
    assert_eq!(world.read("probe-0008-n1.out"), "out\n");
    assert_eq!(world.read("probe.err"), "err\n");
}

#[test]
fn output_is_emptied_unless_it_is_to_be_appended_to() {
    let mut world = World::new();
    for (id, mode, expected) in [
        (1, v1::OpenMode::Append, "old\nnew\n"),
        (2, v1::OpenMode::Truncate, "new\n"),
        (3, v1::OpenMode::Unspecified, "new\n"),
    ] {
        fs::write(world.work_dir().join("out"), "old\n").unwrap();
        let mut writer = job("echo new").stdout("out");
        writer.spec.open_mode = mode.into();
        let key = world.start(id, writer);
        world.end(key);
        assert_eq!(world.read("out"), expected);
    }
}

#[test]
fn arguments_input_and_environment_reach_the_script() {
    let mut world = World::new();
    fs::write(world.work_dir().join("in"), "from the file").unwrap();
    let script = "basename $0; echo \"$#:$1:$2\"; cat; echo; echo $SLURM_JOB_ID $FOO; umask; \
        test $SLURM_TASK_PID = $$ && echo pid; ulimit -S -n; pwd";
    let mut reader = job(script).stdout("out");
    reader.spec.script_arguments = vec!["a b".to_owned(), "c".to_owned()];
    reader.spec.stdin = "in".to_owned();
    reader.spec.umask = 0o027;
    reader.spec.rlimits = vec![v1::ResourceLimit { resource: 7, soft: 99 }];
    reader.launch.environment = b"FOO=bar\0PATH=/usr/bin:/bin\0".as_slice().into();
    let key = world.start(1, reader);
    assert_eq!(world.end(key).wait_status, 0);
    let work_dir = world.work_dir();
    let expected = format!(
        "slurm_script\n2:a b:c\nfrom the file\n1 bar\n0027\npid\n99\n{}\n",
        work_dir.display()
    );
    assert_eq!(world.read("out"), expected);
    let mode = fs::metadata(work_dir.join("out")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn a_job_inherits_nothing_from_its_agent() {
    let mut world = World::new();
    let script =
        "for f in /proc/self/fd/*; do readlink $f; done; grep -E 'Sig(Blk|Ign)' /proc/self/status";
    let key = world.start(1, job(script).stdout("out"));
    world.end(key);
    let said = world.read("out");
    assert!(!said.contains("socket:") && !said.contains("/state/"), "{said}");
    // The C library keeps two signals to itself and lets nobody change them.
    let reserved = 0b11 << 31;
    let masks = said.lines().filter_map(|line| line.strip_prefix("Sig"));
    let bits = masks.filter_map(|line| u64::from_str_radix(line.split('\t').nth(1)?, 16).ok());
    assert!(
        bits.clone().count() == 2 && bits.map(|mask| mask & !reserved).sum::<u64>() == 0,
        "{said}"
    );
}

#[test]
fn a_missing_folder_sends_the_job_to_tmp_with_a_word() {
    let mut world = World::new();
    let out = world.work_dir().join("out");
    let mut astray = job("pwd").stdout(&out.display().to_string());
    astray.spec.work_dir = "/nonexistent/work".to_owned();
    let key = world.start(1, astray);
    assert_eq!(world.end(key).wait_status, 0);
    assert_eq!(
        world.read("out"),
        "slurmstepd: error: couldn't chdir to `/nonexistent/work': No such file or directory: \
         going to /tmp instead\n/tmp\n"
    );
}

#[test]
fn failures_to_start_say_why_and_whose_fault_it_is() {
    let mut world = World::new();
    let key = world.start(1, job("true").stdout("no/such/folder/out"));
    let (error, node_fault) = world.failure(key);
    assert!(!node_fault && error.contains("\"no/such/folder/out\""), "{error}");
    let mut odd = job("");
    odd.script = "#!/no/such/program\n".to_owned();
    let key = world.start(2, odd);
    let (error, node_fault) = world.failure(key);
    assert!(!node_fault && error.contains("\"/no/such/program\""), "{error}");
    let mut stranger = job("true");
    stranger.spec.user_name = "somebody-else".to_owned();
    if nix::unistd::Uid::effective().is_root() {
        let key = world.start(3, stranger);
        let (error, node_fault) = world.failure(key);
        assert!(node_fault && error.contains("somebody-else"), "{error}");
    }
    // The end is kept: an agent that comes back finds the same.
    world.restart();
    assert!(matches!(&world.found[0], penstock_supervisor::Found::Ended(_, result)
        if result.launch_error.contains("no/such/folder")));
}

#[test]
fn another_user_has_only_their_own_rights() {
    let Some(other) = job("id -u; id -g; cat $0 > copy && echo read").of_nobody() else { return };
    let mut world = World::new();
    let (uid, gid) = other.owner;
    let key = world.start(1, other.stdout("out"));
    assert_eq!(world.end(key).wait_status, 0);
    assert_eq!(world.read("out"), format!("{uid}\n{gid}\nread\n"));
    let secret = world.work_dir().join("secret");
    fs::write(&secret, "root's\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&secret, world.work_dir().join("link")).unwrap();
    let sneaky = job("echo overwritten").of_nobody().unwrap().stdout("link");
    let key = world.start(2, sneaky);
    let (error, node_fault) = world.failure(key);
    assert!(!node_fault && error.contains("Permission denied"), "{error}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "root's\n");
    let mut peeking = job("cat").of_nobody().unwrap().stdout("out3");
    peeking.spec.stdin = "link".to_owned();
    let key = world.start(3, peeking);
    assert!(world.failure(key).0.contains("Permission denied"));
}

#[test]
fn node_names_resolve_inside_the_job_alone() {
    let mut world = World::new();
    let mut named = job("grep probe-node /etc/hosts").stdout("out");
    let host =
        |name: &str| v1::HostAddress { name: name.to_owned(), address: "127.9.9.9".to_owned() };
    named.launch.hosts = vec![host("probe-node")];
    let key = world.start(1, named);
    let result = world.end(key);
    if !world.notices.is_empty() {
        eprintln!("skipped: {}", world.notices.join("; "));
        return;
    }
    assert_eq!(result.wait_status, 0);
    assert_eq!(world.read("out"), "127.9.9.9 probe-node\n");
    assert!(!fs::read_to_string("/etc/hosts").unwrap().contains("probe-node"));
}
