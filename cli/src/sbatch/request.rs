//! What was asked for, after script, environment and command line have been read over each other?
//!
//! Values are checked as they are read, so that an error names its option; what a value means for
//! the job is decided in `spec`.

use std::path::PathBuf;

use penstock_proto::v1;
use penstock_vocab::{
    MailTypes, Mib, SignalSpec, Walltime, expand, is_mail_address, parse_gpus, parse_memory,
    parse_walltime,
};

use crate::options::Given;
use crate::sbatch::environment::Export;
use crate::sbatch::gpus::{self, GpuOptions};
use crate::sbatch::manner::Manner;
use crate::sbatch::table::Key;
use crate::when::{Looking, parse_when};
use crate::words::{list, node_range};

/// Lowers a job's priority where `--nice` has no value.
const DEFAULT_NICE: i32 = 100;

/// Largest `--nice` in either direction, as Slurm's.
const MAX_NICE: i32 = 2_147_483_645;

/// How long a job waits for few switches unless it says, as Slurm's `max_switch_wait`.
const MAX_SWITCH_WAIT_SECS: u32 = 300;

/// Where an option was given; later ones win over earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Script,
    Environment,
    CommandLine,
}

/// What sbatch does besides submitting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Help,
    Usage,
    Version,
}

/// An amount of memory and what it is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "each says by what it is counted")]
pub(crate) enum Memory {
    PerNode(Mib),
    PerCpu(Mib),
    PerGpu(Mib),
}

/// A value that cannot be used: the lines to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadValue(pub(crate) Vec<String>);

/// The options of one submission. `None` and empty: not given.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) account: String,
    pub(crate) array: String,
    pub(crate) begin_ms: i64,
    pub(crate) chdir: Option<PathBuf>,
    pub(crate) comment: String,
    /// Path of an OCI bundle.
    pub(crate) container: String,
    /// An image of a container.
    pub(crate) container_image: String,
    pub(crate) constraint: String,
    pub(crate) cpus_per_task: Option<u32>,
    /// Milliseconds since the epoch; 0: none.
    pub(crate) deadline_ms: i64,
    pub(crate) dependency: String,
    pub(crate) error: String,
    pub(crate) exclude: Vec<String>,
    pub(crate) exclusive: bool,
    pub(crate) exclusive_user: bool,
    pub(crate) oversubscribe: bool,
    pub(crate) export: Option<Export>,
    pub(crate) gpu: GpuOptions,
    pub(crate) gpus: Option<v1::GresCount>,
    pub(crate) gpus_per_node: Vec<v1::GresCount>,
    pub(crate) gres: Vec<v1::GresCount>,
    pub(crate) hold: bool,
    /// A submission with the same text is the same one; empty: none.
    pub(crate) idempotency_key: String,
    pub(crate) input: String,
    pub(crate) job_name: Option<String>,
    pub(crate) kill_on_invalid_dep: bool,
    pub(crate) licenses: String,
    /// As it is stored: empty for no mail.
    pub(crate) mail_type: String,
    pub(crate) mail_user: String,
    /// Seconds between two measurements of what it uses.
    pub(crate) measure_secs: Option<u32>,
    pub(crate) manner: Manner,
    pub(crate) memory: Option<(Memory, Source)>,
    pub(crate) nice: i32,
    pub(crate) nodelist: Vec<String>,
    pub(crate) nodes: Option<(u32, u32)>,
    pub(crate) ntasks: Option<u32>,
    pub(crate) ntasks_per_node: Option<u32>,
    pub(crate) open_mode: v1::OpenMode,
    pub(crate) output: String,
    pub(crate) overcommit: bool,
    pub(crate) parsable: bool,
    pub(crate) partitions: Vec<String>,
    pub(crate) priority: Option<u32>,
    pub(crate) qos: String,
    pub(crate) quiet: bool,
    pub(crate) requeue: Option<bool>,
    pub(crate) reservation: String,
    pub(crate) signal: Option<SignalSpec>,
    pub(crate) switches: Option<v1::SwitchRequest>,
    /// Nothing is submitted; only the expected start is told.
    pub(crate) test_only: bool,
    pub(crate) time: Option<Walltime>,
    pub(crate) time_min: Option<Walltime>,
    pub(crate) verbose: u32,
    pub(crate) wait: bool,
    pub(crate) wrap: Option<String>,
    /// `--help` and the like, where one was given; the first counts.
    pub(crate) ask: Option<Ask>,
    /// Every option as given, for `-v`.
    pub(crate) told: Vec<(&'static str, String)>,
}

