//! How busy is a GPU at a moment, and how much work was that until then?

use serde::Deserialize;

/// Utilisation over the scenario's time, in percent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Curve {
    /// Always the same.
    Const { percent: u32 },
    /// From each `[second, percent]` on; 0 before the first.
    Steps { points: Vec<(u64, u32)> },
    /// `on_secs` of each `period_secs` busy with `percent`, beginning at 0.
    Burst { period_secs: u64, on_secs: u64, percent: u32 },
    /// Another value each second, at most `spread` off `percent`, the same for the same `seed`.
    Noise { seed: u64, percent: u32, spread: u32 },
}

impl Default for Curve {
    fn default() -> Self {
        Self::Const { percent: 0 }
    }
}

impl Curve {
    /// What is wrong with it; `None`: nothing.
    pub(crate) fn problem(&self) -> Option<String> {
        let over =
            |percent: u32| (percent > 100).then(|| format!("{percent} % is more than 100 %"));
        match self {
            Self::Const { percent } => over(*percent),
            Self::Steps { points } => {
                let late = points.windows(2).find(|pair| pair[0].0 >= pair[1].0);
                let late = late.map(|pair| {
                    format!(
                        "points must go forward in time: {} comes after {}",
                        pair[1].0, pair[0].0
                    )
                });
                late.or_else(|| points.iter().find_map(|&(_, percent)| over(percent)))
            }
            Self::Burst { period_secs, on_secs, percent } => {
                let empty = *period_secs == 0 || on_secs > period_secs;
                let text =
                    || format!("on_secs = {on_secs} must fit into period_secs = {period_secs}");
                empty.then(text).or_else(|| over(*percent))
            }
            Self::Noise { percent, spread, .. } => over(percent.saturating_add(*spread)),
        }
    }

    /// Percent at `ms`.
    pub(crate) fn at(&self, ms: u64) -> u32 {
        let second = ms / 1000;
        match self {
            Self::Const { percent } => *percent,
            Self::Steps { points } => {
                points.iter().rev().find(|(from, _)| *from <= second).map_or(0, |(_, to)| *to)
            }
            Self::Burst { period_secs, on_secs, percent } => {
                if second % period_secs < *on_secs {
                    *percent
                } else {
                    0
                }
            }
            Self::Noise { seed, percent, spread } => {
                let width = u64::from(*spread) * 2 + 1;
                let drawn = u32::try_from(mix(seed ^ second) % width).unwrap_or(0);
                (percent + drawn).saturating_sub(*spread)
            }
        }
    }

    /// The integral from 0 to `ms`, in percent times milliseconds.
    pub(crate) fn work(&self, ms: u64) -> u64 {
        match self {
            // Its mean.
            Self::Const { percent } | Self::Noise { percent, .. } => u64::from(*percent) * ms,
            Self::Steps { points } => {
                let ends = points.iter().skip(1).map(|(from, _)| from * 1000).chain([u64::MAX]);
                let parts = points.iter().zip(ends).map(|(&(from, percent), end)| {
                    u64::from(percent) * end.min(ms).saturating_sub(from * 1000)
                });
                parts.sum()
            }
            Self::Burst { period_secs, on_secs, percent } => {
                let (period, on) = (period_secs * 1000, on_secs * 1000);
                u64::from(*percent) * (ms / period * on + (ms % period).min(on))
            }
        }
    }
}

/// `splitmix64`, so that noise needs no generator (Steele, Lea, Flood: Fast splittable
/// pseudorandom number generators, 2014).
pub(crate) const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_the_sum_over_the_moments() {
        let steps = Curve::Steps { points: vec![(0, 0), (60, 95), (90, 10)] };
        let burst = Curve::Burst { period_secs: 10, on_secs: 3, percent: 50 };
        for curve in [Curve::Const { percent: 7 }, steps, burst] {
            assert_eq!(curve.problem(), None);
            for until in [0, 500, 60_000, 61_000, 95_500] {
                let slow: u64 =
                    (0..until / 500).map(|at| u64::from(curve.at(at * 500)) * 500).sum();
                assert_eq!(curve.work(until), slow, "{curve:?} at {until}");
            }
        }
    }

    #[test]
    fn noise_stays_within_its_spread_and_repeats() {
        let noise = Curve::Noise { seed: 4, percent: 50, spread: 10 };
        let values: Vec<u32> = (0..100).map(|second| noise.at(second * 1000)).collect();
        assert!(values.iter().all(|value| (40..=60).contains(value)));
        assert!(values.iter().any(|value| *value != values[0]));
        assert_eq!(values[3], noise.at(3_999));
    }

    #[test]
    fn nonsense_is_explained() {
        let check = |curve: Curve, expect: &str| {
            let problem = curve.problem().unwrap();
            assert!(problem.contains(expect), "{problem}");
        };
        check(Curve::Const { percent: 101 }, "101 %");
        check(Curve::Steps { points: vec![(5, 1), (5, 2)] }, "forward in time");
        check(Curve::Burst { period_secs: 0, on_secs: 0, percent: 1 }, "period_secs = 0");
        check(Curve::Noise { seed: 0, percent: 95, spread: 6 }, "101 %");
    }
}
