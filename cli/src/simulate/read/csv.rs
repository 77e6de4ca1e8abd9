//! Where are the columns of a CSV that names them?

use std::path::Path;

use super::ReadError;

/// The columns of one header.
pub(super) struct Header<'a> {
    path: &'a Path,
    what: &'static str,
    line: &'a str,
    names: Vec<String>,
}

impl<'a> Header<'a> {
    /// Reads the header of a `what` (for messages).
    pub(super) fn new(path: &'a Path, what: &'static str, line: &'a str) -> Self {
        Self { path, what, line, names: names(line) }
    }

    /// The place of the first of `aliases` that is there.
    pub(super) fn find(&self, aliases: &[&str]) -> Option<usize> {
        aliases.iter().find_map(|alias| self.names.iter().position(|name| name == alias))
    }

    /// As [`Self::find`], for a column that must be there.
    pub(super) fn require(&self, aliases: &[&'static str]) -> Result<usize, ReadError> {
        self.find(aliases).ok_or_else(|| ReadError::Column {
            path: self.path.to_owned(),
            what: self.what,
            column: aliases.first().copied().unwrap_or_default(),
            header: self.line.to_owned(),
        })
    }
}

/// The names in a header, without quotes and in lower case.
pub(super) fn names(line: &str) -> Vec<String> {
    fields(line).into_iter().map(str::to_ascii_lowercase).collect()
}

/// The fields of a line. No field of these formats holds a comma, so quotes are only taken off.
pub(super) fn fields(line: &str) -> Vec<&str> {
    line.trim_start_matches('\u{feff}')
        .split(',')
        .map(|field| field.trim().trim_matches('"'))
        .collect()
}

/// One field; what is not there is empty.
pub(super) fn field<'a>(row: &[&'a str], at: Option<usize>) -> &'a str {
    at.and_then(|at| row.get(at)).copied().unwrap_or_default()
}
