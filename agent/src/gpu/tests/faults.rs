//! What fails, hangs or crashes costs a reading and nothing else.

use super::world::{H100, Node};

#[tokio::test]
async fn an_xid_is_told_at_once_and_with_its_slice() {
    let node = Node::new(&format!("now = 5\n{}", H100.repeat(2)));
    let (_, work) = node.look("").await;
    let mut news = node.run(work);
    news.report().await;
    let at = "[[at]]\nt = 5\ngpu = 1\nxid = 94\ngi = 5\n";
    node.rewrite(&format!("now = 5\n{}{at}", H100.repeat(2)));
    let event = news.event().await;
    assert_eq!((event.gpu, event.xid, event.gi), (1, 94, Some(5)));
    assert!(event.time_ms > 0);
}

#[tokio::test]
async fn a_lost_gpu_keeps_its_place_and_the_others_go_on() {
    let gpus = H100.repeat(3);
    let node = Node::new(&format!("now = 5\n{gpus}"));
    let (_, work) = node.look("").await;
    let mut news = node.run(work);
    news.report().await;
    let lost = "[[at]]\nt = 5\ngpu = 1\nxid = 79\nlost = true\n";
    node.rewrite(&format!("now = 5\n{gpus}{lost}"));
    let event = news.event().await;
    assert_eq!((event.gpu, event.xid), (1, 79), "though it answers nothing any more");
    let picture = news.picture().await;
    let faults: Vec<_> = picture.gpus.iter().map(|gpu| gpu.fault.is_empty()).collect();
    assert_eq!(faults, [true, false, true]);
    assert!(picture.gpus[1].fault.contains("fallen off the bus"), "{}", picture.gpus[1].fault);
    assert_eq!(picture.gres[0].count, 3, "numbers of units stay");
    let report = news.report().await;
    let gpus: Vec<_> = report.samples.iter().map(|sample| sample.gpu).collect();
    assert_eq!(gpus, [0, 2]);
    node.rewrite(&format!("now = 5\n{}", H100.repeat(3)));
    let picture = news.picture().await;
    assert!(picture.gpus[1].fault.is_empty(), "it answers again");
}

#[tokio::test]
async fn a_gpu_that_hangs_is_unresponsive_and_the_others_are_measured() {
    let gpus = H100.repeat(3);
    let hang = "[[fault]]\ncall = 'nvmlDeviceGetUtilizationRates'\ngpu = 2\nhang = true\n";
    let node = Node::new(&format!("{gpus}{hang}"));
    let (_, work) = node.look("").await;
    let mut news = node.run(work);
    let picture = news.picture().await;
    assert!(picture.gpus[2].fault.starts_with("unresponsive"), "{}", picture.gpus[2].fault);
    for _ in 0..2 {
        let report = news.report().await;
        let measured: Vec<_> = report.samples.iter().map(|sample| sample.gpu).collect();
        assert_eq!(measured, [0, 1]);
    }
    node.rewrite(&gpus);
    let picture = news.picture().await;
    assert_eq!(picture.gpus[2].fault, "");
}

#[tokio::test]
async fn a_probe_that_crashes_is_started_again() {
    let crash = "[[fault]]\ncall = 'nvmlDeviceGetPowerUsage'\nabort = true\n";
    let node = Node::new(&format!("{H100}{crash}"));
    let (picture, work) = node.look("gpu:h100:1").await;
    assert_eq!((picture.gpus.len(), picture.complaint), (1, None));
    let mut news = node.run(work);
    let picture = news.picture().await;
    assert!(picture.gpu_error.starts_with("probe_lost"), "{}", picture.gpu_error);
    assert_eq!(picture.gpus.len(), 1, "what cannot be read has not gone");
    node.rewrite(H100);
    let report = news.report().await;
    assert!(report.samples[0].power_mw.is_some());
}

