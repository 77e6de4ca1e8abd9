//! Which of the jobs does the user mean, asked one by one (`scancel -i`)?

use std::io::{BufRead, Write as _, stdin, stdout};

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;

/// Lists the jobs of `filter` and asks for each; the chosen ones as selectors.
///
/// # Errors
/// When they cannot be listed.
pub(super) fn choose(client: &Client, filter: &v1::JobFilter) -> Result<Vec<String>, RemoteError> {
    let request = v1::ListJobsRequest {
        filter: Some(filter.clone()),
        expand_arrays: true,
        ..v1::ListJobsRequest::default()
    };
    let replies = client.collect(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.list_jobs(request).await }
    })?;
    let jobs = replies.iter().flat_map(|reply| &reply.jobs);
    let questions = jobs.filter_map(|info| Some((job_id(info)?, question(info)?)));
    Ok(ask(questions, &mut stdin().lock(), &mut |text| {
        // Whoever sees no question answers none, and nothing is cancelled.
        stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()).ok();
    }))
}

/// Keeps those that are answered by y; the end of the input answers no to the rest.
fn ask(
    questions: impl Iterator<Item = (String, String)>,
    input: &mut dyn BufRead,
    show: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut chosen = Vec::new();
    for (id, question) in questions {
        show(&question);
        let mut answer = String::new();
        match input.read_line(&mut answer) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if matches!(answer.trim_start().as_bytes().first(), Some(b'y' | b'Y')) {
            chosen.push(id);
        }
    }
    chosen
}

/// The id as users type it.
fn job_id(info: &v1::JobInfo) -> Option<String> {
    let job = info.job.as_ref()?;
    Some(match job.array_task_id {
        Some(task) => format!("{}_{task}", job.array_job_id),
        None => job.id.to_string(),
    })
}

fn question(info: &v1::JobInfo) -> Option<String> {
    let id = job_id(info)?;
    let name = info.job.as_ref()?.spec.as_ref().map_or("", |spec| spec.name.as_str());
    Some(format!("Cancel job_id={id} name={name} partition={} [y/n]? ", info.partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_chooses() {
        let questions = ["1", "2", "3", "4"].map(|id| (id.to_owned(), format!("{id}? ")));
        let mut shown = String::new();
        let mut input = "y\nn\nYes\n".as_bytes();
        let chosen = ask(questions.into_iter(), &mut input, &mut |text| shown.push_str(text));
        assert_eq!(chosen, ["1", "3"]);
        assert_eq!(shown, "1? 2? 3? 4? ");
    }

    #[test]
    fn a_question_names_the_job() {
        let spec = v1::JobSpec { name: "train".into(), ..v1::JobSpec::default() };
        let job = v1::Job {
            id: 9,
            array_job_id: 7,
            array_task_id: Some(2),
            spec: Some(spec),
            ..v1::Job::default()
        };
        let info =
            v1::JobInfo { job: Some(job), partition: "main".into(), ..v1::JobInfo::default() };
        let expect = "Cancel job_id=7_2 name=train partition=main [y/n]? ";
        assert_eq!(question(&info).as_deref(), Some(expect));
    }
}
