//! How does a browser hear what happens, while it happens?
//!
//! As server-sent events. Each has a number; a browser that was cut off says the last one it saw and gets what
//! came since, or `reset`, where that is no longer known: then it reads the listings again. The stream ends
//! with the sign-in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{IntervalStream, WatchStream};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Params};
use super::jobs::words;
use crate::http::auth::Who;
use crate::http::feed::{Event, Events, What};
use crate::http::guard::Credential;
use crate::http::problem::Problem;
use crate::http::web::Web;

/// How often a comment is sent where nothing happens, so that nobody takes the silence for an end, and how
/// often it is checked that the sign-in still holds.
const BEAT: Duration = Duration::from_secs(15);
/// Most streams at once.
pub(in crate::http) const MOST_STREAMS: usize = 4_096;

/// Which events.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// `job`, `array`, `node`, by commas; empty: all.
    pub kind: String,
    /// Only jobs of these login names, by commas.
    pub user: String,
    /// Only these jobs, and tasks of these arrays, by number.
    pub job: String,
}

/// An event, as the `data` of a server-sent event; `event` says its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum EventView {
    /// A job came, or its state changed.
    Job {
        /// When it was noticed.
        at_ms: i64,
        /// Its number.
        id: u32,
        /// The array that it is of.
        array_job_id: Option<u32>,
        /// Its index there.
        array_task_id: Option<u32>,
        /// Login name of its owner.
        user: String,
        /// Its name.
        name: String,
        /// Slurm's word for its state.
        state: &'static str,
        /// The state that it had; null: it is new.
        was: Option<&'static str>,
        /// It is over.
        over: bool,
    },
    /// An array came, or other tasks of it wait now.
    Array {
        /// When it was noticed.
        at_ms: i64,
        /// Its number.
        id: u32,
        /// Login name of its owner.
        user: String,
        /// Its name.
        name: String,
        /// How many tasks wait.
        waiting: u64,
    },
    /// The state of a node changed.
    Node {
        /// When it was noticed.
        at_ms: i64,
        /// Its name.
        name: String,
        /// As scontrol prints it.
        state: String,
        /// As it was; null: it is new.
        was: Option<String>,
    },
}

impl EventView {
    fn of(event: &Event) -> Self {
        let at_ms = event.at.0;
        match &event.what {
            What::Job(job) => Self::Job {
                at_ms,
                id: job.id,
                array_job_id: job.array.map(|(base, _)| base),
                array_task_id: job.array.map(|(_, index)| index),
                user: job.user.to_string(),
                name: job.name.to_string(),
                state: job.state,
                was: job.was,
                over: job.over,
            },
            What::Array { id, user, name, waiting, .. } => Self::Array {
                at_ms,
                id: *id,
                user: user.to_string(),
                name: name.to_string(),
                waiting: *waiting,
            },
            What::Node { name, state, was } => {
                Self::Node { at_ms, name: name.to_string(), state: state.clone(), was: was.clone() }
            }
        }
    }
}

fn kind_of(what: &What) -> &'static str {
    match what {
        What::Job(_) => "job",
        What::Array { .. } => "array",
        What::Node { .. } => "node",
    }
}

/// Which events somebody wants.
#[derive(Debug)]
struct Wanted {
    kinds: Vec<String>,
    users: Vec<String>,
    jobs: BTreeSet<u32>,
}

impl Wanted {
    fn read(query: &EventsQuery) -> Result<Self, Problem> {
        let kinds = words(&query.kind);
        if let Some(kind) =
            kinds.iter().find(|kind| !["job", "array", "node"].contains(&kind.as_str()))
        {
            return Err(Problem::bad(format!(
                "kind={kind:?} is not known; give job, array or node"
            )));
        }
        let read = |word: String| {
            word.parse().map_err(|_| Problem::bad(format!("job={word:?} is no number of a job")))
        };
        let jobs = words(&query.job).into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { kinds, users: words(&query.user), jobs })
    }

    fn has(&self, what: &What) -> bool {
        let kind = kind_of(what);
        let (user, ids) = match what {
            What::Job(job) => (&job.user, [Some(job.id), job.array.map(|(base, _)| base)]),
            What::Array { id, user, .. } => (user, [Some(*id), None]),
            What::Node { .. } => {
                let any = self.users.is_empty() && self.jobs.is_empty();
                return any && (self.kinds.is_empty() || self.kinds.iter().any(|one| one == kind));
            }
        };
        let of = |id: &Option<u32>| id.is_some_and(|id| self.jobs.contains(&id));
        (self.kinds.is_empty() || self.kinds.iter().any(|one| one == kind))
            && (self.users.is_empty() || self.users.iter().any(|one| **one == **user))
            && (self.jobs.is_empty() || ids.iter().any(of))
    }
}

/// What a stream has sent so far.
struct Reader {
    events: Arc<Events>,
    /// Which life of the controller the numbers are of.
    epoch: i64,
    last: u64,
    wanted: Wanted,
}

