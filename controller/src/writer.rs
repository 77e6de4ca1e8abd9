//! Who changes the cluster?
//!
//! One thread owns it. It takes the commands that wait, has the ledger run them, makes what changed
//! durable in one commit, publishes the new snapshot, lets the effects happen, and then answers.
//! Nothing is answered before it is durable. A full disk refuses the commands of that commit and
//! nothing else; a failed write or fsync ends the process.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use penstock_core::ledger::{Answer, Commit, CommitLimits, Ledger};
use penstock_core::{Cluster, Command, Effect, RecordKey, Refusal, Reply};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::convert::record;
use crate::events::Events;
use crate::statistics::Statistics;
use crate::store::{Batch, BlobHash, Store, StoreError, Term};

/// Commands that may wait; one more is refused with RESOURCE_EXHAUSTED.
const QUEUE: usize = 65_536;
/// Commands taken in at once, so that a commit stays short.
const COMMANDS_PER_COMMIT: usize = 4_096;

/// A snapshot, and the number of the commit that made it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The cluster as it is durable.
    pub cluster: Cluster,
    /// The store's revision.
    pub sequence: u64,
    /// Raised whenever something may start.
    pub schedule: u64,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The cluster refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It panicked; nothing changed.
    #[error("the command could not be carried out because of a bug; it was kept for a report")]
    Panicked,
    /// Too many commands wait.
    #[error("{QUEUE} commands wait already; try again")]
    Full,
    /// The store could not take it; nothing changed.
    #[error("the controller's store can't take it: {0}")]
    Store(String),
    /// The controller ends.
    #[error("the controller is going down; the command may or may not have been carried out")]
    Closing,
}

type Waiter = Option<oneshot::Sender<Result<Reply, ExecuteError>>>;

struct Request {
    command: Command,
    blobs: Vec<(BlobHash, Bytes)>,
    waiter: Waiter,
}

/// What the thread is asked to do.
enum Work {
    Execute(Request),
    /// From now on remember which blobs requests name.
    BeginSweep(oneshot::Sender<()>),
    /// Free every blob that is neither in the set nor named since the sweep began.
    Sweep(BTreeSet<[u8; 32]>, oneshot::Sender<u64>),
}

/// What performs effects; called by the writer's thread and must not block.
pub trait Perform: Send + 'static {
    /// Lets effects happen, given the snapshot that made them durable.
    fn perform(&mut self, effects: Vec<Effect>, snapshot: &Arc<Snapshot>);

    /// Takes note of the records that became other than they were `before`.
    fn note(&mut self, before: &Cluster, snapshot: &Arc<Snapshot>, changed: &[RecordKey]) {
        let _of_no_interest = (before, snapshot, changed);
    }
}

/// How the rest of the controller reaches the writer.
#[derive(Debug, Clone)]
pub struct Writer {
    requests: mpsc::Sender<Work>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Writer {
    /// Has a command carried out; returns when its effect is durable.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute(&self, command: Command) -> Result<Reply, ExecuteError> {
        self.execute_with(command, Vec::new()).await
    }

    /// Like [`Writer::execute`], with blobs that the command's records name.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute_with(
        &self,
        command: Command,
        blobs: Vec<(BlobHash, Bytes)>,
    ) -> Result<Reply, ExecuteError> {
        self.begin(command, blobs)?.await.unwrap_or(Err(ExecuteError::Closing))
    }

    /// Puts a command into the queue; its answer comes by the receiver.
    ///
    /// # Errors
    /// If the queue is full or the controller ends.
    pub fn begin(
        &self,
        command: Command,
        blobs: Vec<(BlobHash, Bytes)>,
    ) -> Result<oneshot::Receiver<Result<Reply, ExecuteError>>, ExecuteError> {
        let (sender, receiver) = oneshot::channel();
        self.requests
            .try_send(Work::Execute(Request { command, blobs, waiter: Some(sender) }))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => ExecuteError::Full,
                mpsc::error::TrySendError::Closed(_) => ExecuteError::Closing,
            })?;
        Ok(receiver)
    }

    /// Puts a command into the queue, waiting for room; nobody waits for the answer.
    pub async fn tell(&self, command: Command) {
        let request = Request { command, blobs: Vec::new(), waiter: None };
        if self.requests.send(Work::Execute(request)).await.is_err() {
            info!("a command came while the controller goes down; it is dropped unanswered");
        }
    }

    /// Frees blobs that no record names any more; `live` gathers those of a snapshot, away from the
    /// writer's thread. Returns the bytes that were freed.
    pub async fn sweep_blobs(
        &self,
        live: impl FnOnce(&Cluster) -> BTreeSet<[u8; 32]> + Send + 'static,
    ) -> u64 {
        let (began, begun) = oneshot::channel();
        if self.requests.send(Work::BeginSweep(began)).await.is_err() || begun.await.is_err() {
            return 0;
        }
        let snapshot = self.snapshot();
        let Ok(live) = tokio::task::spawn_blocking(move || live(&snapshot.cluster)).await else {
            return 0;
        };
        let (freed, bytes) = oneshot::channel();
        if self.requests.send(Work::Sweep(live, freed)).await.is_err() {
            return 0;
        }
        bytes.await.unwrap_or(0)
    }

    /// How many commands wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// The newest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Tells of each new snapshot.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }
}

