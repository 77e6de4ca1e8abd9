//! How is a point in time written for the user who asks?
//!
//! In local time, in the form that `SLURM_TIME_FORMAT` names: `standard` (also when unset),
//! `relative`, or a format for strftime(3). The offset of the zone is looked up once for each span
//! between two of its changes, since a listing prints many times close to each other.

use std::cell::Cell;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ZonedDateTime};

/// Longest text that a strftime format may give; Slurm's buffers hold as much.
const MAX_TEXT: usize = 256;

/// Writes times in one zone and one form, as seen at one moment.
#[derive(Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
    form: Form,
    now_ms: i64,
    cached: Cell<Option<Span>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Standard,
    Relative,
    Strftime(String),
}

/// The seconds `from..to` during which the zone's offset is the same.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: i64,
    to: i64,
    offset: Offset,
}

impl Clock {
    /// The local zone and the form that the environment asks for.
    pub(crate) fn from_env(now_ms: i64) -> Self {
        let form = std::env::var("SLURM_TIME_FORMAT").ok();
        Self::new(TimeZone::system(), form.as_deref(), now_ms)
    }

    /// A clock of `zone`; `form` is the value of `SLURM_TIME_FORMAT`.
    pub(crate) fn new(zone: TimeZone, form: Option<&str>, now_ms: i64) -> Self {
        let form = match form {
            None | Some("" | "standard") => Form::Standard,
            Some("relative") => Form::Relative,
            Some(text) => Form::Strftime(text.to_owned()),
        };
        Self { zone, form, now_ms, cached: Cell::new(None) }
    }

    /// Milliseconds since the epoch at which the listing is made.
    pub(crate) const fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Appends a time, given in milliseconds since the epoch.
    pub(crate) fn push(&self, out: &mut String, ms: i64) {
        let seconds = ms.div_euclid(1000);
        match &self.form {
            Form::Standard => push_standard(out, self.local(seconds)),
            Form::Relative => {
                let when = self.local(seconds);
                let today = self.local(self.now_ms.div_euclid(1000));
                let form = relative_form(days_apart(today, when));
                self.push_strftime(out, form, seconds);
            }
            Form::Strftime(form) => self.push_strftime(out, form, seconds),
        }
    }

    /// The line that long listings begin with: `Tue Nov 24 06:14:03 2026`.
    pub(crate) fn date_line(&self) -> String {
        self.date_of(self.now_ms)
    }

    /// The same for any time, given in milliseconds since the epoch.
    pub(crate) fn date_of(&self, ms: i64) -> String {
        let mut out = String::new();
        self.push_strftime(&mut out, "%a %b %e %H:%M:%S %Y", ms.div_euclid(1000));
        out
    }

    /// Local date and time, without a look-up where the last one still holds.
    fn local(&self, seconds: i64) -> DateTime {
        let stamp = clamped(seconds);
        let held = self.cached.get().filter(|span| (span.from..span.to).contains(&seconds));
        let span = held.unwrap_or_else(|| {
            let span = self.span_around(stamp);
            self.cached.set(Some(span));
            span
        });
        span.offset.to_datetime(stamp)
    }

    fn span_around(&self, stamp: Timestamp) -> Span {
        let offset = self.zone.to_offset(stamp);
        // `preceding` leaves out the moment itself, at which a change may lie.
        let after = clamped(stamp.as_second().saturating_add(1));
        let from =
            self.zone.preceding(after).next().map_or(i64::MIN, |last| last.timestamp().as_second());
        let to =
            self.zone.following(stamp).next().map_or(i64::MAX, |next| next.timestamp().as_second());
        Span { from, to, offset }
    }

    fn push_strftime(&self, out: &mut String, form: &str, seconds: i64) {
        let zoned = ZonedDateTime::new(clamped(seconds), self.zone.clone());
        match jiff::fmt::strtime::format(form, &zoned) {
            Ok(text) if text.len() <= MAX_TEXT => out.push_str(&text),
            // A directive that is not understood, or a text without end: the standard form.
            Ok(_) | Err(_) => push_standard(out, zoned.datetime()),
        }
    }
}

