//! What does the cluster's file say to the agent?
//!
//! Only `[agent]` is read; it is read strictly, so that a mistyped key is found here and not by a
//! node that behaves strangely. Other sections belong to other readers and are skipped. Relative
//! paths are relative to the file.

mod devices;

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use penstock_vocab::{GresRequest, Mib, NodeName, parse_gres_list, parse_memory};
use serde::Deserialize;
use toml::Spanned;

use crate::gpu::{Accelerator, GpuSettings};

/// Where the agent keeps its state if the file does not say.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/penstock/agent";

/// Where the agent keeps what lives as long as the machine runs if the file does not say.
pub const DEFAULT_RUN_DIR: &str = "/run/penstock/agent";

/// Where commands find the agent if the file does not say.
pub const DEFAULT_SOCKET: &str = "/run/penstock/agent.sock";

/// Port of a controller if the file names none.
pub const DEFAULT_CONTROLLER_PORT: u16 = 6820;

/// Longest path of a Unix socket that the kernel takes, in bytes.
const MAX_SOCKET_BYTES: usize = 107;

/// Most features of a node, and most bytes of each.
const MAX_FEATURES: usize = 64;

/// Where the join token comes from; it is used until this host has joined.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// There is none.
    None,
    /// In this file, of which white space at the ends does not count.
    File(PathBuf),
    /// In the cluster's file itself.
    Inline(String),
}

/// Never shows the token itself.
impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(_) => f.write_str("Inline(..)"),
        }
    }
}

/// The `[agent]` section, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Host and port of the controller, as `host:port`; IPv6 addresses are in brackets.
    pub controller: String,
    /// Name of this node.
    pub name: NodeName,
    /// Address under which other nodes' jobs reach this one; `None`: not told.
    pub address: Option<IpAddr>,
    /// Where the join token comes from.
    pub token: TokenSource,
    /// The agent's own folder, closed to everybody else: identity and spool.
    pub state_dir: PathBuf,
    /// Folder of files that jobs' users read, gone at reboot.
    pub run_dir: PathBuf,
    /// Socket for commands of this host.
    pub socket: PathBuf,
    /// Folder with commands of Slurm's names, put into the `PATH` of jobs; `None`: the folder of
    /// the agent's program, if they are there.
    pub commands_dir: Option<PathBuf>,
    /// CPUs to offer; `None`: what is found.
    pub cpus: Option<u32>,
    /// Whether jobs are bound to CPUs of their own; not where several agents share a machine.
    pub pin_cpus: bool,
    /// Most processes and threads of one job; `None`: no limit.
    pub max_processes: Option<u32>,
    /// Memory to offer; `None`: what is found.
    pub memory: Option<Mib>,
    /// Generic resources to offer.
    pub gres: Vec<GresRequest>,
    /// Features for `--constraint`.
    pub features: Vec<String>,
    /// How GPUs are found and told.
    pub gpu: GpuSettings,
    /// Devices of other kinds.
    pub accelerators: Vec<Accelerator>,
}

/// Why a cluster's file cannot be used by an agent.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that is not understood or cannot be.
    #[error("{}:{line}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line of the problem, from 1.
        line: usize,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// No name is given, and the machine's own cannot serve.
    #[error("cannot use the host's name as this node's; set name = \"...\" in [agent]")]
    HostName {
        /// Why.
        source: penstock_vocab::NameError,
    },
}

#[derive(Deserialize)]
struct ClusterFile {
    agent: Option<Spanned<Section>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    controller: Spanned<String>,
    name: Option<Spanned<String>>,
    address: Option<Spanned<String>>,
    token_file: Option<Spanned<PathBuf>>,
    token: Option<String>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    socket: Option<Spanned<PathBuf>>,
    commands_dir: Option<PathBuf>,
    cpus: Option<Spanned<u32>>,
    pin_cpus: Option<bool>,
    max_processes: Option<Spanned<u32>>,
    memory: Option<Spanned<String>>,
    #[serde(default)]
    gres: Vec<Spanned<String>>,
    #[serde(default)]
    features: Vec<Spanned<String>>,
    #[serde(default)]
    gpu: devices::GpuSection,
    #[serde(default, rename = "accelerator")]
    accelerators: Vec<Spanned<devices::AcceleratorSection>>,
}

