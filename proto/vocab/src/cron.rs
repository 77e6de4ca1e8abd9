//! When does a line of a crontab come again, as far as its text says?
//!
//! Fields and names are those of Slurm's scrontab: five fields, each `*`, a list of numbers and ranges, or
//! one name of a month or day, with an optional `/step`; or a word such as `@daily`. Where days of the
//! month and of the week are both named, either will do. A step counts from the first number of its range,
//! as in cron. Which instants that comes to depends on a time zone and is not known here.

use std::fmt;

/// The times at which a line of a crontab comes, to the minute.
///
/// Every field names at least one value, and some day has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CronSpec {
    /// Bits 0..=59.
    minutes: u64,
    /// Bits 0..=23.
    hours: u64,
    /// Bits 1..=31.
    days: u64,
    /// Bits 1..=12.
    months: u64,
    /// Bits 0..=6; 0 is Sunday.
    weekdays: u64,
    /// Fields that are `*`: they restrict nothing. Minutes first.
    wild: [bool; 5],
}

/// Why a line of a crontab can't be read. The text begins with Slurm's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// An `@` word that is none.
    #[error(
        "invalid @ line: {0:?} is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, \
             @elevenses, @fika, @teatime, @hourly"
    )]
    Word(String),
    /// Fewer than five fields.
    #[error(
        "unexpected end of line: the {0} is missing; a line is minute, hour, day of month, month, \
             day of week and a command"
    )]
    Missing(&'static str),
    /// No command.
    #[error("unexpected end of line: there is no command after the time")]
    NoCommand,
    /// A name that is none.
    #[error("bad {field} specification: {text:?}")]
    Name {
        /// `month` or `day`.
        field: &'static str,
        /// As typed.
        text: String,
    },
    /// A step that is none.
    #[error("bad step value: {0:?}; it is a number from 2 to less than the field has values")]
    Step(String),
    /// A number out of range, or no number.
    #[error("bad {field}: {text:?} is not a list of numbers and ranges from {least} to {most}")]
    Number {
        /// Which field.
        field: &'static str,
        /// As typed.
        text: String,
        /// Lowest value.
        least: u32,
        /// Highest value.
        most: u32,
    },
    /// February 30 and the like.
    #[error("no month that is named has such a day")]
    NoSuchDay,
}

/// What a field may hold.
struct Field {
    name: &'static str,
    least: u32,
    /// The highest that may be typed: 60, 24 and 7 mean the lowest.
    most: u32,
    names: &'static [&'static str],
    what: &'static str,
}

const MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 60, names: &[], what: "" },
    Field { name: "hour", least: 0, most: 24, names: &[], what: "" },
    Field { name: "day of month", least: 1, most: 31, names: &[], what: "" },
    Field { name: "month", least: 1, most: 12, names: MONTHS, what: "month" },
    Field { name: "day of week", least: 0, most: 7, names: DAYS, what: "day" },
];

/// Words for whole times and the five fields that they stand for.
const WORDS: &[(&str, &str)] = &[
    ("yearly", "0 0 1 1 *"),
    ("annually", "0 0 1 1 *"),
    ("monthly", "0 0 1 * *"),
    ("weekly", "0 0 * * 0"),
    ("daily", "0 0 * * *"),
    ("midnight", "0 0 * * *"),
    ("elevenses", "0 11 * * *"),
    ("fika", "0 15 * * *"),
    ("teatime", "0 16 * * *"),
    ("hourly", "0 * * * *"),
];

impl CronSpec {
    /// Reads the time at the beginning of a line; gives it back with its text as typed and the command.
    ///
    /// # Errors
    /// If a field can't be read, no day has all that is named, or there is no command.
    pub fn parse_line(line: &str) -> Result<(Self, &str, &str), CronError> {
        let line = line.trim_matches([' ', '\t', '\n', '\r']);
        let (spec, length) = if line.starts_with('@') {
            let word = line.split([' ', '\t']).next().unwrap_or(line);
            let known = WORDS.iter().find(|(name, _)| word[1..].eq_ignore_ascii_case(name));
            let (_, fields) = known.ok_or_else(|| CronError::Word(word.to_owned()))?;
            (Self::fields(fields)?.0, word.len())
        } else {
            Self::fields(line)?
        };
        let (time, rest) = line.split_at(length);
        let command = rest.trim_start_matches([' ', '\t']);
        if command.is_empty() { Err(CronError::NoCommand) } else { Ok((spec, time, command)) }
    }

