//! What does a program say that submits a job, and which job is that?
//!
//! The words are sbatch's, the values are read by the same parsers. What is not known is refused by name.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;

use penstock_proto::v1;
use penstock_vocab::{GresRequest, expand_unique, parse_gpus, parse_gres_list, parse_memory};
use penstock_vocab::{Signal, SignalSpec, parse_walltime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uzers::os::unix::UserExt as _;

use crate::http::auth::Who;
use crate::http::problem::Problem;

/// File mode mask of a job that states none.
const UMASK: u32 = 0o022;
/// `PATH` of a job that states none.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A number, or the text of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum NumberOrText {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

impl NumberOrText {
    pub(in crate::http) fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// The variables of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Environment {
    /// `NAME=VALUE` each.
    List(Vec<String>),
    /// Values by their names.
    Map(BTreeMap<String, String>),
}

impl Default for Environment {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

/// A job as it is asked for; the words are those of sbatch's options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JobAsk {
    /// Name.
    pub name: String,
    /// Account; empty: the user's default.
    pub account: String,
    /// QOS; empty: the default.
    pub qos: String,
    /// Partitions in order of preference, by commas.
    pub partition: String,
    /// Nodes: `2` or `2-4`.
    pub nodes: Option<NumberOrText>,
    /// Tasks.
    pub ntasks: Option<u32>,
    /// CPUs of each task.
    pub cpus_per_task: Option<u32>,
    /// Tasks on each node.
    pub ntasks_per_node: Option<u32>,
    /// Memory on each node: MiB, or with a unit: `4G`.
    #[schema(example = "4G")]
    pub memory: Option<NumberOrText>,
    /// Memory for each CPU, likewise.
    pub memory_per_cpu: Option<NumberOrText>,
    /// GPUs over the whole job: `4`, `h100:4`.
    #[schema(example = "h100:2")]
    pub gpus: Option<NumberOrText>,
    /// GPUs on each node.
    pub gpus_per_node: Option<NumberOrText>,
    /// Other resources on each node: `gpu:h100:2,shard:4`.
    pub gres: String,
    /// Time limit: minutes, or `1:30:00`, `2-00:00:00`.
    #[schema(example = "1:30:00")]
    pub time_limit: Option<NumberOrText>,
    /// The limit may be cut down to this.
    pub time_min: Option<NumberOrText>,
    /// Not before this time, milliseconds since the epoch.
    pub begin_ms: i64,
    /// To be ended by then, milliseconds since the epoch.
    pub deadline_ms: i64,
    /// Submitted held.
    pub hold: bool,
    /// May be started again; null: as the cluster says.
    pub requeue: Option<bool>,
    /// Nice.
    pub nice: i32,
    /// Comment.
    pub comment: String,
    /// `afterok:12:13`.
    pub dependency: String,
    /// `0-15:4%2`.
    pub array: String,
    /// Features: `a100&nvlink`.
    pub constraint: String,
    /// Nodes that it must have, a hostlist.
    pub nodelist: String,
    /// Nodes that it must not have, a hostlist.
    pub exclude: String,
    /// Nodes for it alone.
    pub exclusive: bool,
    /// Reservation.
    pub reservation: String,
    /// `matlab:2`, by commas.
    pub licenses: String,
    /// Signal before the time limit: `B:USR1@60`.
    pub signal: String,
    /// Why it may hold idle GPUs.
    pub idle_ok: String,
    /// Working directory; empty: the home of the user.
    pub work_dir: String,
    /// File of standard input.
    pub stdin: String,
    /// File of standard output; empty: `slurm-%j.out` in the working directory.
    pub stdout: String,
    /// File of standard error; empty: where standard output goes.
    pub stderr: String,
    /// Output files are appended to.
    pub append: bool,
    /// Events of which mail is sent: `BEGIN,END`.
    pub mail_type: String,
    /// Where mail goes.
    pub mail_user: String,
}

/// A job with its script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubmitAsk {
    /// The script, whose first line begins with `#!`. `#SBATCH` lines are not read: say it in `job`.
    #[schema(example = "#!/bin/sh\nhostname\n")]
    pub script: String,
    /// Arguments of the script.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Variables; `PATH`, `HOME`, `USER`, `LOGNAME` and `SHELL` are there in any case.
    #[serde(default)]
    pub environment: Environment,
    /// What it needs.
    #[serde(default)]
    pub job: JobAsk,
}

