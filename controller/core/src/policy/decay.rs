//! What does usage of the past come to now, if it loses half of its weight in every half-life?
//!
//! # The numbers
//! With half-life `H`, a rate `r(s)` of use counts at `t` as the integral of
//! `r(s) * 2^(-(t - s) / H)` over all `s` up to `t`. Slurm comes near to it by a loop that runs every
//! five minutes; here nothing is ever rewritten for time alone, and the result is exact.
//!
//! Time is cut into periods of one half-life, counted from the Unix epoch: `t` lies in period
//! `k = floor(t / H)` at the offset `x = t - k * H`. What is stored is not the usage `u(t)` but
//! `a(t) = u(t) * 2^(x / H)`, usage as it would weigh at the start of the period. Then
//!
//! - within a period, a rate `r` from offset `x` to offset `y` adds `r * (W(y) - W(x))` with
//!   `W(x) = ∫ 2^(u / H) du from 0 to x = x * φ(ln 2 * x / H)` and `φ(z) = (e^z - 1) / z =
//!   Σ z^n / (n + 1)!`;
//! - at the end of a period `a` is halved, a shift by one bit;
//! - read, `u(t) = a(t) * 2^(-x / H)`.
//!
//! `W` is a function from whole milliseconds to whole numbers (2^-32 ms), evaluated by Horner's rule
//! in 126-bit fixed point. The differences telescope, and halving happens at the same instants
//! however often usage is brought up to date between: the stored bits do not depend on how an
//! interval is split. (This is the change of reference time of "forward decay", Cormode,
//! Shkapenyuk, Srivastava and Xu, ICDE 2009, section 3, with the landmark moved once in a half-life.)
//!
//! # Errors and bounds
//! A difference of `W` is off by less than 2^-32 ms, halving and reading by less than one in the last
//! place, 2^-32 of a millionth of a unit for a millisecond. So the relative error is below 2.4e-10
//! for anything that one unit used in one millisecond or more. Everything is capped at 128 bits,
//! which 10^9 units that run for ever under a half-life of a century do not reach.
//!
//! A half-life of 0 is no decay: `a` is the plain sum.

use penstock_vocab::Timestamp;

use super::wide::mul_shift;

/// What one unit uses in one millisecond, in the numbers of this module: rates are in millionths of a
/// unit, since a QOS charges by a factor in millionths, and time is in 2^-32 milliseconds.
pub const UNIT_MS: u128 = 1_000_000 << TIME_BITS;

/// Fraction bits of a millisecond.
const TIME_BITS: u32 = 32;
/// Fraction bits of factors and series: 1 is `ONE`, and everything stays below 4.
const BITS: u32 = 126;
const ONE: u128 = 1 << BITS;
/// `floor(ln 2 * 2^126)`.
const LN_2: u128 = 58_966_440_806_378_323_534_486_035_691_038_621_099;
/// Terms of the series. With `z <= ln 2`, what follows the last is below 2^-110.
const TERMS: usize = 28;
/// `1 / n!`.
const INVERSE_FACTORIALS: [u128; TERMS + 1] = inverse_factorials();

const fn inverse_factorials() -> [u128; TERMS + 1] {
    let mut table = [ONE; TERMS + 1];
    let (mut n, mut divisor) = (1, 1u128);
    while n <= TERMS {
        table[n] = table[n - 1] / divisor;
        n += 1;
        divisor += 1;
    }
    table
}

/// `Σ coefficients[n] * z^n`.
fn series(coefficients: &[u128], z: u128) -> u128 {
    coefficients.iter().rev().fold(0, |sum, coefficient| coefficient + mul_shift(sum, z, BITS))
}

/// A speed of decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decay {
    /// Milliseconds; 0: none.
    half_life: u64,
}

impl Decay {
    /// Half-life in seconds; 0: nothing decays.
    #[must_use]
    pub fn new(half_life_secs: u32) -> Self {
        Self { half_life: u64::from(half_life_secs) * 1_000 }
    }

    /// Period and offset of an instant.
    fn place(self, at: Timestamp) -> (i64, u64) {
        // A half-life is below 2^42 ms, so neither cast loses anything.
        let half_life = i64::try_from(self.half_life).unwrap_or(i64::MAX).max(1);
        (at.0.div_euclid(half_life), at.0.rem_euclid(half_life).unsigned_abs())
    }

    /// `ln 2 * x / H` of an offset up to `H`.
    fn exponent(self, offset: u64) -> u128 {
        let half_life = u128::from(self.half_life);
        // x / H to 126 bits, in two steps that both fit: H is below 2^42.
        let scaled = u128::from(offset) << 64;
        let (whole, rest) = (scaled / half_life, scaled % half_life);
        let ratio = (whole << (BITS - 64)) + (rest << (BITS - 64)) / half_life;
        mul_shift(LN_2, ratio, BITS)
    }

    /// `2^(x / H)` of an offset up to `H`.
    fn growth(self, offset: u64) -> u128 {
        series(&INVERSE_FACTORIALS, self.exponent(offset))
    }

