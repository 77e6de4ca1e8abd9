//! What does a job, a node or a partition look like in a listing?
//!
//! Each field is defined once, in a table: its names in every command, its header, its width and the
//! function that finds its value in a message. Values are typed; a dialect decides how squeue, sacct
//! or scontrol writes them. Formats (`-o`, `-O`) are parsed once a call, and rows are written
//! straight into the output.

mod array;
mod ask;
mod clock;
mod format;
mod job_fields;
mod job_row;
pub(crate) mod job_values;
mod node_fields;
mod node_group;
mod node_row;
mod partition_row;
mod report;
mod stats;
mod step;
mod step_fields;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod tres;
mod usage;
mod value;

pub(crate) use array::{first_index, indices, list_limit_from_env, push_ranges};
pub(crate) use ask::{cluster_name, now_ms, user_id};
pub(crate) use clock::Clock;
pub(crate) use format::{
    Column, Columns, Source, all_letters, cut, parse_letters, parse_names, push_at_least,
    push_padded,
};
pub(crate) use job_fields::{
    ALL_LETTERS, JobField, Overflow, by_letter, by_long_name, sacct_fields,
};
pub(crate) use job_row::{JobRow, Part};
pub(crate) use node_fields::{NODE_ALL_LETTERS, NodeField, node_by_letter, node_by_long_name};
pub(crate) use node_group::{Grouping, NodeGroup, group_nodes};
pub(crate) use node_row::{NodeRow, share_text};
pub(crate) use partition_row::PartitionRow;
pub(crate) use report::{Cell, Report, ReportField};
pub(crate) use stats::{Stats, Way, Which};
pub(crate) use step::{StepRecord, list_steps, steps_of_jobs};
pub(crate) use step_fields::{STEP_ALL_LETTERS, StepField, step_by_letter, step_by_long_name};
pub(crate) use table::{Table, TableColumn, TableStyle};
pub(crate) use tres::{amounts, in_id_order, money, raw_amounts};
pub(crate) use usage::{derived_exit, has_batch_step, live_exit_code, row_exit_code, row_state};
pub(crate) use value::{Dialect, Render, Units, Value, push_printable};
