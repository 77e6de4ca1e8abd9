//! In which order are jobs listed?
//!
//! Keys are the letters of `-o`, with `-` before them for the reverse. The keys of a job are found
//! once, as it comes; jobs that are equal in all of them keep the controller's order.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use crate::listing::job_values::size;
use crate::listing::{Clock, Dialect, JobField, JobRow, Render, by_letter};

/// One key of the order.
#[derive(Debug, Clone, Copy)]
pub(super) struct SortKey {
    /// What is compared.
    pub(super) field: &'static JobField,
    letter: char,
    reverse: bool,
}

/// Reads `P,t,-p`.
///
/// # Errors
/// With the last letter that names no field, since Slurm reads from the end.
pub(super) fn parse(text: &str) -> Result<Vec<SortKey>, char> {
    let mut keys = Vec::new();
    let mut unknown = None;
    let mut reverse = false;
    for letter in text.chars() {
        match letter {
            '-' => reverse = true,
            '+' | '#' | ',' | ' ' => {}
            letter => {
                match by_letter(letter).filter(|_| letter != 's' && letter != 'o') {
                    Some(field) => keys.push(SortKey { field, letter, reverse }),
                    None => unknown = Some(letter),
                }
                reverse = false;
            }
        }
    }
    unknown.map_or(Ok(keys), Err)
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key<'a> {
    Number(i64),
    Text(Cow<'a, str>),
}

/// The keys of rows, gathered one row after the other.
#[derive(Debug)]
pub(super) struct Order {
    columns: Vec<KeyColumn>,
    rows: usize,
}

/// One key of all rows. Texts are kept once each, since a hundred thousand rows have few
/// partitions, users and names.
#[derive(Debug)]
struct KeyColumn {
    key: SortKey,
    numbers: Vec<i64>,
    texts: HashMap<Box<str>, i64>,
}

impl Order {
    /// No rows yet.
    pub(super) fn new(keys: &[SortKey]) -> Self {
        let column =
            |key: &SortKey| KeyColumn { key: *key, numbers: Vec::new(), texts: HashMap::new() };
        Self { columns: keys.iter().map(column).collect(), rows: 0 }
    }

    /// Takes the keys of the next row.
    pub(super) fn push(&mut self, row: &JobRow<'_>, clock: &Clock) {
        self.rows += 1;
        for KeyColumn { key, numbers, texts } in &mut self.columns {
            numbers.push(match key_of(row, *key, clock) {
                Key::Number(number) => number,
                Key::Text(text) => match texts.get(&*text) {
                    Some(number) => *number,
                    None => {
                        let number = i64::try_from(texts.len()).unwrap_or(i64::MAX);
                        texts.insert(text.into(), number);
                        number
                    }
                },
            });
        }
    }

    /// The places of the rows in their order: one stable sort a key, the last key first, over plain
    /// numbers.
    pub(super) fn finish(self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows).collect();
        for column in self.columns.into_iter().rev() {
            let reverse = column.key.reverse;
            let ranks = column.ranks();
            if reverse {
                order.sort_by_key(|at| Reverse(ranks[*at]));
            } else {
                order.sort_by_key(|at| ranks[*at]);
            }
        }
        order
    }
}

impl KeyColumn {
    /// Numbers that are ordered as the keys are.
    fn ranks(self) -> Vec<i64> {
        if self.texts.is_empty() {
            return self.numbers;
        }
        let mut texts: Vec<(Box<str>, i64)> = self.texts.into_iter().collect();
        texts.sort_unstable();
        let mut ranks: Vec<(i64, i64)> =
            (0_i64..).zip(texts).map(|(rank, (_, number))| (number, rank)).collect();
        ranks.sort_unstable();
        let rank = |number: i64| {
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            ranks.get(at).map_or(number, |(_, rank)| *rank)
        };
        self.numbers.into_iter().map(rank).collect()
    }
}

