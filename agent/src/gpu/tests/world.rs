//! A node: a folder with a library and a scenario, and a monitor for it.

use std::path::PathBuf;
use std::time::Duration;

use penstock_fake_nvml::{LIBRARY_NAME, SCENARIO_NAME, install};
use penstock_proto::v1;
use penstock_vocab::parse_gres_list;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::gpu::client::ProbeCommand;
use crate::gpu::monitor::{Monitor, News, Picture, Work, first_look};
use crate::gpu::{Devices, GpuSettings};

/// A GPU.
pub(super) const H100: &str = "[[gpu]]\nmodel = 'h100-80'\n";

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(40);

pub(super) struct Node {
    dir: TempDir,
    pub(super) devices: Devices,
    pub(super) boot_id: String,
}

impl Node {
    pub(super) fn new(scenario: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        install(&dir.path().join("gpu"), scenario).unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Self { dir, devices: Devices::default(), boot_id: "b1".to_owned() }
    }

    pub(super) fn library(&self) -> PathBuf {
        self.dir.path().join("gpu").join(LIBRARY_NAME)
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Replaces the scenario while it is in use.
    pub(super) fn rewrite(&self, scenario: &str) {
        let folder = self.dir.path().join("gpu");
        std::fs::write(folder.join("next"), scenario).unwrap();
        std::fs::rename(folder.join("next"), folder.join(SCENARIO_NAME)).unwrap();
    }

    pub(super) fn monitor(&self, claims: &str) -> Monitor {
        let settings =
            GpuSettings { library: Some(self.library()), sample_secs: 1, ..GpuSettings::default() };
        Monitor {
            settings,
            claims: parse_gres_list(claims).unwrap_or_default(),
            declared: Vec::new(),
            command: ProbeCommand::own().unwrap(),
            devices: self.devices.clone(),
            state_dir: self.state_dir(),
            boot_id: self.boot_id.clone(),
            cpus: std::collections::BTreeMap::new(),
        }
    }

    pub(super) async fn look(&self, claims: &str) -> (Picture, Work) {
        first_look(self.monitor(claims)).await
    }

    pub(super) fn run(&self, work: Work) -> Heard {
        let (sender, news) = mpsc::channel(64);
        let (orders, receiver) = mpsc::channel(8);
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(work.run(sender, receiver, cancel));
        Heard { news, orders, tasks }
    }
}

/// What a running monitor says.
pub(super) struct Heard {
    news: mpsc::Receiver<News>,
    orders: mpsc::Sender<v1::ReshapeGpu>,
    tasks: JoinSet<()>,
}

impl Heard {
    /// The first news of which `wanted` makes something.
    pub(super) async fn find<T>(&mut self, wanted: impl Fn(News) -> Option<T>) -> T {
        let search = async {
            loop {
                let news = self.news.recv().await.expect("the monitor works");
                if let Some(found) = wanted(news) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, search).await.expect("waited in vain")
    }

    pub(super) async fn report(&mut self) -> v1::GpuReport {
        self.find(|news| match news {
            News::Report(report) if !report.samples.is_empty() => Some(report),
            _ => None,
        })
        .await
    }

    pub(super) async fn picture(&mut self) -> Picture {
        self.find(|news| match news {
            News::Picture(picture) => Some(picture),
            _ => None,
        })
        .await
    }

    pub(super) async fn event(&mut self) -> v1::GpuEvent {
        self.find(|news| match news {
            News::Report(report) => report.events.into_iter().next(),
            _ => None,
        })
        .await
    }

    pub(super) async fn order(&self, order: v1::ReshapeGpu) {
        self.orders.send(order).await.expect("the monitor works");
    }

    pub(super) async fn layout(&mut self) -> v1::GpuLayout {
        self.find(|news| match news {
            News::Layout(layout) => Some(*layout),
            _ => None,
        })
        .await
    }

    /// Ends the monitor as a crash of its agent would.
    pub(super) async fn crash(mut self) {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }
}