    /// Reads a time without a command, as [`Display`](fmt::Display) writes it or as typed.
    ///
    /// # Errors
    /// If a field can't be read, or no day has all that is named.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        Self::parse_line(&format!("{text} x")).map(|(spec, _, _)| spec)
    }

    /// Reads five fields; how many bytes they take.
    fn fields(line: &str) -> Result<(Self, usize), CronError> {
        let (mut bits, mut wild, mut at) = ([0; 5], [false; 5], 0);
        for (place, field) in FIELDS.iter().enumerate() {
            let rest = &line[at..];
            let start = rest.len() - rest.trim_start_matches([' ', '\t']).len();
            let text = rest[start..].split([' ', '\t']).next().unwrap_or_default();
            if text.is_empty() {
                return Err(CronError::Missing(field.name));
            }
            (bits[place], wild[place]) = (field.read(text)?, text == "*");
            at += start + text.len();
        }
        let [minutes, hours, days, months, weekdays] = bits;
        let spec = Self {
            minutes: fold(minutes, 60),
            hours: fold(hours, 24),
            days,
            months,
            weekdays: fold(weekdays, 7),
            wild,
        };
        if spec.has_a_day() { Ok((spec, at)) } else { Err(CronError::NoSuchDay) }
    }

    /// Whether some month that is named has a day that is.
    fn has_a_day(&self) -> bool {
        let longest = |month: u32| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let first = self.days.trailing_zeros();
        let by_weekday = !self.wild[4];
        by_weekday || (1..=12).any(|month| self.in_month(month) && first <= longest(month))
    }

    /// Whether it comes at that minute of an hour.
    #[must_use]
    pub fn at_minute(&self, minute: u32) -> bool {
        has(self.minutes, minute)
    }

    /// Whether it comes in that hour of a day.
    #[must_use]
    pub fn in_hour(&self, hour: u32) -> bool {
        has(self.hours, hour)
    }

    /// Whether it comes in that month, 1 to 12.
    #[must_use]
    pub fn in_month(&self, month: u32) -> bool {
        has(self.months, month)
    }

    /// Whether it comes on that day of the month (1 to 31), which is that day of the week (0: Sunday).
    #[must_use]
    pub fn on_day(&self, day: u32, weekday: u32) -> bool {
        let (by_day, by_weekday) = (has(self.days, day), has(self.weekdays, weekday));
        match (self.wild[2], self.wild[4]) {
            (true, true) => true,
            (true, false) => by_weekday,
            (false, true) => by_day,
            (false, false) => by_day || by_weekday,
        }
    }
}

/// As Slurm shows it: lists and ranges, without words and steps.
impl fmt::Display for CronSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = [self.minutes, self.hours, self.days, self.months, self.weekdays];
        for (place, (bits, wild)) in bits.into_iter().zip(self.wild).enumerate() {
            if place > 0 {
                f.write_str(" ")?;
            }
            if wild { f.write_str("*")? } else { write_ranges(f, bits)? }
        }
        Ok(())
    }
}

fn write_ranges(f: &mut fmt::Formatter<'_>, bits: u64) -> fmt::Result {
    let (mut at, mut first) = (0, true);
    while at < 64 {
        if !has(bits, at) {
            at += 1;
            continue;
        }
        let mut end = at;
        while end + 1 < 64 && has(bits, end + 1) {
            end += 1;
        }
        if !first {
            f.write_str(",")?;
        }
        first = false;
        if at == end {
            write!(f, "{at}")?
        } else {
            write!(f, "{at}-{end}")?
        }
        at = end + 1;
    }
    Ok(())
}

impl Field {
    /// The bits of a field's text.
    fn read(&self, text: &str) -> Result<u64, CronError> {
        let (values, step) = match text.split_once('/') {
            Some((values, step)) => (values, Some(self.step(step)?)),
            None => (text, None),
        };
        let step = step.unwrap_or(1);
        if values == "*" {
            // The value that means the lowest is not one more.
            let most = if matches!(self.most, 60 | 24 | 7) { self.most - 1 } else { self.most };
            return Ok(run(self.least, most, step));
        }
        if values.starts_with(|first: char| first.is_ascii_alphabetic()) && !self.names.is_empty() {
            let known = self.names.iter().position(|name| values.eq_ignore_ascii_case(name));
            let place = known.and_then(|place| u32::try_from(place).ok());
            let bad = || CronError::Name { field: self.what, text: values.to_owned() };
            return Ok(1 << (place.ok_or_else(bad)? + 1));
        }
        let mut bits = 0;
        for part in values.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (self.number(first, text)?, self.number(last, text)?),
                None => (self.number(part, text)?, self.number(part, text)?),
            };
            if first > last {
                return Err(self.bad(text));
            }
            bits |= run(first, last, step);
        }
        Ok(bits)
    }

    fn step(&self, text: &str) -> Result<u32, CronError> {
        let step = text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok());
        let fits = |step: &u32| *step >= 2 && *step <= self.most;
        step.flatten().filter(fits).ok_or_else(|| CronError::Step(text.to_owned()))
    }

    fn number(&self, text: &str, whole: &str) -> Result<u32, CronError> {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        let fits = |number: &u32| (self.least..=self.most).contains(number);
        number.filter(fits).ok_or_else(|| self.bad(whole))
    }

    fn bad(&self, text: &str) -> CronError {
        let Self { name: field, least, most, .. } = *self;
        CronError::Number { field, text: text.to_owned(), least, most }
    }
}

