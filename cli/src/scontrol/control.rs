//! `scontrol hold`, `release`, `requeue` and their like: on which jobs, and what is said of each?

use std::str::FromStr as _;

use nix::sys::signal::{SigSet, Signal};
use penstock_proto::v1;
use penstock_vocab::JobSelector;

use crate::connect::{Client, Patience, request_id};
use crate::errors::{refusal_detail, refusal_text};
use crate::scontrol::{FAILED, PROGRAM, Voice, is_prefix};
use crate::words::{find_name, split_job_ids};

const FINISHED: &str = "Job has already finished";

/// Runs a verb; `word` is how it was typed.
pub(super) fn run(verb: v1::JobVerb, word: &str, words: &[String], voice: Voice) -> i32 {
    let request = match request_of(verb, word, words) {
        Ok(request) => request,
        Err(line) => {
            voice.say(&line);
            return FAILED;
        }
    };
    if matches!(verb, v1::JobVerb::Requeue | v1::JobVerb::RequeueHold) {
        outlive_the_end();
    }
    let reply = Client::open().and_then(|client| {
        client.call(Patience::CHANGE, |mut rpc| {
            let request = request.clone();
            async move { rpc.control_jobs(request).await }
        })
    });
    match reply {
        Ok(reply) => tell(verb, &reply.results, voice),
        Err(failure) => {
            voice.report("slurm_suspend error", &failure);
            FAILED
        }
    }
}

/// Holds SIGTERM back for the rest of this process, before it has threads. A job that asks to be
/// requeued is ended at once, this command with it, and what asked takes a command that a signal
/// ended for one that failed. SIGKILL still comes when the time to end is over.
fn outlive_the_end() {
    // Nothing is lost where that fails but the exit status.
    SigSet::from(Signal::SIGTERM).thread_block().ok();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Jobs,
    Name,
    State,
}

const KEYS: &[(&str, Key)] = &[
    ("JobId", Key::Jobs),
    ("JobList", Key::Jobs),
    ("Name", Key::Name),
    ("JobName", Key::Name),
    ("State", Key::State),
];

fn request_of(
    verb: v1::JobVerb,
    word: &str,
    words: &[String],
) -> Result<v1::ControlJobsRequest, String> {
    let mut request = v1::ControlJobsRequest {
        request_id: request_id(),
        verb: verb.into(),
        ..v1::ControlJobsRequest::default()
    };
    for text in words {
        let (key, value) = match text.split_once('=') {
            None => (Key::Jobs, text.as_str()),
            Some((key, value)) => {
                let job = is_prefix("JobId", key, 3).then_some(Key::Jobs);
                let key = job.or_else(|| find_name(KEYS, key));
                (key.ok_or_else(|| format!("Invalid job id specified for job {text}"))?, value)
            }
        };
        match key {
            Key::Jobs => request.selectors.extend(selectors(value)?),
            Key::Name => value.clone_into(&mut request.name),
            Key::State => {
                return Err(format!("{PROGRAM}: error: {word} {text} is not built yet"));
            }
        }
    }
    if request.selectors.is_empty() && request.name.is_empty() {
        return Err(format!("too few arguments for keyword:{word}"));
    }
    Ok(request)
}

/// Job ids of a list, checked; the error is the line to print.
pub(super) fn selectors(text: &str) -> Result<Vec<String>, String> {
    let read = |word: &str| match JobSelector::from_str(word) {
        Ok(_) => Ok(word.to_owned()),
        Err(_) => Err(format!("Invalid job id specified for job {word}")),
    };
    split_job_ids(text).into_iter().map(read).collect()
}

/// Prints what was refused; returns the exit status.
fn tell(verb: v1::JobVerb, results: &[v1::JobResult], voice: Voice) -> i32 {
    let results = &in_slurms_words(results);
    let status = if verb == v1::JobVerb::Release {
        tell_unchangeable(results, voice)
    } else {
        tell_refusals(results, voice)
    };
    let holds = [v1::JobVerb::Hold, v1::JobVerb::UserHold, v1::JobVerb::Release];
    if holds.contains(&verb) {
        let refused = results.iter().rev().find_map(|result| result.refusal.as_ref());
        if let Some(refusal) = refused {
            // Slurm has another text for who wants to change what has ended.
            let text = match refusal.kind.as_str() {
                "AlreadyDone" if verb == v1::JobVerb::Release => FINISHED,
                _ => refusal_text(refusal),
            };
            voice.say(&format!("slurm_suspend error: {text}"));
        }
    }
    status
}