    /// `W` of an offset up to `H`, in 2^-32 ms; strictly growing.
    fn weight(self, offset: u64) -> u128 {
        let phi = series(&INVERSE_FACTORIALS[1..], self.exponent(offset));
        mul_shift(u128::from(offset), phi, BITS - TIME_BITS)
    }

    /// What becomes of stored numbers between two instants; nothing, where `to` is not later.
    #[must_use]
    pub fn span(self, from: Timestamp, to: Timestamp) -> Span {
        if to <= from {
            return Span { first: 0, halvings: 0, whole: 0, last: 0 };
        }
        if self.half_life == 0 {
            let length = u128::from(to.since(from).0) << TIME_BITS;
            return Span { first: length, halvings: 0, whole: 0, last: 0 };
        }
        let ((period, begin), (last_period, end)) = (self.place(from), self.place(to));
        let halvings = last_period.abs_diff(period);
        if halvings == 0 {
            let first = self.weight(end).saturating_sub(self.weight(begin));
            return Span { first, halvings, whole: 0, last: 0 };
        }
        let whole = self.weight(self.half_life);
        let first = whole.saturating_sub(self.weight(begin));
        Span { first, halvings, whole, last: self.weight(end) }
    }

    /// As [`Span::apply`] where nothing is used in between, at less cost.
    #[must_use]
    pub fn idle(self, stored: u128, from: Timestamp, to: Timestamp) -> u128 {
        if self.half_life == 0 || to <= from {
            return stored;
        }
        let halvings = self.place(to).0.abs_diff(self.place(from).0);
        u32::try_from(halvings).ok().and_then(|bits| stored.checked_shr(bits)).unwrap_or(0)
    }

    /// How to read numbers that were stored as of `at`.
    #[must_use]
    pub fn reading(self, at: Timestamp) -> Reading {
        match self.place(at) {
            _ if self.half_life == 0 => Reading { factor: ONE },
            (_, 0) => Reading { factor: ONE },
            // 2^(-x / H) = 2^((H - x) / H) / 2.
            (_, offset) => Reading { factor: self.growth(self.half_life - offset) >> 1 },
        }
    }

    /// The number to store as of `at` for a usage that counts `used` then; what [`Reading::of`]
    /// undoes.
    #[must_use]
    pub fn stored(self, used: u128, at: Timestamp) -> u128 {
        match self.place(at) {
            _ if self.half_life == 0 => used,
            (_, offset) => mul_shift(used, self.growth(offset), BITS),
        }
    }
}

/// What becomes of stored numbers between two instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Weight of the time up to the first boundary, or to the end.
    first: u128,
    /// Boundaries between.
    halvings: u64,
    /// Weight of a whole period.
    whole: u128,
    /// Weight of the time after the last boundary.
    last: u128,
}

impl Span {
    /// The number that is stored at its end, if `stored` was at its beginning and `rate` millionths
    /// of a unit were used all the time. Cost: at most some 130 steps, however long it is.
    #[must_use]
    pub fn apply(&self, stored: u128, rate: u128) -> u128 {
        let charge = |stored: u128, weight| stored.saturating_add(rate.saturating_mul(weight));
        let stored = charge(stored, self.first);
        if self.halvings == 0 {
            return stored;
        }
        let mut stored = stored >> 1;
        for _ in 1..self.halvings {
            let next = charge(stored, self.whole) >> 1;
            // From here on every period gives the same: after as many halvings as there are bits.
            if next == stored {
                break;
            }
            stored = next;
        }
        charge(stored, self.last)
    }
}

/// How stored numbers are read at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    factor: u128,
}

impl Reading {
    /// Usage, in parts of [`UNIT_MS`], of a number that was stored as of this instant.
    #[must_use]
    pub fn of(self, stored: u128) -> u128 {
        mul_shift(stored, self.factor, BITS)
    }
}

/// Usage in whole unit-seconds, rounded down; capped.
#[must_use]
pub fn whole_secs(used: u128) -> u64 {
    u64::try_from(used / (UNIT_MS * 1_000)).unwrap_or(u64::MAX)
}

