//! Which instant does a time such as `16:00`, `tomorrow` or `now+2hours` name?
//!
//! Slurm's forms, read in the user's zone with `now` as an argument. A date without a time is its
//! midnight; a time without a date is the next one (or, looking back, today's); a date without a
//! year is the next one (or the last). A time that the zone skips is the instant at which the clock
//! jumps, and one that it has twice is the first of them.

use std::fmt;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _, ZonedDateTime};

/// Where a time without its date lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looking {
    /// From now on: `--begin`, `StartTime=`.
    Ahead,
    /// Until now: `-S` and `-E` of sacct.
    Back,
}

/// A text that names no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WhenError {
    text: String,
    position: usize,
}

impl fmt::Display for WhenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invalid time specification (pos={}): {}", self.position, self.text)
    }
}

impl std::error::Error for WhenError {}

/// Words for a day, with the days from today.
const DAYS: [(&str, i64); 2] = [("today", 0), ("tomorrow", 1)];

/// Words for a time of day, with its hour.
const HOURS: [(&str, i8); 5] =
    [("midnight", 0), ("noon", 12), ("elevenses", 11), ("fika", 15), ("teatime", 16)];

/// Units behind `now+N`, in seconds. A day is 24 hours here, also when the clock changes.
const UNITS: [(&str, i64); 10] = [
    ("seconds", 1),
    ("second", 1),
    ("minutes", 60),
    ("minute", 60),
    ("hours", 3_600),
    ("hour", 3_600),
    ("days", 86_400),
    ("day", 86_400),
    ("weeks", 604_800),
    ("week", 604_800),
];

/// Reads a time.
///
/// # Errors
/// When the text has none of Slurm's forms, names a day or hour that does not exist, or lies
/// beyond the years that a timestamp can hold.
pub(crate) fn parse_when(
    text: &str,
    now: &ZonedDateTime,
    looking: Looking,
) -> Result<Timestamp, WhenError> {
    let mut reader = Reader { text, position: 0 };
    let mut date = None;
    let mut time = None;
    reader.skip_blanks();
    if reader.word("now") {
        return reader.shifted_now(now);
    }
    if reader.word("uts") {
        let seconds = reader.number(18).ok_or_else(|| reader.error())?;
        reader.expect_end()?;
        return Timestamp::from_second(seconds).map_err(|_| reader.error());
    }
    while !reader.at_end() {
        reader.part(now, &mut date, &mut time)?;
        reader.skip_blanks();
    }
    let start = Reader { text, position: 0 };
    match complete(date, time, now, looking) {
        Some(civil) => resolve(civil, now.time_zone()).ok_or_else(|| start.error()),
        None => Err(start.error()),
    }
}

/// A date whose year may be missing.
#[derive(Debug, Clone, Copy)]
struct PartialDate {
    year: Option<i16>,
    month: i8,
    day: i8,
}

/// Puts the missing parts in; `None` when there is nothing at all, or no such day.
fn complete(
    date: Option<PartialDate>,
    time: Option<Time>,
    now: &ZonedDateTime,
    looking: Looking,
) -> Option<DateTime> {
    let here = now.datetime();
    match (date, time) {
        (None, None) => None,
        (None, Some(time)) => {
            let today = here.date().to_datetime(time);
            // Slurm compares hours and minutes only, so a second within this minute is tomorrow's.
            let later = (time.hour(), time.minute()) > (here.hour(), here.minute());
            if looking == Looking::Back || later {
                Some(today)
            } else {
                today.checked_add(1.day()).ok()
            }
        }
        (Some(date), time) => {
            let at = |year: i16| {
                let day = Date::new(year, date.month, date.day).ok()?;
                Some(day.to_datetime(time.unwrap_or_else(Time::midnight)))
            };
            let Some(year) = date.year else {
                return at_nearest_year(&at, here, looking);
            };
            at(year)
        }
    }
}

/// The next (or last) year in which the date lies ahead (or behind).
fn at_nearest_year(
    at: &dyn Fn(i16) -> Option<DateTime>,
    here: DateTime,
    looking: Looking,
) -> Option<DateTime> {
    let this = at(here.year())?;
    match looking {
        Looking::Ahead if this <= here => at(here.year().checked_add(1)?),
        Looking::Back if this > here => at(here.year().checked_sub(1)?),
        Looking::Ahead | Looking::Back => Some(this),
    }
}

/// The instant of a civil time.
fn resolve(civil: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { before, .. } => {
            // With the offset of before, the skipped time lies behind the jump.
            let behind = before.to_timestamp(civil).ok()?;
            let next = behind.checked_add(SignedDuration::from_nanos(1)).ok()?;
            let jump = zone.preceding(next).next().map(|transition| transition.timestamp());
            Some(jump.unwrap_or(behind))
        }
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
            ambiguous.compatible().ok()
        }
    }
}