fn run(first: u32, last: u32, step: u32) -> u64 {
    let values = (first..=last).step_by(usize::try_from(step).unwrap_or(1));
    values.fold(0, |bits, value| bits | 1 << value)
}

/// The value above the highest means the lowest.
fn fold(bits: u64, above: u32) -> u64 {
    if has(bits, above) { bits & !(1 << above) | 1 } else { bits }
}

fn has(bits: u64, value: u32) -> bool {
    value < 64 && bits >> value & 1 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read_as_slurm_reads_them() {
        // Line, its time as shown, its time as typed, its command.
        let table = [
            ("* * * * * hostname", "* * * * *", "* * * * *", "hostname"),
            ("*/15 * * * * a b", "0,15,30,45 * * * *", "*/15 * * * *", "a b"),
            (
                "0-30/10\t2,4-6 1 JAN mon x",
                "0,10,20,30 2,4-6 1 1 1",
                "0-30/10\t2,4-6 1 JAN mon",
                "x",
            ),
            ("60 24 31 12 7 x", "0 0 31 12 0", "60 24 31 12 7", "x"),
            (
                "1-59/2 0 * * sun x",
                "1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41,43,45,\
             47,49,51,53,55,57,59 0 * * 0",
                "1-59/2 0 * * sun",
                "x",
            ),
            ("@daily x", "0 0 * * *", "@daily", "x"),
            ("@Teatime  x", "0 16 * * *", "@Teatime", "x"),
            ("@weekly x", "0 0 * * 0", "@weekly", "x"),
            ("  @hourly x ", "0 * * * *", "@hourly", "x"),
            ("0 0 29 2 * x", "0 0 29 2 *", "0 0 29 2 *", "x"),
            ("0 0 30 2 fri x", "0 0 30 2 5", "0 0 30 2 fri", "x"),
        ];
        for (line, shown, typed, command) in table {
            let (spec, time, rest) = CronSpec::parse_line(line).unwrap();
            assert_eq!((spec.to_string().as_str(), time, rest), (shown, typed, command), "{line}");
        }
    }

    #[test]
    fn wrong_lines_are_refused_with_the_reason() {
        let table = [
            ("@never x", "invalid @ line"),
            ("* * * *", "unexpected end of line: the day of week is missing"),
            ("* * * * *", "unexpected end of line: there is no command"),
            ("@daily", "unexpected end of line: there is no command"),
            ("61 * * * * x", "bad minute: \"61\""),
            ("* 25 * * * x", "bad hour"),
            ("* * 0 * * x", "bad day of month"),
            ("* * * 13 * x", "bad month"),
            ("* * * foo * x", "bad month specification: \"foo\""),
            ("* * * * mon-fri x", "bad day specification: \"mon-fri\""),
            ("*/0 * * * * x", "bad step value"),
            ("*/1 * * * * x", "bad step value"),
            ("*/61 * * * * x", "bad step value"),
            ("5-1 * * * * x", "bad minute"),
            ("1,,2 * * * * x", "bad minute"),
            ("+1 * * * * x", "bad minute"),
            ("0 0 30 2 * x", "no month that is named has such a day"),
            ("0 0 31 4,6 * x", "no month that is named has such a day"),
            ("", "unexpected end of line: the minute is missing"),
        ];
        for (line, begins) in table {
            let error = CronSpec::parse_line(line).unwrap_err().to_string();
            assert!(error.starts_with(begins), "{line:?}: {error}");
        }
    }

    #[test]
    fn days_of_month_and_week_are_alternatives() {
        let spec = CronSpec::parse("0 0 13 * fri").unwrap();
        let days = [(13, 0, true), (12, 5, true), (12, 4, false)];
        for (day, weekday, comes) in days {
            assert_eq!(spec.on_day(day, weekday), comes, "{day} {weekday}");
        }
        assert!(!CronSpec::parse("0 0 * * fri").unwrap().on_day(13, 4));
        assert!(!CronSpec::parse("0 0 13 * *").unwrap().on_day(12, 5));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(
            fields in ["(\\*|[0-5]?[0-9])", "(\\*|1?[0-9])", "(\\*|[1-9])", "(\\*|[1-9])", "(\\*|[0-7])"],
        ) {
            let spec = CronSpec::parse(&fields.join(" ")).unwrap();
            prop_assert_eq!(CronSpec::parse(&spec.to_string()), Ok(spec));
        }

        #[test]
        fn no_line_panics(line in "[ 0-9*/,@a-zäö\t-]{0,40}") {
            let _read = CronSpec::parse_line(&line);
        }
    }
}
