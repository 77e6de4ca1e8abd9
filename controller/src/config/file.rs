//! How does a file become a [`ClusterFile`]?

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use penstock_core::model::{GpuHealth, IdleRule, MigConfig, Scheduling};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::gpu_health;
use super::health_check::{self, HealthCheck};
use super::hooks::{self, HooksSection, MailSection};
use super::http::{self, HttpSection};
use super::idle;
use super::lease;
use super::nodes::{self, NodeSection};
use super::partitions::{self, PartitionSection};
use super::pools;
use super::problem::{Problem, Problems, Severity};
use super::scheduling;
use super::section::{Placed, Section, unknown_key};

/// Longest path of a Unix socket, in bytes: the kernel's 108 less the closing NUL.
pub const MAX_SOCKET_PATH: usize = 107;

/// Highest `max_array_size`; Slurm's is the same.
const MAX_MAX_ARRAY_SIZE: u32 = penstock_vocab::MAX_ARRAY_INDEX + 1;

/// Heartbeats that must fit into `node_timeout_secs`: a node is not taken down for one lost packet.
pub(super) const HEARTBEATS_PER_TIMEOUT: u32 = 3;

/// Most that any interval of the policy may be, in seconds: a year.
pub(super) const YEAR_SECS: u32 = 366 * 24 * 3600;

/// What one cluster file says, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterFile {
    /// `[cluster]`.
    pub cluster: ClusterSection,
    /// `[controller]`.
    pub controller: ControllerSection,
    /// `[policy]`.
    pub policy: PolicySection,
    /// `[http]`, where there is one.
    pub http: Option<HttpSection>,
    /// Order, planning, charging, preemption, switches, licences.
    pub scheduling: Scheduling,
    /// What is done about faults of GPUs.
    pub gpu_health: GpuHealth,
    /// Which GPUs are cut as the queue asks.
    pub mig: MigConfig,
    /// `[hooks]`.
    pub hooks: HooksSection,
    /// `[mail]`.
    pub mail: MailSection,
    /// `[[idle_reclaim]]`, in the file's order.
    pub idle: Vec<IdleRule>,
    /// `[health_check]`; `None`: no program.
    pub health_check: Option<HealthCheck>,
    /// `[[partition]]`, in the file's order; at least one, names unique, at most one default.
    pub partitions: Vec<PartitionSection>,
    /// `[[node]]`, in the file's order; names unique over all of them.
    pub nodes: Vec<NodeSection>,
    /// `[agent]` as it stands; the agent's parser judges it.
    pub agent: Option<toml::Table>,
    /// Warnings and notes, in the order of their lines.
    pub comments: Vec<Comment>,
}

/// A warning or note of a usable file.
pub type Comment = Problem;

/// `[cluster]`: what all of it shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSection {
    /// The cluster's name, `SLURM_CLUSTER_NAME` in jobs; lower-case letters, digits, `-`, `_`,
    /// at most 40. Default: `penstock`.
    pub name: String,
    /// Whether node names resolve inside jobs through a private `/etc/hosts`, from the addresses
    /// that the agents state. Default: false; a real cluster has DNS.
    pub resolve_nodes: bool,
}

/// `[controller]`: where it is reached and where it keeps its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerSection {
    /// Where agents dial in (TLS), an address and a port. Default: `127.0.0.1:6820`, loopback only:
    /// a controller is reachable from elsewhere only where its file says so.
    pub listen: SocketAddr,
    /// The socket of commands on the controller's host. Default:
    /// `/run/penstock/controller.sock`.
    pub socket: PathBuf,
    /// The store: root's alone. Default: `/var/lib/penstock/controller`.
    pub state_dir: PathBuf,
    /// Users that may do admin acts, beside uid 0 and the controller's own uid. Default: none.
    pub admins: Vec<String>,
}

