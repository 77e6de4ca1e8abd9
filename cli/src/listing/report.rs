//! How does a command with fields of its own choose and print its columns?
//!
//! sacctmgr, sshare and sreport share sacct's table and `name%[-]width` formats, but each has its own
//! fields. A format names them in any case of letters; one that is cut short means the first that
//! begins so.

use super::table::{Table, TableColumn, TableStyle};
use super::value::push_printable;

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    /// A text, which is cut to its column.
    Text(String),
    /// A number or a time, which is never cut.
    Exact(String),
}

impl Cell {
    /// A text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number, or nothing.
    pub(crate) fn number<N: ToString>(number: Option<N>) -> Self {
        Self::Exact(number.map(|number| number.to_string()).unwrap_or_default())
    }
}

/// A field of the rows of type `R`.
pub(crate) struct ReportField<R: 'static> {
    /// Its names in a format; the first comes first.
    pub(crate) names: &'static [&'static str],
    /// The header; aligned columns cut it.
    pub(crate) header: &'static str,
    /// Characters; negative: to the left.
    pub(crate) width: i16,
    /// The value.
    pub(crate) value: fn(&R) -> Cell,
}

/// Finds the value of a field in a row.
type CellOf<R> = fn(&R) -> Cell;

/// The columns that were chosen.
pub(crate) struct Report<R: 'static> {
    columns: Vec<(TableColumn, CellOf<R>)>,
    /// What surrounds the values.
    pub(crate) style: TableStyle,
    /// Whether there is a header.
    pub(crate) header: bool,
}

/// Widest column; more would only waste memory.
const MAX_WIDTH: i64 = 4096;

impl<R: 'static> Report<R> {
    /// Reads `name[%[-]width],...`.
    ///
    /// # Errors
    /// With the first name that no field has.
    pub(crate) fn new(
        fields: &'static [ReportField<R>],
        format: &str,
        style: TableStyle,
        header: bool,
    ) -> Result<Self, String> {
        let mut columns = Vec::new();
        for word in format.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, width) = match word.split_once('%') {
                Some((name, width)) => (name, Some(read_width(width))),
                None => (word, None),
            };
            let field = find(fields, name).ok_or_else(|| name.to_owned())?;
            let width = width.unwrap_or(field.width);
            columns.push((TableColumn { name: field.header, width }, field.value));
        }
        Ok(Self { columns, style, header })
    }

    /// Changes the width of the columns with this header.
    pub(crate) fn widen(&mut self, header: &str, width: i16) {
        let meant = self.columns.iter_mut().filter(|(column, _)| column.name == header);
        meant.for_each(|(column, _)| column.width = width);
    }

    /// The header and a line for each row.
    pub(crate) fn text<'r>(&self, rows: impl IntoIterator<Item = &'r R>) -> Vec<u8> {
        let columns = self.columns.iter().map(|(column, _)| column.clone()).collect();
        let table = Table::new(columns, self.style.clone());
        let mut out = Vec::new();
        if self.header {
            table.push_header(&mut out);
        }
        let mut shown = String::new();
        for row in rows {
            for (at, (_, value)) in self.columns.iter().enumerate() {
                let (text, may_cut) = match value(row) {
                    Cell::Text(text) => (text, true),
                    Cell::Exact(text) => (text, false),
                };
                shown.clear();
                push_printable(&mut shown, &text);
                table.push_cell(&mut out, at, &shown, may_cut);
            }
            out.push(b'\n');
        }
        out
    }
}

/// The field of that name, or the first that begins so.
fn find<R>(fields: &'static [ReportField<R>], name: &str) -> Option<&'static ReportField<R>> {
    let same = |known: &&'static str| known.eq_ignore_ascii_case(name);
    let begins =
        |known: &&str| known.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
    let exact = fields.iter().find(|field| field.names.iter().any(same));
    exact.or_else(|| fields.iter().find(|field| field.names.iter().any(begins)))
}

/// As atoi does: what is no number is zero.
fn read_width(text: &str) -> i16 {
    let width = text.trim().parse::<i64>().unwrap_or(0).clamp(-MAX_WIDTH, MAX_WIDTH);
    i16::try_from(width).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[ReportField<(String, u32)>] = &[
        ReportField {
            names: &["Account", "Acct"],
            header: "Account",
            width: 8,
            value: |row| Cell::text(&row.0),
        },
        ReportField {
            names: &["Allocated"],
            header: "Allocated",
            width: 4,
            value: |row| Cell::number(Some(row.1)),
        },
    ];

    fn text(format: &str, style: TableStyle) -> Result<String, String> {
        let rows = [("physics and more".to_owned(), 12), ("a\tb".to_owned(), 123_456)];
        let report = Report::new(FIELDS, format, style, true)?;
        Ok(String::from_utf8(report.text(&rows)).expect("UTF-8"))
    }

    #[test]
    fn columns_are_chosen_by_name_and_width() {
        let table = text("acct,alloc", TableStyle::Columns).expect("valid");
        assert_eq!(table, " Account Allo \n-------- ---- \nphysics+   12 \n     a?b 123456 \n");
        let table = text("ALLOC%-6, a%3", TableStyle::Columns).expect("valid");
        assert!(table.starts_with("Alloca Acc \n"), "{table}");
        let plain = text("account,allocated", TableStyle::Between("|".into())).expect("valid");
        assert_eq!(plain, "Account|Allocated\nphysics and more|12\na?b|123456\n");
        assert_eq!(text("account,foo%3", TableStyle::Columns), Err("foo".into()));
    }
}
