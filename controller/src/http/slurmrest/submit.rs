//! `/slurm/v0.0.40/job/submit`: what does a client of slurmrestd say that submits a job?
//!
//! Its `job` (or the first of its `jobs`) becomes ours, key by key. A key that asks for something we do not
//! have is refused by name, unless its value asks for nothing.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use penstock_proto::v1::penstock_server::Penstock as _;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Failure, whole};
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::rest::answer::{Body, Key};
use crate::http::rest::changes::JobChange;
use crate::http::rest::submit::{Environment, NumberOrText, SubmitAsk};
use crate::http::web::{Web, aside, asked};

/// A value that may be a number, a text, or Slurm's `{set, infinite, number}`; none: nothing is asked for.
fn plain(key: &str, value: &Value) -> Result<Option<NumberOrText>, Problem> {
    let wrong = || Problem::bad(format!("{key} is {value}, which is neither number nor text"));
    Ok(match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(NumberOrText::Text(text.clone())),
        Value::Number(number) => Some(NumberOrText::Number(number.as_u64().ok_or_else(wrong)?)),
        Value::Object(map) => {
            let is = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
            match (is("set"), is("infinite")) {
                (_, true) => Some(NumberOrText::Text("UNLIMITED".to_owned())),
                (true, _) => {
                    let number = map.get("number").and_then(Value::as_u64).ok_or_else(wrong)?;
                    Some(NumberOrText::Number(number))
                }
                (false, false) => None,
            }
        }
        Value::Bool(_) | Value::Array(_) => return Err(wrong()),
    })
}

fn text(key: &str, value: &Value) -> Result<String, Problem> {
    match value {
        // A list of names, as some keys have them.
        Value::Array(list) => {
            let names: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
            let wrong = || Problem::bad(format!("{key} is {value}, and a list of texts is wanted"));
            Ok(names.ok_or_else(wrong)?.join(","))
        }
        value => Ok(plain(key, value)?.map(|value| value.text()).unwrap_or_default()),
    }
}

fn small(key: &str, value: &Value) -> Result<Option<u32>, Problem> {
    let Some(value) = plain(key, value)? else { return Ok(None) };
    let text = value.text();
    let wrong = || Problem::bad(format!("{key} is {text:?}, and a whole number is wanted"));
    text.parse().map(Some).map_err(|_| wrong())
}

fn millis(key: &str, value: &Value) -> Result<i64, Problem> {
    let Some(value) = plain(key, value)? else { return Ok(0) };
    let secs = value.text().parse::<i64>().ok().and_then(|secs| secs.checked_mul(1_000));
    secs.ok_or_else(|| Problem::bad(format!("{key} is {:?}, and seconds are wanted", value.text())))
}

fn signed(key: &str, value: &Value) -> Result<i32, Problem> {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| Problem::bad(format!("{key} is {value}, and a whole number is wanted")))
}

fn flag(key: &str, value: &Value) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| Problem::bad(format!("{key} is {value}, not true or false")))
}

/// `gres/gpu:h100:2` without its first part, as `gres` has it.
fn tres(value: &str) -> String {
    let part = |part: &str| part.strip_prefix("gres/").unwrap_or(part).replace('=', ":");
    value.split(',').map(part).collect::<Vec<_>>().join(",")
}

/// Whether a value asks for nothing, so that it may stand under any key.
fn asks_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Object(map) => {
            let is = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
            map.is_empty() || (map.contains_key("set") && !is("set") && !is("infinite"))
        }
        Value::Bool(true) => false,
    }
}