/// What the writer's thread works with.
pub struct WriterParts<S, P> {
    /// Where records are kept.
    pub store: S,
    /// This writer's reign.
    pub term: Term,
    /// The cluster as it was loaded.
    pub cluster: Cluster,
    /// The store's revision.
    pub sequence: u64,
    /// The clock.
    pub clock: Arc<Clock>,
    /// Where commands that panicked are kept.
    pub poison_dir: PathBuf,
    /// Performs effects.
    pub performer: P,
    /// Bytes of redo since the last checkpoint, published for whoever writes checkpoints.
    pub redo_bytes: Arc<AtomicU64>,
    /// Counts what is done and how long it takes.
    pub statistics: Arc<Statistics>,
    /// Hears of what changes.
    pub events: Arc<Events>,
    /// Reads that figure from the store.
    pub measure: fn(&S) -> u64,
}

/// Starts the writer's thread. It ends when every [`Writer`] is gone, and gives the store back.
///
/// # Errors
/// If the system makes no thread.
pub fn spawn<S: Store + 'static, P: Perform>(
    parts: WriterParts<S, P>,
) -> std::io::Result<(Writer, JoinHandle<Result<S, StoreError>>)> {
    let (requests, receiver) = mpsc::channel(QUEUE);
    let cluster = parts.cluster.clone();
    let first = Arc::new(Snapshot { cluster, sequence: parts.sequence, schedule: 0 });
    let (publisher, snapshots) = watch::channel(Arc::clone(&first));
    let thread = Thread {
        ledger: Ledger::new(parts.cluster.clone(), parts.sequence, QUEUE),
        parts,
        receiver,
        publisher,
        blobs: Vec::new(),
        named: None,
        schedule: 0,
        poisoned: Vec::new(),
    };
    let handle = std::thread::Builder::new().name("writer".into()).spawn(move || thread.run())?;
    Ok((Writer { requests, snapshots }, handle))
}

struct Thread<S, P> {
    parts: WriterParts<S, P>,
    ledger: Ledger<Waiter>,
    receiver: mpsc::Receiver<Work>,
    publisher: watch::Sender<Arc<Snapshot>>,
    blobs: Vec<(BlobHash, Bytes)>,
    /// Blobs that requests named since the sweep under way began.
    named: Option<BTreeSet<[u8; 32]>>,
    schedule: u64,
    /// When commands panicked, the newest last.
    poisoned: Vec<penstock_vocab::Timestamp>,
}

/// So many panicking commands within a minute stop the daemon rather than let it limp on.
const MOST_POISON_PER_MINUTE: usize = 3;

impl<S: Store, P: Perform> Thread<S, P> {
    fn run(mut self) -> Result<S, StoreError> {
        while let Some(work) = self.receiver.blocking_recv() {
            self.take_in(work)?;
            let mut count = 1;
            while count < COMMANDS_PER_COMMIT
                && let Ok(work) = self.receiver.try_recv()
            {
                self.take_in(work)?;
                count += 1;
            }
            self.commit_all()?;
        }
        Ok(self.parts.store)
    }