fn key_of<'a>(row: &JobRow<'a>, key: SortKey, clock: &Clock) -> Key<'a> {
    let time = |ms: i64| Key::Number(if ms == 0 { i64::MAX } else { ms });
    let count = |number: u64| Key::Number(i64::try_from(number).unwrap_or(i64::MAX));
    match key.letter {
        'i' => {
            let task = i64::from(row.task_id().unwrap_or(u32::MAX));
            Key::Number((i64::from(row.array_job_id()) << 32) | task)
        }
        'A' => count(row.job.id.into()),
        'F' => count(row.array_job_id().into()),
        'P' => Key::Text(Cow::Borrowed(&row.info.partition)),
        // By its name, as Slurm does, so that CA comes before PD and PD before R.
        't' | 'T' => {
            Key::Text(Cow::Owned(Render::new(Dialect::Queue, clock).text(&(key.field.value)(row))))
        }
        'p' | 'Q' => count(row.info.priority.into()),
        'u' => Key::Text(Cow::Borrowed(&row.info.user_name)),
        'j' => Key::Text(Cow::Borrowed(&row.spec.name)),
        'a' => Key::Text(Cow::Borrowed(&row.spec.account)),
        'U' => count(row.job.uid.into()),
        'G' => count(row.job.gid.into()),
        'M' => count(row.used_secs()),
        'l' => count(row.limit_secs().unwrap_or(u64::MAX)),
        'L' => {
            let left = row.limit_secs().map(|limit| limit.saturating_sub(row.used_secs()));
            count(left.unwrap_or(u64::MAX))
        }
        'S' => time(row.start_ms()),
        'e' => match (row.ended_ms(), row.limit_secs()) {
            (0, Some(limit)) if row.start_ms() != 0 => {
                time(row.start_ms().saturating_add_unsigned(limit.saturating_mul(1000)))
            }
            (ended, _) => time(ended),
        },
        'V' => time(row.job.submit_ms),
        'D' => count(row.info.num_nodes.into()),
        'C' => count(row.info.num_cpus.into()),
        'm' => count(size::memory_per_cpu(row).or_else(|| size::memory_per_node(row)).unwrap_or(0)),
        'y' => Key::Number(row.spec.nice.into()),
        'N' | 'R' => Key::Text(Cow::Borrowed(&row.info.nodelist)),
        _ => {
            let text = Render::new(Dialect::Queue, clock).text(&(key.field.value)(row));
            Key::Text(Cow::Owned(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use penstock_vocab::JobState;

    use crate::listing::testing::job;

    use super::*;

    fn order(keys: &str) -> Vec<u32> {
        let infos = [
            job(1).state(JobState::Running).priority(10).build(),
            job(2).partition("zone").build(),
            job(3).priority(5).build(),
            job(4).priority(7).name("zz").build(),
        ];
        let clock = Clock::new(TimeZone::UTC, None, 0);
        let mut order = Order::new(&parse(keys).expect("valid"));
        infos.iter().for_each(|info| order.push(&JobRow::live(info, 0), &clock));
        let place = |at: usize| infos[at].job.as_ref().map_or(0, |job| job.id);
        order.finish().into_iter().map(place).collect()
    }

    #[test]
    fn default_order_is_partition_state_priority() {
        assert_eq!(order("P,t,-p"), [4, 3, 1, 2]);
    }

    #[test]
    fn keys_are_reversed_one_by_one() {
        assert_eq!(order("-i"), [4, 3, 2, 1]);
        assert_eq!(order("-P,i"), [2, 1, 3, 4]);
        assert_eq!(order("-j,+i"), [4, 1, 2, 3]);
    }

    #[test]
    fn letters_that_name_nothing_are_told() {
        assert_eq!(parse("foo").unwrap_err(), 'o');
        assert_eq!(parse("i,é").unwrap_err(), 'é');
        assert!(parse("").is_ok_and(|keys| keys.is_empty()));
    }
}
