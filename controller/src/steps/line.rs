//! Whose turn is it when a step of a job ends and leaves room?
//!
//! Those who wait for room in a job stand in a line. When something became free the first has a turn;
//! whether it got its place or not, it hands the turn on to the next whose request is another than
//! those that found no room in this turn. So a step's end costs one try for each kind of request that
//! waits, and not one for each of a thousand equal ones; and nobody is woken for nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_core::model::StepSpec;
use penstock_vocab::JobId;
use tokio::sync::Notify;

/// Longest line of one job; one more is refused.
const MOST_WAITING: usize = 16_384;

/// The lines of all jobs.
#[derive(Debug, Default)]
pub struct Line {
    jobs: Arc<Mutex<HashMap<JobId, Vec<Waiting>>>>,
}

/// A turn under way: requests that found no room in it.
#[derive(Debug, Default)]
pub struct Turn {
    failed: Vec<Arc<StepSpec>>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    needs: Arc<StepSpec>,
    turn: Option<Turn>,
    wake: Arc<Notify>,
}

/// A place in a line. Who drops it leaves, and hands on a turn that it has.
#[derive(Debug)]
pub struct Place {
    jobs: Arc<Mutex<HashMap<JobId, Vec<Waiting>>>>,
    job: JobId,
    number: u64,
    wake: Arc<Notify>,
    needs: Arc<StepSpec>,
    /// The turn that is being used.
    using: Option<Turn>,
}

impl Line {
    /// Stands in line for room in a job; `number` tells places apart. `None`: the line is too long.
    pub fn join(&self, job: JobId, number: u64, spec: &StepSpec) -> Option<Place> {
        let needs = Arc::new(needs(spec));
        let wake = Arc::new(Notify::new());
        let mut jobs = lock(&self.jobs);
        let line = jobs.entry(job).or_default();
        if line.len() >= MOST_WAITING {
            return None;
        }
        line.push(Waiting {
            number,
            needs: Arc::clone(&needs),
            turn: None,
            wake: Arc::clone(&wake),
        });
        let jobs = Arc::clone(&self.jobs);
        Some(Place { jobs, job, number, wake, needs, using: None })
    }

    /// Something of a job may have become free: the first in its line has a turn.
    pub fn call(&self, job: JobId) {
        if let Some(first) = lock(&self.jobs).get_mut(&job).and_then(|line| line.first_mut()) {
            first.give(Turn::default());
        }
    }
}

impl Waiting {
    fn give(&mut self, turn: Turn) {
        // Of two turns the newer one knows less.
        self.turn = Some(match self.turn.take() {
            Some(_) => Turn::default(),
            None => turn,
        });
        self.wake.notify_one();
    }
}

impl Place {
    /// Waits for a turn. Dropping the future loses none.
    pub async fn turn(&mut self) {
        while self.using.is_none() {
            match self.given() {
                Some(turn) => self.using = Some(turn),
                None => self.wake.notified().await,
            }
        }
    }

    /// The turn that it was given, if it was.
    fn given(&self) -> Option<Turn> {
        let mut jobs = lock(&self.jobs);
        let line = jobs.get_mut(&self.job)?;
        line.iter_mut().find(|waiting| waiting.number == self.number)?.turn.take()
    }

    /// The turn led to nothing: it goes on to the next that asks for something else.
    pub fn hand_on(&mut self) {
        let Some(mut turn) = self.using.take() else { return };
        turn.failed.push(Arc::clone(&self.needs));
        pass(&mut lock(&self.jobs), self.job, self.number, turn);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut jobs = lock(&self.jobs);
        let line = jobs.get_mut(&self.job);
        let here = line.and_then(|line| line.iter_mut().find(|one| one.number == self.number));
        let turn = here.and_then(|waiting| waiting.turn.take()).or_else(|| self.using.take());
        if let Some(turn) = turn {
            pass(&mut jobs, self.job, self.number, turn);
        }
        if let Some(line) = jobs.get_mut(&self.job) {
            line.retain(|waiting| waiting.number != self.number);
            if line.is_empty() {
                jobs.remove(&self.job);
            }
        }
    }
}

/// Hands a turn to the first behind `number` whose request did not fail in it.
fn pass(jobs: &mut HashMap<JobId, Vec<Waiting>>, job: JobId, number: u64, turn: Turn) {
    let Some(line) = jobs.get_mut(&job) else { return };
    let behind = line.iter_mut().skip_while(|waiting| waiting.number != number).skip(1);
    let mut others = behind.filter(|waiting| !turn.failed.contains(&waiting.needs));
    if let Some(next) = others.next() {
        next.give(turn);
    }
}

/// A request without what does not matter for its place.
fn needs(spec: &StepSpec) -> StepSpec {
    StepSpec {
        name: "".into(),
        time_limit: None,
        no_kill: false,
        details: Arc::default(),
        ..spec.clone()
    }
}

fn lock(
    jobs: &Mutex<HashMap<JobId, Vec<Waiting>>>,
) -> MutexGuard<'_, HashMap<JobId, Vec<Waiting>>> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn tasks(count: u32) -> StepSpec {
        StepSpec { ntasks: Some(count), ..StepSpec::default() }
    }

    fn has_turn(place: &mut Place) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(place.turn()).poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn a_turn_goes_along_the_line_past_equal_requests_that_failed() {
        let line = Line::default();
        let job = JobId(1);
        let mut places: Vec<Place> = [4, 4, 2, 4, 1]
            .into_iter()
            .zip(1..)
            .map(|(count, number)| line.join(job, number, &tasks(count)).unwrap())
            .collect();
        assert!(!places.iter_mut().any(has_turn), "nothing became free");
        line.call(job);
        assert!(has_turn(&mut places[0]));
        places[0].hand_on();
        assert!(!has_turn(&mut places[1]), "it asks for the same and would fail too");
        assert!(has_turn(&mut places[2]));
        // It got its place.
        drop(places.remove(2));
        assert!(!has_turn(&mut places[2]));
        assert!(has_turn(&mut places[3]));
        places[3].hand_on();
        assert!(!places.iter_mut().any(has_turn), "the turn is over");
    }

    #[test]
    fn who_leaves_hands_on_a_turn_and_an_empty_line_is_forgotten() {
        let line = Line::default();
        let mut first = line.join(JobId(1), 1, &tasks(1)).unwrap();
        let mut second = line.join(JobId(1), 2, &tasks(1)).unwrap();
        line.call(JobId(1));
        assert!(has_turn(&mut first));
        drop(first);
        assert!(has_turn(&mut second));
        drop(second);
        assert!(lock(&line.jobs).is_empty());
    }
}