/// A problem at a place in the text.
struct Problem {
    at: Range<usize>,
    text: String,
}

impl Problem {
    fn at<T>(what: &Spanned<T>, text: impl fmt::Display) -> Self {
        Self { at: what.span(), text: text.to_string() }
    }
}

impl AgentConfig {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or its `[agent]` section is missing or wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Whether the file says what the host offers to jobs.
    pub(crate) fn claims_resources(&self) -> bool {
        let counted = self.cpus.is_some() || self.memory.is_some();
        counted || !self.gres.is_empty() || !self.features.is_empty()
    }

    /// Reads `text`, which came from `path`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let content = |at: Range<usize>, problem: String| ConfigError::Content {
            path: path.to_owned(),
            line: text.as_bytes().iter().take(at.start).filter(|byte| **byte == b'\n').count() + 1,
            problem,
        };
        let file: ClusterFile = toml::from_str(text).map_err(|error| {
            content(error.span().unwrap_or(0..0), error.message().trim_end().replace('\n', "; "))
        })?;
        let Some(section) = file.agent else {
            let problem = "there is no [agent] section; add one with controller = \"HOST:PORT\"";
            return Err(content(0..0, problem.to_owned()));
        };
        let span = section.span();
        let section = section.into_inner();
        let name = match &section.name {
            Some(name) => NodeName::new(name.as_ref())
                .map_err(|error| content(name.span(), error.to_string()))?,
            None => host_name()?,
        };
        let folder = absolute_folder(path);
        check(section, span, name, &folder).map_err(|problem| content(problem.at, problem.text))
    }
}

fn check(
    section: Section,
    whole: Range<usize>,
    name: NodeName,
    folder: &Path,
) -> Result<AgentConfig, Problem> {
    let path = |given: Option<PathBuf>, default: &str| {
        given.map_or_else(|| PathBuf::from(default), |path| folder.join(path))
    };
    let token = match (section.token_file, section.token) {
        (Some(file), Some(_)) => {
            return Err(Problem::at(&file, "token_file and token are both given; keep one"));
        }
        (Some(file), None) => TokenSource::File(folder.join(file.into_inner())),
        (None, Some(token)) => TokenSource::Inline(token),
        (None, None) => TokenSource::None,
    };
    let socket_at = section.socket.as_ref().map_or(whole, Spanned::span);
    let socket = path(section.socket.map(Spanned::into_inner), DEFAULT_SOCKET);
    if socket.as_os_str().len() > MAX_SOCKET_BYTES {
        let text = format!(
            "socket {} has {} bytes, the kernel takes {MAX_SOCKET_BYTES}; choose a shorter path",
            socket.display(),
            socket.as_os_str().len()
        );
        return Err(Problem { at: socket_at, text });
    }
    Ok(AgentConfig {
        controller: controller(&section.controller)?,
        name,
        address: section.address.as_ref().map(address).transpose()?,
        token,
        state_dir: path(section.state_dir, DEFAULT_STATE_DIR),
        run_dir: path(section.run_dir, DEFAULT_RUN_DIR),
        socket,
        commands_dir: section.commands_dir.map(|path| folder.join(path)),
        cpus: section.cpus.map(cpus).transpose()?,
        pin_cpus: section.pin_cpus.unwrap_or(true),
        max_processes: section.max_processes.map(processes).transpose()?,
        memory: section.memory.as_ref().map(memory).transpose()?,
        gres: gres(&section.gres)?,
        features: features(section.features)?,
        gpu: devices::gpu(section.gpu, folder)?,
        accelerators: devices::accelerators(section.accelerators)?,
    })
}

/// A job is at least its shell and one program.
fn processes(given: Spanned<u32>) -> Result<u32, Problem> {
    if *given.as_ref() < 2 {
        let text = "max_processes is less than 2, and a job is a shell and a program at least";
        return Err(Problem::at(&given, text));
    }
    Ok(given.into_inner())
}

