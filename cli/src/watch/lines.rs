//! What is said of a change, for people and for programs?

use penstock_proto::v1;
use penstock_vocab::{JobFlags, JobState, display_state};

use crate::listing::{Clock, first_index, push_printable, push_ranges};

/// What of a job makes a change worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    state: &'static str,
    reason: String,
    nodes: String,
    tasks: Option<v1::IndexRuns>,
    attempt: u32,
}

impl Look {
    pub(super) fn of(info: &v1::JobInfo) -> Self {
        let waits = waits(info);
        Self {
            state: state(info),
            reason: if waits { info.reason.clone() } else { String::new() },
            nodes: if waits { String::new() } else { info.nodelist.clone() },
            tasks: info.pending_tasks.clone(),
            attempt: info.job.as_ref().map_or(0, |job| job.last_attempt),
        }
    }
}

fn state(info: &v1::JobInfo) -> &'static str {
    let Some(job) = &info.job else { return "UNKNOWN" };
    let base = JobState::from_code(job.state).unwrap_or(JobState::Pending);
    display_state(base, JobFlags::from_bits(job.flags))
}

/// Whether a job has ended and nothing of it is left.
pub(super) fn is_over(info: &v1::JobInfo) -> bool {
    let job = info.job.as_ref();
    let over = |job: &v1::Job| {
        JobState::from_code(job.state).is_some_and(JobState::is_finished)
            && JobFlags::from_bits(job.flags) == JobFlags::EMPTY
    };
    job.is_some_and(over)
}

fn waits(info: &v1::JobInfo) -> bool {
    info.job.as_ref().is_some_and(|job| job.state == JobState::Pending.code())
}

/// Exit status and signal of the last run.
pub(super) fn exit(info: &v1::JobInfo) -> (u32, u32) {
    let run = info.job.as_ref().and_then(|job| job.run.as_ref());
    run.map_or((0, 0), |run| (run.exit_status, run.exit_signal))
}

/// The id as people type it.
fn id(info: &v1::JobInfo) -> String {
    let Some(job) = &info.job else { return String::new() };
    match (&info.pending_tasks, job.array_task_id) {
        (Some(tasks), _) => {
            let mut text = format!("{}_[", job.id);
            push_ranges(&mut text, tasks);
            text.push(']');
            text
        }
        (None, Some(task)) => format!("{}_{task}", job.array_job_id),
        (None, None) => job.id.to_string(),
    }
}

/// A line for people, without a newline.
pub(super) fn text(info: &v1::JobInfo, at_ms: i64, clock: &Clock) -> String {
    let mut line = String::new();
    clock.push(&mut line, at_ms);
    line.push(' ');
    line.push_str(&id(info));
    line.push(' ');
    let name = info.job.as_ref().and_then(|job| job.spec.as_ref()).map_or("", |spec| &spec.name);
    push_printable(&mut line, name);
    line.push(' ');
    line.push_str(state(info));
    if waits(info) {
        line.push_str(&format!(" ({})", info.reason));
    } else if !info.nodelist.is_empty() {
        line.push_str(&format!(" on {}", info.nodelist));
    }
    if is_over(info) {
        let (status, signal) = exit(info);
        line.push_str(&format!(" exit {status}:{signal}"));
    }
    if !info.reason_detail.is_empty() {
        line.push_str(": ");
        push_printable(&mut line, &info.reason_detail);
    }
    line
}