impl Request {
    /// Reads one option over what is there.
    ///
    /// # Errors
    /// When the value is none, or the option is not built.
    pub(crate) fn apply(&mut self, given: &Given<Key>, source: Source) -> Result<(), BadValue> {
        let key = given.key;
        let value = given.value.as_deref();
        self.told.push((key.name(), value.unwrap_or("set").to_owned()));
        if let Key::Unbuilt(name) = key {
            return Err(not_built(name));
        }
        let text = value.unwrap_or_default();
        let done = self.apply_text(key, text) || self.apply_switch(key);
        if done || self.manner.apply(key, value)? {
            return Ok(());
        }
        match key {
            Key::Mem | Key::MemPerCpu | Key::MemPerGpu => self.apply_memory(key, text, source),
            Key::Nice => self.apply_nice(value),
            Key::Exclusive => self.apply_exclusive(value),
            // The last of it and `--exclusive` counts.
            Key::Oversubscribe => {
                (self.exclusive, self.exclusive_user, self.oversubscribe) = (false, false, true);
                Ok(())
            }
            _ => self.apply_checked(key, text),
        }
    }

    /// Options whose value is taken as it is; false for the others.
    fn apply_text(&mut self, key: Key, text: &str) -> bool {
        let place = match key {
            Key::Account => &mut self.account,
            Key::Array => &mut self.array,
            Key::Comment => &mut self.comment,
            Key::Constraint => &mut self.constraint,
            Key::Container => &mut self.container,
            Key::ContainerImage => &mut self.container_image,
            Key::Dependency => &mut self.dependency,
            Key::Error => &mut self.error,
            Key::Idempotency => &mut self.idempotency_key,
            Key::Input => &mut self.input,
            Key::Licenses => &mut self.licenses,
            Key::Output => &mut self.output,
            Key::IdleOk => &mut self.gpu.idle_ok,
            Key::Qos => &mut self.qos,
            Key::Reservation => &mut self.reservation,
            Key::JobName => self.job_name.get_or_insert_default(),
            Key::Wrap => self.wrap.get_or_insert_default(),
            _ => return false,
        };
        let file = matches!(key, Key::Error | Key::Input | Key::Output);
        let none = file && text.eq_ignore_ascii_case("none");
        (if none { "/dev/null" } else { text }).clone_into(place);
        true
    }

    /// Options without a value; false for the others.
    fn apply_switch(&mut self, key: Key) -> bool {
        match key {
            Key::Hold => self.hold = true,
            Key::Requeue => self.requeue = Some(true),
            Key::NoRequeue => self.requeue = Some(false),
            Key::Overcommit => self.overcommit = true,
            Key::Parsable => self.parsable = true,
            Key::Quiet => self.quiet = true,
            Key::TestOnly => self.test_only = true,
            Key::Verbose => self.verbose += 1,
            Key::Wait => self.wait = true,
            Key::Help => self.ask = self.ask.or(Some(Ask::Help)),
            Key::Usage => self.ask = self.ask.or(Some(Ask::Usage)),
            Key::Version => self.ask = self.ask.or(Some(Ask::Version)),
            // PBS lines are never read, and the environment always travels.
            Key::IgnorePbs | Key::GetUserEnv => {}
            _ => return false,
        }
        true
    }

