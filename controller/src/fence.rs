//! How is it proven that nothing runs on a silent node any more?
//!
//! A node that is down for silence keeps its jobs: nobody knows whether they run. Where the cluster
//! file names a `fence_program`, it is called with the node's name, again and again until it exits 0;
//! only then do the node's jobs count as ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use penstock_core::Command;
use penstock_vocab::{NodeName, Timestamp};
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::rpc::Shared;

/// Longest run of the program.
const PATIENCE: Duration = Duration::from_secs(120);
/// From one try that failed to the next, in seconds.
const AGAIN_SECS: u64 = 60;

/// What was tried.
#[derive(Debug, Default)]
pub struct Fences {
    tried: Mutex<BTreeMap<NodeName, Timestamp>>,
}

impl Fences {
    /// Fences the nodes that need it, one after the other. Call it again and again.
    pub async fn run(&self, shared: &Arc<Shared>) {
        let Some(program) = shared.file().policy.fence_program.clone() else { return };
        let snapshot = shared.snapshot();
        let silent: Vec<NodeName> = snapshot
            .cluster
            .nodes()
            .filter(|(_, node, used)| {
                node.down.as_ref().is_some_and(|down| down.by_silence) && !used.jobs.is_empty()
            })
            .map(|(_, node, _)| node.name.clone())
            .collect();
        for node in silent {
            let now = shared.clock.now();
            let mut tried = self.tried.lock().await;
            if tried.get(&node).is_some_and(|at| now.since(*at).as_secs() < AGAIN_SECS) {
                continue;
            }
            tried.insert(node.clone(), now);
            drop(tried);
            if fence(&program, &node).await {
                info!(%node, "node fenced: its jobs have ended");
                shared.writer.tell(Command::Fenced { node }).await;
            }
        }
    }
}

async fn fence(program: &Path, node: &NodeName) -> bool {
    let child = tokio::process::Command::new(program)
        .arg(node.as_str())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    let why = match tokio::time::timeout(PATIENCE, child).await {
        Ok(Ok(status)) if status.success() => return true,
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no end within {} s", PATIENCE.as_secs()),
    };
    warn!(%node, program = %program.display(), why, "the fence program did not succeed");
    false
}
