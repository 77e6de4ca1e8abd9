//! `scontrol update`: of which thing, and which of its values?
//!
//! Keys may be cut short while they are unique. A key that Slurm knows and we do not is refused as
//! an unknown one: both name the key.

use jiff::ZonedDateTime;
use penstock_proto::v1;
use penstock_vocab::{expand, parse_gres_list, parse_memory, parse_walltime};

use crate::connect::{Client, Patience, request_id};
use crate::sbatch::{limit_secs, parse_licenses};
use crate::scontrol::control::{selectors, tell_unchangeable};
use crate::scontrol::{FAILED, PROGRAM, Voice, is_prefix, node, reservation};
use crate::when::{Looking, parse_when};
use crate::words::{find_name, node_range};

/// `KEY=VALUE`, `KEY+=VALUE` or `KEY-=VALUE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting<'w> {
    /// As typed, without the sign.
    pub(super) key: &'w str,
    /// `+` or `-` before the equals sign.
    pub(super) sign: Option<char>,
    pub(super) value: &'w str,
    /// The whole word.
    pub(super) word: &'w str,
}

impl<'w> Setting<'w> {
    fn parse(word: &'w str) -> Option<Self> {
        let (key, value) = word.split_once('=')?;
        let sign = key.chars().last().filter(|letter| matches!(letter, '+' | '-'));
        let key = sign.map_or(key, |sign| key.trim_end_matches(sign));
        Some(Self { key, sign, value, word })
    }

    /// The lines for a key that cannot be changed.
    pub(super) fn not_supported(&self) -> Vec<String> {
        vec![
            format!("Update of this parameter is not supported: {}", self.word),
            "Request aborted".to_owned(),
        ]
    }

    /// The lines for a value that cannot be used.
    pub(super) fn invalid(&self, why: &str) -> Vec<String> {
        let mut lines = vec![format!("Invalid input: {}", self.word), "Request aborted".to_owned()];
        if !why.is_empty() {
            lines.insert(0, format!("{PROGRAM}: error: {why}"));
        }
        lines
    }
}

/// What is updated: Slurm's word for it and its least number of letters.
const ENTITIES: &[(&str, usize)] = &[
    ("JobId", 3),
    ("NodeName", 5),
    ("PartitionName", 3),
    ("ReservationName", 3),
    ("StepId", 4),
    ("SlurmctldDebug", 2),
    ("FrontendName", 3),
    ("Powercap", 3),
];

/// Runs `scontrol update WORDS`.
pub(super) fn run(words: &[String], voice: Voice) -> i32 {
    if words.is_empty() {
        voice.say("too few arguments for update keyword");
        return FAILED;
    }
    let done = settings(words).and_then(|settings| {
        let (entity, of, rest) = split_entity(&settings)?;
        match entity {
            "JobId" => update_jobs(of.value, &rest, voice),
            "NodeName" => node::update(of.value, &rest, voice),
            "ReservationName" => Ok(reservation::update(words, voice)),
            "PartitionName" => Err(partition_lines(&rest)),
            other => Err(vec![format!("{PROGRAM}: error: update {other} is not built yet")]),
        }
    });
    done.unwrap_or_else(|lines| {
        lines.iter().for_each(|line| voice.say(line));
        FAILED
    })
}

/// Why a partition stays as it is.
fn partition_lines(settings: &[Setting<'_>]) -> Vec<String> {
    const STATES: [&str; 4] = ["UP", "DOWN", "DRAIN", "INACTIVE"];
    let known = |value: &str| STATES.iter().any(|state| is_prefix(state, value, 2));
    let state = settings.iter().find(|setting| is_prefix("State", setting.key, 2));
    if let Some(setting) = state.filter(|setting| !known(setting.value)) {
        return vec![
            format!("{PROGRAM}: error: Invalid input: {}={}", setting.key, setting.value),
            format!("{PROGRAM}: error: Acceptable State values are UP, DOWN, DRAIN and INACTIVE"),
            "slurm_update error: No error".to_owned(),
        ];
    }
    vec![
        format!(
            "{PROGRAM}: error: partitions are in the cluster file; change it and run scontrol reconfigure"
        ),
        "slurm_update error: Requested operation is presently disabled".to_owned(),
    ]
}

fn settings(words: &[String]) -> Result<Vec<Setting<'_>>, Vec<String>> {
    let read = |word: &'_ String| -> Result<(), Vec<String>> {
        match Setting::parse(word) {
            Some(_) => Ok(()),
            None => Err(vec![format!("Invalid input: {word}"), "Request aborted".to_owned()]),
        }
    };
    words.iter().try_for_each(read)?;
    Ok(words.iter().filter_map(|word| Setting::parse(word)).collect())
}