/// Puts one key of a job into ours.
fn put(
    ask: &mut SubmitAsk,
    nodes: &mut [Option<u32>; 2],
    key: &str,
    value: &Value,
) -> Result<(), Problem> {
    let job = &mut ask.job;
    match key {
        "script" => ask.script = text(key, value)?,
        "name" => job.name = text(key, value)?,
        "account" => job.account = text(key, value)?,
        "qos" => job.qos = text(key, value)?,
        "partition" => job.partition = text(key, value)?,
        "current_working_directory" => job.work_dir = text(key, value)?,
        "standard_input" => job.stdin = text(key, value)?,
        "standard_output" => job.stdout = text(key, value)?,
        "standard_error" => job.stderr = text(key, value)?,
        "comment" => job.comment = text(key, value)?,
        "dependency" => job.dependency = text(key, value)?,
        "array" => job.array = text(key, value)?,
        "constraints" => job.constraint = text(key, value)?,
        "required_nodes" => job.nodelist = text(key, value)?,
        "excluded_nodes" => job.exclude = text(key, value)?,
        "reservation" => job.reservation = text(key, value)?,
        "licenses" => job.licenses = text(key, value)?,
        "mail_type" => job.mail_type = text(key, value)?,
        "mail_user" => job.mail_user = text(key, value)?,
        "tres_per_node" => job.gres = tres(&text(key, value)?),
        "tres_per_job" => {
            let gpus = tres(&text(key, value)?);
            let gpus = gpus.strip_prefix("gpu:").unwrap_or(&gpus).to_owned();
            job.gpus = Some(NumberOrText::Text(gpus)).filter(|gpus| !gpus.text().is_empty());
        }
        "tasks" => job.ntasks = small(key, value)?,
        "cpus_per_task" => job.cpus_per_task = small(key, value)?,
        "tasks_per_node" => job.ntasks_per_node = small(key, value)?,
        "minimum_nodes" => nodes[0] = small(key, value)?,
        "maximum_nodes" => nodes[1] = small(key, value)?,
        "nodes" => job.nodes = plain(key, value)?,
        "memory_per_node" => job.memory = plain(key, value)?,
        "memory_per_cpu" => job.memory_per_cpu = plain(key, value)?,
        "time_limit" => job.time_limit = plain(key, value)?,
        "time_minimum" => job.time_min = plain(key, value)?,
        "begin_time" => job.begin_ms = millis(key, value)?,
        "deadline" => job.deadline_ms = millis(key, value)?,
        "nice" => job.nice = signed(key, value)?,
        "hold" => job.hold = flag(key, value)?,
        "requeue" => job.requeue = Some(flag(key, value)?),
        "argv" => {
            let list: Option<Vec<String>> = serde_json::from_value(value.clone()).ok();
            ask.arguments = list.ok_or_else(|| Problem::bad("argv is no list of texts"))?;
        }
        "environment" => {
            let read: Option<Environment> = serde_json::from_value(value.clone()).ok();
            ask.environment =
                read.ok_or_else(|| Problem::bad("environment is no list of NAME=VALUE"))?;
        }
        "exclusive" => job.exclusive = exclusive(value)?,
        // Everybody submits for itself.
        "user_id" | "group_id" => {}
        _ if asks_nothing(value) => {}
        _ => {
            let text = format!("{key} can't be honoured; leave it out, or see docs/rest.md");
            return Err(Problem::bad(text));
        }
    }
    Ok(())
}

fn exclusive(value: &Value) -> Result<bool, Problem> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        value => match text("exclusive", value)?.as_str() {
            "" | "false" => Ok(false),
            "true" | "exclusive" => Ok(true),
            other => Err(Problem::bad(format!("exclusive {other:?} can't be honoured"))),
        },
    }
}

/// The job that a body means.
fn ask_of(body: &Value) -> Result<SubmitAsk, Problem> {
    let none = Map::new();
    let jobs = body.get("jobs").and_then(Value::as_array);
    if jobs.is_some_and(|jobs| jobs.len() > 1) {
        return Err(Problem::bad("a job of several parts can't be submitted; send one job"));
    }
    let job = body.get("job").or_else(|| jobs.and_then(|jobs| jobs.first()));
    let job = match job {
        None => &none,
        Some(Value::Object(job)) => job,
        Some(_) => return Err(Problem::bad("job is no object")),
    };
    let mut ask = SubmitAsk::default();
    let mut nodes = [None; 2];
    for (key, value) in job {
        put(&mut ask, &mut nodes, key, value)?;
    }
    if let Some(script) = body.get("script") {
        ask.script = text("script", script)?;
    }
    if ask.script.is_empty() {
        return Err(Problem::bad("there is no script"));
    }
    if let [least @ Some(_), most] | [least, most @ Some(_)] = nodes {
        let least = least.unwrap_or(1);
        let most = most.unwrap_or(least);
        ask.job.nodes = Some(NumberOrText::Text(format!("{least}-{most}")));
    }
    Ok(ask)
}