/// `[policy]`: intervals in seconds, and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySection {
    /// How long a node may be silent before it is down. 5..=one year, and at least three
    /// heartbeats. Default: 300 (Slurm's `SlurmdTimeout`).
    pub node_timeout_secs: u32,
    /// From SIGTERM to SIGKILL when a job ends. 1..=3600, default 30 (`KillWait`).
    pub kill_wait_secs: u32,
    /// From SIGKILL until a node whose job won't go is drained. 1..=one year, default 60
    /// (`UnkillableStepTimeout`).
    pub unkillable_secs: u32,
    /// How often an agent says that it lives. 1..=3600, default 5.
    pub heartbeat_secs: u32,
    /// How long an ended job stays in `squeue -t all` and `scontrol show job`. 2..=one year,
    /// default 300 (`MinJobAge`).
    pub min_job_age_secs: u32,
    /// How long a requeued job waits. 0..=one year, default 10.
    pub requeue_delay_secs: u32,
    /// How long the accounting keeps an ended job, in days; 0: forever. Default: 365.
    pub history_days: u32,
    /// How long a node may run jobs of partitions with `fence = "self"` from the sending of the
    /// newest heartbeat that was answered; then it ends them. At least three heartbeats, and with
    /// `kill_wait_secs` and 10 s of margin below `node_timeout_secs`. 1..=3600, default 120.
    pub fence_lease_secs: u32,
    /// A program that makes sure that nothing runs on a node any more (it powers the node off,
    /// say). Called with the node's name once the node is down for silence; when it exits 0, the
    /// node's jobs count as ended and may run elsewhere. Default: none, jobs wait for the node.
    pub fence_program: Option<PathBuf>,
    /// One more than the highest index of an array task. 1..=4,000,001, default 1,000,001
    /// (`MaxArraySize`; an array is one record here, however large).
    pub max_array_size: u32,
    /// How often what a job uses is measured on its nodes; 0: at its start and its end only.
    /// 0..=one day, default 30 (`JobAcctGatherFrequency`); `--acctg-freq` says otherwise for a job.
    pub measure_secs: u32,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self { name: "penstock".to_owned(), resolve_nodes: false }
    }
}

impl Default for ControllerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6820)),
            socket: PathBuf::from("/run/penstock/controller.sock"),
            state_dir: PathBuf::from("/var/lib/penstock/controller"),
            admins: Vec::new(),
        }
    }
}

impl Default for PolicySection {
    fn default() -> Self {
        Self {
            node_timeout_secs: 300,
            kill_wait_secs: 30,
            unkillable_secs: 60,
            heartbeat_secs: 5,
            min_job_age_secs: 300,
            requeue_delay_secs: 10,
            history_days: 365,
            fence_lease_secs: 120,
            fence_program: None,
            max_array_size: 1_000_001,
            measure_secs: 30,
        }
    }
}

/// Why a cluster file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("cannot read cluster file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has mistakes; the text lists them all, one a line.
    #[error("{}", lines(problems))]
    Invalid {
        /// Every mistake, with the warnings between them, in the order of their lines.
        problems: Vec<Problem>,
    },
}

fn lines(problems: &[Problem]) -> String {
    let mut out = String::new();
    for problem in problems.iter().filter(|problem| problem.severity == Severity::Error) {
        let newline = if out.is_empty() { "" } else { "\n" };
        write!(out, "{newline}{problem}").expect("writing to a String cannot fail");
    }
    out
}

/// Whether this machine knows users and groups by name; tests bring their own.
pub struct Existing<'a> {
    /// Whether a user has this name.
    pub user: &'a dyn Fn(&str) -> bool,
    /// Whether a group has this name.
    pub group: &'a dyn Fn(&str) -> bool,
}

impl Existing<'static> {
    /// Asks nobody: every name exists. What a daemon uses, since a look-up may block for long.
    #[must_use]
    pub fn unasked() -> Self {
        Self { user: &|_| true, group: &|_| true }
    }

    /// Asks this machine's name service; may block for as long as that does.
    #[must_use]
    pub fn on_this_machine() -> Self {
        Self {
            user: &|name| uzers::get_user_by_name(name).is_some(),
            group: &|name| uzers::get_group_by_name(name).is_some(),
        }
    }
}

/// All that there is to say of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The values, unless there are errors.
    pub file: Option<ClusterFile>,
    /// `[agent]`, also of a file that is otherwise in error.
    pub agent: Option<toml::Table>,
    /// Whether `[agent]` is the file's only section: the file of a node, which describes no cluster.
    pub agent_only: bool,
    /// Errors, warnings and notes, in the order of their lines.
    pub problems: Vec<Problem>,
}

