//! How does the agent keep its one stream to the controller?
//!
//! It dials for ever: at once after a good session, then ever more slowly, and slower still where
//! the controller refuses this host. What the stream carries is not looked at here, but for the
//! welcome, which sets the pace of the heartbeats. The supervisor's owner gets every message in
//! order, with [`LinkEvent::Opened`] before and [`LinkEvent::Closed`] after those of one stream,
//! so that nothing of an old stream can follow a new one.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::{MAX_MESSAGE_BYTES, v1};
use penstock_vocab::SessionId;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use crate::convert::{Incoming, Opened, heartbeat_message};
use crate::report::Vitals;
use crate::sys::boottime;

/// First wait before dialling again; doubles with each failure.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait before dialling a controller that cannot be reached: a restart of it is noticed
/// within this time by all nodes.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Wait after a refusal: somebody has to do something first.
const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// Time for connection, handshake and, on a new host, the join.
const DIAL_TIME: Duration = Duration::from_secs(20);

/// Shortest silence after which a controller counts as gone; it answers each heartbeat.
const MIN_SILENCE: Duration = Duration::from_secs(30);

/// Unanswered heartbeats after which a controller counts as gone.
const SILENT_HEARTBEATS: u32 = 4;

/// Messages waiting for the network; more wait in the owner.
const OUTBOUND_MESSAGES: usize = 256;

/// Why a host could not be connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// It will not work before somebody does something.
    #[error("refused")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// It may work the next time.
    #[error("not reached")]
    NotReached(#[source] Box<dyn Error + Send + Sync>),
}

/// Makes connections to the controller.
pub(crate) trait Dial: Send + Sync + 'static {
    /// A connection that is up and known to both sides.
    fn dial(&self) -> impl Future<Output = Result<Channel, DialError>> + Send;
}

/// What the link tells the owner of the supervisor.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A stream is being opened; the registration is to be the first message.
    Opened {
        /// Takes the messages of this stream.
        outbound: mpsc::Sender<v1::AgentMessage>,
    },
    /// The controller said something.
    Message(Incoming),
    /// The stream is over.
    Closed,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no connection within {} s", DIAL_TIME.as_secs())]
    DialTime,
    #[error("the controller refuses this host: {0}")]
    Refused(String),
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error("the controller ended the stream")]
    Ended,
    #[error("the controller has been silent for {0} s")]
    Silent(u64),
    #[error("the agent ends")]
    OwnerGone,
}

impl LinkError {
    fn of(status: &Status) -> Self {
        match status.code() {
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::Unimplemented => Self::Refused(status.message().to_owned()),
            _ => {
                let message = status.message();
                let code = status.code().to_string();
                let mut text = if message.is_empty() { code } else { message.to_owned() };
                push_sources(&mut text, status);
                Self::Broken(text)
            }
        }
    }

    const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Dial(DialError::Refused(_)))
    }

    /// With all its causes, in one line.
    fn chain(&self) -> String {
        let mut text = self.to_string();
        push_sources(&mut text, self);
        text
    }
}

/// Appends the causes of `error`, but those that `text` ends with already.
fn push_sources(text: &mut String, error: &dyn Error) {
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
}

/// How long to wait before the next attempt.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    /// `jitter`: 0..=1, takes up to half of the wait away, so that nodes do not dial in step.
    fn next(&mut self, refused: bool, jitter: f64) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let whole = if refused { REFUSED_WAIT } else { doubled.min(LONGEST_WAIT) };
        whole.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

/// The link: everything that [`Link::run`] needs.
pub(crate) struct Link<D> {
    /// Makes connections.
    pub(crate) dial: D,
    /// Gets every event, in order.
    pub(crate) events: mpsc::Sender<LinkEvent>,
    /// Wakes the link to open a new stream.
    pub(crate) again: Arc<Notify>,
    /// Name of the controller, for the log.
    pub(crate) controller: String,
}