    /// Options whose value has a form of its own.
    fn apply_checked(&mut self, key: Key, text: &str) -> Result<(), BadValue> {
        match key {
            Key::AcctgFreq => self.measure_secs = measure_secs(text)?,
            Key::Begin => self.begin_ms = when(key, text)?,
            Key::Chdir => self.chdir = Some(text.into()),
            Key::CpusPerGpu => self.gpu.cpus_per_gpu = Some(count(key, text)?),
            Key::CpusPerTask => self.cpus_per_task = Some(count(key, text)?),
            Key::Deadline => self.deadline_ms = when(key, text)?,
            Key::Exclude => self.exclude = hosts(key, text)?,
            Key::Export => self.export = Some(Export::parse(text)),
            Key::GpuBind => self.gpu.bind = gpus::bind(text)?,
            Key::Gpus => self.gpus = gpus::one_type(key.name(), text)?,
            Key::GpusPerNode => self.gpus_per_node = per_node(key, text)?,
            Key::GpusPerSocket => self.gpu.per_socket = gpus::one_type(key.name(), text)?,
            Key::GpusPerTask => self.gpu.per_task = gpus::one_type(key.name(), text)?,
            Key::Gres => (self.gres, self.gpu.choices) = gres(text)?,
            Key::KillOnInvalidDep => self.kill_on_invalid_dep = yes_no(key, text)?,
            Key::MailType => self.mail_type = mail_type(key, text)?,
            Key::MailUser => self.mail_user = mail_user(text)?,
            Key::Nodelist => self.nodelist = hosts(key, text)?,
            Key::Nodes => self.nodes = Some(nodes(text)?),
            Key::Ntasks => self.ntasks = Some(count(key, text)?),
            Key::NtasksPerNode => self.ntasks_per_node = Some(count(key, text)?),
            Key::OpenMode => self.open_mode = open_mode(text)?,
            Key::Partition => self.partitions = list(text),
            Key::Priority => self.priority = Some(priority(text)?),
            Key::SocketsPerNode => self.gpu.sockets_per_node = count(key, text)?,
            Key::Signal => self.signal = Some(signal(text)?),
            Key::Switches => self.switches = Some(switches(key, text)?),
            Key::Time => self.time = Some(parse_walltime(text).map_err(|e| bad(key, e))?),
            Key::TimeMin => self.time_min = Some(parse_walltime(text).map_err(|e| bad(key, e))?),
            _ => {}
        }
        Ok(())
    }

    /// A later source replaces an earlier one; both in one source contradict each other.
    fn apply_memory(&mut self, key: Key, text: &str, source: Source) -> Result<(), BadValue> {
        let size = parse_memory(text).map_err(|error| bad(key, error))?;
        let memory = match key {
            Key::Mem => Memory::PerNode(size),
            Key::MemPerGpu => Memory::PerGpu(size),
            _ => Memory::PerCpu(size),
        };
        if let Some((earlier, from)) = self.memory {
            let same_kind = std::mem::discriminant(&earlier) == std::mem::discriminant(&memory);
            if from == source && !same_kind {
                return Err(BadValue(vec![
                    "--mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.".to_owned(),
                ]));
            }
        }
        self.memory = Some((memory, source));
        Ok(())
    }

    fn apply_nice(&mut self, value: Option<&str>) -> Result<(), BadValue> {
        let Some(text) = value else {
            self.nice = DEFAULT_NICE;
            return Ok(());
        };
        let nice: Option<i64> = text.trim().parse().ok();
        let Some(nice) = nice else { return Err(invalid(Key::Nice)) };
        let in_range =
            i32::try_from(nice).ok().filter(|nice| nice.unsigned_abs() <= MAX_NICE.unsigned_abs());
        self.nice = in_range.ok_or_else(|| {
            BadValue(vec![format!("Nice value out of range (+/- {MAX_NICE}). Value ignored")])
        })?;
        Ok(())
    }

