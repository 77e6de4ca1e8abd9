//! How many questions of what would happen are answered at once?
//!
//! Each costs up to a dozen plans, and everybody may ask: more at once than a part of the cores would
//! leave the planner and the writer none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::{Response, Status};

/// Of so many cores one makes forecasts.
const CORES_EACH: usize = 4;
/// How long a question waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who may make forecasts now.
#[derive(Debug)]
pub struct Forecasts {
    at_once: usize,
    patience: Duration,
    turns: Arc<Semaphore>,
}

impl Default for Forecasts {
    /// As many as this machine bears.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((cores / CORES_EACH).max(1), PATIENCE)
    }
}

impl Forecasts {
    fn new(at_once: usize, patience: Duration) -> Self {
        Self { at_once, patience, turns: Arc::new(Semaphore::new(at_once)) }
    }

    /// Runs a forecast on a thread of its own when its turn has come. The turn lasts until it is done,
    /// also where nobody waits for the answer any more.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if its turn does not come for long; else what `make` refuses.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let turn =
            tokio::time::timeout(self.patience, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Status::resource_exhausted(format!(
                "the controller makes {} forecasts at once, and all have been under way for {} s; ask \
                 again later",
                self.at_once,
                self.patience.as_secs()
            )));
        };
        aside(move || {
            let _turn = turn;
            make()
        })
        .await
    }
}

/// Runs something long on a thread of its own.
pub(super) async fn aside<T: Send + 'static>(
    make: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<Response<T>, Status> {
    match tokio::task::spawn_blocking(make).await {
        Ok(made) => made.map(Response::new),
        Err(_) => Err(Status::internal("the answer broke off; this is a bug")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn no_more_run_at_once_than_there_are_turns() {
        let forecasts = Arc::new(Forecasts::new(1, Duration::ZERO));
        let (begun, is_begun) = tokio::sync::oneshot::channel();
        let (end, ends) = mpsc::channel::<()>();
        let first = Arc::clone(&forecasts);
        let first = tokio::spawn(async move {
            let long = move || {
                begun.send(()).unwrap();
                // Until the sender is dropped.
                ends.recv().unwrap_err();
                Ok(1)
            };
            first.run(long).await.map(Response::into_inner)
        });
        is_begun.await.unwrap();
        // The caller goes away; the thread is busy still.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let refused = forecasts.run(|| Ok(2)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("1 forecasts at once"), "{}", refused.message());
        drop(end);
        drop(forecasts.turns.acquire().await.unwrap());
        assert_eq!(forecasts.run(|| Ok(3)).await.unwrap().into_inner(), 3);
    }
}