fn bad(what: &str, error: impl std::fmt::Display) -> Problem {
    Problem::bad(format!("{what}: {error}"))
}

/// One GPU request of one kind.
fn one_kind(what: &str, value: &NumberOrText) -> Result<v1::GresCount, Problem> {
    let list = parse_gpus(&value.text()).map_err(|error| bad(what, error))?;
    match &list[..] {
        [one] => Ok(gres_count(one)),
        _ => Err(bad(what, "give one kind of GPU")),
    }
}

fn gres_count(request: &GresRequest) -> v1::GresCount {
    v1::GresCount {
        name: request.name.name().to_owned(),
        r#type: request.name.kind().unwrap_or_default().to_owned(),
        count: request.count,
    }
}

fn mib(what: &str, value: Option<&NumberOrText>) -> Result<Option<u64>, Problem> {
    let read = |value: &NumberOrText| parse_memory(&value.text()).map(|size| size.0);
    value.map(read).transpose().map_err(|error| bad(what, error))
}

/// Whole minutes, seconds rounded up, as Slurm keeps limits; 0: none.
pub(in crate::http) fn limit_secs(what: &str, value: &NumberOrText) -> Result<u64, Problem> {
    let limit = parse_walltime(&value.text()).map_err(|error| bad(what, error))?;
    Ok(limit.rounded_up().as_secs().unwrap_or(0))
}

fn node_range(value: Option<&NumberOrText>) -> Result<(u32, u32), Problem> {
    let Some(value) = value else { return Ok((0, 0)) };
    let text = value.text();
    let (least, most) = text.split_once('-').unwrap_or((&text, &text));
    match (least.trim().parse::<u32>(), most.trim().parse::<u32>()) {
        (Ok(least), Ok(most)) if least > 0 && most >= least => Ok((least, most)),
        _ => Err(bad("nodes", format!("{text:?} is no number of nodes; write 2 or 2-4"))),
    }
}

fn host_list(what: &str, text: &str) -> Result<Vec<String>, Problem> {
    if text.is_empty() { Ok(Vec::new()) } else { expand_unique(text).map_err(|e| bad(what, e)) }
}

fn licenses(text: &str) -> Result<Vec<v1::LicenseCount>, Problem> {
    let entries = text.split([',', ';']).map(str::trim).filter(|entry| !entry.is_empty());
    let read = |entry: &str| {
        let (name, count) = entry.rsplit_once(':').unwrap_or((entry, "1"));
        let count = count.parse().ok().filter(|count| *count > 0);
        count
            .map(|count| v1::LicenseCount { name: name.to_owned(), count })
            .ok_or_else(|| bad("licenses", format!("{entry:?} is not of the form NAME:COUNT")))
    };
    entries.map(read).collect()
}

fn signal(text: &str) -> Result<Option<v1::SignalRequest>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let spec: SignalSpec = text.parse().map_err(|error| bad("signal", error))?;
    let number: Signal = spec.signal;
    Ok(Some(v1::SignalRequest {
        signal: number.number().into(),
        seconds_before: spec.lead_secs.into(),
        batch_only: spec.batch_only,
    }))
}

/// The user as this host knows it: home and shell.
fn account(uid: u32) -> (String, String) {
    let user = uzers::get_user_by_uid(uid);
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    user.map_or_else(
        || ("/".to_owned(), "/bin/sh".to_owned()),
        |user| (text(user.home_dir()), text(user.shell())),
    )
}

