//! Real shepherds run real scripts: this test binary, executed anew, is the shepherd.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::print_stderr, reason = "what a machine lacks is said")]

#[path = "shepherd/world.rs"]
mod world;

#[path = "shepherd/adoption.rs"]
mod adoption;
#[path = "shepherd/devices.rs"]
mod devices;
#[path = "shepherd/endings.rs"]
mod endings;
#[path = "shepherd/hooks.rs"]
mod hooks;
#[path = "shepherd/leases.rs"]
mod leases;
#[path = "shepherd/output.rs"]
mod output;
#[path = "shepherd/srun.rs"]
mod srun;
#[path = "shepherd/step_streams.rs"]
mod step_streams;
#[path = "shepherd/steps.rs"]
mod steps;

use std::path::Path;
use std::process::ExitCode;

/// First argument by which this binary is a shepherd; the attempt's folder follows.
const SHEPHERD: &str = "--be-a-shepherd";

/// Runs before `main`, since a shepherd has one thread and the test harness starts others.
// SAFETY: the section holds functions without arguments (those passed may be ignored), which the
// loader calls once, after the C library is ready; the standard library needs no more.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = be_a_shepherd;

extern "C" fn be_a_shepherd() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(SHEPHERD) {
        let dir = arguments.next().unwrap_or_default();
        let code = penstock_agent::launch::shepherd::main(Path::new(&dir));
        std::process::exit(i32::from(code != ExitCode::SUCCESS));
    }
}