impl ClusterFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it can't be read, or has any mistake: then all of them are named.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Reads `text`, the content of the file at `path` (which messages name and nothing opens).
    ///
    /// # Errors
    /// When it has any mistake: then all of them are named.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let Report { file, mut problems, agent_only, .. } = check(path, text, &Existing::unasked());
        if agent_only {
            problems = vec![no_partition(path)];
        }
        file.ok_or(ConfigError::Invalid { problems })
    }
}

/// Judges `text`, the content of the file at `path` (which messages name and nothing opens).
#[must_use]
pub fn check(path: &Path, text: &str, existing: &Existing<'_>) -> Report {
    let mut problems = Problems::new(path, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = format!("not TOML: {}", error.message().replace('\n', " "));
        problems.error(&error.span().unwrap_or(0..0), message);
    }
    // What follows a slip of syntax is not what was meant; judging it would only mislead.
    if !errors.is_empty() {
        let problems = problems.into_sorted();
        return Report { file: None, agent: None, agent_only: false, problems };
    }
    let document = document.get_ref();
    let agent = read_agent(text, document, &mut problems);
    let agent_only = agent.is_some() && document.len() == 1;
    if agent_only {
        let problems = problems.into_sorted();
        return Report { file: None, agent, agent_only, problems };
    }
    let mut file = read_document(document, &mut problems, existing);
    let failed = problems.has_errors();
    let problems = problems.into_sorted();
    file.agent.clone_from(&agent);
    file.comments.clone_from(&problems);
    Report { file: (!failed).then_some(file), agent, agent_only, problems }
}

/// What a controller says to a file that has an `[agent]` and nothing else.
fn no_partition(path: &Path) -> Problem {
    let message = "this is an agent's file; give the controller one with a [[partition]]";
    Problem {
        path: path.to_owned(),
        line: 1,
        column: 1,
        severity: Severity::Error,
        message: message.to_owned(),
    }
}

fn read_agent(
    text: &str,
    document: &DeTable<'_>,
    problems: &mut Problems<'_>,
) -> Option<toml::Table> {
    let value = document.get("agent")?;
    if !value.get_ref().is_table() {
        problems.error(&value.span(), "agent must be a table; write [agent] and its keys below it");
        return None;
    }
    match toml::from_str::<toml::Table>(text).ok()?.remove("agent") {
        Some(toml::Value::Table(table)) => Some(table),
        _ => None,
    }
}

fn read_document(
    document: &DeTable<'_>,
    problems: &mut Problems<'_>,
    existing: &Existing<'_>,
) -> ClusterFile {
    let own = ["cluster", "controller", "policy", "http", "partition", "node", "node_set", "agent"];
    let known = [&own[..], &scheduling::POLICY_SECTIONS, &scheduling::CLUSTER_SECTIONS].concat();
    for key in document.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
        problems.error(&key.span(), unknown_key("the file", key.get_ref(), &known));
    }
    let cluster = table(document, "cluster", problems)
        .map_or_else(ClusterSection::default, |(table, at)| read_cluster(table, at, problems));
    let controller = table(document, "controller", problems)
        .map_or_else(ControllerSection::default, |(table, at)| {
            read_controller(table, at, problems, existing)
        });
    let policy = table(document, "policy", problems)
        .map_or_else(PolicySection::default, |(table, at)| read_policy(table, at, problems));
    let nodes: Vec<Placed<NodeSection>> = tables(document, "node", problems)
        .into_iter()
        .filter_map(|(table, at)| nodes::read(table, at, problems))
        .collect();
    nodes::check_together(&nodes, problems);
    let found = tables(document, "partition", problems);
    if found.is_empty() && !document.contains_key("partition") {
        let message = "the file has no partition, so no job could run; add [[partition]] with \
                       name = \"main\" and nodes = \"ALL\"";
        problems.error(&(0..0), message);
    }
    let mut partitions: Vec<(Placed<PartitionSection>, bool)> = found
        .into_iter()
        .filter_map(|(table, at)| partitions::read(table, at, problems, existing))
        .collect();
    let sets = pools::read(tables(document, "node_set", problems), &nodes, problems);
    partitions.iter_mut().for_each(|(partition, _)| pools::expand(&mut partition.value, &sets));
    partitions::check_together(&mut partitions, &nodes, problems);
    lease::check(&policy, &partitions, problems);
    note_loopback(document, &controller, &nodes, problems);
    ClusterFile {
        cluster,
        controller,
        policy,
        http: http::read(document, problems),
        scheduling: scheduling::read(document, problems),
        gpu_health: gpu_health::read(document, problems),
        mig: gpu_health::read_mig(document, problems),
        hooks: hooks::read(document, problems),
        mail: hooks::read_mail(document, problems),
        idle: idle::read(tables(document, "idle_reclaim", problems), problems),
        health_check: health_check::read(document, problems),
        partitions: partitions.into_iter().map(|(partition, _)| partition.value).collect(),
        nodes: nodes.into_iter().map(|node| node.value).collect(),
        agent: None,
        comments: Vec::new(),
    }
}