/// What does not run waits, since of ended jobs another kind is told.
fn in_slurms_words(results: &[v1::JobResult]) -> Vec<v1::JobResult> {
    let mut results = results.to_vec();
    for refusal in results.iter_mut().filter_map(|result| result.refusal.as_mut()) {
        if refusal.kind == "NotRunning" {
            "Job is pending execution".clone_into(&mut refusal.slurm_text);
        }
    }
    results
}

/// As [`tell_refusals`], for verbs that change what a job is to be: Slurm has another text there
/// for a job that has ended.
pub(super) fn tell_unchangeable(results: &[v1::JobResult], voice: Voice) -> i32 {
    let mut results = results.to_vec();
    for refusal in results.iter_mut().filter_map(|result| result.refusal.as_mut()) {
        if refusal.kind == "AlreadyDone" {
            FINISHED.clone_into(&mut refusal.slurm_text);
        }
    }
    tell_refusals(&results, voice)
}

/// Prints `TEXT for job ID` for every refusal; returns the exit status.
fn tell_refusals(results: &[v1::JobResult], voice: Voice) -> i32 {
    let mut status = 0;
    for result in results {
        let Some(refusal) = &result.refusal else { continue };
        status = FAILED;
        if let Some(detail) = refusal_detail(refusal) {
            voice.say(&format!("{PROGRAM}: error: {detail}"));
        }
        voice.say(&format!("{} for job {}", refusal_text(refusal), result.job));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<(Vec<String>, String), String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let request = request_of(v1::JobVerb::Hold, "hold", &words)?;
        Ok((request.selectors, request.name))
    }

    #[test]
    fn who_asks_for_a_requeue_outlives_sigterm() {
        let thread = std::thread::spawn(|| {
            outlive_the_end();
            nix::sys::signal::raise(Signal::SIGTERM).expect("raised");
        });
        thread.join().expect("still there");
    }

    #[test]
    fn jobs_are_named_by_id_or_name() {
        let table: &[(&[&str], &[&str], &str)] = &[
            (&["12"], &["12"], ""),
            (&["12,13_4", "14"], &["12", "13_4", "14"], ""),
            (&["1_[2,3],4"], &["1_[2,3]", "4"], ""),
            (&["jobid=12"], &["12"], ""),
            (&["Job=12,13"], &["12", "13"], ""),
            (&["Jo=12"], &[], "?"),
            (&["Name=train"], &[], "train"),
            (&["jobname=train"], &[], "train"),
        ];
        for (words, ids, name) in table {
            let result = read(words);
            if *name == "?" {
                assert!(result.is_err(), "{words:?}");
                continue;
            }
            let ids: Vec<String> = ids.iter().map(|&id| id.to_owned()).collect();
            assert_eq!(result, Ok((ids, (*name).to_owned())), "{words:?}");
        }
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let table: &[(&[&str], &str)] = &[
            (&[], "too few arguments for keyword:hold"),
            (&["foo"], "Invalid job id specified for job foo"),
            (&["x=1"], "Invalid job id specified for job x=1"),
            (
                &["State=SpecialExit", "3"],
                "scontrol: error: hold State=SpecialExit is not built yet",
            ),
        ];
        for (words, line) in table {
            assert_eq!(read(words), Err((*line).to_owned()));
        }
    }

    #[test]
    fn one_refusal_fails_the_command() {
        let refused = v1::JobResult {
            job: "9999".into(),
            refusal: Some(v1::Refusal {
                slurm_text: "Invalid job id specified".into(),
                ..v1::Refusal::default()
            }),
        };
        let done = v1::JobResult { job: "1".into(), refusal: None };
        let voice = Voice { quiet: true };
        assert_eq!(tell(v1::JobVerb::Hold, &[done.clone(), refused], voice), 1);
        assert_eq!(tell(v1::JobVerb::Hold, &[done], voice), 0);
    }
}