/// The moment, or the nearest one that the calendar holds.
fn clamped(seconds: i64) -> Timestamp {
    let edge = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(edge)
}

/// `2026-11-24T06:14:03`.
fn push_standard(out: &mut String, when: DateTime) {
    push_digits(out, i32::from(when.year()), 4);
    for (mark, part) in [
        ('-', when.month()),
        ('-', when.day()),
        ('T', when.hour()),
        (':', when.minute()),
        (':', when.second()),
    ] {
        out.push(mark);
        push_digits(out, i32::from(part), 2);
    }
}

/// At least `width` digits; quicker than the formatting machinery, and there are many times.
fn push_digits(out: &mut String, value: i32, width: u32) {
    let mut rest = value.unsigned_abs();
    for place in (0..width).rev() {
        let unit = 10_u32.pow(place);
        let digit = (rest / unit).min(9);
        rest -= digit * unit;
        out.push(char::from_digit(digit, 10).unwrap_or('?'));
    }
}

/// Whole days from one date to another; negative when `when` is earlier.
fn days_apart(today: DateTime, when: DateTime) -> i32 {
    let since = when.date().since((jiff::Unit::Day, today.date()));
    since.map_or(i32::MAX, |span| span.get_days())
}

/// Slurm's choice of form by distance in days.
const fn relative_form(distance: i32) -> &'static str {
    match distance {
        0 => "%H:%M:%S",
        -1 => "Ystday %H:%M",
        1 => "Tomorr %H:%M",
        i32::MIN..=-366 | 366..=i32::MAX => "%-d %b %Y",
        -365..=-2 | 7..=365 => "%-d %b %H:%M",
        2..=6 => "%a %H:%M",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_521_600_000; // 2026-11-24T12:00:00Z

    fn text(zone: &str, form: Option<&str>, ms: i64) -> String {
        let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
        let clock = Clock::new(zone, form, NOON);
        let mut out = String::new();
        clock.push(&mut out, ms);
        out
    }

    #[test]
    fn standard_is_the_form_of_unset_and_standard() {
        for form in [None, Some("standard"), Some("")] {
            assert_eq!(text("UTC", form, NOON + 999), "2026-11-24T12:00:00");
        }
    }

    #[test]
    fn strftime_forms_are_followed() {
        assert_eq!(text("UTC", Some("%s"), NOON), "1795521600");
        assert_eq!(text("UTC", Some("%H-%M"), NOON), "12-00");
    }

    #[test]
    fn relative_form_depends_on_the_distance() {
        const DAY: i64 = 86_400_000;
        assert_eq!(text("UTC", Some("relative"), NOON), "12:00:00");
        assert_eq!(text("UTC", Some("relative"), NOON - DAY), "Ystday 12:00");
        assert_eq!(text("UTC", Some("relative"), NOON + DAY), "Tomorr 12:00");
        assert_eq!(text("UTC", Some("relative"), NOON + 3 * DAY), "Fri 12:00");
        assert_eq!(text("UTC", Some("relative"), NOON - 3 * DAY), "21 Nov 12:00");
        assert_eq!(text("UTC", Some("relative"), NOON - 400 * DAY), "20 Oct 2025");
    }

    #[test]
    fn offset_changes_are_seen_on_both_sides() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let clock = Clock::new(zone, None, NOON);
        let show = |ms| {
            let mut out = String::new();
            clock.push(&mut out, ms);
            out
        };
        // Summer time ended on 2026-10-25 at 01:00 UTC.
        let change = 1_792_890_000_000;
        assert_eq!(show(change), "2026-10-25T02:00:00");
        assert_eq!(show(change - 1000), "2026-10-25T02:59:59");
        assert_eq!(show(change + 1000), "2026-10-25T02:00:01");
        assert_eq!(show(NOON), "2026-11-24T13:00:00");
    }

    #[test]
    fn date_line_is_ctimes() {
        let clock = Clock::new(TimeZone::UTC, Some("%s"), 1_793_800_000_000);
        assert_eq!(clock.date_line(), "Wed Nov  4 13:46:40 2026");
    }
}