    fn apply_exclusive(&mut self, value: Option<&str>) -> Result<(), BadValue> {
        match value.map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "exclusive") => {
                (self.exclusive, self.exclusive_user) = (true, false);
                self.oversubscribe = false;
                Ok(())
            }
            Some("user") => {
                (self.exclusive, self.exclusive_user) = (false, true);
                Ok(())
            }
            Some("mcs") => Err(not_built("exclusive=mcs")),
            Some(_) => Err(invalid(Key::Exclusive)),
        }
    }
}

/// Slurm's line for a value that cannot be used.
pub(super) fn invalid(key: Key) -> BadValue {
    BadValue(vec![format!("Invalid --{} specification", key.name())])
}

/// The same, with what is wrong on the line before.
fn bad(key: Key, error: impl std::error::Error) -> BadValue {
    BadValue(vec![error.to_string(), format!("Invalid --{} specification", key.name())])
}

fn not_built(name: &str) -> BadValue {
    BadValue(vec![format!("--{name} is not built yet")])
}

/// A number from 1 up.
fn count(key: Key, text: &str) -> Result<u32, BadValue> {
    let number = text.trim().parse().ok().filter(|&number| number > 0);
    let name = key.name();
    number.ok_or_else(|| BadValue(vec![format!("Invalid numeric value \"{text}\" for --{name}.")]))
}

fn nodes(text: &str) -> Result<(u32, u32), BadValue> {
    let (min, max) = node_range(text).ok_or_else(|| {
        BadValue(vec![
            format!("\"{text}\" is not a valid node count"),
            "invalid --nodes specification".to_owned(),
        ])
    })?;
    if min > max {
        return Err(BadValue(vec![format!(
            "Minimum node count > maximum node count ({min} > {max})"
        )]));
    }
    Ok((min, max))
}

/// A hostlist, or a file of names where it has a slash.
fn hosts(key: Key, text: &str) -> Result<Vec<String>, BadValue> {
    if !text.contains('/') {
        return expand(text).map_err(|error| bad(key, error));
    }
    let lines = std::fs::read_to_string(text).map_err(|error| {
        let name = key.name();
        BadValue(vec![
            format!("cannot read {text}: {error}"),
            format!("Invalid --{name} specification"),
        ])
    })?;
    let mut names = Vec::new();
    for line in lines.lines().filter(|line| !line.trim_start().starts_with('#')) {
        names.extend(expand(line.trim()).map_err(|error| bad(key, error))?);
    }
    Ok(names)
}

/// A point in time ahead, in milliseconds since the epoch.
fn when(key: Key, text: &str) -> Result<i64, BadValue> {
    let time = parse_when(text, &jiff::ZonedDateTime::now(), Looking::Ahead);
    time.map(jiff::Timestamp::as_millisecond).map_err(|error| bad(key, error))
}

fn gres(text: &str) -> Result<(Vec<v1::GresCount>, Vec<v1::GresChoice>), BadValue> {
    if text.eq_ignore_ascii_case("help") {
        return Err(not_built("gres=help"));
    }
    gpus::gres(text)
}

fn per_node(key: Key, text: &str) -> Result<Vec<v1::GresCount>, BadValue> {
    parse_gpus(text).map(gpus::counts).map_err(|error| bad(key, error))
}

/// `COUNT[@TIME]`: at most so many leaf switches, for which the job waits so long.
fn switches(key: Key, text: &str) -> Result<v1::SwitchRequest, BadValue> {
    let (number, wait) = text.split_once('@').map_or((text, None), |(n, wait)| (n, Some(wait)));
    let max_wait_secs = match wait {
        None => MAX_SWITCH_WAIT_SECS,
        Some(wait) => {
            let limit = parse_walltime(wait).map_err(|error| bad(key, error))?;
            limit.as_secs().map_or(u32::MAX, |secs| u32::try_from(secs).unwrap_or(u32::MAX))
        }
    };
    Ok(v1::SwitchRequest { count: count(key, number)?, max_wait_secs })
}