impl<D: Dial> Link<D> {
    /// Keeps a stream until `cancel`, or until the owner is gone.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut last_error = String::new();
        loop {
            let result = tokio::select! {
                () = cancel.cancelled() => return,
                result = self.converse(&mut backoff, &mut last_error) => result,
            };
            let error = match result {
                Ok(()) => continue,
                Err(LinkError::OwnerGone) => return,
                Err(error) => error,
            };
            let wait = backoff.next(error.is_refusal(), rand::random_range(0.0..1.0));
            let (text, controller) = (error.chain(), &self.controller);
            if text == last_error {
                debug!(%controller, error = text, ?wait, "still not connected");
            } else {
                warn!(%controller, error = text, "not connected; trying again for ever");
                last_error = text;
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// One stream from dialling to its end; `Ok` if the owner wanted it to end.
    async fn converse(
        &self,
        backoff: &mut Backoff,
        last_error: &mut String,
    ) -> Result<(), LinkError> {
        let channel =
            timeout(DIAL_TIME, self.dial.dial()).await.map_err(|_| LinkError::DialTime)??;
        let (outbound, messages) = mpsc::channel(OUTBOUND_MESSAGES);
        let opened = LinkEvent::Opened { outbound: outbound.clone() };
        self.events.send(opened).await.map_err(|_| LinkError::OwnerGone)?;
        let result = tokio::select! {
            result = self.attached(channel, outbound, messages, backoff, last_error) => result,
            () = self.again.notified() => Ok(()),
        };
        self.events.send(LinkEvent::Closed).await.map_err(|_| LinkError::OwnerGone)?;
        result
    }

    async fn attached(
        &self,
        channel: Channel,
        outbound: mpsc::Sender<v1::AgentMessage>,
        messages: mpsc::Receiver<v1::AgentMessage>,
        backoff: &mut Backoff,
        last_error: &mut String,
    ) -> Result<(), LinkError> {
        let mut client = v1::agent_link_client::AgentLinkClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let attach = client.attach(ReceiverStream::new(messages));
        let mut inbound = timeout(MIN_SILENCE, attach)
            .await
            .map_err(|_| LinkError::Silent(MIN_SILENCE.as_secs()))?
            .map_err(|status| LinkError::of(&status))?
            .into_inner();
        let mut pulse = Pulse::new();
        loop {
            let deadline = pulse.deadline;
            tokio::select! {
                () = pulse.beat() => pulse.send(&outbound),
                () = sleep_until(deadline) => {
                    return Err(LinkError::Silent(pulse.silence.as_secs()));
                }
                received = self.receive(&mut inbound) => {
                    let (permit, message) = received?;
                    pulse.heard();
                    let message = match Incoming::try_from(message) {
                        Ok(message) => message,
                        Err(error) => {
                            warn!(%error, "a message of the controller was skipped");
                            continue;
                        }
                    };
                    if let Incoming::Opened(opened) = &message {
                        pulse.start(opened);
                        *backoff = Backoff::default();
                        last_error.clear();
                        let (controller, cluster) = (&self.controller, &opened.cluster);
                        info!(%controller, %cluster, session = %opened.session, "registered");
                    }
                    permit.send(LinkEvent::Message(message));
                }
            }
        }
    }

    /// The next message and room for it. Cancel-safe: a message is taken only when there is room.
    async fn receive(
        &self,
        inbound: &mut Streaming<v1::ControllerMessage>,
    ) -> Result<(mpsc::Permit<'_, LinkEvent>, v1::ControllerMessage), LinkError> {
        let permit = self.events.reserve().await.map_err(|_| LinkError::OwnerGone)?;
        match inbound.message().await {
            Ok(Some(message)) => Ok((permit, message)),
            Ok(None) => Err(LinkError::Ended),
            Err(status) => Err(LinkError::of(&status)),
        }
    }
}

/// Heartbeats of one stream, and how long its other end may be silent.
struct Pulse {
    session: Option<(SessionId, Interval)>,
    silence: Duration,
    deadline: Instant,
}

impl Pulse {
    fn new() -> Self {
        Self { session: None, silence: MIN_SILENCE, deadline: Instant::now() + MIN_SILENCE }
    }

    fn start(&mut self, opened: &Opened) {
        let every = Duration::from_secs(u64::from(opened.heartbeat_secs));
        self.silence = every.saturating_mul(SILENT_HEARTBEATS).max(MIN_SILENCE);
        self.deadline = Instant::now() + self.silence;
        let mut beats = interval(every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.session = Some((opened.session, beats));
    }

    fn heard(&mut self) {
        self.deadline = Instant::now() + self.silence;
    }

    /// When the next heartbeat is due; never before the session began. Cancel-safe.
    async fn beat(&mut self) {
        match &mut self.session {
            Some((_, beats)) => {
                beats.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    /// A full queue means that the network is slower than the messages: then those messages are
    /// the sign of life.
    fn send(&self, outbound: &mpsc::Sender<v1::AgentMessage>) {
        let Some((session, _)) = &self.session else { return };
        let message = heartbeat_message(*session, Vitals::now(), boottime());
        if outbound.try_send(message).is_err() {
            debug!("no room for a heartbeat");
        }
    }
}

#[cfg(test)]
mod tests;
