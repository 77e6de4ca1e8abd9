//! Which script is submitted, and is it one?
//!
//! It comes from `--wrap`, from a file, or from standard input. Slurm's checks and texts: a script
//! has a first line that names its interpreter, Unix line ends and no NUL byte.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use penstock_proto::MAX_BLOB_BYTES;

/// A script that may be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script {
    /// Its bytes.
    pub(crate) text: Vec<u8>,
    /// Absolute path of its file; empty for standard input and `--wrap`.
    pub(crate) path: String,
    /// What the job is called unless its submitter says otherwise.
    pub(crate) default_name: String,
}

/// Why there is no script; the lines to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScriptError(pub(crate) Vec<String>);

impl ScriptError {
    fn new(lines: &[&str]) -> Self {
        Self(lines.iter().map(|&line| line.to_owned()).collect())
    }

    fn one(line: String) -> Self {
        Self(vec![line])
    }
}

/// The script that `--wrap=COMMAND` stands for.
pub(crate) fn wrapped(command: &str) -> Script {
    let text = format!("#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{command}\n");
    Script { text: text.into_bytes(), path: String::new(), default_name: "wrap".to_owned() }
}

/// Reads the script from standard input.
///
/// # Errors
/// When it cannot be read, or is no script.
pub(crate) fn from_stdin() -> Result<Script, ScriptError> {
    let text = read_limited(stdin().lock(), "standard input")?;
    check(&text)?;
    Ok(Script { text, path: String::new(), default_name: "sbatch".to_owned() })
}

/// Reads the script `name`, looked for in `cwd` and then, if it has no slash, in `search`.
///
/// # Errors
/// When it cannot be read, or is no script.
pub(crate) fn from_file(name: &str, cwd: &Path, search: &[PathBuf]) -> Result<Script, ScriptError> {
    let unable = || ScriptError::one(format!("Unable to open file {name}"));
    let path = find(name, cwd, search).ok_or_else(unable)?;
    let file = File::open(&path).map_err(|_| unable())?;
    let text = read_limited(file, name)?;
    check(&text)?;
    let base = Path::new(name).file_name().unwrap_or_default();
    Ok(Script {
        text,
        path: path.to_string_lossy().into_owned(),
        default_name: base.to_string_lossy().into_owned(),
    })
}

fn find(name: &str, cwd: &Path, search: &[PathBuf]) -> Option<PathBuf> {
    let here = cwd.join(name);
    if here.exists() || name.contains('/') {
        return Some(here);
    }
    search.iter().map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Reads all, but never more than a script may be long.
fn read_limited(source: impl Read, name: &str) -> Result<Vec<u8>, ScriptError> {
    let limit = MAX_BLOB_BYTES as u64;
    let mut text = Vec::new();
    source
        .take(limit + 1)
        .read_to_end(&mut text)
        .map_err(|error| ScriptError::one(format!("Unable to read {name}: {error}")))?;
    if text.len() > MAX_BLOB_BYTES {
        let line = format!("batch script {name} is longer than the {limit} bytes that are allowed");
        return Err(ScriptError::one(line));
    }
    Ok(text)
}

/// Slurm's checks, in its order.
fn check(text: &[u8]) -> Result<(), ScriptError> {
    if text.is_empty() {
        return Err(ScriptError::new(&["Batch script is empty!"]));
    }
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(ScriptError::new(&["Batch script contains only whitespace!"]));
    }
    if !text.starts_with(b"#!") {
        return Err(ScriptError::new(&[
            "This does not look like a batch script.  The first",
            "line must start with #! followed by the path to an interpreter.",
            "For instance: #!/bin/sh",
        ]));
    }
    if text.contains(&0) {
        return Err(ScriptError::new(&[
            "The SLURM controller does not allow scripts that",
            "contain the NULL character '\\0'.",
        ]));
    }
    if text.windows(2).any(|pair| pair == b"\r\n") {
        return Err(ScriptError::new(&[
            "Batch script contains DOS line breaks (\\r\\n)",
            "instead of expected UNIX line breaks (\\n).",
        ]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_script_is_refused_in_slurms_words() {
        let table: &[(&[u8], &str)] = &[
            (b"", "Batch script is empty!"),
            (b" \n\t", "Batch script contains only whitespace!"),
            (b"echo", "This does not look like a batch script.  The first"),
            (b"\n#!/bin/sh", "This does not look like a batch script.  The first"),
            (b"#!/bin/sh\r\necho", "Batch script contains DOS line breaks (\\r\\n)"),
            (b"#!/bin/sh\n\0", "The SLURM controller does not allow scripts that"),
        ];
        for (text, first) in table {
            let error = check(text).expect_err(first);
            assert_eq!(error.0[0], *first);
        }
        assert_eq!(check(b"#!/bin/sh"), Ok(()));
    }

    #[test]
    fn wrap_writes_the_script_that_slurm_writes() {
        let script = wrapped("hostname");
        let expect = "#!/bin/sh\n# This script was created by sbatch --wrap.\n\nhostname\n";
        assert_eq!(script.text, expect.as_bytes());
        assert_eq!(script.default_name, "wrap");
    }

    #[test]
    fn a_file_is_found_here_first_and_then_on_the_path() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).expect("created");
        std::fs::write(bin.join("job.sh"), "#!/bin/sh\n").expect("written");
        let search = [bin.clone()];
        let found = from_file("job.sh", dir.path(), &search).expect("on the path");
        assert_eq!(Path::new(&found.path), bin.join("job.sh"));
        std::fs::write(dir.path().join("job.sh"), "#!/bin/bash\n").expect("written");
        let found = from_file("job.sh", dir.path(), &search).expect("here");
        assert_eq!(found.text, b"#!/bin/bash\n");
        assert_eq!(found.default_name, "job.sh");
        let missing = from_file("./no.sh", dir.path(), &search).expect_err("missing");
        assert_eq!(missing.0, ["Unable to open file ./no.sh"]);
    }

    #[test]
    fn a_script_beyond_the_limit_is_refused() {
        let mut text = b"#!/bin/sh\n".to_vec();
        text.resize(MAX_BLOB_BYTES, b'a');
        assert!(read_limited(text.as_slice(), "x").is_ok());
        text.push(b'a');
        assert!(read_limited(text.as_slice(), "x").is_err());
    }
}
