//! What is in the files that quickstart writes, and which ports and sockets do they name?

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use penstock_controller::config::{ClusterFile, MAX_SOCKET_PATH};
use penstock_vocab::Mib;

use super::failure::Failure;
use super::layout::{Layout, set_mode};
use super::options::Claims;
use super::registry::CONTROLLER;

/// The first job, which `DIR/hello.sh` becomes.
const HELLO: &str = include_str!("../../../examples/hello.sh");

/// Longest path of a socket below the folder, counted from it: `/node1000/agent.sock`, with some
/// room for what agents put beside theirs.
const SOCKET_ROOM: usize = 28;

/// Where a folder for sockets is made if need be, and how its name begins.
pub(super) const SOCKETS_IN: &str = "/tmp";
pub(super) const SOCKETS_PREFIX: &str = "penstock-";

/// What the cluster's file says of the way to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// Where agents dial in.
    pub(super) port: u16,
    /// Where commands find it.
    pub(super) socket: PathBuf,
    /// Where browsers find it, if they do.
    pub(super) web: Option<u16>,
}

/// Writes a file as a whole: the old or the new one is there at any time.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || {
        // Left by a quickstart that was killed; its mode may be another.
        fs::remove_file(&new).ok();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        Ok(())
    };
    write().map_err(Failure::system(format!("write {}", path.display())))?;
    // The umask may have taken something away.
    set_mode(&new, mode)?;
    fs::rename(&new, path).map_err(Failure::system(format!("write {}", path.display())))
}

/// Writes `DIR/hello.sh`, unless it is there: it may have been edited.
pub(super) fn write_hello(layout: &Layout) -> Result<(), Failure> {
    let path = layout.hello();
    if path.exists() { Ok(()) } else { replace(&path, HELLO.as_bytes(), 0o755) }
}

/// The endpoints that the cluster's file names; `None` where there is no file yet.
pub(super) fn read_endpoints(layout: &Layout) -> Result<Option<Endpoints>, Failure> {
    let path = layout.cluster_file();
    if !path.exists() {
        return Ok(None);
    }
    let file = ClusterFile::read(&path).map_err(|error| Failure::Folder {
        dir: layout.dir().to_owned(),
        why: format!("its cluster.toml has mistakes:\n{error}"),
    })?;
    let controller = file.controller;
    let web = file.http.map(|http| http.listen.port());
    Ok(Some(Endpoints { port: controller.listen.port(), socket: controller.socket, web }))
}

/// Writes the cluster's file for a controller that is to start: with the port and socket of before
/// where they are free, else with others. Other edits stay.
pub(super) fn settle_endpoints(layout: &Layout) -> Result<Endpoints, Failure> {
    let path = layout.cluster_file();
    let before = read_endpoints(layout)?;
    let port = match &before {
        Some(endpoints) if port_is_free(endpoints.port) => endpoints.port,
        _ => free_port().map_err(Failure::system("find a free port on 127.0.0.1"))?,
    };
    let socket = match &before {
        Some(endpoints) if is_ours(&endpoints.socket) => endpoints.socket.clone(),
        _ => new_socket(layout)?,
    };
    let web = match &before {
        // A file of before, or somebody took the section out.
        Some(Endpoints { web: None, .. }) => None,
        Some(Endpoints { web: Some(web), .. }) if port_is_free(*web) && *web != port => Some(*web),
        _ => Some(free_port().map_err(Failure::system("find a free port on 127.0.0.1"))?),
    };
    let after = Endpoints { port, socket, web };
    if before.as_ref() == Some(&after) {
        return Ok(after);
    }
    let text = match before {
        None => cluster_toml(layout, &after),
        Some(_) => {
            let text = fs::read_to_string(&path)
                .map_err(Failure::system(format!("read {}", path.display())))?;
            let listen = quote(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string());
            let text = set_key(&text, "controller", "listen", &listen);
            let text = set_key(&text, "controller", "socket", &quote_path(&after.socket));
            match after.web {
                Some(web) => {
                    let listen = quote(&SocketAddr::from((Ipv4Addr::LOCALHOST, web)).to_string());
                    set_key(&text, "http", "listen", &listen)
                }
                None => text,
            }
        }
    };
    replace(&path, text.as_bytes(), 0o644)?;
    Ok(after)
}

