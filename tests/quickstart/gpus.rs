//! Can somebody without a GPU see how jobs get GPUs, and do they get no others?

use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::harness::{Home, wait_until};

/// Makes device files for the GPUs of a node, which give zeros and random bytes; false where that
/// takes more rights than there are.
fn make_devices(dir: &Path) -> bool {
    std::fs::create_dir_all(dir).expect("ours");
    for (name, minor) in [("nvidia0", 5), ("nvidia1", 8)] {
        let mode = Mode::from_raw_mode(0o666);
        let (path, device) = (dir.join(name), makedev(1, minor));
        let made = mknodat(CWD, &path, FileType::CharacterDevice, mode, device);
        if made.is_err() || std::fs::File::open(&path).is_err() {
            println!("skipped: no device files can be made here");
            return false;
        }
    }
    true
}

#[test]
fn jobs_get_fake_gpus_by_name_and_open_no_others() {
    let home = Home::new();
    home.quickstart("--fake-gpus h100:2,a100:1,mig --cpus 8 --detach").ok();
    let devices = home.dir().join("node1/gpu/dev");
    let isolated = make_devices(&devices);
    let ran = home
        .sh("export PENSTOCK_CONFIG=\"$dir/cluster.toml\" PATH=\"$dir/bin:$PATH\"
             echo $(sinfo -h -o '%G %f')
             sbatch -W -o whole.out --gres=gpu:h100:1 --wrap 'env | grep -E \"CUDA|SLURM_JOB_GPUS\" | sort
               for n in 0 1; do dd if='\"$dir\"'/node1/gpu/dev/nvidia$n of=/dev/null bs=1 count=1 2>&1 |
                 grep -oE \"not permitted|1 byte copied\"; done'
             sbatch -W -o slice.out --gres=gpu:1g.5gb:2 --wrap 'env | grep CUDA'
             penstock gpus -H | head -1
             penstock gpus -l -H")
        .ok();
    let first = "gpu:h100:2,gpu:2g.10gb:1,gpu:1g.5gb:2,gpu:3g.20gb:1 fake-gpu\n";
    assert!(ran.out.starts_with(first), "{}", ran.out);
    ran.shows(&["node1  0    h100 ", "ok (fake)", "GPU-", "IDLE+MIG", "2:4  3g.20gb", "MIG-"]);
    let whole = home.read("whole.out");
    assert!(whole.starts_with("CUDA_VISIBLE_DEVICES=GPU-"), "{whole}");
    assert!(whole.contains("SLURM_JOB_GPUS=0\n"), "{whole}");
    if isolated {
        assert!(whole.ends_with("1 byte copied\nnot permitted\n"), "{whole}");
    }
    let slice = home.read("slice.out");
    assert!(slice.starts_with("CUDA_VISIBLE_DEVICES=MIG-"), "{slice}");
    assert_eq!(slice.matches("MIG-").count(), 2, "{slice}");

    // The film goes on: a GPU falls off the bus, and its node keeps the others.
    let scenario = home.dir().join("node1/gpu/scenario.toml");
    let mut film = std::fs::read_to_string(&scenario).expect("ours");
    film.push_str("\n[[at]]\nt = 0\ngpu = 1\nxid = 79\nlost = true\n");
    std::fs::write(&scenario, film).expect("ours");
    let listed = || home.sh("PENSTOCK_CONFIG=\"$dir/cluster.toml\" \"$penstock\" gpus -H").ok().out;
    wait_until("the GPU is known as lost", || {
        listed()
            .lines()
            .any(|line| line.contains("node1  1 ") && line.contains("fallen off the bus"))
    });
}

#[test]
fn a_gpu_is_cut_for_who_waits_while_its_other_slices_run() {
    let home = Home::new();
    home.quickstart("--fake-gpus h100:1,mig --cpus 8 --detach").ok();
    let ran = home
        .sh("export PENSTOCK_CONFIG=\"$dir/cluster.toml\" PATH=\"$dir/bin:$PATH\"
             printf '\\n[mig]\\ndynamic = \"ALL\"\\n' >> \"$PENSTOCK_CONFIG\"
             scontrol reconfigure
             sbatch -o held.out --gres=gpu:2g.20gb:1 --wrap 'echo $CUDA_VISIBLE_DEVICES
               while [ ! -e go ]; do sleep 0.05; done; echo $CUDA_VISIBLE_DEVICES'
             until grep -q MIG held.out 2>/dev/null; do sleep 0.05; done
             penstock gpus -l -H > before
             srun --gres=gpu:2g.20gb:1 printenv CUDA_VISIBLE_DEVICES > cut.out
             penstock gpus -l -H > after
             touch go; until [ -z \"$(squeue -h)\" ]; do sleep 0.05; done")
        .ok();
    assert!(ran.out.starts_with("[mig] changed\nSubmitted batch job 1\n"), "{}", ran.out);
    let [before, after, held, cut] =
        ["before", "after", "held.out", "cut.out"].map(|name| home.read(name));
    let slices = |text: &str| text.matches("2g.20gb").count();
    // A free one went for it; what ran beside kept its slice and went on.
    assert_eq!((slices(&before), slices(&after)), (1, 2), "{before}{after}");
    let seen: Vec<&str> = held.lines().collect();
    assert!(seen.len() == 2 && seen[0] == seen[1] && seen[0].starts_with("MIG-"), "{held}");
    assert!(after.contains(seen[0]) && before.contains(seen[0]), "{after}");
    let new = cut.trim();
    assert!(new.starts_with("MIG-") && after.contains(new) && !before.contains(new), "{cut}");
}