impl JobAsk {
    /// The job that is meant. May look a user up.
    pub(in crate::http) fn spec(&self, who: &Who) -> Result<v1::JobSpec, Problem> {
        let (nodes_min, nodes_max) = node_range(self.nodes.as_ref())?;
        let mut gres_per_node: Vec<v1::GresCount> = parse_gres_list(&self.gres)
            .map_err(|error| bad("gres", error))?
            .iter()
            .map(gres_count)
            .collect();
        if let Some(gpus) = &self.gpus_per_node {
            gres_per_node.push(one_kind("gpus_per_node", gpus)?);
        }
        let gpus = self.gpus.as_ref().map(|gpus| one_kind("gpus", gpus)).transpose()?;
        let limit = self.time_limit.as_ref().map(|limit| limit_secs("time_limit", limit));
        let least = self.time_min.as_ref().map(|limit| limit_secs("time_min", limit));
        if !self.work_dir.is_empty() && !self.work_dir.starts_with('/') {
            return Err(bad("work_dir", format!("{:?} is no absolute path", self.work_dir)));
        }
        let partitions = self.partition.split(',').filter(|name| !name.is_empty());
        Ok(v1::JobSpec {
            name: self.name.clone(),
            account: self.account.clone(),
            qos: self.qos.clone(),
            partitions: partitions.map(str::to_owned).collect(),
            nodes_min,
            nodes_max,
            ntasks: self.ntasks,
            cpus_per_task: self.cpus_per_task,
            ntasks_per_node: self.ntasks_per_node,
            mem_per_node_mib: mib("memory", self.memory.as_ref())?,
            mem_per_cpu_mib: mib("memory_per_cpu", self.memory_per_cpu.as_ref())?,
            gres_per_node,
            gpus_total: gpus,
            constraint: self.constraint.clone(),
            required_nodes: host_list("nodelist", &self.nodelist)?,
            excluded_nodes: host_list("exclude", &self.exclude)?,
            exclusive: self.exclusive,
            time_limit_secs: limit.transpose()?,
            min_time_secs: least.transpose()?.filter(|secs| *secs > 0),
            begin_time_ms: self.begin_ms,
            deadline_ms: self.deadline_ms,
            hold: self.hold,
            requeue: self.requeue,
            nice: self.nice,
            comment: self.comment.clone(),
            dependency: self.dependency.clone(),
            array: self.array.clone(),
            signal: signal(&self.signal)?,
            reservation: self.reservation.clone(),
            licenses: licenses(&self.licenses)?,
            idle_ok: self.idle_ok.clone(),
            work_dir: self.work_dir.clone(),
            stdin: self.stdin.clone(),
            stdout: self.stdout.clone(),
            stderr: self.stderr.clone(),
            open_mode: match self.append {
                true => v1::OpenMode::Append.into(),
                false => v1::OpenMode::Unspecified.into(),
            },
            umask: UMASK,
            mail_type: self.mail_type.clone(),
            mail_user: self.mail_user.clone(),
            user_name: who.user.to_string(),
            export: "NONE".to_owned(),
            ..v1::JobSpec::default()
        })
    }
}