fn port_is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether the folder of a socket is there and ours.
fn is_ours(socket: &Path) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let meta = socket.parent().and_then(|dir| fs::symlink_metadata(dir).ok());
    meta.is_some_and(|meta| meta.is_dir() && meta.uid() == own)
}

/// Where the controller's socket may be: in the folder, or in a new one below /tmp where the
/// folder's path is too long for a socket.
fn new_socket(layout: &Layout) -> Result<PathBuf, Failure> {
    if layout.dir().as_os_str().len() + SOCKET_ROOM <= MAX_SOCKET_PATH {
        return Ok(layout.dir().join("controller.sock"));
    }
    let template = format!("{SOCKETS_IN}/{SOCKETS_PREFIX}XXXXXX");
    let dir = nix::unistd::mkdtemp(template.as_str())
        .map_err(|error| Failure::system("make a folder for sockets in /tmp")(error.into()))?;
    set_mode(&dir, 0o711)?;
    Ok(dir.join("controller.sock"))
}

/// The folder below /tmp that holds the sockets, where they are not in the layout's own.
pub(super) fn foreign_socket_dir<'e>(
    layout: &Layout,
    endpoints: &'e Endpoints,
) -> Option<&'e Path> {
    endpoints.socket.parent().filter(|dir| *dir != layout.dir())
}

fn agent_socket(layout: &Layout, name: &str, endpoints: &Endpoints) -> PathBuf {
    match foreign_socket_dir(layout, endpoints) {
        Some(dir) => dir.join(format!("{name}.sock")),
        None => layout.daemon_dir(name).join("agent.sock"),
    }
}

fn cluster_toml(layout: &Layout, endpoints: &Endpoints) -> String {
    format!(
        "# Written by `penstock quickstart`. Edits stay; only listen and socket are replaced where\n\
         # another process has taken them. `penstock config check` judges this file.\n\
         [cluster]\n\
         name = \"quickstart\"\n\
         # node1 and so on are names that only this cluster's jobs know.\n\
         resolve_nodes = true\n\
         \n\
         [controller]\n\
         listen = {}\n\
         socket = {}\n\
         state_dir = {}\n\
         \n\
         # The page, REST and metrics, on this machine only: `penstock web` prints a link.\n\
         [http]\n\
         listen = {}\n\
         \n\
         [policy]\n\
         # Shorter than on a real cluster: no network is in between, and nobody likes to wait.\n\
         heartbeat_secs = 2\n\
         node_timeout_secs = 30\n\
         kill_wait_secs = 5\n\
         \n\
         [[partition]]\n\
         name = \"main\"\n\
         default = true\n\
         nodes = \"ALL\"\n",
        quote(&SocketAddr::from((Ipv4Addr::LOCALHOST, endpoints.port)).to_string()),
        quote_path(&endpoints.socket),
        quote_path(&layout.daemon_dir(CONTROLLER).join("state")),
        quote(&SocketAddr::from((Ipv4Addr::LOCALHOST, endpoints.web.unwrap_or(0))).to_string()),
    )
}

/// The file of one agent.
#[derive(Debug, Clone)]
pub(super) struct AgentFile<'a> {
    /// `node1`, ...
    pub(super) name: &'a str,
    /// From 1.
    pub(super) number: u32,
    /// What it claims.
    pub(super) claims: Claims,
    /// Whether jobs are bound to CPUs of their own.
    pub(super) pin_cpus: bool,
    /// The library of GPUs that do not exist.
    pub(super) gpus: Option<&'a Path>,
}

