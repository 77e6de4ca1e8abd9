//! How does a change of the directory itself become durable?
//!
//! A file gets its name only when its content is durable (temporary name, fsync, rename, fsync of
//! the folder), so that a name that is there always stands for a whole header. `*.tmp` is
//! leftover of a crash and never read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::error::Fault;

/// Ending of files that have no name yet.
const TEMPORARY: &str = "tmp";
/// Longest text file read (guard, lists); an honest one is far shorter.
const MAX_TEXT: u64 = 4 << 20;

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Fault> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(Fault::io("fsync folder", dir))
}

/// Creates `dir` if it is missing, and makes its name durable. Scripts and environments lie below:
/// nobody else may look in.
pub(crate) fn ensure_dir(dir: &Path) -> Result<(), Fault> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => dir.parent().map_or(Ok(()), sync_dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Fault::io("create folder", dir)(error)),
    }
}

/// Writes a whole small file: after a crash there is the old or the new content, never a mix.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> Result<(), Fault> {
    publish(path, |file| file.write_all(content)).map(drop)
}

/// Creates `path` with what `fill` writes, durable before it has its name.
pub(crate) fn publish(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<File, Fault> {
    let temporary = temporary(path);
    let made = fill_temporary(&temporary, fill);
    let file = match made {
        Ok(file) => file,
        Err(error) => {
            discard(&temporary);
            return Err(Fault::io("write", &temporary)(error));
        }
    };
    rename_durably(&temporary, path)?;
    Ok(file)
}

fn fill_temporary(
    temporary: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).open(temporary)?;
    fill(&mut file)?;
    file.sync_all()?;
    Ok(file)
}

/// The name that `path` has until it is whole.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(TEMPORARY);
    PathBuf::from(name)
}

/// Renames and makes both names durable. The folder is the same.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<(), Fault> {
    fs::rename(from, to).map_err(Fault::io("rename to", to))?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Removes a file that nobody needs; a leftover is removed at the next start.
pub(crate) fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "can't remove a file of no more use");
    }
}

/// Moves `path` to a free name `<path>.bad-<unix seconds>`, durably; returns the new name.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf, Fault> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let secs = now.map_or(0, |since| since.as_secs());
    let name = |count: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".bad-{secs}"));
        if count > 0 {
            name.push(format!("-{count}"));
        }
        PathBuf::from(name)
    };
    let aside = (0..).map(name).find(|aside| !aside.exists()).expect("some name is free");
    rename_durably(path, &aside)?;
    Ok(aside)
}

/// Reads a whole file; an absent one is `None`.
pub(crate) fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>, Fault> {
    let length = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::io("read", path)(error)),
    };
    if length > max {
        let text = format!("{} has {length} bytes, at most {max} are expected", path.display());
        return Err(Fault::Damaged(text));
    }
    fs::read(path).map(Some).map_err(Fault::io("read", path))
}

/// Text behind a checksum line: `body` plus `crc <hex>`.
pub(crate) fn with_checksum(body: &str) -> String {
    format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()))
}

/// Reads a text file that [`with_checksum`] made; `None` if absent.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, Fault> {
    let Some(bytes) = read(path, MAX_TEXT)? else { return Ok(None) };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| Fault::Damaged(format!("{} is no text", path.display())))
}

/// The body of a checksummed text.
pub(crate) fn checked_body<'a>(text: &'a str, path: &Path) -> Result<&'a str, Fault> {
    let body = text.trim_end_matches('\n').rfind('\n').map_or("", |at| &text[..=at]);
    if !body.is_empty() && with_checksum(body) == text {
        return Ok(body);
    }
    Err(Fault::Damaged(format!("{} is cut or damaged", path.display())))
}

