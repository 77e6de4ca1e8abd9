//! `scontrol drain` and `undrain`: when is a node, or one of its GPUs, empty, and what is in the way?
//!
//! With `--plan` nothing is changed: the controller says what would become of the jobs there. Without,
//! it is drained; with a deadline, what still runs then is requeued or cancelled.

use penstock_proto::v1;

use crate::connect::{Client, Patience, request_id};
use crate::errors::RemoteError;
use crate::explain::{TimeWords, aligned};
use crate::listing::{Clock, push_printable};
use crate::output::write_bytes;
use crate::scontrol::{FAILED, PROGRAM, Voice};
use crate::when::{Looking, parse_when};

/// What was said beside the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Only tell.
    pub(super) plan: bool,
    /// These GPUs alone, as typed.
    pub(super) gpus: Option<String>,
    /// As typed.
    pub(super) deadline: Option<String>,
    /// The plan as JSON.
    pub(super) json: bool,
}

/// `drain NODES [Reason=TEXT]`.
pub(super) fn drain(words: &[String], options: &Options, voice: Voice) -> i32 {
    if options.json && !options.plan {
        voice.say(&format!("{PROGRAM}: error: --json goes with drain --plan"));
        return FAILED;
    }
    let request = match read(words, options) {
        Ok(request) => request,
        Err(why) => {
            voice.say(&format!("{PROGRAM}: error: {why}"));
            return FAILED;
        }
    };
    if options.plan {
        return match ask(&request) {
            Ok(reply) if options.json => {
                write_bytes(json(&reply).as_bytes());
                0
            }
            Ok(reply) => {
                let clock = Clock::from_env(reply.now_ms);
                write_bytes(text(&reply, request.deadline_ms, &clock).as_bytes());
                0
            }
            Err(failure) => {
                voice.report("slurm_update error", &failure);
                FAILED
            }
        };
    }
    if request.reason.trim().is_empty() {
        voice.say("You must specify a reason when DOWNING or DRAINING a node. Request denied");
        return FAILED;
    }
    change(request, voice)
}

/// `undrain NODES`.
pub(super) fn undrain(words: &[String], options: &Options, voice: Voice) -> i32 {
    match read(words, options) {
        Ok(mut request) => {
            request.set_action(v1::NodeAction::Undrain);
            change(request, voice)
        }
        Err(why) => {
            voice.say(&format!("{PROGRAM}: error: {why}"));
            FAILED
        }
    }
}

fn read(words: &[String], options: &Options) -> Result<v1::UpdateNodeRequest, String> {
    let mut request = v1::UpdateNodeRequest {
        request_id: request_id(),
        action: v1::NodeAction::Drain.into(),
        ..v1::UpdateNodeRequest::default()
    };
    for word in words {
        match word.split_once('=') {
            Some((key, value)) if key.eq_ignore_ascii_case("reason") => {
                value.trim_matches(['"', '\'']).clone_into(&mut request.reason);
            }
            None if request.nodes.is_empty() => request.nodes.clone_from(word),
            _ => return Err(format!("{word} is not understood; give NODES and reason=TEXT")),
        }
    }
    if request.nodes.is_empty() {
        return Err("no node is named; give a host list, as in scontrol drain n[1-3]".to_owned());
    }
    if let Some(gpus) = &options.gpus {
        request.gres = format!("gpu:{}", gpus.trim_start_matches("gpu:"));
    }
    if let Some(deadline) = &options.deadline {
        let at = parse_when(deadline, &jiff::ZonedDateTime::now(), Looking::Ahead);
        request.deadline_ms = at.map_err(|error| error.to_string())?.as_millisecond();
    }
    Ok(request)
}

fn change(request: v1::UpdateNodeRequest, voice: Voice) -> i32 {
    let reply = Client::open().and_then(|client| {
        client.call(Patience::CHANGE, |mut rpc| {
            let request = request.clone();
            async move { rpc.update_node(request).await }
        })
    });
    match reply {
        Ok(_) => 0,
        Err(failure) => {
            voice.report("slurm_update error", &failure);
            FAILED
        }
    }
}