    fn take_in(&mut self, work: Work) -> Result<(), StoreError> {
        match work {
            Work::Execute(request) => self.enqueue(request),
            Work::BeginSweep(begun) => {
                // What waits was not yet seen by any snapshot.
                self.commit_all()?;
                self.named = Some(BTreeSet::new());
                let _nobody_waits = begun.send(());
            }
            Work::Sweep(live, freed) => {
                self.commit_all()?;
                let _nobody_waits = freed.send(self.sweep(&live)?);
            }
        }
        Ok(())
    }

    fn sweep(&mut self, live: &BTreeSet<[u8; 32]>) -> Result<u64, StoreError> {
        let named = self.named.take().unwrap_or_default();
        let keep = |hash: &BlobHash| live.contains(&hash.0) || named.contains(&hash.0);
        let mut freed = 0;
        loop {
            match self.parts.store.retain_blobs(self.parts.term, &keep) {
                Ok(sweep) => {
                    freed += sweep.freed_bytes;
                    if !sweep.more {
                        return Ok(freed);
                    }
                }
                Err(StoreError::Unavailable(why)) => {
                    warn!(error = %why, "blobs can't be swept now");
                    return Ok(freed);
                }
                Err(fatal) => return Err(fatal),
            }
        }
    }

    fn enqueue(&mut self, request: Request) {
        if let Some(named) = &mut self.named {
            named.extend(request.blobs.iter().map(|(hash, _)| hash.0));
        }
        self.blobs.extend(request.blobs);
        if let Err((waiter, _)) = self.ledger.push(request.waiter, request.command) {
            answer(waiter, Err(ExecuteError::Full));
        }
    }

    fn commit_all(&mut self) -> Result<(), StoreError> {
        let limits = self.parts.store.limits();
        // No command needs 200 records (`MAX_ACCOUNT_RECORDS` is the most), so this stays below the
        // store's bound.
        let bounds = CommitLimits {
            records: limits.records.saturating_sub(200).max(1),
            commands: COMMANDS_PER_COMMIT,
        };
        while let Some(commit) = self.ledger.begin(self.parts.clock.now(), bounds) {
            self.keep_poison();
            let begun = Instant::now();
            match self.make_durable(&commit) {
                Ok(()) => {
                    self.parts.statistics.time("commit", begun.elapsed());
                    self.publish(&commit.changed);
                }
                Err(StoreError::Unavailable(why)) => {
                    let text = format!("nothing was written: {why}");
                    warn!(error = %text, "the store refused a commit");
                    for waiter in self.ledger.abort(!commit.changed.is_empty()) {
                        answer(waiter, Err(ExecuteError::Store(text.clone())));
                    }
                }
                Err(fatal) => {
                    error!(error = %chain(&fatal), "the store failed; the controller stops");
                    return Err(fatal);
                }
            }
        }
        Ok(())
    }