impl SubmitAsk {
    /// The call that submits it. May look a user up.
    pub(in crate::http) fn request(
        self,
        who: &Who,
        request_id: bytes::Bytes,
    ) -> Result<v1::SubmitJobRequest, Problem> {
        let mut spec = self.job.spec(who)?;
        let (home, shell) = account(who.caller.uid);
        if spec.work_dir.is_empty() {
            spec.work_dir.clone_from(&home);
        }
        if spec.name.is_empty() {
            "job".clone_into(&mut spec.name);
        }
        spec.script_arguments = self.arguments;
        let fixed = [
            ("PATH", PATH),
            ("HOME", &home),
            ("SHELL", &shell),
            ("USER", &who.user),
            ("LOGNAME", &who.user),
            ("SLURM_SUBMIT_DIR", &spec.work_dir),
        ];
        let mut variables: BTreeMap<String, String> =
            fixed.map(|(k, v)| (k.into(), v.into())).into();
        match self.environment {
            Environment::Map(map) => variables.extend(map),
            Environment::List(list) => {
                for entry in list {
                    let pair = entry.split_once('=').filter(|(name, _)| !name.is_empty());
                    let (name, value) = pair.ok_or_else(|| {
                        bad("environment", format!("{entry:?} is not of the form NAME=VALUE"))
                    })?;
                    variables.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        let environment = block(&variables)?;
        Ok(v1::SubmitJobRequest {
            request_id,
            spec: Some(spec),
            script: self.script.into(),
            environment: environment.into(),
        })
    }
}

/// NAME=VALUE, each ended by a NUL byte.
fn block(variables: &BTreeMap<String, String>) -> Result<Vec<u8>, Problem> {
    let mut block = Vec::new();
    for (name, value) in variables {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let text = format!("{name:?} can't be a variable: it has = or a NUL byte in it");
            return Err(bad("environment", text));
        }
        block.extend_from_slice(std::ffi::OsStr::new(name).as_bytes());
        block.push(b'=');
        block.extend_from_slice(value.as_bytes());
        block.push(0);
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Caller, Via};

    fn who() -> Who {
        let caller = Caller { uid: 4_000_000_001, gid: 100, via: Via::ControllerSocket };
        Who { caller, user: "alice".into(), read_only: false }
    }

    fn ask(text: &str) -> Result<v1::SubmitJobRequest, Problem> {
        let ask: SubmitAsk =
            serde_json::from_str(text).map_err(|error| Problem::bad(error.to_string()))?;
        ask.request(&who(), bytes::Bytes::new())
    }

    #[test]
    fn what_is_said_is_read_as_sbatch_reads_it() {
        let text = r##"{"script": "#!/bin/sh\ntrue\n", "environment": {"A": "1", "PATH": "/x"},
            "job": {"name": "x", "partition": "a,b", "nodes": "2-4", "memory": "4G", "gpus": "h100:2",
                    "gpus_per_node": 1, "gres": "shard:3", "time_limit": "1:30:00", "licenses": "m:2",
                    "signal": "B:USR1@60", "nodelist": "n[1-2]", "work_dir": "/tmp"}}"##;
        let request = ask(text).unwrap();
        let spec = request.spec.unwrap();
        assert_eq!((spec.nodes_min, spec.nodes_max), (2, 4));
        assert_eq!(spec.partitions, ["a", "b"]);
        assert_eq!((spec.mem_per_node_mib, spec.time_limit_secs), (Some(4_096), Some(5_400)));
        assert_eq!(spec.gpus_total.unwrap().r#type, "h100");
        assert_eq!(spec.gres_per_node.len(), 2);
        assert_eq!(spec.required_nodes, ["n1", "n2"]);
        assert_eq!(spec.signal.unwrap().seconds_before, 60);
        let environment = String::from_utf8(request.environment.to_vec()).unwrap();
        assert!(environment.contains("A=1\0") && environment.contains("PATH=/x\0"));
        assert!(
            environment.contains("SLURM_SUBMIT_DIR=/tmp\0") && environment.contains("USER=alice\0")
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let table = [
            (r#"{"job": {}}"#, "script"),
            (r##"{"script": "#!", "job": {"tasks": 1}}"##, "unknown field `tasks`"),
            (r##"{"script": "#!", "job": {"memory": "4X"}}"##, "memory"),
            (r##"{"script": "#!", "job": {"nodes": "4-2"}}"##, "4-2"),
            (r##"{"script": "#!", "job": {"gpus": "a:1,b:1"}}"##, "gpus"),
            (r##"{"script": "#!", "job": {"time_limit": "soon"}}"##, "time_limit"),
            (r##"{"script": "#!", "job": {"work_dir": "../x"}}"##, "absolute"),
            (r##"{"script": "#!", "environment": ["A"]}"##, "NAME=VALUE"),
            (r##"{"script": "#!", "environment": {"A=B": "x"}}"##, "variable"),
            (r##"{"script": "#!", "environment": {"A": "\u0000"}}"##, "NUL"),
        ];
        for (text, expect) in table {
            let problem = ask(text).unwrap_err();
            assert!(problem.detail().contains(expect), "{text}: {}", problem.detail());
        }
    }
}
