//! A job opens the devices that it was given and no other, and is told which they are.

use std::path::{Path, PathBuf};

use penstock_agent::gpu::{Accelerator, Devices, GpuSettings};
use penstock_agent::launch::cgroup::Hierarchies;
use penstock_proto::v1;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::world::{World, job};

/// Which hierarchy keeps jobs from devices.
#[derive(Debug, Clone, Copy)]
enum By {
    Program,
    Version1,
}

/// Two devices of characters, which give zeros and random bytes; nothing else on this machine has
/// these files.
fn devices(world: &World) -> Option<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (name, minor) in [("npu0", 5), ("npu1", 8)] {
        let path = world.work_dir().join(name);
        let mode = Mode::from_raw_mode(0o666);
        if let Err(error) = mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(1, minor))
        {
            eprintln!("skipped: no device file can be made: {error}");
            return None;
        }
        if std::fs::File::open(&path).is_err() {
            eprintln!("skipped: this file system has no devices");
            return None;
        }
        files.push(path);
    }
    Some(files)
}

/// A world with these devices; `None` where the machine cannot keep jobs from them so.
fn confined(by: By) -> Option<(World, Vec<PathBuf>)> {
    let mut world = World::new();
    let files = devices(&world)?;
    let declared = Accelerator {
        name: "npu:x1".parse().unwrap(),
        files: files.clone(),
        common: vec!["/dev/null".into()],
        variable: "NPU_VISIBLE_DEVICES".to_owned(),
    };
    world.config().devices = Devices::new(GpuSettings::default(), vec![declared]);
    let hierarchies = &mut world.config().hierarchies;
    match by {
        By::Program if !hierarchies.unified_devices => {
            eprintln!("skipped: no program for devices can be loaded");
            return None;
        }
        By::Program => {}
        By::Version1 => use_version1(hierarchies)?,
    }
    world.restart();
    Some((world, files))
}

fn use_version1(hierarchies: &mut Hierarchies) -> Option<()> {
    hierarchies.unified_devices = false;
    let root = Path::new("/sys/fs/cgroup/devices");
    let dir = root.join("penstock").join(format!("test-devices-{}", std::process::id()));
    if !root.join("devices.allow").exists() && !root.join("cgroup.procs").exists() {
        eprintln!("skipped: version 1 has no devices controller here");
        return None;
    }
    std::fs::create_dir_all(&dir).unwrap();
    hierarchies.devices = dir.display().to_string();
    Some(())
}

fn share(ids: &[u32]) -> v1::GresShare {
    let (name, r#type) = ("npu".to_owned(), "x1".to_owned());
    v1::GresShare { name, r#type, ids: ids.to_vec(), ..v1::GresShare::default() }
}

/// What a job with these units can open.
fn opens(world: &mut World, id: u32, ids: &[u32]) -> String {
    let script = "for n in npu0 npu1 /dev/null /dev/full; do \
        dd if=$n of=/dev/null bs=1 count=1 2>err && echo $n || grep -o 'Operation not permitted' err; \
        done; echo npu=$NPU_VISIBLE_DEVICES";
    let mut job = job(script).stdout("out");
    job.gres = vec![share(ids)];
    let key = world.start(id, job);
    world.end(key);
    world.read("out")
}

fn try_by(by: By) {
    let Some((mut world, _files)) = confined(by) else { return };
    let denied = "Operation not permitted";
    for (id, ids, expect) in [
        (1, &[0][..], format!("npu0\n{denied}\n/dev/null\n/dev/full\nnpu=0\n")),
        (2, &[1][..], format!("{denied}\nnpu1\n/dev/null\n/dev/full\nnpu=1\n")),
        (3, &[0, 1][..], "npu0\nnpu1\n/dev/null\n/dev/full\nnpu=0,1\n".to_owned()),
        (4, &[][..], format!("{denied}\n{denied}\n/dev/null\n/dev/full\nnpu=\n")),
    ] {
        assert_eq!(opens(&mut world, id, ids), expect, "{by:?} {ids:?}");
    }
    // One that is not there is the node's mistake, not the job's.
    let mut wrong = job("true");
    wrong.gres = vec![share(&[2])];
    let key = world.start(5, wrong);
    let (error, node_fault) = world.failure(key);
    assert!(error.contains("no unit 2 of npu:x1") && node_fault, "{error}");
}

#[test]
fn a_program_of_version_2_keeps_a_job_from_the_devices_of_others() {
    try_by(By::Program);
}

#[test]
fn the_devices_controller_of_version_1_does_too() {
    try_by(By::Version1);
}
