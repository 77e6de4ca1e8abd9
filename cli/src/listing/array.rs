//! How are the waiting tasks of an array written, as in `31_[3-5%2]`?
//!
//! Slurm's rules: a set of a constant step whose ends are more than ten apart is written
//! `first-last:step`; any other as single indices and ranges of neighbours, cut with `...` at
//! `SLURM_BITSTR_LEN` characters (64).

use penstock_proto::v1;

use super::value::push_number;

/// Slurm's `BITSTR_LEN`; room for a terminating NUL is counted in it.
const DEFAULT_LEN: usize = 64;

/// A set is written with its step only when its ends are further apart than this.
const MIN_STEP_SPAN: u32 = 10;

/// The limit that `SLURM_BITSTR_LEN` asks for; `None`: no limit (0).
pub(crate) fn list_limit_from_env() -> Option<usize> {
    list_limit(std::env::var("SLURM_BITSTR_LEN").ok().as_deref())
}

fn list_limit(text: Option<&str>) -> Option<usize> {
    // As atoi does: no number reads as zero; a negative one means the default.
    match text.map(|text| text.trim().parse::<i64>().unwrap_or(0)) {
        None => Some(DEFAULT_LEN),
        Some(0) => None,
        Some(len) => Some(usize::try_from(len).unwrap_or(DEFAULT_LEN)),
    }
}

/// Appends the indices of `runs` and, where there is one, `%throttle`.
pub(crate) fn push_indices(
    out: &mut String,
    runs: &v1::IndexRuns,
    throttle: u32,
    limit: Option<usize>,
) {
    let runs = sorted(runs);
    match whole_step(&runs) {
        Some((first, last, step)) => {
            push_number(out, first.into());
            out.push('-');
            push_number(out, last.into());
            if step > 1 {
                out.push(':');
                push_number(out, step.into());
            }
        }
        None => push_list(out, &runs, limit),
    }
    if throttle > 0 {
        out.push('%');
        push_number(out, throttle.into());
    }
}

/// Appends the indices as ranges only, whole: `0-3,7`.
pub(crate) fn push_ranges(out: &mut String, runs: &v1::IndexRuns) {
    push_list(out, &sorted(runs), None);
}

/// The first index of `runs`, by which an array's rest is sorted.
pub(crate) fn first_index(runs: &v1::IndexRuns) -> Option<u32> {
    runs.runs.chunks_exact(3).map(|run| run[0]).min()
}

/// Every index of `runs`, ascending.
pub(crate) fn indices(runs: &v1::IndexRuns) -> impl Iterator<Item = u32> + use<> {
    sorted(runs).into_iter().flat_map(members)
}

/// `start`, `end` and `step`, with `start <= end` and `step >= 1`.
type Run = (u32, u32, u32);

fn sorted(runs: &v1::IndexRuns) -> Vec<Run> {
    let valid = |run: &[u32]| {
        let (start, end, step) = (run[0], run[1], run[2].max(1));
        (start <= end).then(|| (start, end - (end - start) % step, step))
    };
    let mut runs: Vec<Run> = runs.runs.chunks_exact(3).filter_map(valid).collect();
    runs.sort_unstable();
    runs
}

fn members((start, end, step): Run) -> impl Iterator<Item = u32> {
    (start..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX))
}

/// First, last and step, where all members are equally far apart and the span is wide enough.
fn whole_step(runs: &[Run]) -> Option<Run> {
    let (first, last) = (runs.first()?.0, runs.last()?.1);
    if last - first <= MIN_STEP_SPAN {
        return None;
    }
    let mut step = None;
    let mut previous: Option<u32> = None;
    for &(start, end, inner) in runs {
        let gap = previous.map(|previous| start.wrapping_sub(previous));
        let inside = (end > start).then_some(inner);
        for distance in [gap, inside].into_iter().flatten() {
            if *step.get_or_insert(distance) != distance {
                return None;
            }
        }
        previous = Some(end);
    }
    step.map(|step| (first, last, step))
}

/// Single indices and ranges, cut at the limit.
fn push_list(out: &mut String, runs: &[Run], limit: Option<usize>) {
    let begin = out.len();
    // One character past the limit is enough to know that it is too long.
    let enough = limit.map_or(usize::MAX, |limit| begin.saturating_add(limit));
    let mut open: Option<(u32, u32)> = None;
    for index in runs.iter().copied().flat_map(members) {
        match &mut open {
            Some((_, last)) if last.checked_add(1) == Some(index) => *last = index,
            held => {
                if let Some(range) = held.replace((index, index)) {
                    push_range(out, begin, range);
                }
                if out.len() > enough {
                    break;
                }
            }
        }
    }
    if let Some(range) = open.filter(|_| out.len() <= enough) {
        push_range(out, begin, range);
    }
    // The limit counts a NUL and keeps room for the dots, as Slurm's buffer does.
    if let Some(limit) = limit.filter(|limit| out.len() - begin + 3 > *limit) {
        out.truncate(begin + limit.saturating_sub(4));
        out.push_str("...");
    }
}

fn push_range(out: &mut String, begin: usize, (first, last): (u32, u32)) {
    if out.len() > begin {
        out.push(',');
    }
    push_number(out, first.into());
    if last > first {
        out.push('-');
        push_number(out, last.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(runs: &[u32], throttle: u32, limit: Option<usize>) -> String {
        let mut out = String::new();
        push_indices(&mut out, &v1::IndexRuns { runs: runs.to_vec() }, throttle, limit);
        out
    }

    #[test]
    fn indices_are_written_as_slurm_does() {
        let check = |runs: &[u32], throttle, expect: &str| {
            assert_eq!(text(runs, throttle, Some(64)), expect, "{runs:?}");
        };
        check(&[3, 5, 1], 2, "3-5%2");
        check(&[3, 9, 1], 2, "3-9%2");
        check(&[7, 901, 3], 2, "7-901:3%2");
        check(&[1, 900, 1], 0, "1-900");
        check(&[1, 7, 2], 0, "1,3,5,7");
        check(&[5, 5, 1], 0, "5");
        check(&[0, 0, 1, 7, 7, 1, 3, 4, 1], 0, "0,3-4,7");
        check(&[1, 20, 1, 30, 30, 1], 1, "1-20,30%1");
        check(&[], 0, "");
        check(&[5, 3, 1], 0, "");
    }

    #[test]
    fn long_lists_are_cut_with_dots() {
        let runs: Vec<u32> = (0..40).flat_map(|i: u32| [i * i, i * i, 1]).collect();
        let cut = text(&runs, 3, Some(64));
        assert_eq!(cut, "0-1,4,9,16,25,36,49,64,81,100,121,144,169,196,225,256,289,32...%3");
        let full = text(&runs, 0, None);
        assert!(full.ends_with(",1521"), "{full}");
    }

    #[test]
    fn the_limit_of_the_environment_is_read_as_atoi_does() {
        assert_eq!(list_limit(None), Some(64));
        assert_eq!(list_limit(Some("0")), None);
        assert_eq!(list_limit(Some("foo")), None);
        assert_eq!(list_limit(Some("-3")), Some(64));
        assert_eq!(list_limit(Some("10")), Some(10));
    }
}