/// Adds the port where none is given.
fn controller(given: &Spanned<String>) -> Result<String, Problem> {
    let text = given.as_ref().trim();
    let wrong = || {
        let text = format!("controller {text:?} is not HOST or HOST:PORT, e.g. \"head1:6820\"");
        Problem::at(given, text)
    };
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(wrong());
    }
    if let Ok(IpAddr::V6(bare)) = text.parse() {
        return Ok(format!("[{bare}]:{DEFAULT_CONTROLLER_PORT}"));
    }
    if text.starts_with('[') && text.ends_with(']') || !text.contains(':') {
        return Ok(format!("{text}:{DEFAULT_CONTROLLER_PORT}"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let is_host = !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
    match port.parse::<u16>() {
        Ok(port) if is_host && port > 0 => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(wrong()),
    }
}

fn address(given: &Spanned<String>) -> Result<IpAddr, Problem> {
    given.as_ref().parse().map_err(|_| {
        let text = format!("address {:?} is no IP address, e.g. \"10.0.0.7\"", given.as_ref());
        Problem::at(given, text)
    })
}

fn cpus(given: Spanned<u32>) -> Result<u32, Problem> {
    let text = "cpus = 0 offers nothing; give at least 1, or leave it out to offer what is found";
    if *given.as_ref() == 0 { Err(Problem::at(&given, text)) } else { Ok(given.into_inner()) }
}

fn memory(given: &Spanned<String>) -> Result<Mib, Problem> {
    let memory = parse_memory(given.as_ref()).map_err(|error| Problem::at(given, error))?;
    let text = "memory offers nothing; give e.g. \"16G\", or leave it out to offer what is found";
    if memory == Mib(0) { Err(Problem::at(given, text)) } else { Ok(memory) }
}

fn gres(given: &[Spanned<String>]) -> Result<Vec<GresRequest>, Problem> {
    let mut all = Vec::new();
    for entry in given {
        let list = parse_gres_list(entry.as_ref()).map_err(|error| Problem::at(entry, error))?;
        all.extend(list);
    }
    Ok(all)
}

fn features(given: Vec<Spanned<String>>) -> Result<Vec<String>, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | ':');
    let mut features = Vec::with_capacity(given.len());
    for feature in given {
        let text = feature.as_ref();
        let problem = if features.len() == MAX_FEATURES {
            format!("there are more than {MAX_FEATURES} features")
        } else if text.is_empty() || text.len() > penstock_vocab::MAX_NAME_LEN {
            format!("feature {text:?} must have 1 to {} letters", penstock_vocab::MAX_NAME_LEN)
        } else if !text.chars().all(plain) {
            format!("feature {text:?} may have letters, digits, '-', '_', '.', '=' and ':' only")
        } else {
            features.push(feature.into_inner());
            continue;
        };
        return Err(Problem::at(&feature, problem));
    }
    Ok(features)
}

/// The folder of the file, wherever this process and its children may go. Without a working
/// directory it stays as it is; then nothing relative can be opened anyway.
fn absolute_folder(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    std::path::absolute(folder.join(".")).unwrap_or_else(|_| folder.to_owned())
}