    fn make_durable(&mut self, commit: &Commit) -> Result<(), StoreError> {
        if commit.changed.is_empty() {
            return Ok(());
        }
        let mut batch = Batch { changes: Vec::new(), blobs: std::mem::take(&mut self.blobs) };
        batch.changes.reserve(commit.changed.len());
        for key in &commit.changed {
            match record::value(&commit.cluster, key) {
                Some(value) => batch.put(record::key(key), value),
                None => batch.delete(record::key(key)),
            }
        }
        let revision = match self.parts.store.commit(self.parts.term, &batch) {
            Ok(revision) => revision,
            Err(refused) => {
                // Commands that still wait name some of them.
                self.blobs = batch.blobs;
                return Err(refused);
            }
        };
        // The store's own upkeep has numbers too; it never counts less.
        assert!(revision.0 >= commit.sequence, "the store counts every commit");
        self.ledger.advance_to(revision.0);
        let bytes = (self.parts.measure)(&self.parts.store);
        self.parts.redo_bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn publish(&mut self, changed: &[RecordKey]) {
        let published = self.ledger.finish();
        let before = Arc::clone(&self.publisher.borrow());
        self.parts.statistics.commit(&before.cluster, &published.snapshot, changed);
        if published.effects.contains(&Effect::Schedule) {
            self.schedule += 1;
        }
        let snapshot = Arc::new(Snapshot {
            cluster: published.snapshot,
            sequence: published.sequence,
            schedule: self.schedule,
        });
        self.publisher.send_replace(Arc::clone(&snapshot));
        self.parts.performer.note(&before.cluster, &snapshot, changed);
        drop(before);
        self.parts.events.record(snapshot.sequence, &snapshot.cluster, changed);
        self.parts.performer.perform(published.effects, &snapshot);
        for (waiter, result) in published.answers {
            answer(
                waiter,
                match result {
                    Answer::Done(reply) => Ok(reply),
                    Answer::Refused(refusal) => Err(ExecuteError::Refused(refusal)),
                    Answer::Panicked(_) => Err(ExecuteError::Panicked),
                },
            );
        }
    }

    /// Keeps commands that panicked, for whoever mends the bug.
    fn keep_poison(&mut self) {
        for poison in self.ledger.take_poison() {
            let now = self.parts.clock.now();
            self.poisoned.push(now);
            error!(
                panic = %poison.message,
                kept_in = %self.parts.poison_dir.display(),
                "a command panicked; nothing changed, and the controller goes on"
            );
            let name = format!("{}-{}.txt", now.0, self.poisoned.len());
            let text = format!("{}\n\n{}\n", poison.message, poison.command);
            let path = self.parts.poison_dir.join(name);
            let kept = std::fs::create_dir_all(&self.parts.poison_dir)
                .and_then(|()| std::fs::write(&path, text));
            if let Err(error) = kept {
                warn!(%error, path = %path.display(), "can't keep the command that panicked");
            }
        }
        let now = self.parts.clock.now();
        let recent = self.poisoned.iter().filter(|at| now.since(**at).as_secs() < 60).count();
        assert!(
            recent < MOST_POISON_PER_MINUTE,
            "{recent} commands panicked within a minute; the controller stops"
        );
    }
}

fn answer(waiter: Waiter, result: Result<Reply, ExecuteError>) {
    // Whoever asked may have gone; the command took effect all the same.
    if let Some(waiter) = waiter {
        drop(waiter.send(result));
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use penstock_core::model::Config;
    use penstock_vocab::Timestamp;

    use super::*;
    use crate::store::MemStore;

    struct Nobody;

    impl Perform for Nobody {
        fn perform(&mut self, _: Vec<Effect>, _: &Arc<Snapshot>) {}
    }

    fn start(poison_dir: PathBuf) -> (Writer, JoinHandle<Result<MemStore, StoreError>>) {
        let mut store = MemStore::new();
        store.load(&mut |_, _| Ok(())).unwrap();
        let term = store.acquire("test").unwrap();
        spawn(WriterParts {
            store,
            term,
            cluster: Cluster::new(Arc::new(Config::default()), Timestamp(0)),
            sequence: 0,
            clock: Arc::new(Clock::start()),
            poison_dir,
            performer: Nobody,
            redo_bytes: Arc::default(),
            statistics: Arc::default(),
            events: Arc::new(Events::after(0)),
            measure: |_| 0,
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_command_that_panics_is_kept_and_the_next_one_is_carried_out() {
        let dir = tempfile::tempdir().unwrap();
        let poison = dir.path().join("poison");
        let (writer, _thread) = start(poison.clone());
        let error = writer.execute(Command::Panic).await.unwrap_err();
        assert!(matches!(error, ExecuteError::Panicked), "{error}");
        assert_eq!(writer.execute(Command::Tick).await.unwrap(), Reply::Done);
        let kept: Vec<_> = std::fs::read_dir(&poison).unwrap().collect();
        assert_eq!(kept.len(), 1);
        let text = std::fs::read_to_string(kept[0].as_ref().unwrap().path()).unwrap();
        assert!(text.contains("Panic"), "{text}");
    }

    #[tokio::test]
    async fn three_panics_in_a_minute_stop_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, thread) = start(dir.path().join("poison"));
        for _ in 0..2 {
            let error = writer.execute(Command::Panic).await.unwrap_err();
            assert!(matches!(error, ExecuteError::Panicked), "{error}");
        }
        let error = writer.execute(Command::Panic).await.unwrap_err();
        assert!(matches!(error, ExecuteError::Closing), "{error}");
        assert!(thread.join().is_err(), "the thread panicked, which ends the daemon");
    }
}