/// The change that the body of an update means: the same keys, those that can change.
pub(super) fn change_of(body: &Value) -> Result<JobChange, Problem> {
    let Value::Object(job) = body.get("job").unwrap_or(body) else {
        return Err(Problem::bad("the body is no job"));
    };
    let mut change = JobChange::default();
    for (key, value) in job {
        let texts = || text(key, value).map(Some);
        match key.as_str() {
            "time_limit" => change.time_limit = plain(key, value)?,
            "partition" => change.partition = texts()?,
            "qos" => change.qos = texts()?,
            "account" => change.account = texts()?,
            "name" => change.name = texts()?,
            "comment" => change.comment = texts()?,
            "dependency" => change.dependency = texts()?,
            "constraints" => change.constraint = texts()?,
            "required_nodes" => change.nodelist = texts()?,
            "excluded_nodes" => change.exclude = texts()?,
            "reservation" => change.reservation = texts()?,
            "tres_per_node" => change.gres = Some(tres(&text(key, value)?)),
            "tasks" => change.ntasks = small(key, value)?,
            "cpus_per_task" => change.cpus_per_task = small(key, value)?,
            "priority" => change.priority = small(key, value)?,
            "begin_time" => change.begin_ms = Some(millis(key, value)?),
            "nice" => change.nice = Some(signed(key, value)?),
            "requeue" => change.requeue = Some(flag(key, value)?),
            _ if asks_nothing(value) => {}
            _ => return Err(Problem::bad(format!("{key} of a job can't be changed here"))),
        }
    }
    Ok(change)
}

pub(super) async fn submit(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Key(request_id): Key,
    Body(body): Body<Value>,
) -> Answer {
    let by = who.clone();
    let request = aside(move || ask_of(&body)?.request(&by, request_id)).await??;
    let reply = web.service.submit_job(asked(&who, request)).await.map_err(Failure::from)?;
    let reply = reply.into_inner();
    let message = reply.warnings.join("\n");
    Ok(whole(json!({
        "result": {
            "job_id": reply.job_id,
            "step_id": "batch",
            "error_code": 0,
            "error": "",
            "job_submit_user_msg": message,
        },
        "job_id": reply.job_id,
        "step_id": "batch",
        "job_submit_user_msg": message,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_a_generated_client_is_read() {
        let body = json!({
            "script": "#!/bin/sh\ntrue\n",
            "job": {
                "name": "x", "partition": "main", "current_working_directory": "/tmp",
                "environment": ["PATH=/bin"], "tasks": 2, "minimum_nodes": 1, "maximum_nodes": 2,
                "memory_per_node": {"set": true, "number": 512, "infinite": false},
                "time_limit": {"set": true, "number": 5}, "tres_per_node": "gres/gpu:h100:2",
                "deadline": 0, "cpu_binding": "", "flags": [], "nice": -5,
                "priority": {"set": false, "number": 0, "infinite": false},
            },
        });
        let ask = ask_of(&body).unwrap();
        assert_eq!(ask.job.gres, "gpu:h100:2");
        assert_eq!(ask.job.nodes, Some(NumberOrText::Text("1-2".into())));
        assert_eq!(ask.job.memory, Some(NumberOrText::Number(512)));
        assert_eq!((ask.job.ntasks, ask.job.nice), (Some(2), -5));
        let many = json!({"jobs": [{"script": "#!/bin/sh", "name": "y"}]});
        assert_eq!(ask_of(&many).unwrap().job.name, "y");
    }

    #[test]
    fn what_we_lack_is_refused_by_name() {
        let table = [
            (json!({"job": {}}), "script"),
            (json!({"script": "#!", "job": {"burst_buffer": "x"}}), "burst_buffer"),
            (json!({"script": "#!", "job": {"tasks": "two"}}), "tasks"),
            (json!({"script": "#!", "job": {"hold": 1}}), "hold"),
            (json!({"script": "#!", "job": []}), "no object"),
            (json!({"jobs": [{}, {}]}), "several"),
        ];
        for (body, expect) in table {
            let problem = ask_of(&body).unwrap_err();
            assert!(problem.detail().contains(expect), "{body}: {}", problem.detail());
        }
        assert!(change_of(&json!({"stdin": "x"})).unwrap_err().detail().contains("stdin"));
        let change = change_of(&json!({"time_limit": {"set": true, "number": 9}})).unwrap();
        assert_eq!(change.time_limit, Some(NumberOrText::Number(9)));
    }
}