/// A line for programs: one JSON object, without a newline.
pub(crate) fn json(info: &v1::JobInfo, at_ms: i64) -> String {
    let job = info.job.as_ref();
    let (status, signal) = exit(info);
    let number = |value: Option<u32>| value.map_or_else(|| "null".to_owned(), |v| v.to_string());
    let task = job.and_then(|job| job.array_task_id).or_else(|| {
        info.pending_tasks.as_ref().filter(|tasks| tasks.runs.len() == 3).and_then(first_index)
    });
    let array = job.filter(|job| job.array_job_id != 0).map(|job| job.array_job_id);
    let name = job.and_then(|job| job.spec.as_ref()).map_or("", |spec| spec.name.as_str());
    let parts = [
        ("time_ms", at_ms.to_string()),
        ("id", quoted(&id(info))),
        ("job_id", number(job.map(|job| job.id))),
        ("array_job_id", number(array)),
        ("array_task_id", number(task)),
        ("name", quoted(name)),
        ("user", quoted(&info.user_name)),
        ("partition", quoted(&info.partition)),
        ("state", quoted(state(info))),
        ("over", is_over(info).to_string()),
        ("reason", quoted(&info.reason)),
        ("reason_detail", quoted(&info.reason_detail)),
        ("nodes", quoted(&info.nodelist)),
        ("exit_status", status.to_string()),
        ("exit_signal", signal.to_string()),
    ];
    let fields: Vec<_> = parts.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            letter if letter.is_control() => {
                out.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::new(jiff::tz::TimeZone::UTC, None, 0)
    }

    fn info(state: JobState) -> v1::JobInfo {
        let spec = v1::JobSpec { name: "tr\u{1b}[31m\"ain".into(), ..v1::JobSpec::default() };
        let run = v1::Run { exit_status: 3, ..v1::Run::default() };
        let job = v1::Job {
            id: 12,
            state: state.code(),
            spec: Some(spec),
            run: (state != JobState::Pending).then_some(run),
            ..v1::Job::default()
        };
        v1::JobInfo {
            job: Some(job),
            user_name: "alice".into(),
            partition: "main".into(),
            reason: "Resources".into(),
            nodelist: if state == JobState::Pending { String::new() } else { "n[1-2]".into() },
            ..v1::JobInfo::default()
        }
    }

    #[test]
    fn a_line_says_what_has_become_of_a_job() {
        let mut waits = info(JobState::Pending);
        waits.reason_detail = "needs 4 CPUs".into();
        let check = |info: &v1::JobInfo, expect: &str| {
            let line = text(info, 1_000, &clock());
            assert!(line.starts_with("1970-01-01T00:00:01 12 tr"), "{line}");
            assert!(line.ends_with(expect), "{line}");
            assert!(!line.contains('\u{1b}'), "{line:?}");
        };
        check(&waits, " PENDING (Resources): needs 4 CPUs");
        check(&info(JobState::Running), " RUNNING on n[1-2]");
        check(&info(JobState::Failed), " FAILED on n[1-2] exit 3:0");
        let mut rest = info(JobState::Pending);
        rest.pending_tasks = Some(v1::IndexRuns { runs: vec![1, 3, 1] });
        assert!(text(&rest, 0, &clock()).contains(" 12_[1-3] "));
    }

    #[test]
    fn programs_get_one_object_a_line() {
        let line = json(&info(JobState::Failed), 5);
        assert_eq!(
            line,
            "{\"time_ms\":5,\"id\":\"12\",\"job_id\":12,\"array_job_id\":null,\"array_task_id\":null,\
             \"name\":\"tr\\u001b[31m\\\"ain\",\"user\":\"alice\",\"partition\":\"main\",\
             \"state\":\"FAILED\",\"over\":true,\"reason\":\"Resources\",\"reason_detail\":\"\",\
             \"nodes\":\"n[1-2]\",\"exit_status\":3,\"exit_signal\":0}"
        );
    }

    #[test]
    fn what_nobody_sees_is_no_change() {
        let (mut one, two) = (info(JobState::Running), info(JobState::Running));
        one.priority = 7;
        one.reason = "None".into();
        assert_eq!(Look::of(&one), Look::of(&two));
        assert_ne!(Look::of(&two), Look::of(&info(JobState::Failed)));
        let mut other = info(JobState::Pending);
        other.reason = "Priority".into();
        assert_ne!(Look::of(&other), Look::of(&info(JobState::Pending)));
    }
}
