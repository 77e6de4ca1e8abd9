//! How does sacct lay out a table?
//!
//! A header, a line of dashes, and a blank behind every column. A positive width aligns right, a
//! negative one left; a text that is too long is cut and ends in `+`. The parsable styles have no
//! dashes and no widths.

use super::format::{cut, push_padded};

/// What surrounds the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableStyle {
    /// Aligned columns.
    Columns,
    /// The delimiter behind every value (`-p`).
    Ended(String),
    /// The delimiter between values (`-P`).
    Between(String),
}

/// Name and width of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumn {
    /// As the header shows it.
    pub(crate) name: &'static str,
    /// Characters; negative: to the left.
    pub(crate) width: i16,
}

/// A table that is written row by row.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<TableColumn>,
    style: TableStyle,
}

impl Table {
    /// An empty table.
    pub(crate) const fn new(columns: Vec<TableColumn>, style: TableStyle) -> Self {
        Self { columns, style }
    }

    /// Appends the header, and the dashes of aligned columns.
    pub(crate) fn push_header(&self, out: &mut Vec<u8>) {
        for (at, column) in self.columns.iter().enumerate() {
            match self.style {
                TableStyle::Columns => {
                    push_padded_exact(out, column.name, column.width);
                    out.push(b' ');
                }
                _ => self.push_delimited(out, at, column.name),
            }
        }
        out.push(b'\n');
        if self.style == TableStyle::Columns {
            for column in &self.columns {
                out.resize(out.len() + usize::from(column.width.unsigned_abs()), b'-');
                out.push(b' ');
            }
            out.push(b'\n');
        }
    }

    /// Appends the value of column `at`; `may_cut` as long as it is a text.
    pub(crate) fn push_cell(&self, out: &mut Vec<u8>, at: usize, text: &str, may_cut: bool) {
        let Some(column) = self.columns.get(at) else { return };
        if self.style != TableStyle::Columns {
            self.push_delimited(out, at, text);
            return;
        }
        let width = usize::from(column.width.unsigned_abs());
        let (kept, len) = cut(text, width);
        if len == width && kept.len() < text.len() {
            if may_cut {
                out.extend_from_slice(cut(text, width.saturating_sub(1)).0.as_bytes());
                out.extend_from_slice(if width > 0 { b"+" } else { b"" });
            } else {
                out.extend_from_slice(text.as_bytes());
            }
        } else {
            push_padded_exact(out, text, column.width);
        }
        out.push(b' ');
    }

    fn push_delimited(&self, out: &mut Vec<u8>, at: usize, text: &str) {
        out.extend_from_slice(text.as_bytes());
        match &self.style {
            TableStyle::Ended(delimiter) => out.extend_from_slice(delimiter.as_bytes()),
            TableStyle::Between(delimiter) if at + 1 < self.columns.len() => {
                out.extend_from_slice(delimiter.as_bytes());
            }
            TableStyle::Between(_) | TableStyle::Columns => {}
        }
    }
}

/// As [`push_padded`], but a width of zero leaves nothing.
fn push_padded_exact(out: &mut Vec<u8>, text: &str, width: i16) {
    if width != 0 {
        push_padded(out, text, usize::from(width.unsigned_abs()), width > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(style: TableStyle, rows: &[[&str; 3]]) -> String {
        let columns = vec![
            TableColumn { name: "JobID", width: -6 },
            TableColumn { name: "State", width: 10 },
            TableColumn { name: "Elapsed", width: 3 },
        ];
        let table = Table::new(columns, style);
        let mut out = Vec::new();
        table.push_header(&mut out);
        for row in rows {
            for (at, text) in row.iter().enumerate() {
                table.push_cell(&mut out, at, text, at < 2);
            }
            out.push(b'\n');
        }
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn columns_are_aligned_and_texts_are_cut() {
        let rows = [["12", "CANCELLED by 0", "00:00:01"], ["5_1.batch", "RUNNING", ""]];
        assert_eq!(
            print(TableStyle::Columns, &rows),
            "JobID       State Ela \n\
             ------ ---------- --- \n\
             12     CANCELLED+ 00:00:01 \n\
             5_1.b+    RUNNING     \n"
        );
    }

    #[test]
    fn parsable_tables_have_delimiters_only() {
        let rows = [["12", "CANCELLED by 0", "00:00:01"]];
        assert_eq!(
            print(TableStyle::Between("|".into()), &rows),
            "JobID|State|Elapsed\n12|CANCELLED by 0|00:00:01\n"
        );
        assert_eq!(
            print(TableStyle::Ended(";;".into()), &rows),
            "JobID;;State;;Elapsed;;\n12;;CANCELLED by 0;;00:00:01;;\n"
        );
    }
}