/// The host's name up to the first dot.
fn host_name() -> Result<NodeName, ConfigError> {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    let short = name.split('.').next().unwrap_or_default();
    NodeName::new(short).map_err(|source| ConfigError::HostName { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AgentConfig, String> {
        AgentConfig::parse(text, Path::new("/etc/penstock/c.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_whole_section_is_read_and_other_sections_are_skipped() {
        let text = r#"
            [controller]
            listen = "x"
            unheard_of = [1, 2]
            [agent]
            controller = "head:7000"
            name = "n1"
            address = "127.0.0.2"
            token_file = "token"
            state_dir = "/s"
            run_dir = "run"
            socket = "/a.sock"
            commands_dir = "bin"
            cpus = 8
            pin_cpus = false
            max_processes = 500
            memory = "16G"
            gres = ["gpu:h100:4", "shard:2"]
            features = ["ib", "h100"]
        "#;
        let config = parse(text).expect("valid");
        let gres = config.gres.iter().map(ToString::to_string);
        assert_eq!(gres.collect::<Vec<_>>(), ["gpu:h100:4", "shard:2"]);
        assert_eq!(config.memory, Some(Mib(16 << 10)));
        assert_eq!(config.token, TokenSource::File("/etc/penstock/token".into()));
        assert_eq!(config.run_dir, Path::new("/etc/penstock/run"));
        assert_eq!(config.state_dir, Path::new("/s"));
        assert_eq!(config.commands_dir.as_deref(), Some(Path::new("/etc/penstock/bin")));
        assert_eq!(config.features, ["ib", "h100"]);
        assert_eq!((config.name.as_str(), config.cpus), ("n1", Some(8)));
        assert!(!config.pin_cpus);
        assert_eq!(config.max_processes, Some(500));
        assert_eq!(config.address, Some([127, 0, 0, 2].into()));
    }

    #[test]
    fn a_short_section_gets_the_defaults() {
        let config = parse("[agent]\ncontroller = 'head'\nname = 'n1'").expect("valid");
        assert_eq!(config.controller, "head:6820");
        assert_eq!(config.state_dir, Path::new(DEFAULT_STATE_DIR));
        assert_eq!(config.run_dir, Path::new(DEFAULT_RUN_DIR));
        assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
        assert_eq!((config.token, config.cpus), (TokenSource::None, None));
        assert_eq!((config.memory, config.gres, config.pin_cpus), (None, vec![], true));
    }

    #[test]
    fn a_relative_file_has_absolute_paths() {
        let text = "[agent]\ncontroller = 'head'\nname = 'n1'\nstate_dir = 'state'";
        let here = std::env::current_dir().expect("there is one");
        for (file, expect) in [("c.toml", here.join("state")), ("a/c.toml", here.join("a/state"))] {
            let config = AgentConfig::parse(text, Path::new(file)).expect("valid");
            assert_eq!(config.state_dir, expect);
        }
    }

    #[test]
    fn controllers_get_a_port_and_are_checked() {
        for (given, expect) in [
            ("head", Some("head:6820")),
            ("head:1", Some("head:1")),
            ("10.0.0.1", Some("10.0.0.1:6820")),
            ("::1", Some("[::1]:6820")),
            ("[::1]", Some("[::1]:6820")),
            ("[::1]:99", Some("[::1]:99")),
            ("", None),
            ("head:0", None),
            ("head:99999", None),
            (":6820", None),
            ("http://head", None),
            ("a b", None),
        ] {
            let text = format!("[agent]\nname = 'n1'\ncontroller = '{given}'");
            let found = parse(&text).ok().map(|config| config.controller);
            assert_eq!(found.as_deref(), expect, "{given:?}");
        }
    }

    #[test]
    fn mistakes_name_file_line_and_the_way_out() {
        let agent = "[agent]\ncontroller = 'head'\nname = 'n1'\n";
        for (text, line, expect) in [
            ("", 1, "no [agent] section"),
            ("[agent]\nname = 'n1'", 1, "controller"),
            (&format!("{agent}cpu = 8"), 4, "unknown field `cpu`"),
            (&format!("{agent}\ncpus = 0"), 5, "leave it out"),
            (&format!("{agent}cpus = -1"), 4, "-1"),
            (&format!("{agent}memory = '16X'"), 4, "16X"),
            (&format!("{agent}memory = '0'"), 4, "offers nothing"),
            (&format!("{agent}gres = ['gpu:1',\n'gpu:a:b:c']"), 5, "gpu:a:b:c"),
            (&format!("{agent}features = ['a b']"), 4, "a b"),
            (&format!("{agent}address = 'head'"), 4, "no IP address"),
            (&format!("{agent}token = 'x'\ntoken_file = 'y'"), 5, "keep one"),
            (&format!("{agent}socket = '/{}'", "s".repeat(120)), 4, "shorter path"),
            ("[agent]\ncontroller = 'head'\nname = 'a/b'", 3, "a/b"),
            ("[agent\n", 1, ""),
        ] {
            let error = parse(text).expect_err(text);
            let place = format!("/etc/penstock/c.toml:{line}: ");
            assert!(error.starts_with(&place), "{error:?} does not start with {place:?}");
            assert!(error.contains(expect), "{error:?} lacks {expect:?}");
            assert!(!error.contains('\n'), "{error:?} is one line");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let text = "[agent]\ncontroller = 'head'\nname = 'n1'\ntoken = 'geheim'";
        let config = parse(text).expect("valid");
        assert!(!format!("{config:?}").contains("geheim"));
    }
}