/// A place in the text.
struct Reader<'t> {
    text: &'t str,
    position: usize,
}

impl<'t> Reader<'t> {
    fn error(&self) -> WhenError {
        WhenError { text: self.text.to_owned(), position: self.position }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.position..]
    }

    fn at_end(&self) -> bool {
        self.rest().is_empty()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
        self.position += rest.len() - trimmed.len();
    }

    fn expect_end(&mut self) -> Result<(), WhenError> {
        self.skip_blanks();
        if self.at_end() { Ok(()) } else { Err(self.error()) }
    }

    /// Takes `word`, in any case of letters, if it stands here.
    fn word(&mut self, word: &str) -> bool {
        let here = self.rest().get(..word.len());
        let found = here.is_some_and(|text| text.eq_ignore_ascii_case(word));
        if found {
            self.position += word.len();
        }
        found
    }

    /// Takes `letter` if it stands here.
    fn letter(&mut self, letter: char) -> bool {
        let found = self.rest().starts_with(letter);
        if found {
            self.position += letter.len_utf8();
        }
        found
    }

    /// Takes a number of at most `max_digits` digits.
    fn number(&mut self, max_digits: usize) -> Option<i64> {
        let digits = self.digits();
        if digits == 0 || digits > max_digits {
            return None;
        }
        let number = self.rest()[..digits].parse().ok()?;
        self.position += digits;
        Some(number)
    }

    /// How many digits stand here.
    fn digits(&self) -> usize {
        self.rest().bytes().take_while(u8::is_ascii_digit).count()
    }

    /// What follows `now`.
    fn shifted_now(&mut self, now: &ZonedDateTime) -> Result<Timestamp, WhenError> {
        self.skip_blanks();
        let sign = if self.letter('+') {
            1
        } else if self.letter('-') {
            -1
        } else {
            self.expect_end()?;
            return Ok(now.timestamp());
        };
        self.skip_blanks();
        let count = self.number(12).ok_or_else(|| self.error())?;
        self.skip_blanks();
        let unit = UNITS.iter().find(|(name, _)| self.word(name)).map_or(1, |(_, secs)| *secs);
        self.expect_end()?;
        let start = Reader { text: self.text, position: 0 };
        let shift = SignedDuration::from_secs(sign * count.saturating_mul(unit));
        now.timestamp().checked_add(shift).map_err(|_| start.error())
    }

    /// Takes one date or time of day.
    fn part(
        &mut self,
        now: &ZonedDateTime,
        date: &mut Option<PartialDate>,
        time: &mut Option<Time>,
    ) -> Result<(), WhenError> {
        let begin = self.position;
        let day = DAYS.iter().find(|(name, _)| self.word(name)).map(|(_, days)| *days);
        if let Some(days) = day {
            let day = now.date().checked_add(days.days()).map_err(|_| self.error())?;
            let named = PartialDate { year: Some(day.year()), month: day.month(), day: day.day() };
            return self.put(begin, date, named);
        }
        if let Some(hour) = HOURS.iter().find(|(name, _)| self.word(name)).map(|(_, h)| *h) {
            return self.put(begin, time, Time::constant(hour, 0, 0, 0));
        }
        let digits = self.digits();
        if self.rest()[digits..].starts_with(':') {
            let read = self.time()?;
            return self.put(begin, time, read);
        }
        let read = self.date(digits)?;
        self.put(begin, date, read)?;
        if self.letter('T') || self.letter('t') {
            let begin = self.position;
            let read = self.time()?;
            self.put(begin, time, read)?;
        }
        Ok(())
    }

    /// Keeps a part unless there is one of its kind already.
    fn put<T>(&mut self, begin: usize, place: &mut Option<T>, part: T) -> Result<(), WhenError> {
        if place.replace(part).is_some() {
            self.position = begin;
            return Err(self.error());
        }
        Ok(())
    }

    /// `YYYY-MM-DD`, `MM/DD[/YY]`, `MM.DD[.YY]`, `MMDD[YY]`.
    fn date(&mut self, digits: usize) -> Result<PartialDate, WhenError> {
        let begin = self.position;
        let read = match digits {
            4 if self.rest()[4..].starts_with('-') => self.iso_date(),
            4 | 6 => self.packed_date(digits),
            1 | 2 => self.slashed_date(),
            _ => None,
        };
        let valid = read.filter(|date| {
            // Any leap year shows whether the day exists in some year.
            Date::new(date.year.unwrap_or(2000), date.month, date.day).is_ok()
        });
        if valid.is_none() {
            self.position = begin;
        }
        valid.ok_or_else(|| self.error())
    }

    fn iso_date(&mut self) -> Option<PartialDate> {
        let year = self.small(4)?;
        let month = self.letter('-').then(|| self.small(2))??;
        let day = self.letter('-').then(|| self.small(2))??;
        partial(Some(year), month, day)
    }

    fn packed_date(&mut self, digits: usize) -> Option<PartialDate> {
        let packed = i16::try_from(self.rest()[..4].parse::<u16>().ok()?).ok()?;
        let year: Option<i16> = match digits {
            6 => Some(2000 + self.rest()[4..6].parse::<i16>().ok()?),
            _ => None,
        };
        self.position += digits;
        partial(year, packed / 100, packed % 100)
    }

    fn slashed_date(&mut self) -> Option<PartialDate> {
        let month = self.small(2)?;
        let separator = ['/', '.'].into_iter().find(|&c| self.letter(c))?;
        let day = self.small(2)?;
        let year = match self.letter(separator) {
            false => None,
            true if self.digits() == 4 => Some(self.small(4)?),
            true => Some(2000 + self.small(2)?),
        };
        partial(year, month, day)
    }

    /// `HH[:MM[:SS]]` with AM or PM behind it.
    fn time(&mut self) -> Result<Time, WhenError> {
        let begin = self.position;
        let read = self.clock();
        if read.is_none() {
            self.position = begin;
        }
        read.ok_or_else(|| self.error())
    }

    fn clock(&mut self) -> Option<Time> {
        let hour = self.small(2)?;
        let minute = if self.letter(':') { self.small(2)? } else { 0 };
        let second = if self.letter(':') { self.small(2)? } else { 0 };
        let end = self.position;
        self.skip_blanks();
        let hour = if self.word("am") {
            (1..=12).contains(&hour).then_some(hour % 12)?
        } else if self.word("pm") {
            (1..=12).contains(&hour).then_some(hour % 12 + 12)?
        } else {
            self.position = end;
            hour
        };
        let field = |value: i16| i8::try_from(value).ok();
        Time::new(field(hour)?, field(minute)?, field(second)?, 0).ok()
    }

    /// A number of up to four digits.
    fn small(&mut self, max_digits: usize) -> Option<i16> {
        self.number(max_digits).and_then(|number| i16::try_from(number).ok())
    }
}