#[tokio::test]
async fn garbage_and_failures_are_no_numbers() {
    let faults = "[[fault]]\ncall = 'nvmlDeviceGetTemperature'\ncode = 999\n\
        [[fault]]\ncall = 'nvmlDeviceGetMemoryInfo_v2'\ncode = 3\n\
        [[fault]]\ncall = 'nvmlDeviceGetMemoryInfo'\ncode = 3\n";
    let node = Node::new(&format!("{H100}{faults}"));
    let (_, work) = node.look("").await;
    let report = node.run(work).report().await;
    let sample = &report.samples[0];
    assert_eq!((sample.temperature, sample.memory_used_mib), (None, None));
    assert_eq!(sample.utilization, Some(0));

    let node = Node::new(&format!("{H100}[[fault]]\ncall = 'nvmlDeviceGetName'\ngarbage = true\n"));
    let (picture, _work) = node.look("").await;
    assert!(!picture.gpus[0].fault.is_empty());
    assert!(picture.gres.is_empty());
}

#[tokio::test]
async fn what_a_driver_wants_done_is_a_fault() {
    for (scenario, expect) in [
        ("recovery = 1\n", "needs a reset"),
        ("recovery = 2\n", "its node needs a reboot"),
        ("recovery = 4\n", "needs a reset when its jobs have ended"),
        ("recovery = 0\n", ""),
        (
            "remap = { failure = true }\n",
            "memory could not be replaced; the board must be exchanged",
        ),
        ("remap = { pending = true }\n", ""),
    ] {
        let node = Node::new(&format!("{H100}{scenario}"));
        let (picture, _work) = node.look("").await;
        assert_eq!(picture.gpus[0].fault, expect, "{scenario}");
    }
}

#[tokio::test]
async fn the_kernels_log_tells_what_nvml_does_not() {
    let node = Node::new(&format!("[[gpu]]\nmodel = 'h100-80'\nbdf = '0000:3b:00.0'\n{H100}"));
    let mut monitor = node.monitor("");
    let log = node.state_dir().join("kmsg");
    let lines = "4,1,2,-;usb 1-1: new device\n\
        4,2,3,-;NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 94, pid=7, name=x, Contained\n";
    std::fs::write(&log, lines).unwrap();
    monitor.settings.kernel_log = Some(log);
    let (_, work) = crate::gpu::first_look(monitor).await;
    let mut news = node.run(work);
    let event = news.event().await;
    assert_eq!((event.gpu, event.gi, event.xid), (0, Some(5), 94));
    assert_eq!(event.text, "pid=7, name=x, Contained");
}

#[tokio::test]
async fn five_crashes_ask_for_a_drain() {
    let crash = "[[fault]]\ncall = 'nvmlDeviceGetPowerUsage'\nabort = true\n";
    let node = Node::new(&format!("{H100}{crash}"));
    let (_, work) = node.look("").await;
    let mut news = node.run(work);
    let complaint = loop {
        if let Some(complaint) = news.picture().await.complaint {
            break complaint;
        }
    };
    assert_eq!(complaint, "the GPU driver fails: 5 probes were lost in 10 minutes");
}

#[tokio::test]
async fn a_process_of_nobody_withholds_a_free_gpu() {
    let pid = std::process::id();
    let used = format!("{H100}proc = [{{ pid = {pid}, mib = 500 }}]\n");
    let node = Node::new(&format!("{used}{H100}"));
    let (picture, work) = node.look("").await;
    assert_eq!(picture.gpus[0].fault, "");
    let mut news = node.run(work);
    let picture = news.picture().await;
    let fault = &picture.gpus[0].fault;
    assert!(fault.starts_with(&format!("used by process {pid} of user ")), "{fault}");
    assert_eq!(picture.gpus[1].fault, "");
    node.rewrite(&H100.repeat(2));
    let picture = news.picture().await;
    assert_eq!(picture.gpus[0].fault, "");
}

#[tokio::test]
async fn what_slows_a_gpu_down_and_its_errors_are_seen() {
    let gpu = "[[gpu]]\nmodel = 'h100-80'\necc = { uncorrected = 3 }\n";
    let node = Node::new(&format!("now = 5\n{gpu}"));
    let (_, work) = node.look("").await;
    let mut news = node.run(work);
    news.report().await;
    node.rewrite(&format!("now = 5\n{gpu}[[at]]\nt = 5\ngpu = 0\necc_uncorrected = 5\n"));
    let event = news.event().await;
    assert_eq!((event.gpu, event.text.as_str()), (0, "2 more uncorrected errors of its memory"));
}