fn ask(request: &v1::UpdateNodeRequest) -> Result<v1::PlanDrainReply, RemoteError> {
    let request = v1::PlanDrainRequest {
        nodes: request.nodes.clone(),
        gres: request.gres.clone(),
        deadline_ms: request.deadline_ms,
    };
    Client::open()?.planning(Patience::READ, |mut rpc| {
        let request = request.clone();
        async move { rpc.plan_drain(request).await }
    })
}

/// For people.
fn text(reply: &v1::PlanDrainReply, deadline_ms: i64, clock: &Clock) -> String {
    let words = TimeWords { clock };
    let mut out = String::new();
    for place in &reply.places {
        let name = place.gpu.map_or_else(
            || format!("node {}", place.node),
            |gpu| format!("GPU {gpu} of {}", place.node),
        );
        let when = match (place.jobs.is_empty(), place.empty_ms) {
            (true, _) => "is empty: it would be drained at once".to_owned(),
            (false, 0) => "nobody knows when it is empty: a job there has no time limit".to_owned(),
            (false, at) => format!("is empty by {}{}", words.time(at), words.until(at)),
        };
        push_printable(&mut out, &format!("{name}: {when}"));
        out.push('\n');
        if !place.jobs.is_empty() {
            let head = ["JOB", "USER", "PARTITION", "ENDS BY", "REQUEUE", "WOULD START AGAIN", ""];
            let mut table = vec![head.map(str::to_owned)];
            table.extend(place.jobs.iter().map(|job| line(job, deadline_ms, &words)));
            out.push_str(&aligned(&table));
        }
    }
    if let Some(waiting) = reply.waiting.as_ref().filter(|waiting| !waiting.rows.is_empty()) {
        out.push_str("Jobs that wait and would start at another time:\n");
        let head = ["JOB", "USER", "BEFORE", "AFTER", "SHIFT"];
        let mut table = vec![head.map(str::to_owned)];
        table.extend(waiting.rows.iter().map(|row| {
            let shift = TimeWords::shift(row.before_ms, row.after_ms);
            let (before, after) = (words.time(row.before_ms), words.time(row.after_ms));
            [row.job.clone(), row.user.clone(), before, after, shift]
        }));
        out.push_str(&aligned(&table));
    }
    out
}

fn line(job: &v1::DrainJob, deadline_ms: i64, words: &TimeWords<'_>) -> [String; 7] {
    let ends = if job.end_ms == 0 { "no limit".to_owned() } else { words.time(job.end_ms) };
    let again = if job.may_requeue { words.time(job.again_ms) } else { "-".to_owned() };
    let note = match (deadline_ms, job.too_long, job.may_requeue) {
        (0, ..) => "",
        (_, false, _) => "ends before the deadline",
        (_, true, true) => "requeued at the deadline",
        (_, true, false) => "cancelled at the deadline",
    };
    let requeue = if job.may_requeue { "yes" } else { "no" };
    [
        job.job.clone(),
        job.user.clone(),
        job.partition.clone(),
        ends,
        requeue.to_owned(),
        again,
        note.to_owned(),
    ]
}

