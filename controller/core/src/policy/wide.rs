//! How are products of two 128-bit numbers compared, shifted and divided, exactly?
//!
//! Usage is a 128-bit number, so that shares times usage need more. Nothing here rounds unless it
//! says so, and nothing overflows: what does not fit is capped.

/// The 256-bit product as (high, low).
#[must_use]
pub(crate) const fn mul(a: u128, b: u128) -> (u128, u128) {
    const MASK: u128 = u64::MAX as u128;
    let (a1, a0) = (a >> 64, a & MASK);
    let (b1, b0) = (b >> 64, b & MASK);
    let low = a0 * b0;
    // Neither sum overflows: (2^64 - 1)^2 + 2 * (2^64 - 1) = 2^128 - 1.
    let middle = a1 * b0 + (low >> 64);
    let other = a0 * b1 + (middle & MASK);
    let high = a1 * b1 + (middle >> 64) + (other >> 64);
    (high, (other << 64) | (low & MASK))
}

/// `a * b / 2^shift`, rounded down and capped; `shift` is 1..=127.
#[must_use]
pub(crate) const fn mul_shift(a: u128, b: u128, shift: u32) -> u128 {
    let (high, low) = mul(a, b);
    if high >> shift != 0 {
        return u128::MAX;
    }
    (high << (128 - shift)) | (low >> shift)
}

/// `a * b / divisor`, rounded down and capped; capped as well where the divisor is zero.
#[must_use]
pub(crate) fn mul_div(a: u128, b: u128, divisor: u128) -> u128 {
    let (high, low) = mul(a, b);
    if high == 0 {
        return low.checked_div(divisor).unwrap_or(u128::MAX);
    }
    if high >= divisor {
        return u128::MAX;
    }
    // Long division, one bit after the other; the remainder stays below the divisor.
    let (mut rest, mut quotient) = (high, 0u128);
    for bit in (0..128).rev() {
        let carry = rest >> 127 == 1;
        rest = (rest << 1) | ((low >> bit) & 1);
        quotient <<= 1;
        if carry || rest >= divisor {
            rest = rest.wrapping_sub(divisor);
            quotient |= 1;
        }
    }
    quotient
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A 256-bit number as 32-bit digits, low first: schoolbook, with nothing in common with the
    /// code under test.
    fn product(a: u128, b: u128) -> Vec<u64> {
        let digits = |n: u128| (0..4).map(move |i| u64::try_from((n >> (32 * i)) & 0xffff_ffff));
        let mut sum = vec![0u64; 9];
        for (i, x) in digits(a).enumerate() {
            let mut carry = 0;
            for (j, y) in digits(b).enumerate() {
                let at = sum[i + j] + x.unwrap() * y.unwrap() + carry;
                sum[i + j] = at & 0xffff_ffff;
                carry = at >> 32;
            }
            sum[i + 4] += carry;
        }
        sum
    }

    fn joined(digits: &[u64]) -> u128 {
        digits.iter().rev().fold(0, |n, digit| (n << 32) | u128::from(*digit))
    }

    fn any_size() -> impl Strategy<Value = u128> {
        (any::<u128>(), 0..128u32).prop_map(|(n, shift)| n >> shift)
    }

    proptest! {
        #[test]
        fn the_product_is_exact(a in any_size(), b in any_size()) {
            let digits = product(a, b);
            prop_assert_eq!(mul(a, b), (joined(&digits[4..8]), joined(&digits[..4])));
        }

        #[test]
        fn division_undoes_multiplication(a in any_size(), b in any_size(), rest in any_size()) {
            prop_assume!(b > 0);
            prop_assert_eq!(mul_div(a, b, b), a);
            // q = floor(a * b / d) is where q * d <= a * b < (q + 1) * d.
            let d = rest.max(1);
            let q = mul_div(a, b, d);
            if q < u128::MAX {
                prop_assert!(mul(q, d) <= mul(a, b));
                prop_assert!(mul(q + 1, d) > mul(a, b));
            } else {
                prop_assert!(mul(q, d) <= mul(a, b));
            }
        }

        #[test]
        fn a_shift_is_a_division(a in any_size(), b in any_size(), shift in 1..128u32) {
            prop_assert_eq!(mul_shift(a, b, shift), mul_div(a, b, 1 << shift));
        }
    }

    #[test]
    fn what_does_not_fit_is_capped() {
        assert_eq!(mul_div(u128::MAX, u128::MAX, 1), u128::MAX);
        assert_eq!(mul_div(1, 1, 0), u128::MAX);
        assert_eq!(mul_shift(u128::MAX, u128::MAX, 1), u128::MAX);
    }
}