/// `NAME[:COUNT],...`, as `--licenses` takes it.
///
/// # Errors
/// With what is wrong, where an entry has no name or no count from 1 up.
pub(crate) fn parse_licenses(text: &str) -> Result<Vec<v1::LicenseCount>, String> {
    let mut licenses = Vec::new();
    for entry in text.split([',', ';']).map(str::trim) {
        let (name, count) = entry.split_once([':', '=']).unwrap_or((entry, "1"));
        let count = count.trim().parse().ok().filter(|&count: &u64| count > 0);
        match (name.trim(), count) {
            (name, Some(count)) if !name.is_empty() => {
                licenses.push(v1::LicenseCount { name: name.to_owned(), count });
            }
            _ => {
                return Err(format!(
                    "license {entry:?} is not understood; give NAME or NAME:COUNT"
                ));
            }
        }
    }
    Ok(licenses)
}

fn yes_no(key: Key, text: &str) -> Result<bool, BadValue> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(invalid(key)),
    }
}

/// Events, as they are stored: empty for none.
fn mail_type(key: Key, text: &str) -> Result<String, BadValue> {
    let types: MailTypes = text.parse().map_err(|error| bad(key, error))?;
    Ok(if types.is_empty() { String::new() } else { types.to_string() })
}

/// An address that no mail program takes for anything else.
fn mail_user(text: &str) -> Result<String, BadValue> {
    if is_mail_address(text) {
        return Ok(text.to_owned());
    }
    let why = format!("mail cannot be sent to {text:?}: give a user's name or an address a@b.c");
    Err(BadValue(vec![why, "Invalid --mail-user specification".to_owned()]))
}

/// `append` or `truncate`, of which the first letter counts.
fn open_mode(text: &str) -> Result<v1::OpenMode, BadValue> {
    match text.as_bytes().first().map(u8::to_ascii_lowercase) {
        Some(b'a') => Ok(v1::OpenMode::Append),
        Some(b't') => Ok(v1::OpenMode::Truncate),
        _ => Err(invalid(Key::OpenMode)),
    }
}

/// A fixed priority; the highest two numbers have a meaning of their own in Slurm.
fn priority(text: &str) -> Result<u32, BadValue> {
    if text.eq_ignore_ascii_case("top") {
        return Err(not_built("priority=TOP"));
    }
    match text.trim().parse::<i64>() {
        Ok(number) if number < 0 => Err(BadValue(vec!["Priority must be >= 0".to_owned()])),
        Ok(number) => u32::try_from(number)
            .ok()
            .filter(|&number| number < u32::MAX - 1)
            .ok_or_else(|| BadValue(vec![format!("Priority must be < {}", u32::MAX - 1)])),
        Err(_) => Err(invalid(Key::Priority)),
    }
}

/// `30` or `task=30`, seconds; what else Slurm takes rates of is not sampled at rates of its own.
fn measure_secs(text: &str) -> Result<Option<u32>, BadValue> {
    let mut secs = None;
    for word in list(text) {
        let number = match word.split_once('=') {
            None => &*word,
            Some((kind, number)) if kind.eq_ignore_ascii_case("task") => number,
            Some((kind @ ("energy" | "network" | "filesystem"), _)) => {
                return Err(not_built(&format!("acctg-freq={kind}=")));
            }
            Some(_) => return Err(invalid(Key::AcctgFreq)),
        };
        secs = Some(number.trim().parse().map_err(|_| invalid(Key::AcctgFreq))?);
    }
    secs.map(Some).ok_or_else(|| invalid(Key::AcctgFreq))
}

fn signal(text: &str) -> Result<SignalSpec, BadValue> {
    let spec: SignalSpec = text.trim().parse().map_err(|error| bad(Key::Signal, error))?;
    if spec.reservation { Err(not_built("signal=R:")) } else { Ok(spec) }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