/// Writes an agent's file.
pub(super) fn write_agent(
    layout: &Layout,
    agent: &AgentFile<'_>,
    endpoints: &Endpoints,
) -> Result<(), Failure> {
    let name = agent.name;
    let dir = layout.daemon_dir(name);
    let controller = SocketAddr::from((Ipv4Addr::LOCALHOST, endpoints.port)).to_string();
    let mut text = format!(
        "# Written by `penstock quickstart` at each start of this agent; cpus and memory stay.\n\
         [agent]\n\
         controller = {}\n\
         name = {}\n\
         address = {}\n\
         token_file = {}\n\
         state_dir = {}\n\
         run_dir = {}\n\
         socket = {}\n\
         commands_dir = {}\n",
        quote(&controller),
        quote(name),
        quote(&node_address(agent.number).to_string()),
        quote_path(&layout.token(name)),
        quote_path(&dir.join("state")),
        quote_path(&dir.join("run")),
        quote_path(&agent_socket(layout, name, endpoints)),
        quote_path(&layout.bin()),
    );
    let mut line = |key: &str, value: String| {
        writeln!(text, "{key} = {value}").expect("writing to a String cannot fail");
    };
    if let Some(cpus) = agent.claims.cpus {
        line("cpus", cpus.to_string());
    }
    if let Some(memory) = agent.claims.memory {
        line("memory", quote(&memory.to_arg()));
    }
    if !agent.pin_cpus {
        line("pin_cpus", "false".to_owned());
    }
    if let Some(library) = agent.gpus {
        text.push_str(
            "\n# FAKE GPUs; the scenario beside the library may be edited.\n[agent.gpu]\n",
        );
        // GPUs that do not exist have no files in /dev; whoever wants some puts them there.
        let devices = library.with_file_name("dev");
        let (library, devices) = (quote_path(library), quote_path(&devices));
        writeln!(text, "library = {library}\ndevice_dir = {devices}\nsample_secs = 2")
            .expect("writing to a String cannot fail");
    }
    replace(&layout.agent_file(name), text.as_bytes(), 0o644)
}

/// What an agent's file claims, and which port it dials; nothing where it has none.
pub(super) fn read_agent(layout: &Layout, name: &str) -> (Claims, Option<u16>) {
    let text = fs::read_to_string(layout.agent_file(name)).unwrap_or_default();
    let table = text.parse::<toml::Table>().unwrap_or_default();
    let get = |key: &str| table.get("agent")?.get(key);
    let number = |key: &str| u32::try_from(get(key)?.as_integer()?).ok();
    let memory = || penstock_vocab::parse_memory(get("memory")?.as_str()?).ok();
    let port = || get("controller")?.as_str()?.parse::<SocketAddr>().ok();
    let claims = Claims { cpus: number("cpus"), memory: memory().filter(|size| *size > Mib(0)) };
    (claims, port().map(|address| address.port()))
}

