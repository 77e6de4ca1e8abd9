//! How is a set of array tasks written: `0-15:4,20,30-40%5`?
//!
//! [`parse_array_spec`] reads what users give to `--array`; `Display` of [`IndexSet`] writes what
//! squeue shows, which reads back as the same set.

use std::fmt;
use std::str::FromStr;

use crate::ids::plain_number;
use crate::indexset::{IndexSet, Run};
use crate::limits::{MAX_ARRAY_INDEX, MAX_ARRAY_TASKS, MAX_LIST_TEXT};

/// Why a text is no array specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArraySpecError {
    /// Nothing given.
    #[error(
        "array specification is empty; give indices (1,3,5-7), with a step (0-15:4) or a limit (0-99%5)"
    )]
    Empty,
    /// A part that is no index, range or stepped range.
    #[error(
        "array specification: {part:?} is not understood; give an index (3), a range (0-15) or a step (0-15:4)"
    )]
    Malformed {
        /// The part between commas.
        part: String,
    },
    /// A range whose end is below its start.
    #[error("array specification: range {part:?} runs backwards")]
    Backwards {
        /// The part between commas.
        part: String,
    },
    /// An index beyond [`MAX_ARRAY_INDEX`].
    #[error("array specification: index in {part:?} is beyond {MAX_ARRAY_INDEX}")]
    IndexTooLarge {
        /// The part between commas.
        part: String,
    },
    /// The number behind `%` is none.
    #[error("array specification: {text:?} behind % is no number of tasks")]
    Throttle {
        /// What stands behind `%`.
        text: String,
    },
    /// More than [`MAX_ARRAY_TASKS`] members, or a text beyond [`MAX_LIST_TEXT`].
    #[error("array specification names too many tasks; at most {MAX_ARRAY_TASKS} are allowed")]
    TooMany,
}

/// Reads the value of `--array`: the indices, and how many may run at once where `%N` says so
/// (`%0` is no limit). One pair of brackets around the indices is accepted, as squeue prints it.
///
/// # Errors
/// When the text is empty, malformed, or beyond [`MAX_ARRAY_INDEX`] or [`MAX_ARRAY_TASKS`].
pub fn parse_array_spec(text: &str) -> Result<(IndexSet, Option<u32>), ArraySpecError> {
    let trimmed = text.trim();
    if trimmed.len() > MAX_LIST_TEXT {
        return Err(ArraySpecError::TooMany);
    }
    let bare = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (list, throttle) = match bare.unwrap_or(trimmed).split_once('%') {
        None => (bare.unwrap_or(trimmed), None),
        Some((list, digits)) => {
            let error = || ArraySpecError::Throttle { text: digits.to_owned() };
            (list, Some(plain_number(digits).ok_or_else(error)?))
        }
    };
    if list.is_empty() {
        return Err(ArraySpecError::Empty);
    }
    let mut runs = Vec::new();
    let mut total: u64 = 0;
    for part in list.split(',') {
        let run = parse_part(part)?;
        total += run.len();
        if total > MAX_ARRAY_TASKS {
            return Err(ArraySpecError::TooMany);
        }
        runs.push(run);
    }
    Ok((IndexSet::from_runs(runs), throttle.filter(|&most| most > 0)))
}

/// One part between commas: `3`, `0-15`, `0-15:4`.
fn parse_part(part: &str) -> Result<Run, ArraySpecError> {
    let malformed = || ArraySpecError::Malformed { part: part.to_owned() };
    let (range, step) = part.split_once(':').unwrap_or((part, "1"));
    let (start, end) = match range.split_once('-') {
        Some(ends) => ends,
        None if part.contains(':') => return Err(malformed()),
        None => (range, range),
    };
    let index = |digits: &str| {
        let value: u64 = plain_number(digits).ok_or_else(malformed)?;
        let fits = u32::try_from(value).ok().filter(|&index| index <= MAX_ARRAY_INDEX);
        fits.ok_or_else(|| ArraySpecError::IndexTooLarge { part: part.to_owned() })
    };
    let (start, end) = (index(start)?, index(end)?);
    let step = plain_number(step).filter(|&step: &u32| step > 0).ok_or_else(malformed)?;
    Run::new(start, end, step).ok_or_else(|| ArraySpecError::Backwards { part: part.to_owned() })
}

impl FromStr for IndexSet {
    type Err = ArraySpecError;

    /// Reads indices without a limit; `%N` is refused here.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match parse_array_spec(text)? {
            (set, None) => Ok(set),
            (_, Some(most)) => Err(ArraySpecError::Throttle { text: most.to_string() }),
        }
    }
}

/// Slurm writes a set as `first-last:step` if its members are that far apart and the whole spans
/// more than this.
const LEAST_STEPPED_SPAN: u32 = 10;

impl IndexSet {
    /// `first-last:step`, if the whole set has one step above 1 and spans enough for Slurm to use it.
    fn as_stepped(&self) -> Option<Run> {
        let mut members = self.iter();
        let (start, second, end) = (members.next()?, members.next()?, self.last()?);
        let step = second - start;
        if step == 1 || end - start <= LEAST_STEPPED_SPAN {
            return None;
        }
        let whole = Run::new(start, end, step)?;
        (whole.end == end && whole.len() == self.len() && self.iter().eq(whole.iter()))
            .then_some(whole)
    }

