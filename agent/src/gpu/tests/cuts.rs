//! GPUs are cut by the library's own calls, and what is beside a cut is left alone.

use penstock_proto::v1;

use super::world::{H100, Heard, Node};

fn new(profile: &str, id: u32, start: u32, size: u32) -> v1::NewSlice {
    v1::NewSlice { profile: profile.to_owned(), id, start, size }
}

fn order(gpu: &v1::Gpu, destroy: &[u32], create: Vec<v1::NewSlice>) -> v1::ReshapeGpu {
    v1::ReshapeGpu {
        gpu: gpu.index,
        uuid: gpu.uuid.clone(),
        generation: gpu.generation,
        destroy: destroy.to_vec(),
        create,
        ..v1::ReshapeGpu::default()
    }
}

fn places(gpu: &v1::Gpu) -> Vec<(&str, u32)> {
    gpu.slices.iter().map(|slice| (slice.profile.as_str(), slice.start)).collect()
}

async fn cut(news: &mut Heard, order: v1::ReshapeGpu) -> v1::GpuLayout {
    news.order(order).await;
    news.layout().await
}

/// A GPU with a 4g at 0 and a 2g at 4.
const CUT: &str = "[[gpu]]\nmodel = 'h100-80'\nmig = { current = true }\n\
    gi = [{ id = 1, profile = 5, start = 0, ci = [{ id = 0, profile = 3 }] },\n\
    { id = 3, profile = 14, start = 4, ci = [{ id = 0, profile = 1 }] }]\n";

