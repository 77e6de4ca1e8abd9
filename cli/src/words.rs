//! How are lists and counts written on command lines?

use penstock_vocab::parse_count;

/// Words between commas; blanks around them and empty ones are dropped.
pub(crate) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Splits job ids at commas that are not inside brackets: `1,2_[3,4],5`.
pub(crate) fn split_job_ids(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let outside = move |letter: char| {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    };
    text.split(outside).filter(|word| !word.is_empty()).collect()
}

/// `MIN[-MAX]` nodes, each with an optional k or m (times 1024); MIN alone is exactly MIN. `None`
/// when it is no such range or begins with 0; the end may lie below the start.
pub(crate) fn node_range(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| u32::try_from(parse_count(text.trim())?).ok();
    let (min, max) = match text.split_once('-') {
        None => (number(text)?, number(text)?),
        Some((min, max)) => (number(min)?, number(max)?),
    };
    (min > 0).then_some((min, max))
}

/// The entry of `names` that `word` means: the same in any case of letters, or else the only one
/// that begins so.
pub(crate) fn find_name<T: Copy + PartialEq>(names: &[(&str, T)], word: &str) -> Option<T> {
    let exact = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    if let Some((_, meaning)) = exact {
        return Some(*meaning);
    }
    let begins =
        |name: &str| name.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    let mut candidates =
        names.iter().filter(|(name, _)| !word.is_empty() && begins(name)).map(|(_, t)| *t);
    let first = candidates.next()?;
    candidates.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_brackets_do_not_split() {
        assert_eq!(split_job_ids("1,2_[3,4],,5"), ["1", "2_[3,4]", "5"]);
        assert_eq!(split_job_ids("]1,2"), ["]1", "2"]);
        assert!(split_job_ids("").is_empty());
        assert_eq!(list(" a, ,b,"), ["a", "b"]);
    }

    #[test]
    fn node_ranges_are_read() {
        let table = [
            ("2", Some((2, 2))),
            ("2-4", Some((2, 4))),
            ("1k", Some((1024, 1024))),
            ("4-2", Some((4, 2))),
            ("0", None),
            ("-2", None),
            ("2-", None),
            ("x", None),
            ("", None),
            ("99999999999", None),
        ];
        for (text, expect) in table {
            assert_eq!(node_range(text), expect, "{text:?}");
        }
    }

    #[test]
    fn names_may_be_cut_short_while_they_are_unique() {
        let names = [("TimeLimit", 1), ("TimeMin", 2), ("Name", 3), ("JobName", 3), ("Nice", 4)];
        let table = [
            ("timelimit", Some(1)),
            ("TimeL", Some(1)),
            ("time", None),
            ("na", Some(3)),
            ("n", None),
            ("jobname", Some(3)),
            ("x", None),
            ("", None),
        ];
        for (word, expect) in table {
            assert_eq!(find_name(&names, word), expect, "{word}");
        }
    }
}
