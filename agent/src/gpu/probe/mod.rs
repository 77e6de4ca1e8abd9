//! How is NVML asked without waiting for it?
//!
//! The probe is a process (`penstock gpu-probe LIBRARY`) that the agent starts and that ends with
//! it, with a thread for each GPU: one that hangs keeps the others going. It answers questions over
//! its standard input, a socket, and tells events unasked.

mod cut;
mod describe;
mod events;
mod library;
mod measure;
mod serve;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use super::wire::{self, Answer, Say};

/// Asked for by [`main`]; nothing else tells a probe where the device files are.
pub(super) const DEVICE_DIR: &str = "/dev";

/// Where answers and events go.
#[derive(Clone)]
struct Mouth(Arc<Mutex<UnixStream>>);

impl Mouth {
    /// Says something; a probe whose agent is gone has nothing more to do.
    fn say(&self, id: u64, answer: Answer) {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if wire::write(&*stream, &Say { id, answer: Some(answer) }).is_err() {
            std::process::exit(0);
        }
    }
}

/// Serves the agent at the other end of standard input with the library at `library` (empty: the
/// system's), whose device files are in `devices`, until it is gone.
#[must_use]
pub fn main(library: &Path, devices: &Path) -> ExitCode {
    crate::sys::seal_inherited();
    let _named = nix::sys::prctl::set_name(c"penstock-gpu");
    match stream().and_then(|stream| Ok((stream.try_clone()?, stream))) {
        Ok((ear, mouth)) => {
            serve::serve(library, devices, ear, Mouth(Arc::new(Mutex::new(mouth))));
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn stream() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}
