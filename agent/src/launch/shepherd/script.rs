//! Where does the job's script lie, and what runs it?
//!
//! In a folder of root's that users may pass but not list, readable and executable by its owner
//! only. The kernel runs it by its first line. Where the file system forbids execution (`/run`
//! often does), the same line is read here and the interpreter is executed instead.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::LaunchError;
use super::user::Identity;
use crate::launch::record::SCRIPT;

/// Longest first line that is read; the kernel's limit is 256.
const MAX_LINE: usize = 256;

/// Writes the script into the new folder `dir` and gives it to the user.
pub(super) fn write(dir: &Path, owner: &Identity, script: &[u8]) -> Result<PathBuf, LaunchError> {
    let path = dir.join(SCRIPT);
    create(dir, &path, owner, script).map(|()| path).map_err(|error| {
        LaunchError::node(format!("the script cannot be written to {}: {error}", dir.display()))
    })
}

fn create(dir: &Path, path: &Path, owner: &Identity, script: &[u8]) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o711).create(dir) {
        // Left from before a crash; nobody but the agent's user can have made it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let _absent = fs::remove_file(path);
        }
        made => made?,
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o500).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    file.write_all(script)?;
    if owner.is_another() {
        let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Removes script and folder, if they are there.
pub(in crate::launch) fn remove(dir: &Path) {
    let _absent = fs::remove_file(dir.join(SCRIPT));
    let _absent = fs::remove_dir(dir);
}

/// What a script's first line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    pub(super) program: String,
    /// Everything behind the program, as one argument, as Linux passes it.
    pub(super) argument: Option<String>,
}

/// Reads `#!program argument`; `None` if that is not how the script begins.
pub(super) fn interpreter(script: &[u8]) -> Option<Interpreter> {
    let line = script.split(|&byte| byte == b'\n').next()?;
    let line = line.get(..line.len().min(MAX_LINE))?.strip_prefix(b"#!")?;
    let line = String::from_utf8_lossy(line);
    let line = line.trim_matches([' ', '\t']);
    let (program, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = Some(argument.trim_start_matches([' ', '\t']).to_owned());
    (!program.is_empty()).then(|| Interpreter {
        program: program.to_owned(),
        argument: argument.filter(|text| !text.is_empty()),
    })
}

/// Why the script does not run, in words that help its author.
pub(super) fn exec_error(script: &[u8], error: io::Error) -> LaunchError {
    let Some(Interpreter { program, .. }) = interpreter(script) else {
        return LaunchError::job(format!(
            "the script does not begin with #!/path/to/program: {error}"
        ));
    };
    match error.raw_os_error() {
        Some(libc::ENOENT) if program.ends_with('\r') => LaunchError::job(format!(
            "the script's first line ends in a DOS line break: {program:?}"
        )),
        Some(libc::ENOENT) => LaunchError::job(format!(
            "the script's interpreter {program:?} does not exist on this node"
        )),
        Some(libc::EACCES) => LaunchError::job(format!(
            "the script's interpreter {program:?} may not be executed by this user"
        )),
        Some(libc::E2BIG) => {
            LaunchError::job(format!("script arguments and environment are too long: {error}"))
        }
        Some(libc::ENOMEM | libc::ENFILE | libc::EMFILE | libc::EIO | libc::EAGAIN) => {
            LaunchError::node(format!(
                "the script's interpreter {program:?} does not start: {error}"
            ))
        }
        _ => LaunchError::job(format!(
            "the script's interpreter {program:?} does not start: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read_as_linux_reads_them() {
        let read =
            |text: &str| interpreter(text.as_bytes()).map(|found| (found.program, found.argument));
        let some = |program: &str, argument: Option<&str>| {
            Some((program.to_owned(), argument.map(str::to_owned)))
        };
        assert_eq!(read("#!/bin/sh\necho"), some("/bin/sh", None));
        assert_eq!(read("#! /usr/bin/env  bash -x \n"), some("/usr/bin/env", Some("bash -x")));
        assert_eq!(read("#!/bin/sh"), some("/bin/sh", None));
        for text in ["", "#!", "#!  \n", "echo\n#!/bin/sh", "\n#!/bin/sh"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn errors_name_the_interpreter_and_whose_fault_it_is() {
        let error =
            |script: &str, code| exec_error(script.as_bytes(), io::Error::from_raw_os_error(code));
        let missing = error("#!/no/such\n", libc::ENOENT);
        assert!(!missing.node_fault && missing.text.contains("/no/such"));
        assert!(error("#!/bin/sh\r\n", libc::ENOENT).text.contains("DOS line break"));
        assert!(error("echo\n", libc::ENOEXEC).text.contains("does not begin with #!"));
        assert!(error("#!/bin/sh\n", libc::ENOMEM).node_fault);
    }
}
