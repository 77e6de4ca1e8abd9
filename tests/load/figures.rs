//! How are figures printed?

use std::time::Duration;

/// A heading.
pub(crate) fn heading(text: &str) {
    println!("\n## {text}");
}

/// One figure with its budget.
pub(crate) fn figure(what: &str, value: &str, budget: &str) {
    println!("{what:<58} {value:>24}   budget {budget}");
}

/// Median, 95th and 99th percentile.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below the number of measurements"
        )]
        let index = ((times.len().saturating_sub(1)) as f64 * share) as usize;
        times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!("{:.1} / {:.1} / {:.1} ms", at(0.5), at(0.95), at(0.99))
}

/// Things a second.
pub(crate) fn rate(count: u64, time: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = count as f64 / time.as_secs_f64().max(1e-9);
    format!("{rate:.0}/s")
}
