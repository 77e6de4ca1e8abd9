//! What does sprio print?

use penstock_proto::v1;

use crate::errors::error;
use crate::listing::{Columns, parse_letters, push_padded, push_printable};

use super::fields::{self, Field};
use super::options::Options;

/// Slurm's words when ids were given that name no waiting job.
const NONE_FOUND: &str = "Unable to find jobs matching user/id(s) specified\n";

/// The whole listing.
pub(super) fn text(program: &str, options: &Options, reply: &v1::ListPrioritiesReply) -> Vec<u8> {
    let weights = reply.weights.clone().unwrap_or_default();
    let format = options.format.clone().unwrap_or_else(|| default_format(options, &weights));
    let columns = parse_letters(&format, fields::by_letter);
    for letter in &columns.unknown {
        error(program, &format!("Invalid job format specification: {letter}"));
    }
    let mut rows: Vec<&v1::PriorityRow> =
        reply.rows.iter().filter(|row| wanted(options, row)).collect();
    if rows.is_empty() && !options.selectors.is_empty() && !options.weights {
        return NONE_FOUND.as_bytes().to_vec();
    }
    fields::sort(&options.sort, &mut rows);
    let mut out = Vec::new();
    if options.header {
        push_line(&mut out, &columns, |field| field.header.to_owned());
    }
    if options.weights {
        push_line(&mut out, &columns, |field| field.of_weights(&weights));
        return out;
    }
    for row in rows {
        push_line(&mut out, &columns, |field| field.of_job(row));
    }
    out
}

fn wanted(options: &Options, row: &v1::PriorityRow) -> bool {
    (options.partitions.is_empty() || options.partitions.contains(&row.partition))
        && options.users.as_ref().is_none_or(|users| users.contains(&row.uid))
}

/// Slurm's columns: those whose weight is not 0, or every one.
fn default_format(options: &Options, weights: &v1::PriorityWeights) -> String {
    let mut format = String::from("%.15i %9r");
    if options.long || options.users.is_some() {
        format.push_str(" %.8u");
    }
    let mut push = |letter: char, shown: bool| {
        if !shown {
            return;
        }
        let lower = letter.to_ascii_lowercase();
        format.push_str(&match (options.norm, letter) {
            (true, 'S') => String::new(),
            (true, 'N') => " %11N".to_owned(),
            (true, 'T') => " %20t".to_owned(),
            (true, _) => format!(" %10{lower}"),
            (false, 'N') => " %.11N".to_owned(),
            (false, 'T') => " %.20T".to_owned(),
            (false, letter) => format!(" %.10{letter}"),
        });
    };
    let all = options.long;
    push('Y', true);
    push('S', true);
    push('A', all || weights.age > 0);
    push('B', all || weights.association > 0);
    push('F', all || weights.fair_share > 0);
    push('J', all || weights.job_size > 0);
    push('P', all || weights.partition > 0);
    push('Q', all || weights.qos > 0);
    push('X', weights.expansion > 0);
    push('W', weights.small_area > 0);
    push('N', all);
    push('T', all || weights.tres.iter().any(|tres| tres.count > 0));
    format
}

fn push_line(out: &mut Vec<u8>, columns: &Columns<Field>, value: impl Fn(Field) -> String) {
    out.extend_from_slice(columns.prefix.as_bytes());
    let mut shown = String::new();
    for column in &columns.columns {
        // A letter that names nothing leaves nothing, not even what stands behind it.
        let Some(field) = column.field else { continue };
        shown.clear();
        push_printable(&mut shown, &value(field));
        push_padded(out, &shown, column.width, column.right);
        out.extend_from_slice(column.suffix.as_bytes());
    }
    out.push(b'\n');
}

#[cfg(test)]
#[path = "print_tests.rs"]
mod tests;