/// For programs; times in seconds since 1970, null where nobody knows.
fn json(reply: &v1::PlanDrainReply) -> String {
    let time = |ms: i64| if ms == 0 { "null".to_owned() } else { (ms / 1_000).to_string() };
    let job = |job: &v1::DrainJob| {
        format!(
            "{{\"job\":{},\"user\":{},\"partition\":{},\"ends_by\":{},\"may_requeue\":{},\
             \"would_start_again\":{},\"beyond_deadline\":{}}}",
            quoted(&job.job),
            quoted(&job.user),
            quoted(&job.partition),
            time(job.end_ms),
            job.may_requeue,
            time(job.again_ms),
            job.too_long
        )
    };
    let place = |place: &v1::DrainPlace| {
        let jobs: Vec<String> = place.jobs.iter().map(job).collect();
        format!(
            "{{\"node\":{},\"gpu\":{},\"empty_by\":{},\"jobs\":[{}]}}",
            quoted(&place.node),
            place.gpu.map_or_else(|| "null".to_owned(), |gpu| gpu.to_string()),
            if place.jobs.is_empty() { time(reply.now_ms) } else { time(place.empty_ms) },
            jobs.join(",")
        )
    };
    let rows = reply.waiting.iter().flat_map(|waiting| &waiting.rows).map(|row| {
        format!(
            "{{\"job\":{},\"user\":{},\"before\":{},\"after\":{}}}",
            quoted(&row.job),
            quoted(&row.user),
            time(row.before_ms),
            time(row.after_ms)
        )
    });
    let rows: Vec<String> = rows.collect();
    let places: Vec<String> = reply.places.iter().map(place).collect();
    format!(
        "{{\"now\":{},\"places\":[{}],\"waiting\":[{}]}}\n",
        time(reply.now_ms),
        places.join(","),
        rows.join(",")
    )
}

/// A text as JSON has it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if u32::from(letter) < 0x20 => {
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

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_drain_is_read() {
        let options = Options { gpus: Some("3,5".to_owned()), ..Options::default() };
        let request = read(&words("n[1-2] reason=fan"), &options).unwrap();
        assert_eq!((request.nodes.as_str(), request.reason.as_str()), ("n[1-2]", "fan"));
        assert_eq!((request.gres.as_str(), request.deadline_ms), ("gpu:3,5", 0));
        for (line, expect) in [
            ("reason=x", "no node is named"),
            ("n1 state=down", "state=down is not understood"),
            ("n1 n2", "n2 is not understood"),
        ] {
            assert!(read(&words(line), &options).unwrap_err().starts_with(expect), "{line}");
        }
        let late = Options { deadline: Some("whenever".to_owned()), ..Options::default() };
        assert!(read(&words("n1"), &late).unwrap_err().contains("Invalid time specification"));
    }

    fn reply() -> v1::PlanDrainReply {
        let job = |job: &str, end_ms, may_requeue| v1::DrainJob {
            job: job.to_owned(),
            user: "ada".to_owned(),
            partition: "main".to_owned(),
            end_ms,
            may_requeue,
            again_ms: if may_requeue { 70_000 } else { 0 },
            too_long: true,
        };
        v1::PlanDrainReply {
            places: vec![v1::DrainPlace {
                node: "n1".to_owned(),
                gpu: Some(3),
                empty_ms: 90_000,
                jobs: vec![job("7", 90_000, true), job("8", 0, false)],
            }],
            waiting: None,
            now_ms: 10_000,
        }
    }

    #[test]
    fn people_and_programs_are_told_the_same() {
        let told = text(&reply(), 5_000, &Clock::new(jiff::tz::TimeZone::UTC, None, 10_000));
        assert!(
            told.starts_with("GPU 3 of n1: is empty by 1970-01-01T00:01:30 (in 1:20)\n"),
            "{told}"
        );
        assert!(told.contains("requeued at the deadline") && told.contains("no limit"), "{told}");
        assert_eq!(
            json(&reply()),
            "{\"now\":10,\"places\":[{\"node\":\"n1\",\"gpu\":3,\"empty_by\":90,\"jobs\":[\
             {\"job\":\"7\",\"user\":\"ada\",\"partition\":\"main\",\"ends_by\":90,\
             \"may_requeue\":true,\"would_start_again\":70,\"beyond_deadline\":true},\
             {\"job\":\"8\",\"user\":\"ada\",\"partition\":\"main\",\"ends_by\":null,\
             \"may_requeue\":false,\"would_start_again\":null,\"beyond_deadline\":true}]}],\
             \"waiting\":[]}\n"
        );
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