fn partial(year: Option<i16>, month: i16, day: i16) -> Option<PartialDate> {
    Some(PartialDate { year, month: i8::try_from(month).ok()?, day: i8::try_from(day).ok()? })
}

#[cfg(test)]
mod tests {
    use jiff::civil;
    use proptest::prelude::*;

    use super::*;

    /// Wednesday 2024-05-15 10:30:20 in a zone whose clock jumps on 03-31 and 10-27.
    fn now() -> ZonedDateTime {
        at("2024-05-15T10:30:20[Europe/Berlin]")
    }

    fn at(text: &str) -> ZonedDateTime {
        text.parse().expect("a zoned time")
    }

    fn ahead(text: &str, now: &ZonedDateTime) -> String {
        match parse_when(text, now, Looking::Ahead) {
            Ok(instant) => {
                instant.to_zoned_datetime(now.time_zone().clone()).datetime().to_string()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_form_is_read() {
        let table = [
            ("now", "2024-05-15T10:30:20"),
            ("NOW+90", "2024-05-15T10:31:50"),
            ("now+1hour", "2024-05-15T11:30:20"),
            ("now + 2 days", "2024-05-17T10:30:20"),
            ("now-1weeks", "2024-05-08T10:30:20"),
            ("now+5minutes", "2024-05-15T10:35:20"),
            ("16:00", "2024-05-15T16:00:00"),
            ("10:30", "2024-05-16T10:30:00"),
            ("10:30:50", "2024-05-16T10:30:50"),
            ("9:05", "2024-05-16T09:05:00"),
            ("3:15PM", "2024-05-15T15:15:00"),
            ("12:00 am", "2024-05-16T00:00:00"),
            ("12:00pm", "2024-05-15T12:00:00"),
            ("today", "2024-05-15T00:00:00"),
            ("Tomorrow", "2024-05-16T00:00:00"),
            ("tomorrow 08:00", "2024-05-16T08:00:00"),
            ("noon tomorrow", "2024-05-16T12:00:00"),
            ("midnight", "2024-05-16T00:00:00"),
            ("noon", "2024-05-15T12:00:00"),
            ("elevenses", "2024-05-15T11:00:00"),
            ("fika", "2024-05-15T15:00:00"),
            ("teatime", "2024-05-15T16:00:00"),
            ("2024-12-31", "2024-12-31T00:00:00"),
            ("2024-12-31T16", "2024-12-31T16:00:00"),
            ("2024-12-31T16:01", "2024-12-31T16:01:00"),
            ("2024-12-31T16:01:02", "2024-12-31T16:01:02"),
            ("0601", "2024-06-01T00:00:00"),
            ("0501", "2025-05-01T00:00:00"),
            ("060125", "2025-06-01T00:00:00"),
            ("6/1", "2024-06-01T00:00:00"),
            ("05/15", "2025-05-15T00:00:00"),
            ("05/15 11:00", "2024-05-15T11:00:00"),
            ("12/24/24", "2024-12-24T00:00:00"),
            ("12/24/2025 18:30", "2025-12-24T18:30:00"),
            ("12.24.24-", "Invalid time specification (pos=8): 12.24.24-"),
            ("uts0", "1970-01-01T01:00:00"),
        ];
        for (text, expect) in table {
            assert_eq!(ahead(text, &now()), expect, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_its_place() {
        let table = [
            ("xyz", 0),
            ("", 0),
            ("  ", 0),
            ("16:00 xyz", 6),
            ("16:00 17:00", 6),
            ("25:00", 0),
            ("13:00pm", 0),
            ("0:30am", 0),
            ("16:60", 0),
            ("02/30", 0),
            ("2023-02-29", 0),
            ("1301", 0),
            ("123", 0),
            ("now+", 4),
            ("now+5fortnights", 5),
            ("now+999999999999weeks", 0),
            ("now 16:00", 4),
            ("tomorrow today", 9),
            ("é", 0),
        ];
        for (text, position) in table {
            let error = parse_when(text, &now(), Looking::Ahead).expect_err(text);
            assert_eq!(error.position, position, "{text}");
            assert_eq!(
                error.to_string(),
                format!("Invalid time specification (pos={position}): {text}")
            );
        }
    }

    #[test]
    fn looking_back_keeps_to_the_past() {
        let table = [
            ("16:00", "2024-05-15T16:00:00"),
            ("08:00", "2024-05-15T08:00:00"),
            ("0601", "2023-06-01T00:00:00"),
            ("0501", "2024-05-01T00:00:00"),
        ];
        for (text, expect) in table {
            let instant = parse_when(text, &now(), Looking::Back).expect(text);
            let civil = instant.to_zoned_datetime(now().time_zone().clone()).datetime();
            assert_eq!(civil.to_string(), expect, "{text}");
        }
    }

    #[test]
    fn a_skipped_time_is_the_jump_and_a_doubled_one_its_first() {
        let before_spring = at("2024-03-30T20:00:00[Europe/Berlin]");
        assert_eq!(ahead("02:30", &before_spring), "2024-03-31T03:00:00");
        assert_eq!(ahead("2024-03-31T02:00", &before_spring), "2024-03-31T03:00:00");
        assert_eq!(ahead("2024-03-31T01:59:59", &before_spring), "2024-03-31T01:59:59");
        let before_autumn = at("2024-10-26T20:00:00[Europe/Berlin]");
        let instant = parse_when("02:30", &before_autumn, Looking::Ahead).expect("valid");
        assert_eq!(instant.to_string(), "2024-10-27T00:30:00Z");
        // A day by the clock, but 24 hours by "now".
        assert_eq!(ahead("now+1day", &before_spring), "2024-03-31T21:00:00");
        assert_eq!(ahead("20:00", &before_spring), "2024-03-31T20:00:00");
    }

    #[test]
    fn the_twenty_ninth_of_february_needs_its_year() {
        assert_eq!(ahead("2028-02-29", &now()), "2028-02-29T00:00:00");
        assert!(parse_when("02/29", &now(), Looking::Ahead).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~é]{0,24}") {
            let _ahead = parse_when(&text, &now(), Looking::Ahead);
            let _back = parse_when(&text, &now(), Looking::Back);
        }

        #[test]
        fn an_iso_time_is_itself(seconds in 0_i64..4_000_000_000) {
            let zone = jiff::tz::TimeZone::UTC;
            let instant = Timestamp::from_second(seconds).expect("in range");
            let text = instant.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S").to_string();
            let now = now().with_time_zone(zone);
            prop_assert_eq!(parse_when(&text, &now, Looking::Ahead), Ok(instant));
        }

        #[test]
        fn a_time_of_day_is_within_a_day_ahead(hour in 0_i8..24, minute in 0_i8..60, at in 0_i64..86_400) {
            let start = civil::date(2024, 5, 15).at(0, 0, 0, 0);
            let now = start.to_zoned_datetime(now().time_zone().clone()).expect("valid")
                .checked_add(at.seconds()).expect("valid");
            let instant = parse_when(&format!("{hour}:{minute:02}"), &now, Looking::Ahead)
                .expect("valid");
            let lead = instant.as_second() - now.timestamp().as_second();
            prop_assert!(lead > -60 && lead <= 86_400, "{}", lead);
        }
    }
}
