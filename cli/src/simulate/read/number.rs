//! How is a number of a trace read?

use crate::simulate::job::{MAX_LENGTH_SECS, MAX_SUBMIT_SECS};

/// A number, a fraction rounded down.
///
/// # Errors
/// If it is none, or too large to be one.
pub(super) fn whole(text: &str) -> Result<i64, String> {
    scaled(text).map(|milli| milli.div_euclid(1_000))
}

/// A number, a fraction rounded up.
///
/// # Errors
/// As [`whole`].
pub(super) fn whole_up(text: &str) -> Result<i64, String> {
    scaled(text).map(|milli| milli.saturating_add(999).div_euclid(1_000))
}

/// A number in thousandths; further digits are left out.
fn scaled(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no number");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (int, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if int.len() + fraction.len() == 0 || !all_digits(int) || !all_digits(fraction) {
        return Err(wrong());
    }
    let whole: i64 = if int.is_empty() { 0 } else { int.parse().map_err(|_| wrong())? };
    let mut milli = whole.checked_mul(1_000).ok_or_else(wrong)?;
    for (digit, worth) in fraction.bytes().zip([100, 10, 1]) {
        milli = milli.saturating_add(i64::from(digit - b'0') * worth);
    }
    Ok(if negative { -milli } else { milli })
}

/// A length in seconds, rounded up; 0 or less: unknown.
///
/// # Errors
/// If it is no number, or beyond a century.
pub(super) fn length(what: &str, text: &str) -> Result<i64, String> {
    let secs = whole_up(text).map_err(|why| format!("{what} {why}"))?;
    if secs > MAX_LENGTH_SECS {
        return Err(format!("{what} of {secs} s is longer than a century"));
    }
    Ok(secs)
}

/// A submit time in seconds, rounded down.
///
/// # Errors
/// If it is no number, negative, or absurd.
pub(super) fn submit(text: &str) -> Result<i64, String> {
    let secs = whole(text).map_err(|why| format!("submit time {why}"))?;
    if !(0..=MAX_SUBMIT_SECS).contains(&secs) {
        return Err(format!("submit time {secs} is not believed"));
    }
    Ok(secs)
}

/// A size, rounded up; 0 or less: unknown.
///
/// # Errors
/// If it is no number.
pub(super) fn size(what: &str, text: &str) -> Result<i64, String> {
    whole_up(text).map_err(|why| format!("{what} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_rounded() {
        for (text, down, up) in [
            ("0", 0, 0),
            ("12", 12, 12),
            ("-1", -1, -1),
            ("66.0", 66, 66),
            ("0.001", 0, 1),
            ("2.9999", 2, 3),
            ("-1.5", -2, -1),
            (".5", 0, 1),
        ] {
            assert_eq!((whole(text), whole_up(text)), (Ok(down), Ok(up)), "{text}");
        }
        for text in ["", "-", ".", "x", "1e5", "1,5", "0x1", "99999999999999999999", "1.2.3"] {
            assert!(whole(text).is_err(), "{text}");
        }
    }

    #[test]
    fn absurd_values_are_not_believed() {
        assert!(length("run time", "99999999999").is_err());
        assert_eq!(length("run time", "-1"), Ok(-1));
        assert!(submit("-1").is_err() && submit("999999999999").is_err());
        assert_eq!(submit("1672529301"), Ok(1_672_529_301));
    }
}
