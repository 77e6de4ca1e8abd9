//! How are the lists of numbers and masks read that users give to bind tasks?

/// Highest bit of a mask that is looked at; Linux has room for 8192 CPUs.
const MAX_BIT: usize = 8_192;

/// Most entries of a list, after repeats.
const MAX_ENTRIES: usize = 65_536;

/// A decimal number, or a hexadecimal one behind `0x`.
pub(super) fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// Positions of the bits of a hexadecimal mask, with or without `0x`, lowest first; `None` if it is
/// none, or empty.
pub(super) fn mask_bits(word: &str) -> Option<Vec<usize>> {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    if digits.is_empty() || digits.len() > MAX_BIT / 4 {
        return None;
    }
    let mut bits = Vec::new();
    for (at, digit) in digits.chars().rev().enumerate() {
        let digit = digit.to_digit(16)?;
        bits.extend((0..4).filter(|bit| digit >> bit & 1 == 1).map(|bit| at * 4 + bit));
    }
    (!bits.is_empty()).then_some(bits)
}

/// The mask in which the bits `set` are on: `0x3`.
pub(super) fn mask_text(set: &[usize]) -> String {
    let digits = set.iter().max().map_or(0, |highest| highest / 4) + 1;
    let digit = |at: usize| {
        let value =
            (0..4).filter(|bit| set.contains(&(at * 4 + bit))).map(|bit| 1_u32 << bit).sum();
        char::from_digit(value, 16).unwrap_or('0')
    };
    format!("0x{}", (0..digits).rev().map(digit).collect::<String>())
}

/// Comma-separated entries, each read by `read`; `2*0x3` stands for two of them.
pub(super) fn repeated_list<T: Clone>(
    text: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<Vec<T>> {
    let mut all = Vec::new();
    for word in text.split(',') {
        let (times, word) = match word.split_once('*') {
            Some((times, word)) => (times.parse::<usize>().ok()?, word),
            None => (1, word),
        };
        if times == 0 || times > MAX_ENTRIES - all.len() {
            return None;
        }
        let entry = read(word)?;
        all.extend(std::iter::repeat_n(entry, times));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_repeat_their_entries() {
        assert_eq!(repeated_list("0,2*0x1f,7", number), Some(vec![0, 31, 31, 7]));
        for text in ["", "1,", "0*1", "x*1", "99999999*1", "1 2"] {
            assert_eq!(repeated_list(text, number), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn masks_are_read_as_they_are_written(set in prop::collection::btree_set(0_usize..300, 1..40)) {
            let set: Vec<usize> = set.into_iter().collect();
            prop_assert_eq!(mask_bits(&mask_text(&set)), Some(set));
        }

        #[test]
        fn no_mask_is_too_wild(text in "[0-9a-fx,* ]{0,30}") {
            mask_bits(&text);
            repeated_list(&text, mask_bits);
        }
    }
}
