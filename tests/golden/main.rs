//! Do the listings say what Debian's Slurm printed for the same state?
//!
//! `tests/side-by-side --golden` starts a cluster of four nodes, brings it into the state of `state.sh`
//! and holds the answers to `commands.txt` against `expected.txt`, which was recorded from Slurm. It
//! needs root, since the recorded jobs are root's, and python3.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::Path;
use std::process::Command;

#[test]
fn listings_say_what_slurm_said() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/side-by-side");
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|done| done.status.success()) {
        println!("skipped: no python3");
        return;
    }
    let done = Command::new("python3")
        .arg(script)
        .args(["--golden", "--penstock", env!("CARGO_BIN_EXE_penstock")])
        .output()
        .expect("python3 runs");
    let text = String::from_utf8_lossy(&done.stdout);
    println!("{text}{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "listings differ from Slurm's, see above");
    assert!(text.starts_with("skipped: ") || text.contains(" 0 unexpected differences"));
}