/// The table `[key]`, and where it begins.
pub(super) fn table<'d, 'i>(
    document: &'d DeTable<'i>,
    key: &str,
    problems: &mut Problems<'_>,
) -> Option<(&'d DeTable<'i>, Range<usize>)> {
    let value: &Spanned<DeValue<'i>> = document.get(key)?;
    match value.get_ref() {
        DeValue::Table(table) => Some((table, value.span())),
        _ => {
            let message = format!("{key} must be one table; write [{key}] and its keys below it");
            problems.error(&value.span(), message);
            None
        }
    }
}

/// The tables `[[key]]`, and where each begins.
pub(super) fn tables<'d, 'i>(
    document: &'d DeTable<'i>,
    key: &str,
    problems: &mut Problems<'_>,
) -> Vec<(&'d DeTable<'i>, Range<usize>)> {
    let mut found = Vec::new();
    let Some(value) = document.get(key) else { return found };
    let wrong = |at: &Range<usize>, problems: &mut Problems<'_>| {
        let message = format!("{key} is a list of tables; write [[{key}]], with two brackets");
        problems.error(at, message);
    };
    match value.get_ref() {
        DeValue::Array(items) => {
            for item in items.iter() {
                match item.get_ref() {
                    DeValue::Table(table) => found.push((table, item.span())),
                    _ => wrong(&item.span(), problems),
                }
            }
        }
        _ => wrong(&value.span(), problems),
    }
    found
}

fn read_cluster(
    table: &DeTable<'_>,
    at: Range<usize>,
    problems: &mut Problems<'_>,
) -> ClusterSection {
    let default = ClusterSection::default();
    let mut section = Section::new("[cluster]", table, at, problems);
    let name = section.parsed("name", "\"demo\"", |text| {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if (1..=40).contains(&text.len()) && text.chars().all(letter) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "{text:?} is no name of a cluster; use lower-case letters, digits, '-' and '_', at \
             most 40"
        ))
    });
    let resolve_nodes = section.boolean("resolve_nodes");
    section.finish();
    ClusterSection {
        name: name.map_or(default.name, |name| name.value),
        resolve_nodes: resolve_nodes.map_or(default.resolve_nodes, |flag| flag.value),
    }
}

