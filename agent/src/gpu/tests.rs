//! A monitor with real probes, which are this test binary, and a library of GPUs that do not exist.

mod cuts;
mod faults;
mod world;

use std::path::Path;

use penstock_proto::v1;
use penstock_vocab::parse_gres_list;

use world::{H100, Node};

/// Runs before `main`, since the test harness would take our arguments for its own.
// SAFETY: the section holds functions without arguments (those passed may be ignored), which the
// loader calls once, after the C library is ready; the standard library needs no more.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = be_a_probe;

extern "C" fn be_a_probe() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("gpu-probe") {
        let library = arguments.next().unwrap_or_default();
        let devices = arguments.next().unwrap_or_default();
        let _code = super::probe::main(Path::new(&library), Path::new(&devices));
        std::process::exit(0);
    }
}

#[tokio::test]
async fn gpus_are_found_with_their_neighbours() {
    let node = Node::new(
        "[[gpu]]\nmodel = 'h100-80'\nminor = 4\nbdf = '0000:3b:00.0'\nnuma = 1\ncpus = '0-1'\n\
         nvswitch_links = 18\n\
         [[gpu]]\nmodel = 'h100-80'\nminor = 9\nbdf = '0000:18:00.0'\nnuma = 1\nnvswitch_links = 18\n\
         [[gpu]]\nmodel = 'l40s'\n[[gpu]]\nmodel = 'a100-40'\n",
    );
    let (picture, _work) = node.look("").await;
    let types: Vec<_> = picture.gpus.iter().map(|gpu| gpu.r#type.as_str()).collect();
    assert_eq!(types, ["h100", "h100", "l40s", "a100"]);
    let first = &picture.gpus[0];
    assert_eq!((first.minor, first.pci.as_str(), first.numa), (4, "0000:3b:00.0", Some(1)));
    assert_eq!((first.memory_mib, first.cpu_ranges.as_slice()), (81_559, &[0, 1][..]));
    assert_eq!(first.device_files, ["/dev/nvidia4"]);
    let links: Vec<_> = first.links.iter().map(|l| (l.peer, l.nvlinks, l.ancestor)).collect();
    assert_eq!(links, [(1, 18, 40), (2, 0, 50), (3, 0, 50)]);
    let modes: Vec<_> = picture.gpus.iter().map(v1::Gpu::mig).collect();
    use v1::MigMode::{Off, Unspecified};
    assert_eq!(modes, [Off, Off, Unspecified, Off]);
    let profile = first.profiles.iter().find(|profile| profile.name == "3g.40gb").unwrap();
    assert_eq!((profile.id, profile.size, profile.starts.as_slice()), (9, 4, &[0, 4][..]));
    assert!(first.fake && picture.fake && picture.gpu_error.is_empty());
    let mut inventory = v1::Inventory::default();
    picture.apply(&mut inventory);
    assert_eq!(inventory.features, ["fake-gpu"]);
    let gres: Vec<_> = inventory.gres.iter().map(|g| format!("{}:{}", g.r#type, g.count)).collect();
    assert_eq!(gres, ["h100:2", "l40s:1", "a100:1"]);
    assert_eq!(picture.complaint, None);
}

#[tokio::test]
async fn slices_are_read_in_with_holes_among_their_handles() {
    let node = Node::new(
        "[[gpu]]\nmodel = 'a100-40'\nmig = { current = true }\n\
         gi = [{ id = 1, profile = 9, start = 4, ci = [{ id = 0, profile = 2 }] },\n\
         { id = 8, profile = 19, start = 1 }, { id = 3, profile = 14, start = 2, ci = [{ id = 0, profile = 1 }] },\n\
         { id = 7, profile = 19, start = 0, ci = [{ id = 0, profile = 0 }] }]\n",
    );
    let (picture, _work) = node.look("").await;
    let gpu = &picture.gpus[0];
    let slices: Vec<_> = gpu.slices.iter().map(|s| (s.profile.as_str(), s.start, s.gi)).collect();
    assert_eq!(slices, [("1g.5gb", 0, 7), ("2g.10gb", 2, 3), ("3g.20gb", 4, 1)]);
    assert_eq!(gpu.slices[0].memory_mib, 4_864);
    let files = ["/dev/nvidia-caps/nvidia-cap66", "/dev/nvidia-caps/nvidia-cap67"];
    assert_eq!(gpu.slices[0].device_files, files);
    let gres: Vec<_> = picture.gres.iter().map(|g| format!("{}:{}", g.r#type, g.count)).collect();
    assert_eq!(gres, ["1g.5gb:1", "2g.10gb:1", "3g.20gb:1"]);
}

#[tokio::test]
async fn a_difference_to_the_file_is_a_complaint() {
    let node = Node::new(&H100.repeat(2));
    for (claims, expect) in [
        ("gpu:h100:2", None),
        ("gpu:2,shard:8", None),
        ("gpu:h100:8", Some("gres/gpu: the node's file says h100:8, found h100:2")),
    ] {
        let (picture, _work) = node.look(claims).await;
        assert_eq!(picture.complaint.as_deref(), expect);
    }
    let (picture, _work) = node.look("gpu:2,shard:8").await;
    let shard = picture.gres.iter().find(|gres| gres.name == "shard").unwrap();
    assert_eq!(shard.count, 8);
}

#[tokio::test]
async fn an_old_driver_is_done_with() {
    let missing = [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetNumaNodeId",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetGpuInstanceProfileInfo",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlEventSetCreate",
    ];
    let node = Node::new(&format!("driver = '440.33'\nmissing = {missing:?}\n{H100}"));
    let (picture, work) = node.look("").await;
    let gpu = &picture.gpus[0];
    assert_eq!((gpu.memory_mib, gpu.numa), (81_559, None));
    assert_eq!((gpu.mig(), gpu.fault.as_str()), (v1::MigMode::Unspecified, ""));
    let mut news = node.run(work);
    let report = news.report().await;
    let sample = &report.samples[0];
    assert_eq!((sample.utilization, sample.memory_used_mib.is_some()), (Some(0), true));
    assert_eq!(sample.energy_mj, None);
}

#[tokio::test]
async fn a_driver_that_comes_later_is_picked_up() {
    let node = Node::new(&format!("init = {{ code = 9 }}\n{H100}"));
    let (picture, work) = node.look("").await;
    assert!(picture.gpus.is_empty() && picture.gres.is_empty());
    assert!(picture.gpu_error.starts_with("driver_not_loaded: "), "{}", picture.gpu_error);
    assert_eq!(picture.complaint, None);
    let mut news = node.run(work);
    node.rewrite(H100);
    let picture = news.picture().await;
    assert_eq!((picture.gpus.len(), picture.gpu_error.as_str()), (1, ""));
}

#[tokio::test]
async fn without_a_usable_library_the_reason_is_told() {
    let node = Node::new(H100);
    std::fs::remove_file(node.library()).unwrap();
    let (picture, _work) = node.look("gpu:h100:1").await;
    assert!(picture.gpu_error.starts_with("library_missing: "), "{}", picture.gpu_error);
    let complaint = picture.complaint.unwrap();
    assert!(complaint.contains("says h100:1, found none (cannot load"), "{complaint}");

    let node = Node::new(&format!("init = {{ code = 18 }}\n{H100}"));
    let (picture, _work) = node.look("").await;
    assert!(picture.complaint.unwrap().starts_with("driver mismatch"));

    let node = Node::new(H100);
    node.rewrite("[[gpu]]\nmodel = 'h1000'\n");
    let (picture, _work) = node.look("").await;
    assert!(picture.gpu_error.contains("there is no model \"h1000\""), "{}", picture.gpu_error);
}

#[tokio::test]
async fn claims_count_where_gpus_are_not_looked_for() {
    let node = Node::new(H100);
    let mut monitor = node.monitor("gpu:h100:4");
    monitor.settings.detect = false;
    let (picture, _work) = super::first_look(monitor).await;
    assert!(picture.gpus.is_empty() && picture.complaint.is_none());
    assert_eq!((picture.gres[0].r#type.as_str(), picture.gres[0].count), ("h100", 4));
    assert_eq!(parse_gres_list("gpu:h100:4").unwrap().len(), 1);
}

#[tokio::test]
async fn samples_tell_what_is_known_and_whose_it_is() {
    let node = Node::new(
        "[[gpu]]\nmodel = 'h100-80'\nutil = { kind = 'const', percent = 70 }\n\
         proc = [{ pid = 1, mib = 500 }]\n\
         [[gpu]]\nmodel = 'h100-80'\nmig = { current = true }\n\
         gi = [{ id = 1, profile = 9, start = 4, ci = [{ id = 0, profile = 2 }] }]\n\
         proc = [{ pid = 2, mib = 100, gi = 1, ci = 0, sm = 40 }]\n\
         [[gpu]]\nmodel = 'a100-40'\nmig = { current = true }\n\
         gi = [{ id = 1, profile = 9, start = 4, ci = [{ id = 0, profile = 2 }] }]\n",
    );
    let (picture, work) = node.look("").await;
    let share = |kind: &str| v1::GresShare {
        name: "gpu".to_owned(),
        r#type: kind.to_owned(),
        ids: vec![0],
        ..v1::GresShare::default()
    };
    let key =
        penstock_supervisor::AttemptKey::new(penstock_vocab::JobId(7), penstock_vocab::Attempt(2));
    node.devices.grant(key, &[share("3g.40gb")]).unwrap();
    let mut news = node.run(work);
    news.report().await;
    let report = news.report().await;
    let of = |gpu: u32, gi: Option<u32>| {
        report.samples.iter().find(|sample| (sample.gpu, sample.gi) == (gpu, gi)).unwrap()
    };
    let whole = of(0, None);
    assert_eq!(
        (whole.utilization, whole.memory_used_mib, whole.processes),
        (Some(70), Some(500), Some(1))
    );
    assert!(whole.power_mw.unwrap() > 400_000 && whole.energy_mj.unwrap() > 0);
    assert_eq!((of(1, None).utilization, of(1, None).job_id), (None, 0), "no number is not 0");
    let slice = of(1, Some(1));
    assert_eq!((slice.utilization, slice.processes), (Some(40), Some(1)));
    assert_eq!((slice.job_id, slice.attempt), (7, 2));
    assert_eq!(of(2, Some(1)).utilization, None, "only Hopper measures slices");
    assert_eq!(picture.gpus.len(), 3);
    let size =
        prost::Message::encoded_len(&v1::GpuReport { samples: vec![*whole], ..Default::default() });
    assert!(size < 100, "{size} bytes a GPU and sample");
}
