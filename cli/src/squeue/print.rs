//! How do jobs become the lines of squeue?
//!
//! Each job is written as a line as soon as it has come, and forgotten: a hundred thousand lines take
//! a tenth of the memory of as many records. What is left to do at the end is to order the lines.

use std::ops::Range;

use penstock_proto::v1;

use crate::listing::{
    Clock, Column, Dialect, JobField, JobRow, Overflow, Part, Render, cut, push_at_least,
    push_padded,
};

use super::options::Options;
use super::sort::Order;

/// Slurm keeps the list of an array's waiting tasks in a buffer of 32 bytes.
const TASK_LIST: usize = 31;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 << 10;

impl Lines {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// What is the same for all lines.
#[derive(Debug)]
pub(super) struct Page<'p> {
    /// What to list, and how.
    pub(super) options: &'p Options,
    /// For times.
    pub(super) clock: &'p Clock,
    /// Name of the cluster; empty where no column shows it.
    pub(super) cluster: &'p str,
    /// Most characters of a list of waiting tasks; `None`: no limit.
    pub(super) list_limit: Option<usize>,
    /// `SLURM_BITSTR_LEN` says so, and not the default.
    pub(super) limit_given: bool,
}

/// The lines that have come so far.
#[derive(Debug)]
pub(super) struct Lines {
    /// Whether an id was asked for that no job has.
    pub(super) unknown: bool,
    text: Vec<u8>,
    places: Vec<Range<usize>>,
    order: Order,
    scratch: String,
}

impl Page<'_> {
    /// No lines yet.
    pub(super) fn lines(&self) -> Lines {
        Lines {
            unknown: false,
            text: Vec::new(),
            places: Vec::new(),
            order: Order::new(&self.options.sort),
            scratch: String::new(),
        }
    }

    /// Adds the lines of one message.
    pub(super) fn take(&self, lines: &mut Lines, reply: &v1::ListJobsReply) {
        lines.unknown |= !reply.unknown.is_empty();
        for info in &reply.jobs {
            self.take_one(lines, info);
        }
    }

    /// Adds the lines of one record.
    pub(super) fn take_one(&self, lines: &mut Lines, info: &v1::JobInfo) {
        let mut row = JobRow::live(info, self.clock.now_ms());
        row.cluster = self.cluster;
        row.list_limit = self.list_limit;
        self.options.each_row(row, &mut |row| self.push(lines, &row));
    }

    fn push(&self, lines: &mut Lines, row: &JobRow<'_>) {
        let columns = &self.options.columns;
        let render = Render::new(Dialect::Queue, self.clock);
        let Lines { text: out, places, order, scratch, .. } = lines;
        order.push(row, self.clock);
        let begin = out.len();
        out.extend_from_slice(columns.prefix.as_bytes());
        for column in &columns.columns {
            if let Some(field) = column.field {
                scratch.clear();
                render.push(scratch, &(field.value)(row));
                self.push_cell(out, field, scratch, column, row);
            }
            out.extend_from_slice(column.suffix.as_bytes());
        }
        out.push(b'\n');
        places.push(begin..out.len());
    }

    fn push_cell(
        &self,
        out: &mut Vec<u8>,
        field: &JobField,
        text: &str,
        column: &Column<&'static JobField>,
        row: &JobRow<'_>,
    ) {
        let (width, right) = (column.width, column.right);
        let list = row.part == Part::Whole && row.pending_tasks().is_some();
        match field.overflow {
            Overflow::GrowsRight if right => push_at_least(out, text, width, right),
            Overflow::TaskList if list && self.limit_given => {
                push_at_least(out, text, width, right);
            }
            Overflow::TaskList if list => push_padded(out, cut(text, TASK_LIST).0, width, right),
            Overflow::Cut | Overflow::GrowsRight | Overflow::TaskList => {
                push_padded(out, text, width, right);
            }
        }
    }

    /// Writes the date, the header and the lines in their order through `write`.
    pub(super) fn print(&self, lines: Lines, write: &mut dyn FnMut(&[u8])) {
        let mut out = Vec::with_capacity(BUFFER + 4096);
        self.push_head(&mut out);
        for at in lines.order.finish() {
            out.extend_from_slice(&lines.text[lines.places[at].clone()]);
            if out.len() >= BUFFER {
                write(&out);
                out.clear();
            }
        }
        if !out.is_empty() {
            write(&out);
        }
    }

    /// Appends the date and the header, where they are wanted.
    pub(super) fn push_head(&self, out: &mut Vec<u8>) {
        let columns = &self.options.columns;
        if self.options.date {
            out.extend_from_slice(self.clock.date_line().as_bytes());
            out.push(b'\n');
        }
        if !self.options.header {
            return;
        }
        out.extend_from_slice(columns.prefix.as_bytes());
        for column in &columns.columns {
            if let Some(field) = column.field {
                push_padded(out, field.header, column.width, column.right);
            }
            out.extend_from_slice(column.suffix.as_bytes());
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
#[path = "print_tests.rs"]
mod tests;