/// The address of node `number` (from 1): 127.0.0.2, 127.0.0.3 and on; none ends in 0 or 255.
fn node_address(number: u32) -> Ipv4Addr {
    let bits = |value: u32| u8::try_from(value).expect("numbers stay far below 254 x 254");
    Ipv4Addr::new(127, 0, bits(number / 254), bits(number % 254 + 1))
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The layout has made sure that its paths are UTF-8.
fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// Sets `key` of the table `[section]` in a TOML text and leaves everything else as it is.
fn set_key(text: &str, section: &str, key: &str, value: &str) -> String {
    let header = format!("[{section}]");
    let is_key = |line: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_header = |line: &String| line.split('#').next().unwrap_or("").trim() == header;
    let set = format!("{key} = {value}");
    if let Some(begin) = lines.iter().position(is_header) {
        let body = begin + 1;
        let end = lines[body..]
            .iter()
            .position(|line| line.trim_start().starts_with('['))
            .map_or(lines.len(), |length| body + length);
        match lines[body..end].iter().position(|line| is_key(line)) {
            Some(place) => lines[body + place] = set,
            None => lines.insert(body, set),
        }
    } else {
        lines.extend([String::new(), header, set]);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_distinct_and_on_loopback() {
        assert_eq!(node_address(1), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(node_address(253), Ipv4Addr::new(127, 0, 0, 254));
        assert_eq!(node_address(254), Ipv4Addr::new(127, 0, 1, 1));
        let all: std::collections::BTreeSet<_> = (1..=1000).map(node_address).collect();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|address| ![0, 255].contains(&address.octets()[3])));
    }

    #[test]
    fn cluster_file_is_valid_and_edits_stay() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path());
        assert_eq!(read_endpoints(&layout).unwrap(), None);
        let first = settle_endpoints(&layout).unwrap();
        assert_eq!(first.socket, dir.path().join("controller.sock"));
        assert_eq!(settle_endpoints(&layout).unwrap(), first);
        let text = fs::read_to_string(layout.cluster_file()).unwrap();
        let edited = text.replace("kill_wait_secs = 5", "kill_wait_secs = 7");
        fs::write(layout.cluster_file(), edited).unwrap();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first.port)).unwrap();
        let second = settle_endpoints(&layout).unwrap();
        drop(taken);
        assert_ne!(second.port, first.port);
        let file = ClusterFile::read(&layout.cluster_file()).unwrap();
        assert_eq!((file.policy.kill_wait_secs, file.controller.listen.port()), (7, second.port));
        assert!(file.cluster.resolve_nodes);
    }

    #[test]
    fn sockets_of_a_long_folder_are_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(&dir.path().join("x".repeat(100)));
        let socket = new_socket(&layout).unwrap();
        let endpoints = Endpoints { port: 1, socket, web: None };
        let parent = foreign_socket_dir(&layout, &endpoints).unwrap();
        assert!(parent.starts_with("/tmp") && is_ours(&endpoints.socket));
        let agent = agent_socket(&layout, "node1000", &endpoints);
        assert!(agent.as_os_str().len() <= MAX_SOCKET_PATH);
        fs::remove_dir(parent).unwrap();
        assert!(!is_ours(&endpoints.socket));
    }

    #[test]
    fn agent_file_keeps_its_claims() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path());
        layout.make_daemon_dir("node2").unwrap();
        assert_eq!(read_agent(&layout, "node2"), (Claims::default(), None));
        let claims = Claims { cpus: Some(8), memory: Some(Mib(16 * 1024)) };
        let agent = AgentFile { name: "node2", number: 2, claims, pin_cpus: false, gpus: None };
        let socket = dir.path().join("controller.sock");
        let endpoints = Endpoints { port: 4711, socket, web: None };
        write_agent(&layout, &agent, &endpoints).unwrap();
        assert_eq!(read_agent(&layout, "node2"), (claims, Some(4711)));
        let text = fs::read_to_string(layout.agent_file("node2")).unwrap();
        assert!(text.contains("address = \"127.0.0.3\"") && text.contains("pin_cpus = false"));
    }

    #[test]
    fn keys_are_set_where_they_belong() {
        let text = "[a]\nlisten = 1 # x\n[controller] # y\n listen= 2\n[b]\nlisten = 3\n";
        let expect = "[a]\nlisten = 1 # x\n[controller] # y\nlisten = 9\n[b]\nlisten = 3\n";
        assert_eq!(set_key(text, "controller", "listen", "9"), expect);
        let expect =
            "[a]\nlisten = 1 # x\n[controller] # y\nsocket = 9\n listen= 2\n[b]\nlisten = 3\n";
        assert_eq!(set_key(text, "controller", "socket", "9"), expect);
        assert_eq!(set_key("", "controller", "socket", "9"), "\n[controller]\nsocket = 9\n");
    }
}