    /// The stretches without a gap, ascending.
    fn stretches(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let dense = |run: Run| run.step == 1;
        let pieces = self.ranges().iter().flat_map(move |run| {
            let whole = dense(*run).then_some((run.start, run.end));
            let single = (!dense(*run)).then(|| run.iter().map(|index| (index, index)));
            whole.into_iter().chain(single.into_iter().flatten())
        });
        let mut pieces = pieces.peekable();
        std::iter::from_fn(move || {
            let (start, mut end) = pieces.next()?;
            while let Some((_, next)) = pieces.next_if(|piece| Some(piece.0) == end.checked_add(1))
            {
                end = next;
            }
            Some((start, end))
        })
    }

    /// As `Display`, but within `width` letters counting the end that C keeps for itself, as Slurm
    /// does for `SLURM_BITSTR_LEN` (64): a longer text is cut and ends in `...`. Stops early, so
    /// that the cost does not grow with the set.
    #[must_use]
    pub fn to_truncated(&self, width: usize) -> String {
        let mut text = String::new();
        if let Some(Run { start, end, step }) = self.as_stepped() {
            text = format!("{start}-{end}:{step}");
        } else {
            for (start, end) in self.stretches() {
                push_stretch(&mut text, start, end);
                if text.len() >= width {
                    break;
                }
            }
        }
        if text.len() + 1 > width {
            text.truncate(width.saturating_sub(4));
            text.push_str("...");
        }
        text
    }
}

fn push_stretch(text: &mut String, start: u32, end: u32) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(&start.to_string());
    if end > start {
        text.push('-');
        text.push_str(&end.to_string());
    }
}

/// Slurm's form: `0-15`, `1,3,5-7`, and `0-12:4` where the whole set has one step.
impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Run { start, end, step }) = self.as_stepped() {
            return write!(f, "{start}-{end}:{step}");
        }
        for (i, (start, end)) in self.stretches().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{start}")?;
            if end > start {
                write!(f, "-{end}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn specifications_are_read() {
        for (text, members, throttle) in [
            ("3", vec![3], None),
            ("0-3", vec![0, 1, 2, 3], None),
            ("1,3,5-7", vec![1, 3, 5, 6, 7], None),
            ("0-15:4", vec![0, 4, 8, 12], None),
            ("0-4:2,1%5", vec![0, 1, 2, 4], Some(5)),
            ("[3-5%2]", vec![3, 4, 5], Some(2)),
            ("7,7,7", vec![7], None),
            ("5-3:1,1", vec![], None),
            ("2%0", vec![2], None),
        ] {
            if members.is_empty() {
                assert!(parse_array_spec(text).is_err(), "{text:?}");
            } else {
                let set = members.into_iter().collect();
                assert_eq!(parse_array_spec(text), Ok((set, throttle)), "{text:?}");
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", "%5", ",", "1,", "-1", "1-", "a", "1-3:0", "1:2", "1-3:", "1%", "1%x", "1%2%3",
            "[1", "+1",
        ] {
            assert!(parse_array_spec(text).is_err(), "{text:?}");
        }
        let backwards = parse_array_spec("3-1");
        assert!(matches!(backwards, Err(ArraySpecError::Backwards { .. })));
        let large = parse_array_spec("4000001");
        assert!(matches!(large, Err(ArraySpecError::IndexTooLarge { .. })));
        assert_eq!(parse_array_spec("0-4000000,5"), Err(ArraySpecError::TooMany));
        assert_eq!(
            "1-3%2".parse::<IndexSet>(),
            Err(ArraySpecError::Throttle { text: "2".to_owned() })
        );
    }

    #[test]
    fn sets_print_as_slurm_prints_them() {
        for (text, expect) in [
            ("0-15", "0-15"),
            ("0-1", "0-1"),
            ("1,3,5-7", "1,3,5-7"),
            ("3,5", "3,5"),
            ("0-15:4", "0-12:4"),
            ("0-8:4", "0,4,8"),
            ("0-12:4,13", "0,4,8,12-13"),
            ("0-1000000:2", "0-1000000:2"),
        ] {
            let (set, _) = parse_array_spec(text).expect("valid");
            assert_eq!(set.to_string(), expect, "{text:?}");
        }
        assert_eq!(IndexSet::new().to_string(), "");
    }

    #[test]
    fn long_lists_are_cut_with_dots() {
        let (set, _) = parse_array_spec("0-400:2,401").expect("valid");
        let cut = set.to_truncated(64);
        assert_eq!(cut.len(), 63);
        assert!(cut.starts_with("0,2,4,") && cut.ends_with("..."), "{cut}");
        let (short, _) = parse_array_spec("1,3,5-7").expect("valid");
        assert_eq!(short.to_truncated(64), "1,3,5-7");
    }

    proptest! {
        #[test]
        fn display_reads_back(members in prop::collection::btree_set(0_u32..300, 1..80)) {
            let set: IndexSet = members.into_iter().collect();
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn stepped_sets_read_back(start in 0_u32..50, step in 1_u32..9, steps in 0_u32..30) {
            let set = IndexSet::from_range(start, start + step * steps, step);
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn no_text_panics(text in "[0-9:,%\\-]{0,16}") {
            let _outcome = parse_array_spec(&text);
        }
    }
}