/// The setting that names the thing, and the others.
fn split_entity<'s, 'w>(
    settings: &'s [Setting<'w>],
) -> Result<(&'static str, &'s Setting<'w>, Vec<Setting<'w>>), Vec<String>> {
    // By entity first: the Partition of a job is not a partition.
    let found = ENTITIES.iter().find_map(|(name, least)| {
        let names = |setting: &Setting<'_>| is_prefix(name, setting.key, *least);
        let at = settings.iter().position(names)?;
        Some((at, *name, settings.get(at)?))
    });
    let Some((at, entity, of)) = found else {
        return Err(vec![
            "No valid entity in update command".to_owned(),
            "Input line must include \"NodeName\" or \"JobId\"".to_owned(),
        ]);
    };
    let rest = settings.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, s)| *s);
    Ok((entity, of, rest.collect()))
}

fn update_jobs(jobs: &str, settings: &[Setting<'_>], voice: Voice) -> Result<i32, Vec<String>> {
    let selectors = selectors(jobs).map_err(|line| vec![line])?;
    if selectors.is_empty() {
        return Err(vec!["Invalid job id specified".to_owned()]);
    }
    let update = job_update(settings, &ZonedDateTime::now)?;
    if update == v1::JobUpdate::default() {
        return Err(vec!["No changes specified".to_owned()]);
    }
    let request =
        v1::UpdateJobRequest { request_id: request_id(), selectors, update: Some(update) };
    let reply = Client::open().and_then(|client| {
        client.call(Patience::CHANGE, |mut rpc| {
            let request = request.clone();
            async move { rpc.update_job(request).await }
        })
    });
    Ok(match reply {
        Ok(reply) => tell_unchangeable(&reply.results, voice),
        Err(failure) => {
            voice.report("slurm_update error", &failure);
            FAILED
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Account,
    ArrayTaskThrottle,
    Comment,
    CpusPerTask,
    Deadline,
    Dependency,
    ExcNodeList,
    Features,
    Gres,
    Licenses,
    MinMemoryCpu,
    MinMemoryNode,
    Name,
    Nice,
    NumNodes,
    NumTasks,
    Partition,
    Priority,
    Qos,
    ReqNodeList,
    Requeue,
    Reservation,
    StartTime,
    StdErr,
    StdIn,
    StdOut,
    TimeLimit,
    TimeMin,
    WorkDir,
    Unbuilt,
}

/// Keys of a job; those that Slurm has besides keep abbreviations from changing their meaning.
const KEYS: &[(&str, Key)] = &[
    ("Account", Key::Account),
    ("ArrayTaskThrottle", Key::ArrayTaskThrottle),
    ("Comment", Key::Comment),
    ("CpusPerTask", Key::CpusPerTask),
    ("Deadline", Key::Deadline),
    ("Dependency", Key::Dependency),
    ("ExcNodeList", Key::ExcNodeList),
    ("Features", Key::Features),
    ("Gres", Key::Gres),
    ("Licenses", Key::Licenses),
    ("MinMemoryCPU", Key::MinMemoryCpu),
    ("MinMemoryNode", Key::MinMemoryNode),
    ("Name", Key::Name),
    ("JobName", Key::Name),
    ("Nice", Key::Nice),
    ("NumNodes", Key::NumNodes),
    ("ReqNodes", Key::NumNodes),
    ("NumTasks", Key::NumTasks),
    ("ReqProcs", Key::NumTasks),
    ("Partition", Key::Partition),
    ("Priority", Key::Priority),
    ("QOS", Key::Qos),
    ("ReqNodeList", Key::ReqNodeList),
    ("NodeList", Key::ReqNodeList),
    ("Requeue", Key::Requeue),
    ("ReservationName", Key::Reservation),
    ("StartTime", Key::StartTime),
    ("EligibleTime", Key::StartTime),
    ("StdErr", Key::StdErr),
    ("StdIn", Key::StdIn),
    ("StdOut", Key::StdOut),
    ("TimeLimit", Key::TimeLimit),
    ("TimeMin", Key::TimeMin),
    ("WorkDir", Key::WorkDir),
    ("AdminComment", Key::Unbuilt),
    ("BurstBuffer", Key::Unbuilt),
    ("ClusterFeatures", Key::Unbuilt),
    ("Clusters", Key::Unbuilt),
    ("Contiguous", Key::Unbuilt),
    ("CoreSpec", Key::Unbuilt),
    ("DelayBoot", Key::Unbuilt),
    ("EndTime", Key::Unbuilt),
    ("MailType", Key::Unbuilt),
    ("MailUser", Key::Unbuilt),
    ("MinCPUsNode", Key::Unbuilt),
    ("MinTmpDiskNode", Key::Unbuilt),
    ("NumCPUs", Key::Unbuilt),
    ("OverSubscribe", Key::Unbuilt),
    ("Prefer", Key::Unbuilt),
    ("Reboot", Key::Unbuilt),
    ("ReqCores", Key::Unbuilt),
    ("ReqSockets", Key::Unbuilt),
    ("ReqThreads", Key::Unbuilt),
    ("SiteFactor", Key::Unbuilt),
    ("Switches", Key::Unbuilt),
    ("ThreadSpec", Key::Unbuilt),
    ("UserID", Key::Unbuilt),
    ("WCKey", Key::Unbuilt),
];

/// Reads the settings of a job; `now` is asked only for a time.
fn job_update(
    settings: &[Setting<'_>],
    now: &dyn Fn() -> ZonedDateTime,
) -> Result<v1::JobUpdate, Vec<String>> {
    let mut update = v1::JobUpdate::default();
    for setting in settings {
        let key = find_name(KEYS, setting.key).unwrap_or(Key::Unbuilt);
        if setting.sign.is_some() && key != Key::TimeLimit {
            return Err(setting.not_supported());
        }
        if !apply_text(&mut update, key, setting.value) {
            apply(&mut update, key, setting, now)?;
        }
    }
    Ok(update)
}

/// Keys whose value is taken as it is; false for the others.
fn apply_text(update: &mut v1::JobUpdate, key: Key, value: &str) -> bool {
    let place = match key {
        Key::Account => &mut update.account,
        Key::Comment => &mut update.comment,
        Key::Dependency => &mut update.dependency,
        Key::Features => &mut update.constraint,
        Key::Name => &mut update.name,
        Key::Partition => &mut update.partition,
        Key::Qos => &mut update.qos,
        Key::Reservation => &mut update.reservation,
        Key::StdErr => &mut update.stderr,
        Key::StdIn => &mut update.stdin,
        Key::StdOut => &mut update.stdout,
        Key::WorkDir => &mut update.work_dir,
        _ => return false,
    };
    *place = Some(value.to_owned());
    true
}

/// Keys whose value has a form of its own.
fn apply(
    update: &mut v1::JobUpdate,
    key: Key,
    setting: &Setting<'_>,
    now: &dyn Fn() -> ZonedDateTime,
) -> Result<(), Vec<String>> {
    let value = setting.value;
    let wrong = |error: &dyn std::fmt::Display| setting.invalid(&error.to_string());
    match key {
        Key::ArrayTaskThrottle => update.array_throttle = Some(number(setting)?),
        Key::CpusPerTask => update.cpus_per_task = Some(positive(setting)?),
        Key::NumTasks => update.ntasks = Some(positive(setting)?),
        Key::Nice => update.nice = Some(number(setting)?),
        Key::Priority => update.priority = Some(number(setting)?),
        Key::Requeue => update.requeue = Some(truth(setting)?),
        Key::ExcNodeList => {
            expand(value).map_err(|error| wrong(&error))?;
            update.excluded_nodes = Some(value.to_owned());
        }
        Key::ReqNodeList => {
            expand(value).map_err(|error| wrong(&error))?;
            update.required_nodes = Some(value.to_owned());
        }
        Key::Gres => {
            parse_gres_list(value).map_err(|error| wrong(&error))?;
            update.gres = Some(value.to_owned());
        }
        Key::MinMemoryCpu => {
            update.mem_per_cpu_mib = Some(parse_memory(value).map_err(|error| wrong(&error))?.0);
        }
        Key::MinMemoryNode => {
            update.mem_per_node_mib = Some(parse_memory(value).map_err(|error| wrong(&error))?.0);
        }
        Key::NumNodes => {
            let range = node_range(value).filter(|(min, max)| min <= max);
            let (min, max) = range.ok_or_else(|| setting.invalid(""))?;
            (update.nodes_min, update.nodes_max) = (Some(min), Some(max));
        }
        Key::StartTime => {
            let time = parse_when(value, &now(), Looking::Ahead).map_err(|error| wrong(&error))?;
            update.begin_time_ms = Some(time.as_millisecond());
        }
        Key::Deadline => {
            let time = parse_when(value, &now(), Looking::Ahead).map_err(|error| wrong(&error))?;
            update.deadline_ms = Some(time.as_millisecond());
        }
        Key::Licenses => {
            if !value.is_empty() {
                parse_licenses(value).map_err(|why| setting.invalid(&why))?;
            }
            update.licenses = Some(value.to_owned());
        }
        Key::TimeMin => {
            let limit = parse_walltime(value).map_err(|error| wrong(&error))?;
            update.min_time_secs = Some(limit_secs(limit));
        }
        Key::TimeLimit => apply_time_limit(update, setting)?,
        _ => return Err(setting.not_supported()),
    }
    Ok(())
}

/// A limit, or with `+` or `-` before it, or before the equals sign, a change of the limit.
fn apply_time_limit(update: &mut v1::JobUpdate, setting: &Setting<'_>) -> Result<(), Vec<String>> {
    let inner = match setting.value.as_bytes().first() {
        Some(b'+') => Some('+'),
        Some(b'-') if setting.value != "-1" => Some('-'),
        _ => None,
    };
    let text = if inner.is_some() { &setting.value[1..] } else { setting.value };
    let limit = parse_walltime(text).map_err(|error| {
        vec![
            format!("{PROGRAM}: error: {error}"),
            format!("{PROGRAM}: error: Invalid TimeLimit value"),
        ]
    })?;
    match setting.sign.or(inner) {
        None => update.time_limit_secs = Some(limit_secs(limit)),
        Some(sign) => {
            let secs = limit.as_secs().and_then(|secs| i64::try_from(secs).ok());
            let secs = secs.ok_or_else(|| setting.invalid("a change of 0 changes nothing"))?;
            update.time_limit_delta_secs = Some(if sign == '-' { -secs } else { secs });
        }
    }
    Ok(())
}

/// A number in the range of its field.
pub(super) fn number<T: std::str::FromStr>(setting: &Setting<'_>) -> Result<T, Vec<String>> {
    setting.value.trim().parse().map_err(|_| setting.invalid(""))
}

fn positive(setting: &Setting<'_>) -> Result<u32, Vec<String>> {
    let number: u32 = number(setting)?;
    if number > 0 { Ok(number) } else { Err(setting.invalid("")) }
}

fn truth(setting: &Setting<'_>) -> Result<bool, Vec<String>> {
    match setting.value.trim().to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" => Ok(true),
        "0" | "no" | "n" | "false" => Ok(false),
        _ => Err(setting.invalid("")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> ZonedDateTime {
        "2024-05-15T10:30:20[UTC]".parse().expect("a zoned time")
    }

    fn read(words: &[&str]) -> Result<v1::JobUpdate, Vec<String>> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        job_update(&settings(&words)?, &now)
    }

    #[test]
    fn keys_are_read() {
        type Set = fn(&mut v1::JobUpdate);
        let table: &[(&str, Set)] = &[
            ("TimeLimit=90", |u| u.time_limit_secs = Some(5_400)),
            ("timelimit=1-0", |u| u.time_limit_secs = Some(86_400)),
            ("TimeLimit=UNLIMITED", |u| u.time_limit_secs = Some(0)),
            ("TimeLimit=-1", |u| u.time_limit_secs = Some(0)),
            ("TimeLimit=+30", |u| u.time_limit_delta_secs = Some(1_800)),
            ("TimeLimit=-30", |u| u.time_limit_delta_secs = Some(-1_800)),
            ("TimeLimit+=1:00:00", |u| u.time_limit_delta_secs = Some(3_600)),
            ("TimeLimit-=5", |u| u.time_limit_delta_secs = Some(-300)),
            ("Part=main", |u| u.partition = Some("main".into())),
            ("qos=high", |u| u.qos = Some("high".into())),
            ("Account=a", |u| u.account = Some("a".into())),
            ("Priority=7", |u| u.priority = Some(7)),
            ("Nice=-5", |u| u.nice = Some(-5)),
            ("Dependency=", |u| u.dependency = Some(String::new())),
            ("StartTime=now", |u| u.begin_time_ms = Some(1_715_769_020_000)),
            ("EligibleTime=now+1hour", |u| u.begin_time_ms = Some(1_715_772_620_000)),
            ("NumNodes=2-4", |u| (u.nodes_min, u.nodes_max) = (Some(2), Some(4))),
            ("NumTasks=3", |u| u.ntasks = Some(3)),
            ("CpusPerTask=2", |u| u.cpus_per_task = Some(2)),
            ("MinMemoryNode=4G", |u| u.mem_per_node_mib = Some(4_096)),
            ("MinMemoryCPU=100", |u| u.mem_per_cpu_mib = Some(100)),
            ("Features=a&b", |u| u.constraint = Some("a&b".into())),
            ("Gres=gpu:2", |u| u.gres = Some("gpu:2".into())),
            ("ReqNodeList=n[1-2]", |u| u.required_nodes = Some("n[1-2]".into())),
            ("ExcNodeList=n3", |u| u.excluded_nodes = Some("n3".into())),
            ("JobName=x y", |u| u.name = Some("x y".into())),
            ("Comment=a=b", |u| u.comment = Some("a=b".into())),
            ("Requeue=0", |u| u.requeue = Some(false)),
            ("ArrayTaskThrottle=4", |u| u.array_throttle = Some(4)),
            ("WorkDir=/tmp", |u| u.work_dir = Some("/tmp".into())),
            ("StdOut=o", |u| u.stdout = Some("o".into())),
        ];
        for (word, set) in table {
            let mut expect = v1::JobUpdate::default();
            set(&mut expect);
            assert_eq!(read(&[word]), Ok(expect), "{word}");
        }
    }

    #[test]
    fn what_cannot_be_changed_is_refused_by_name() {
        for word in ["foo=2", "EndTime=now", "NumCPUs=4", "Time=3", "Comment+=x", "Switches=1"] {
            let lines = read(&[word]).expect_err(word);
            assert_eq!(
                lines,
                [
                    format!("Update of this parameter is not supported: {word}"),
                    "Request aborted".to_owned(),
                ]
            );
        }
        let lines = read(&["TimeLimit=x"]).expect_err("no time");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("scontrol: error: Invalid TimeLimit value")
        );
        for word in [
            "TimeLimit=+0",
            "NumNodes=4-2",
            "NumTasks=0",
            "Requeue=?",
            "Gres=a:b:c:d",
            "ReqNodeList=n[",
            "Nice=x",
            "StartTime=xyz",
            "MinMemoryNode=q",
            "word",
        ] {
            let lines = read(&[word]).expect_err(word);
            assert!(lines.contains(&format!("Invalid input: {word}")), "{lines:?}");
            assert_eq!(lines.last().map(String::as_str), Some("Request aborted"));
        }
    }

    #[test]
    fn the_thing_to_update_is_named_anywhere() {
        let words = ["TimeLimit=5".to_owned(), "job=3".to_owned()];
        let settings = settings(&words).expect("settings");
        let (entity, of, rest) = split_entity(&settings).expect("named");
        assert_eq!((entity, of.value, rest.len()), ("JobId", "3", 1));
        let words = ["Partition=main".to_owned(), "JobId=3".to_owned()];
        let of_job = super::settings(&words).expect("settings");
        assert_eq!(split_entity(&of_job).expect("named").0, "JobId");
        let lines = split_entity(&settings[..1]).expect_err("nothing named");
        assert_eq!(lines[0], "No valid entity in update command");
    }

    #[test]
    fn other_things_are_refused_by_name() {
        let voice = Voice { quiet: true };
        for word in ["PartitionName=main", "Reservation=r", "StepId=3.0"] {
            assert_eq!(run(&[word.to_owned(), "State=UP".to_owned()], voice), FAILED);
        }
        // Nothing to change is told before anybody is asked.
        assert_eq!(run(&["JobId=3".to_owned()], voice), FAILED);
    }
}
