//! What does a cluster that ends leave on the machine, and how does that go?
//!
//! Sockets of daemons that were killed, and the cgroups of agents. The folder stays as it is.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use penstock_agent::{AgentConfig, holds_attempts, remove_groups};

use super::files::{self, Endpoints, SOCKETS_IN, SOCKETS_PREFIX};
use super::interrupt::Interrupt;
use super::layout::Layout;
use super::process::Held;

/// Longest wait for what follows a job's end: the controller's word, on loopback, that it knows.
const SPOOL_PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at the spools.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether the agent `name` holds jobs, be it alive or not.
pub(super) fn holds_jobs(layout: &Layout, name: &str) -> bool {
    AgentConfig::load(&layout.agent_file(name)).is_ok_and(|config| holds_attempts(&config))
}

/// Waits until these agents hold no attempts, but not long: their jobs may go on.
pub(super) fn await_spools(layout: &Layout, agents: &[Held], interrupt: &Interrupt) {
    let files = agents.iter().map(|agent| layout.agent_file(&agent.name));
    let configs: Vec<AgentConfig> =
        files.filter_map(|file| AgentConfig::load(&file).ok()).collect();
    let deadline = Instant::now() + SPOOL_PATIENCE;
    while configs.iter().any(holds_attempts) && Instant::now() < deadline {
        if interrupt.pause(LOOK_EVERY).is_err() {
            return;
        }
    }
}

/// Removes sockets and cgroups, once all daemons have ended. Best effort: where one stays, the next
/// start takes it over.
pub(super) fn remove_leftovers(layout: &Layout, endpoints: Option<&Endpoints>) {
    for number in 1..=layout.known_nodes() {
        let file = layout.agent_file(&format!("node{number}"));
        let Ok(config) = AgentConfig::load(&file) else { continue };
        remove_socket(&config.socket);
        remove_groups(&config);
    }
    if let Some(endpoints) = endpoints {
        remove_socket(&endpoints.socket);
        if let Some(dir) = files::foreign_socket_dir(layout, endpoints) {
            remove_socket_dir(dir);
        }
    }
}

/// Removes a folder that quickstart made for sockets, and nothing that anybody else put there.
fn remove_socket_dir(dir: &Path) {
    let made_by_us = dir.parent() == Some(Path::new(SOCKETS_IN))
        && dir
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(SOCKETS_PREFIX.as_bytes()));
    if !made_by_us {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // An agent's lock, which lies beside its socket.
        if path.extension().is_some_and(|end| end == "lock") {
            fs::remove_file(path).ok();
        }
    }
    fs::remove_dir(dir).ok();
}

fn remove_socket(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        fs::remove_file(path).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    fn remove(layout: &Layout, socket: PathBuf) {
        remove_leftovers(layout, Some(&Endpoints { port: 1, socket, web: None }));
    }

    #[test]
    fn only_sockets_and_what_was_made_for_them_go() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::at(home.path());
        let own = home.path().join("controller.sock");
        drop(UnixListener::bind(&own).unwrap());
        remove(&layout, own.clone());
        assert!(!own.exists());

        let made = tempfile::Builder::new().prefix(SOCKETS_PREFIX).tempdir_in(SOCKETS_IN).unwrap();
        let socket = made.path().join("controller.sock");
        drop(UnixListener::bind(&socket).unwrap());
        let note = made.path().join("thesis.tex");
        for file in [&note, &made.path().join("node1.sock.lock")] {
            fs::write(file, "").unwrap();
        }
        remove(&layout, socket.clone());
        let left: Vec<PathBuf> =
            fs::read_dir(made.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, std::slice::from_ref(&note));
        fs::remove_file(note).unwrap();
        remove(&layout, socket);
        assert!(!made.path().exists());
    }

    #[test]
    fn a_folder_that_the_file_was_edited_to_name_stays() {
        let home = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir_in(SOCKETS_IN).unwrap();
        let file = other.path().join("x.lock");
        fs::write(&file, "").unwrap();
        remove(&Layout::at(home.path()), other.path().join("controller.sock"));
        remove(&Layout::at(home.path()), file.clone());
        assert!(file.exists());
    }
}
