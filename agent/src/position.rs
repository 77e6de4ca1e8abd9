//! Where does the agent keep which store it obeyed, and how far that had come?
//!
//! One line, `<id in hex> <sequence>`, replaced as a whole. It is not synced: after a crash of
//! the machine nothing runs here that a wrong controller could end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use penstock_supervisor::{StoreId, StorePosition};

/// Why the position cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// The system refuses.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold a position.
    #[error(
        "{} does not say which store this host obeys; remove it if the controller is known to be \
         right",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The file of the position.
#[derive(Debug, Clone)]
pub(crate) struct PositionFile {
    path: PathBuf,
}

impl PositionFile {
    /// The file in the agent's folder.
    pub(crate) fn in_folder(state_dir: &Path) -> Self {
        Self { path: state_dir.join("store") }
    }

    /// What was written last; `None` on a new host.
    pub(crate) fn read(&self) -> Result<Option<StorePosition>, PositionError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io("read", source)),
        };
        let position = parse(&text);
        position.map(Some).ok_or_else(|| PositionError::Damaged { path: self.path.clone() })
    }

    /// Replaces what was written before.
    pub(crate) fn write(&self, position: &StorePosition) -> Result<(), PositionError> {
        let fresh = self.path.with_extension("new");
        let text = format!("{} {}\n", position.id, position.sequence);
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &self.path))
            .map_err(|source| self.io("write", source))
    }

    fn io(&self, what: &'static str, source: io::Error) -> PositionError {
        PositionError::Io { what, path: self.path.clone(), source }
    }
}

fn parse(text: &str) -> Option<StorePosition> {
    let (id, sequence) = text.strip_suffix('\n')?.split_once(' ')?;
    let id = id.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    Some(StorePosition {
        id: StoreId::new(&id.collect::<Option<Vec<u8>>>()?),
        sequence: sequence.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().expect("folder");
        let file = PositionFile::in_folder(folder.path());
        assert_eq!(file.read().expect("not there"), None);
        for (id, sequence) in [(&b""[..], 0), (&[0, 255, 16], u64::MAX)] {
            let position = StorePosition { id: StoreId::new(id), sequence };
            file.write(&position).expect("written");
            assert_eq!(file.read().expect("there"), Some(position));
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let file = PositionFile::in_folder(folder.path());
        for text in ["", "00", "00 1", "0 1\n", "zz 1\n", "00 x\n", "00 -1\n"] {
            fs::write(folder.path().join("store"), text).expect("written");
            let error = file.read().expect_err(text).to_string();
            assert!(error.contains("store"), "{error}");
        }
    }
}