/// Numbers of the files `<number>.<ending>` in `dir`, ascending. Temporary files are skipped.
pub(crate) fn numbered(dir: &Path, ending: &str) -> Result<Vec<u64>, Fault> {
    let entries = fs::read_dir(dir).map_err(Fault::io("list", dir))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let path = entry.map_err(Fault::io("list", dir))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if path.extension().is_some_and(|found| found == ending)
            && let Some(number) = stem.and_then(|stem| stem.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// `<dir>/<number>.<ending>`, padded so that names sort as numbers.
pub(crate) fn numbered_path(dir: &Path, number: u64, ending: &str) -> PathBuf {
    dir.join(format!("{number:020}.{ending}"))
}

/// Removes what a crash left without a name in `dir`.
pub(crate) fn remove_temporary(dir: &Path) -> Result<(), Fault> {
    for entry in fs::read_dir(dir).map_err(Fault::io("list", dir))? {
        let path = entry.map_err(Fault::io("list", dir))?.path();
        if path.extension().is_some_and(|ending| ending == TEMPORARY) {
            discard(&path);
        }
    }
    Ok(())
}

/// The list `<dir>/files`: which numbered files must be there, so that a lost one is noticed.
///
/// A file is created before it is listed and removed after it left the list: a file beyond the
/// newest listed number was being created, one below was being removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileList {
    path: PathBuf,
    numbers: Vec<u64>,
}

impl FileList {
    /// Reads the list in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<FileList, Fault> {
        let path = dir.join("files");
        let damaged = || Fault::Damaged(format!("{} is damaged", path.display()));
        let Some(text) = read_text(&path)? else {
            return Err(Fault::Damaged(format!("{} is missing", path.display())));
        };
        let body = checked_body(&text, &path)?;
        let numbers = body.lines().map(str::parse).collect::<Result<Vec<u64>, _>>();
        let numbers = numbers.map_err(|_| damaged())?;
        if numbers.is_empty() || !numbers.is_sorted() {
            return Err(damaged());
        }
        Ok(FileList { path, numbers })
    }

    /// A list of `numbers` in `dir`, written durably.
    pub(crate) fn create(dir: &Path, numbers: Vec<u64>) -> Result<FileList, Fault> {
        let list = FileList { path: dir.join("files"), numbers };
        list.write()?;
        Ok(list)
    }

    /// The listed numbers, ascending.
    pub(crate) fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// Adds `number`, the largest so far, durably.
    pub(crate) fn add(&mut self, number: u64) -> Result<(), Fault> {
        self.numbers.push(number);
        self.write().inspect_err(|_| {
            self.numbers.pop();
        })
    }

    /// Takes `gone` off the list, durably.
    pub(crate) fn remove(&mut self, gone: &[u64]) -> Result<(), Fault> {
        self.numbers.retain(|number| !gone.contains(number));
        self.write()
    }

    /// Numbers that are listed and not in `present`.
    pub(crate) fn missing(&self, present: &[u64]) -> Vec<u64> {
        self.numbers.iter().copied().filter(|number| !present.contains(number)).collect()
    }

    fn write(&self) -> Result<(), Fault> {
        let body: String = self.numbers.iter().map(|number| format!("{number}\n")).collect();
        write_atomic(&self.path, with_checksum(&body).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_files_survives_and_notices_a_lost_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut list = FileList::create(dir.path(), vec![1]).unwrap();
        list.add(2).unwrap();
        list.add(5).unwrap();
        list.remove(&[2]).unwrap();
        let read = FileList::read(dir.path()).unwrap();
        assert_eq!(read, list);
        assert_eq!(read.missing(&[5, 6]), vec![1]);
    }

    #[test]
    fn cut_text_is_noticed() {
        let path = Path::new("x");
        let text = with_checksum("1\n2\n");
        assert_eq!(checked_body(&text, path).unwrap(), "1\n2\n");
        for cut in 0..text.len() {
            assert!(checked_body(&text[..cut], path).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn names_sort_as_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for number in [10, 9, 1_000_000] {
            fs::write(numbered_path(dir.path(), number, "redo"), b"").unwrap();
        }
        fs::write(dir.path().join("7.redo.tmp"), b"").unwrap();
        assert_eq!(numbered(dir.path(), "redo").unwrap(), vec![9, 10, 1_000_000]);
        remove_temporary(dir.path()).unwrap();
        assert!(!dir.path().join("7.redo.tmp").exists());
    }
}