/// Usage in whole unit-minutes, rounded down; capped.
#[must_use]
pub fn whole_mins(used: u128) -> u64 {
    whole_secs(used) / 60
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// ln 2 = Σ 1 / (n * 2^n).
    #[test]
    fn the_logarithm_is_right() {
        let sum: u128 = (1..126u128).map(|n| (ONE >> n) / n).sum();
        assert!(sum.abs_diff(LN_2) < 200, "{sum} {LN_2}");
    }

    #[test]
    fn a_half_life_halves() {
        let decay = Decay::new(3_600);
        let start = Timestamp::from_secs(1_000_000_000);
        let stored = decay.stored(1_000 * UNIT_MS, start);
        let later = start.plus_secs(3_600);
        let read = decay.reading(later).of(decay.span(start, later).apply(stored, 0));
        assert!(read.abs_diff(500 * UNIT_MS) <= 2, "{read}");
    }

    #[test]
    fn nothing_decays_without_a_half_life() {
        let decay = Decay::new(0);
        let (from, to) = (Timestamp(0), Timestamp(86_400_000));
        let stored = decay.span(from, to).apply(7 * UNIT_MS, 2_000_000);
        assert_eq!(decay.reading(to).of(stored), 7 * UNIT_MS + 2 * 86_400_000 * UNIT_MS);
    }

    #[test]
    fn a_clock_that_stood_behind_counts_as_nothing() {
        let decay = Decay::new(60);
        assert_eq!(decay.span(Timestamp(5_000), Timestamp(4_000)).apply(9, 1_000_000), 9);
    }

    #[test]
    fn ages_cost_no_more_than_days_and_nothing_overflows() {
        let decay = Decay::new(1);
        let span = decay.span(Timestamp(i64::MIN), Timestamp(i64::MAX));
        // A rate of one unit comes to H / ln 2 in the end.
        let read = decay.reading(Timestamp(i64::MAX)).of(span.apply(u128::MAX, 1_000_000));
        assert_eq!(read / UNIT_MS, 1_442);
        let slow = Decay::new(u32::MAX);
        let span = slow.span(Timestamp(i64::MIN), Timestamp(i64::MAX));
        assert!(span.apply(u128::MAX, u128::MAX) > 0);
    }

    /// The integral in floating point, each interval by itself.
    fn reference(half_life: f64, intervals: &[(f64, f64, f64)], now: f64) -> f64 {
        let used = |(rate, from, to): &(f64, f64, f64)| {
            if half_life == 0.0 {
                return rate * (to - from);
            }
            let ln2 = std::f64::consts::LN_2;
            let length = -f64::exp_m1(-ln2 * (to - from) / half_life) * half_life / ln2;
            rate * length * f64::exp2(-(now - to) / half_life)
        };
        intervals.iter().map(used).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "compared with floats up to 1e-9")]
    fn float(n: u128) -> f64 {
        n as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "times of a test are below 2^53")]
    fn ms(at: i64) -> f64 {
        at as f64
    }

    proptest! {
        #[test]
        fn it_is_the_integral(
            half_life in prop_oneof![Just(0u32), 1..100u32, 1..4_000_000u32, any::<u32>()],
            start in 0..4_000_000_000_000i64,
            steps in prop::collection::vec((0..5_000u32, 1..10_000_000u64), 1..12),
        ) {
            let decay = Decay::new(half_life);
            let (mut at, mut stored) = (start, 0);
            let mut intervals = Vec::new();
            for (rate, length) in steps {
                let to = at + i64::try_from(length).unwrap();
                let span = decay.span(Timestamp(at), Timestamp(to));
                stored = span.apply(stored, u128::from(rate) * 1_000_000);
                intervals.push((f64::from(rate), ms(at - start), ms(to - start)));
                at = to;
            }
            let have = float(decay.reading(Timestamp(at)).of(stored)) / float(UNIT_MS);
            let half_life = f64::from(half_life) * 1_000.0;
            let want = reference(half_life, &intervals, ms(at - start));
            // Less than one unit for a millisecond is held to the absolute error.
            prop_assert!((have - want).abs() <= want.max(1.0) * 1e-9, "{have} {want}");
        }

        #[test]
        fn the_bits_do_not_depend_on_the_split(
            half_life in prop_oneof![Just(0u32), 1..100u32, 1..4_000_000u32],
            start in -1_000_000_000_000i64..4_000_000_000_000,
            before in any::<u64>(),
            rate in any::<u32>(),
            mut cuts in prop::collection::vec(0..40_000_000_000i64, 1..20),
        ) {
            let decay = Decay::new(half_life);
            cuts.sort_unstable();
            let last = start + cuts.last().unwrap();
            let (before, rate) = (u128::from(before) << 20, u128::from(rate));
            let whole = decay.span(Timestamp(start), Timestamp(last)).apply(before, rate);
            let (mut at, mut stored) = (start, before);
            for cut in cuts {
                let to = start + cut;
                stored = decay.span(Timestamp(at), Timestamp(to)).apply(stored, rate);
                at = to;
            }
            prop_assert_eq!(stored, whole);
            let idle = decay.idle(before, Timestamp(start), Timestamp(last));
            let span = decay.span(Timestamp(start), Timestamp(last));
            prop_assert_eq!(idle, span.apply(before, 0));
        }

        #[test]
        fn storing_undoes_reading(
            half_life in any::<u32>(), at in any::<i64>(), used in 0..u128::MAX >> 2
        ) {
            let decay = Decay::new(half_life);
            let at = Timestamp(at);
            let again = decay.reading(at).of(decay.stored(used, at));
            prop_assert!(again.abs_diff(used) <= 2 + (used >> 100), "{again} {used}");
        }

        #[test]
        fn more_time_weighs_more(half_life in 1..u32::MAX, at in any::<u64>()) {
            let decay = Decay::new(half_life);
            let offset = at % decay.half_life;
            prop_assert!(decay.weight(offset) < decay.weight(offset + 1));
        }
    }
}
