//! What does the controller say of a step that runs?

use std::time::Duration;

use penstock_proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::connect::{Client, Patience, StepsRpc, broke_off, is_transient, request_id};

/// Pause before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// Events that wait to be handled.
const QUEUE: usize = 64;

/// Follows the step until it is over; the task ends with the set.
pub(crate) fn start(
    client: &Client,
    job_id: u32,
    step: u32,
) -> (JoinSet<()>, mpsc::Receiver<v1::StepEvent>) {
    let (events, receiver) = mpsc::channel(QUEUE);
    let mut task = JoinSet::new();
    task.spawn(follow(client.steps(), v1::WatchStepRequest { job_id, step }, events));
    (task, receiver)
}

async fn follow(
    mut rpc: StepsRpc,
    request: v1::WatchStepRequest,
    events: mpsc::Sender<v1::StepEvent>,
) {
    loop {
        match rpc.watch_step(request).await {
            Ok(reply) => {
                let mut stream = reply.into_inner();
                while let Ok(Some(event)) = stream.message().await {
                    let over = event.step.as_ref().is_some_and(|step| step.end_ms != 0);
                    if events.send(event).await.is_err() || over {
                        return;
                    }
                }
            }
            Err(status) if is_transient(&status) || broke_off(&status) => {}
            // The step is not known any more: it is over.
            Err(_) => {
                let step = v1::Step { end_ms: 1, ..v1::Step::default() };
                events.send(v1::StepEvent { step: Some(step), ..<_>::default() }).await.ok();
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = events.closed() => return,
        }
    }
}

/// Ends a step that was made and cannot be used.
pub(crate) async fn end(client: &Client, job_id: u32, step: u32) {
    let request = v1::SignalStepsRequest {
        request_id: request_id(),
        selectors: vec![format!("{job_id}.{step}")],
        signal: 0,
    };
    let asked = client.ask_steps(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.signal_steps(request).await }
    });
    // A step whose maker is gone ends by itself.
    asked.await.ok();
}