#[tokio::test]
async fn an_empty_gpu_is_cut_at_explicit_places() {
    let node = Node::new(H100);
    let (picture, work) = node.look("").await;
    let mut news = node.run(work);
    let mut first =
        order(&picture.gpus[0], &[], vec![new("1g.10gb", 19, 0, 1), new("3g.40gb", 9, 4, 4)]);
    first.mode = v1::MigMode::On.into();
    let layout = cut(&mut news, first.clone()).await;
    let gpu = layout.gpu.unwrap();
    assert_eq!((layout.error.as_str(), layout.answers), ("", 1));
    assert_eq!(places(&gpu), [("1g.10gb", 0), ("3g.40gb", 4)]);
    assert_eq!(gpu.generation, 2);
    let gres: Vec<_> = layout.gres.iter().map(|g| (g.r#type.as_str(), g.count)).collect();
    assert_eq!(gres, [("1g.10gb", 1), ("3g.40gb", 1)]);
    // Said again, it does nothing but answer.
    let again = cut(&mut news, first).await;
    assert_eq!((again.error.as_str(), again.gpu.as_ref()), ("", Some(&gpu)));
    // A plan for another generation is refused.
    let mut old = order(&gpu, &[0], Vec::new());
    old.generation = 7;
    let refused = cut(&mut news, old).await;
    assert!(refused.error.contains("is of generation 2, the order of 7"), "{}", refused.error);
    // One after the other, in the order that fragments a driver's own choice.
    let mut gpu = gpu;
    for slice in [new("1g.10gb", 19, 1, 1), new("2g.20gb", 14, 2, 2)] {
        let layout = cut(&mut news, order(&gpu, &[], vec![slice])).await;
        assert_eq!(layout.error, "");
        gpu = layout.gpu.unwrap();
    }
    assert_eq!(places(&gpu), [("1g.10gb", 0), ("1g.10gb", 1), ("2g.20gb", 2), ("3g.40gb", 4)]);
    // Back to a whole GPU.
    let mut whole = order(&gpu, &[0, 1, 2, 4], Vec::new());
    whole.mode = v1::MigMode::Off.into();
    let layout = cut(&mut news, whole).await;
    assert_eq!((layout.error.as_str(), layout.gpu.unwrap().mig()), ("", v1::MigMode::Off));
    assert_eq!(layout.gres[0].r#type, "h100");
}

#[tokio::test]
async fn beside_a_running_slice_others_are_cut_anew() {
    let busy = "proc = [{ pid = 9, mib = 10, gi = 1, ci = 0, sm = 60 }]\n";
    let node = Node::new(&format!("{CUT}{busy}"));
    let (picture, work) = node.look("").await;
    let before = &picture.gpus[0];
    let mut news = node.run(work);
    let create = vec![new("1g.10gb", 19, 4, 1), new("1g.10gb", 19, 5, 1)];
    let layout = cut(&mut news, order(before, &[4], create)).await;
    let gpu = layout.gpu.unwrap();
    assert_eq!(layout.error, "");
    assert_eq!(places(&gpu), [("4g.40gb", 0), ("1g.10gb", 4), ("1g.10gb", 5)]);
    assert_eq!(gpu.slices[0].uuid, before.slices[0].uuid);
    let report = news.report().await;
    let running = report.samples.iter().find(|sample| sample.gi == Some(1)).unwrap();
    assert_eq!(running.processes, Some(1));
    // What is in use stays, whoever says so.
    let layout = cut(&mut news, order(&gpu, &[0], Vec::new())).await;
    assert!(
        layout.error.contains("the slice at 0 cannot be destroyed: in use"),
        "{}",
        layout.error
    );
    assert_eq!(places(&layout.gpu.unwrap())[0], ("4g.40gb", 0));
}

#[tokio::test]
async fn a_refused_cut_is_taken_back() {
    // Somebody else's instance, in no list, at slice 6.
    let hidden = CUT.trim_end().trim_end_matches(']').to_owned()
        + ",\n{ id = 8, profile = 19, start = 6, hidden = true }]\n";
    let node = Node::new(&hidden);
    let (picture, work) = node.look("").await;
    let before = &picture.gpus[0];
    assert_eq!(places(before), [("4g.40gb", 0), ("2g.20gb", 4)]);
    let mut news = node.run(work);
    let layout = cut(&mut news, order(before, &[4], vec![new("3g.40gb", 9, 4, 4)])).await;
    assert!(
        layout.error.contains("3g.40gb cannot be made at 4: no room there"),
        "{}",
        layout.error
    );
    let gpu = layout.gpu.unwrap();
    assert_eq!(places(&gpu), [("4g.40gb", 0), ("2g.20gb", 4)], "made again");
    assert_eq!(gpu.generation, before.generation + 1, "its UUID is another");
    let nonsense = vec![new("1g.10gb", 19, 4, 1), new("2g.20gb", 14, 4, 2)];
    let layout = cut(&mut news, order(&gpu, &[4], nonsense)).await;
    assert!(layout.error.contains("two new slices cover"), "{}", layout.error);
}

#[tokio::test]
async fn a_half_state_is_finished_when_the_holder_is_gone() {
    let held = "proc = [{ pid = 9, mib = 1, gi = 3, hidden = true }]\n";
    let node = Node::new(&format!("{CUT}{held}"));
    let (picture, work) = node.look("").await;
    let mut news = node.run(work);
    let layout = cut(&mut news, order(&picture.gpus[0], &[4], Vec::new())).await;
    assert!(layout.error.contains("in use"), "{}", layout.error);
    let gpu = layout.gpu.unwrap();
    assert_eq!(places(&gpu), [("4g.40gb", 0), ("2g.20gb", 4)], "its compute instance is back");
    node.rewrite(CUT);
    let layout = cut(&mut news, order(&gpu, &[4], vec![new("1g.10gb", 19, 6, 1)])).await;
    assert_eq!(layout.error, "");
    assert_eq!(places(&layout.gpu.unwrap()), [("4g.40gb", 0), ("1g.10gb", 6)]);
}

#[tokio::test]
async fn an_agent_that_crashed_in_a_cut_finishes_it() {
    let slow = "[[fault]]\ncall = 'nvmlGpuInstanceDestroy'\nhang = true\n";
    let node = Node::new(&format!("{CUT}{slow}"));
    let (picture, work) = node.look("").await;
    let news = node.run(work);
    let order = order(&picture.gpus[0], &[4], vec![new("1g.10gb", 19, 4, 1)]);
    news.order(order.clone()).await;
    // The compute instance is gone, the other hangs.
    let state = || std::fs::read_to_string(node.library().with_file_name("state.toml")).unwrap();
    let begun = std::time::Instant::now();
    while state().matches("MIG-").count() > 1 {
        assert!(begun.elapsed().as_secs() < 30, "waited in vain");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    news.crash().await;
    node.rewrite(CUT);
    let (_, work) = node.look("").await;
    let mut news = node.run(work);
    let layout = news.layout().await;
    assert_eq!((layout.error.as_str(), layout.answers), ("", order.generation));
    assert_eq!(places(&layout.gpu.unwrap()), [("4g.40gb", 0), ("1g.10gb", 4)]);
}

#[tokio::test]
async fn after_a_boot_the_layout_is_made_again() {
    let mut node = Node::new(CUT);
    let (picture, work) = node.look("").await;
    let before = picture.gpus[0].clone();
    drop(work);
    node.rewrite(&format!("boot = 1\n{CUT}"));
    node.boot_id = "b2".to_owned();
    let (picture, work) = node.look("").await;
    let gpu = &picture.gpus[0];
    assert_eq!(places(gpu), places(&before), "before the node is told of");
    drop(work);
    assert_ne!(gpu.slices[0].uuid, before.slices[0].uuid);
    assert!(gpu.generation > before.generation);
}

#[tokio::test]
async fn a_mode_that_takes_a_reset_is_told_as_pending() {
    let node = Node::new("[[gpu]]\nmodel = 'a100-40'\nproc = [{ pid = 1, mib = 1 }]\n");
    let (picture, work) = node.look("").await;
    let mut news = node.run(work);
    let mut on = order(&picture.gpus[0], &[], vec![new("1g.5gb", 19, 0, 1)]);
    on.mode = v1::MigMode::On.into();
    let layout = cut(&mut news, on.clone()).await;
    assert_eq!(layout.error, "MIG cannot be switched on: the GPU is in use");
    node.rewrite("[[gpu]]\nmodel = 'a100-40'\n");
    on.generation = layout.gpu.unwrap().generation;
    let layout = cut(&mut news, on).await;
    assert_eq!(layout.error, "MIG on is pending: the GPU needs a reset");
}
