//! Which processes has the folder, and do they live?

use std::fmt::Write as _;

use super::failure::Failure;
use super::files;
use super::layout::Layout;
use super::registry::{CONTROLLER, Registry};
use crate::output::print_line;

/// Prints a line for each process. The exit status is 0 when the controller runs and 3 when it does
/// not, as `systemctl status` has it.
pub(super) fn show(layout: &Layout) -> Result<i32, Failure> {
    let registry = Registry::read(layout);
    let mut text = format!("{:<12} {:>8} {:<8} LOG", "NAME", "PID", "STATE");
    for (name, identity) in registry.daemons() {
        let state = if identity.lives() { "running" } else { "ended" };
        let log = layout.log(name);
        let pid = identity.pid;
        write!(text, "\n{name:<12} {pid:>8} {state:<8} {}", log.display())
            .expect("writing to a String cannot fail");
    }
    let running = registry.living(CONTROLLER).is_some();
    if running && let Some(endpoints) = files::read_endpoints(layout)? {
        let mode = if layout.is_detached() { "detached" } else { "in the foreground" };
        write!(
            text,
            "\n{mode}, agents dial 127.0.0.1:{}, commands use {}",
            endpoints.port,
            endpoints.socket.display()
        )
        .expect("writing to a String cannot fail");
    }
    print_line(&text);
    Ok(if running { 0 } else { 3 })
}
