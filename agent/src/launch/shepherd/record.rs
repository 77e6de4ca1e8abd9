//! How does the end of an attempt reach the agent, whatever happens?

use std::fs;
use std::io;
use std::time::Duration;

use penstock_supervisor::RunResult;
use prost::Message as _;

use super::control::Link;
use crate::launch::record::{EXIT, EXIT_NEW, News, result_to_wire};

/// How often a record is tried that cannot be written, a second apart: a day.
const MAX_TRIES: u32 = 86_400;

/// Writes the record of the end and tells the agent. Where the disk is full, an agent that hears
/// of it is enough; without one, this waits for either.
///
/// # Errors
/// When neither came about in a day.
pub(super) fn deliver(result: &RunResult, link: &mut Link) -> io::Result<()> {
    let wire = result_to_wire(result);
    let bytes = wire.encode_to_vec();
    let mut tries = 0;
    loop {
        let written = fs::write(EXIT_NEW, &bytes).and_then(|()| fs::rename(EXIT_NEW, EXIT));
        let told = link.tell(News::Ended(wire.clone()));
        match written {
            Err(error) if !told && tries == MAX_TRIES => return Err(error),
            Err(_) if !told => tries += 1,
            _ => return Ok(()),
        }
        std::thread::sleep(Duration::from_secs(1));
        // Notices that the agent went, and takes the next one. Orders come too late.
        link.receive();
    }
}