impl Reader {
    /// Everything that is new, as it goes over the wire; empty: nothing is.
    fn news(&mut self) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        let Some(events) = self.events.since(self.last) else {
            self.last = *self.events.watch().borrow();
            write!(out, "id: {}-{}\nevent: reset\ndata: {{}}\n\n", self.epoch, self.last)
                .expect("writing to a String cannot fail");
            return out;
        };
        let mut skipped = false;
        for event in events {
            self.last = event.number;
            skipped = !self.wanted.has(&event.what);
            if skipped {
                continue;
            }
            let data = serde_json::to_string(&EventView::of(&event)).expect("texts and numbers");
            let (epoch, number, kind) = (self.epoch, event.number, kind_of(&event.what));
            write!(out, "id: {epoch}-{number}\nevent: {kind}\ndata: {data}\n\n")
                .expect("writing to a String cannot fail");
        }
        // So that what was of no interest is not looked at again after a break.
        if skipped && !out.is_empty() {
            write!(out, "id: {}-{}\n\n", self.epoch, self.last)
                .expect("writing to a String cannot fail");
        }
        out
    }
}

/// The number after which a stream goes on. Of another life of the controller: one that is not kept.
fn resumed(headers: &HeaderMap, epoch: i64, newest: u64) -> u64 {
    let Some(text) = headers.get("last-event-id").and_then(|id| id.to_str().ok()) else {
        return newest;
    };
    let (of, number) = text.split_once('-').unwrap_or_default();
    match (of.parse::<i64>(), number.parse::<u64>()) {
        (Ok(of), Ok(number)) if of == epoch => number,
        _ => u64::MAX,
    }
}

/// Jobs and nodes as they change, as server-sent events (`text/event-stream`).
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = EventView),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn events(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Extension(credential): Extension<Credential>,
    headers: HeaderMap,
    Params(query): Params<EventsQuery>,
) -> Answer {
    web.shared.allow(&who.caller, crate::identity::Action::ReadListing)?;
    let wanted = Wanted::read(&query)?;
    let Ok(place) = Arc::clone(&web.streams).try_acquire_owned() else {
        let text = format!("{MOST_STREAMS} streams of events are open already; try again later");
        return Err(Problem::new(http::StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let newest = web.events.watch();
    let epoch = web.shared.started.0;
    let last = resumed(&headers, epoch, *newest.borrow());
    let mut reader = Reader { events: Arc::clone(&web.events), epoch, last, wanted };
    let news = WatchStream::new(newest).map(|_| true);
    let beats =
        IntervalStream::new(tokio::time::interval_at(tokio::time::Instant::now() + BEAT, BEAT));
    let stop = web.stop.clone();
    let parts = news
        .merge(beats.map(|_| false))
        .take_while(move |is_news| {
            let _kept = &place;
            !stop.is_cancelled() && (*is_news || credential.holds(&web))
        })
        .map(move |is_news| match is_news {
            true => reader.news(),
            false => ": still here\n\n".to_owned(),
        })
        .filter(|text| !text.is_empty())
        .map(|text| Ok::<_, std::convert::Infallible>(Bytes::from(text)));
    Ok(streamed(Body::from_stream(parts)))
}

fn streamed(body: Body) -> Response {
    let heads = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Else some proxies gather before they pass on.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (heads, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::feed::JobEvent;

    fn job(id: u32, array: Option<(u32, u32)>, user: &str) -> What {
        What::Job(JobEvent {
            id,
            array,
            uid: 1,
            user: user.into(),
            name: "<script>\n\ndata: x".into(),
            state: "RUNNING",
            was: Some("PENDING"),
            over: false,
        })
    }

    #[test]
    fn only_what_is_wanted_is_told() {
        let wanted = |kind: &str, user: &str, job: &str| {
            let query = EventsQuery { kind: kind.into(), user: user.into(), job: job.into() };
            Wanted::read(&query).unwrap()
        };
        let node = What::Node { name: "n".into(), state: "IDLE".into(), was: None };
        assert!(wanted("", "", "").has(&node) && wanted("node", "", "").has(&node));
        assert!(!wanted("job", "", "").has(&node) && !wanted("", "ada", "").has(&node));
        let task = job(9, Some((7, 3)), "ada");
        assert!(wanted("", "ada,bob", "7").has(&task) && wanted("job", "", "9").has(&task));
        assert!(!wanted("", "bob", "").has(&task) && !wanted("", "", "8").has(&task));
        assert!(Wanted::read(&EventsQuery { kind: "x".into(), ..Default::default() }).is_err());
    }

    #[test]
    fn a_name_cannot_make_events_of_its_own() {
        let event =
            Event { number: 1, at: penstock_vocab::Timestamp(5), what: job(9, None, "ada") };
        let data = serde_json::to_string(&EventView::of(&event)).unwrap();
        assert!(!data.contains('\n'), "{data}");
        assert!(data.starts_with(r#"{"kind":"job","at_ms":5,"id":9"#), "{data}");
    }

    #[test]
    fn a_stream_goes_on_in_its_own_life_only() {
        let headers = |id: &str| {
            HeaderMap::from_iter([(
                header::HeaderName::from_static("last-event-id"),
                id.parse().unwrap(),
            )])
        };
        assert_eq!(resumed(&HeaderMap::new(), 5, 9), 9);
        assert_eq!(resumed(&headers("5-7"), 5, 9), 7);
        for other in ["4-7", "x", "5-", "5-x", ""] {
            assert_eq!(resumed(&headers(other), 5, 9), u64::MAX, "{other}");
        }
    }
}
