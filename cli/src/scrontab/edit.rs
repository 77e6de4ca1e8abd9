//! How does the user change the text?

use std::fs::{OpenOptions, Permissions};
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::output::write_bytes;

/// What somebody finds who has no crontab yet.
const FIRST_TEXT: &str = "\
# Each line that is no comment: minute hour day-of-month month day-of-week command
#   * every value   1-5,7 lists and ranges   */10 steps   jan, mon names   @hourly, @daily, @weekly ...
# Lines that begin with #SCRON hold sbatch options for the next command:
# #SCRON --time=10:00 --mem=1G
# 0 2 * * * $HOME/nightly.sh
";

/// Has the user edit `text` (a first one where it is none) in `$VISUAL`, `$EDITOR` or vi.
///
/// # Errors
/// When no file can be made, or the editor fails.
pub(super) fn edit(text: Option<&str>) -> Result<String, String> {
    let file = Temporary::make(text.unwrap_or(FIRST_TEXT))?;
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".into());
    match Command::new(&editor).arg(&file.0).status() {
        Ok(status) if status.success() => {}
        Ok(_) => return Err("editor returned non-zero exit code".to_owned()),
        Err(error) => return Err(format!("cannot start the editor {}: {error}", editor.display())),
    }
    std::fs::read_to_string(&file.0).map_err(|error| {
        format!("error reopening temp crontab file '{}': {error}", file.0.display())
    })
}

/// Asks until the answer is y or n; the end of the input is no.
pub(super) fn wants_retry(question: &str) -> bool {
    let mut input = std::io::stdin().lock();
    loop {
        write_bytes(question.as_bytes());
        let mut answer = String::new();
        match input.read_line(&mut answer) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        match answer.trim_start().as_bytes().first() {
            Some(b'y' | b'Y') => return true,
            Some(b'n' | b'N') => return false,
            Some(_) | None => {}
        }
    }
}

/// A file that goes when this does.
struct Temporary(PathBuf);

impl Temporary {
    fn make(text: &str) -> Result<Self, String> {
        let dir = std::env::var_os("TMPDIR").unwrap_or_else(|| "/tmp".into());
        let id = u128::from_be_bytes(
            crate::connect::request_id().as_ref().try_into().unwrap_or([0; 16]),
        );
        let path = Path::new(&dir).join(format!("scrontab-{id:032x}"));
        let fail = |error: std::io::Error| {
            format!("error creating temp crontab file '{}': {error}", path.display())
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        let made = Self(path.clone());
        file.set_permissions(Permissions::from_mode(0o600)).map_err(fail)?;
        file.write_all(text.as_bytes()).map_err(fail)?;
        Ok(made)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}
