//! How does the controller's REST write what `squeue`, `sacct` and `sinfo` write with `--json=v0.0.40`?

use jiff::tz::TimeZone;
use penstock_controller::http::{Moment, Shapes};
use penstock_proto::v1;

use crate::json::{Form, Source, nodes, queued_jobs};
use crate::listing::{Clock, JobRow};

/// The writers.
pub(crate) fn shapes() -> Shapes {
    Shapes { queued, accounted, nodes: node_list }
}

fn queued(infos: &[v1::JobInfo], moment: Moment<'_>) -> String {
    let clock = Clock::new(TimeZone::system(), None, moment.now_ms);
    let mut rows = Vec::with_capacity(infos.len());
    for info in infos {
        let mut row = JobRow::live(info, moment.now_ms);
        row.cluster = moment.cluster;
        rows.push(row);
    }
    rows.sort_by_key(|row| (row.array_job_id(), row.task_id().is_none(), row.task_id()));
    Form::NEWER.answer(Source::Controller, "jobs", queued_jobs(rows, &clock))
}

fn accounted(infos: Vec<v1::JobInfo>, moment: Moment<'_>) -> String {
    let clock = Clock::new(TimeZone::system(), None, moment.now_ms);
    crate::sacct::whole_form(infos, moment.cluster, &clock)
}

fn node_list(infos: &[v1::NodeInfo]) -> String {
    Form::NEWER.answer(Source::Controller, "nodes", nodes(infos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_the_commands() {
        let job = v1::JobInfo {
            job: Some(v1::Job {
                id: 7,
                spec: Some(v1::JobSpec { name: "<b>".into(), ..v1::JobSpec::default() }),
                ..v1::Job::default()
            }),
            ..v1::JobInfo::default()
        };
        let moment = Moment { cluster: "c", now_ms: 1_000 };
        let queue = queued(std::slice::from_ref(&job), moment);
        assert!(queue.starts_with("{\n  \"jobs\": [\n") && queue.contains("\"job_id\": 7"));
        let past = accounted(vec![job], moment);
        assert!(past.starts_with("{\n  \"jobs\": [\n") && past.contains("\"cluster\": \"c\""));
        assert!(node_list(&[]).starts_with("{\n  \"nodes\": [\n"));
    }
}
