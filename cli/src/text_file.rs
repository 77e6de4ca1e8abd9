//! How is a file that a person names read, when it may be anything?

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

/// The text of a file of at most `most` bytes; no more is read of one that never ends.
///
/// # Errors
/// With what is wrong, without the name of the file.
pub(crate) fn read_text(file: &Path, most: u64) -> Result<String, String> {
    let open = File::open(file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "No such file or directory".to_owned(),
        _ => error.to_string(),
    })?;
    let mut text = String::new();
    open.take(most.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > most {
        return Err(format!("it is longer than the {most} bytes that are allowed"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_their_bound() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        std::fs::write(&path, "four").expect("written");
        assert_eq!(read_text(&path, 4), Ok("four".to_owned()));
        assert_eq!(
            read_text(&path, 3),
            Err("it is longer than the 3 bytes that are allowed".to_owned())
        );
        assert!(read_text(Path::new("/dev/zero"), 3).is_err());
        let missing = read_text(&dir.path().join("other"), 3);
        assert_eq!(missing, Err("No such file or directory".to_owned()));
    }
}
