//! How is standard input read while everything else goes on?
//!
//! By a thread of its own, since neither files nor terminals can be waited for in one way. It reads
//! the next piece only when the last was taken, so that what tasks do not want stays where it is.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use bytes::Bytes;
use nix::unistd::{getpgrp, tcgetpgrp};
use tokio::sync::mpsc;

/// Bytes of one piece.
const PIECE_BYTES: usize = 16 << 10;

/// How often a process in the background looks whether it has the terminal.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(500);

/// Begins to read `file`; an empty piece is its end.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn read(file: File) -> std::io::Result<mpsc::Receiver<Bytes>> {
    let (pieces, receiver) = mpsc::channel(1);
    std::thread::Builder::new().name("input".to_owned()).spawn(move || pump(file, &pieces))?;
    Ok(receiver)
}

fn pump(mut file: File, pieces: &mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; PIECE_BYTES];
    let terminal = file.is_terminal();
    loop {
        if terminal && !in_foreground(&file) {
            std::thread::sleep(BACKGROUND_PAUSE);
            continue;
        }
        let piece = match file.read(&mut buffer) {
            Ok(read) => Bytes::copy_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => Bytes::new(),
        };
        let end = piece.is_empty();
        if pieces.blocking_send(piece).is_err() || end {
            return;
        }
    }
}

/// A job in the background that reads its terminal would be stopped.
fn in_foreground(file: &File) -> bool {
    tcgetpgrp(file.as_fd()).is_ok_and(|group| group == getpgrp())
}