fn read_controller(
    table: &DeTable<'_>,
    at: Range<usize>,
    problems: &mut Problems<'_>,
    existing: &Existing<'_>,
) -> ControllerSection {
    let default = ControllerSection::default();
    let mut section = Section::new("[controller]", table, at, problems);
    let listen = section.parsed("listen", "\"0.0.0.0:6820\"", |text| {
        text.parse::<SocketAddr>().map_err(|_| {
            format!("{text:?} is no address with a port; write 0.0.0.0:6820 or [::]:6820")
        })
    });
    let socket = section.path("socket", "\"/run/penstock/controller.sock\"");
    if let Some(path) = &socket {
        let len = path.value.as_os_str().len();
        if len > MAX_SOCKET_PATH {
            let message = format!(
                "[controller] socket has {len} bytes, and the kernel takes {MAX_SOCKET_PATH}; \
                 choose a shorter path"
            );
            section.problems.error(&path.at, message);
        }
    }
    let state_dir = section.path("state_dir", "\"/var/lib/penstock/controller\"");
    let admins = section.strings("admins", "[\"alice\"]");
    let admins = admins.map_or_else(Vec::new, |admins| admins.value);
    for admin in admins.iter().filter(|admin| !(existing.user)(&admin.value)) {
        let message = format!(
            "[controller] admins: this machine has no user {:?}; the entry has no effect until \
             there is one",
            admin.value
        );
        section.problems.warning(&admin.at, message);
    }
    section.finish();
    ControllerSection {
        listen: listen.map_or(default.listen, |listen| listen.value),
        socket: socket.map_or(default.socket, |socket| socket.value),
        state_dir: state_dir.map_or(default.state_dir, |dir| dir.value),
        admins: admins.into_iter().map(|admin| admin.value).collect(),
    }
}

fn read_policy(
    table: &DeTable<'_>,
    at: Range<usize>,
    problems: &mut Problems<'_>,
) -> PolicySection {
    let default = PolicySection::default();
    let mut section = Section::new("[policy]", table, at, problems);
    let timeout = section.number("node_timeout_secs", 5..=YEAR_SECS);
    let heartbeat = section.number("heartbeat_secs", 1..=3600);
    let fence_program = section.path("fence_program", "\"/usr/local/sbin/fence-node\"");
    let mut number = |key, range, default| {
        section.number(key, range).map_or(default, |number: Placed<u32>| number.value)
    };
    let policy = PolicySection {
        node_timeout_secs: timeout.as_ref().map_or(default.node_timeout_secs, |n| n.value),
        heartbeat_secs: heartbeat.as_ref().map_or(default.heartbeat_secs, |n| n.value),
        kill_wait_secs: number("kill_wait_secs", 1..=3600, default.kill_wait_secs),
        unkillable_secs: number("unkillable_secs", 1..=YEAR_SECS, default.unkillable_secs),
        min_job_age_secs: number("min_job_age_secs", 2..=YEAR_SECS, default.min_job_age_secs),
        requeue_delay_secs: number("requeue_delay_secs", 0..=YEAR_SECS, default.requeue_delay_secs),
        fence_lease_secs: number("fence_lease_secs", 1..=3600, default.fence_lease_secs),
        fence_program: fence_program.map(|path| path.value),
        history_days: number("history_days", 0..=100_000, default.history_days),
        max_array_size: number("max_array_size", 1..=MAX_MAX_ARRAY_SIZE, default.max_array_size),
        measure_secs: number("measure_secs", 0..=86_400, default.measure_secs),
    };
    let least = policy.heartbeat_secs.saturating_mul(HEARTBEATS_PER_TIMEOUT);
    if policy.node_timeout_secs < least {
        let at = timeout.or(heartbeat).map_or_else(|| section.at(), |number| number.at);
        let message = format!(
            "[policy] node_timeout_secs is {} with heartbeat_secs {}: a node would be down after \
             {} lost heartbeats or fewer; raise it to {least} or more",
            policy.node_timeout_secs,
            policy.heartbeat_secs,
            HEARTBEATS_PER_TIMEOUT - 1,
        );
        section.problems.error(&at, message);
    }
    section.finish();
    policy
}

/// Several described nodes, and a controller that only its own machine reaches.
fn note_loopback(
    document: &DeTable<'_>,
    controller: &ControllerSection,
    nodes: &[Placed<NodeSection>],
    problems: &mut Problems<'_>,
) {
    let described: usize = nodes.iter().map(|node| node.value.names.len()).sum();
    if described < 2 || !controller.listen.ip().is_loopback() || problems.has_errors() {
        return;
    }
    let at = document.get("controller").map_or(0..0, Spanned::span);
    let message = format!(
        "the controller listens on {}, which only agents on its own machine reach; write \
         listen = \"0.0.0.0:6820\" in [controller] to let other machines in",
        controller.listen
    );
    problems.note(&at, message);
}
