//! What kinds of values do fields have, and how does each command write them?
//!
//! squeue says `(null)`, `N/A` and `0:05` where sacct says nothing, `Unknown` and `00:00:05`; the
//! field tables leave that to the dialect.

use std::borrow::Cow;
use std::fmt::Write as _;

use penstock_vocab::{Mib, elapsed_long, elapsed_short};

use super::clock::Clock;

/// A value before it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// Written as it is, also when it is empty.
    Word(Cow<'a, str>),
    /// A text that may be unset (empty): `(null)`, or nothing in sacct.
    Text(Cow<'a, str>),
    /// A text that may be unset (empty): `N/A`, or nothing in sacct.
    OrNa(Cow<'a, str>),
    /// A count or an id.
    Number(i64),
    /// Milliseconds since the epoch; 0: unset.
    Time(i64),
    /// The end of a job without a limit: `NONE` in squeue, else unset.
    NoEnd,
    /// Seconds that have passed.
    Elapsed(u64),
    /// A limit in seconds; `None`: unlimited.
    Limit(Option<u64>),
    /// MiB.
    Memory(u64),
    /// Bytes that a process used.
    Bytes(u64),
    /// Bytes that went to or came from files, in MiB with decimals.
    Disk(u64),
    /// A large count: whole multiples of 1024 are shortened.
    Count(u64),
    /// Energy, joules.
    Joules(u64),
    /// `name=amount`, with commas between.
    Amounts(Vec<(&'static str, Amount)>),
    /// Microseconds of CPU time.
    Cpu(u64),
    /// A share of one, with 14 decimals.
    Share(f64),
    /// Nothing to say: an empty column everywhere.
    Empty,
}

/// An amount of a resource that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// Seconds.
    Secs(u64),
    /// Bytes of memory.
    Memory(u64),
    /// Bytes of files.
    Bytes(u64),
    /// A number.
    Plain(u64),
}

/// Whose habits to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// squeue and sinfo.
    Queue,
    /// sacct.
    Accounting,
    /// scontrol.
    Record,
}

/// In which unit amounts of memory are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Units {
    /// In the largest unit that keeps the amount whole.
    Exact,
    /// As they are kept: MiB, bytes (`--noconvert`).
    Raw,
    /// In this unit, with two decimals where needed (`--units`); power of 1024 over bytes, 1..=5.
    Fixed(u32),
}

/// Letters of the powers of 1024.
const UNIT_LETTERS: [&str; 6] = ["", "K", "M", "G", "T", "P"];

/// Writes values in one dialect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Render<'c> {
    /// Whose habits.
    pub(crate) dialect: Dialect,
    /// For times.
    pub(crate) clock: &'c Clock,
    /// For memory.
    pub(crate) units: Units,
}

impl<'a> Value<'a> {
    /// A text of the message, written as it is.
    pub(crate) const fn word(text: &'a str) -> Self {
        Self::Word(Cow::Borrowed(text))
    }

    /// A text of the message that may be unset.
    pub(crate) const fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// A number of any unsigned kind.
    pub(crate) fn number(number: impl Into<u64>) -> Self {
        Self::Number(i64::try_from(number.into()).unwrap_or(i64::MAX))
    }

    /// Whether sacct's table may cut the value when it is too long for its column.
    pub(crate) const fn may_be_cut(&self) -> bool {
        matches!(self, Self::Word(_) | Self::Text(_) | Self::OrNa(_) | Self::Amounts(_))
    }
}

impl<'c> Render<'c> {
    /// Whole units, in the dialect given.
    pub(crate) const fn new(dialect: Dialect, clock: &'c Clock) -> Self {
        Self { dialect, clock, units: Units::Exact }
    }

    /// Appends the value.
    pub(crate) fn push(&self, out: &mut String, value: &Value<'_>) {
        match value {
            Value::Word(text) => push_printable(out, text),
            Value::Text(text) => self.push_or(out, text, "(null)"),
            Value::OrNa(text) => self.push_or(out, text, "N/A"),
            Value::Number(number) => push_number(out, *number),
            Value::Time(0) => out.push_str(self.unset_time()),
            Value::Time(ms) => self.clock.push(out, *ms),
            Value::NoEnd if self.dialect == Dialect::Queue => out.push_str("NONE"),
            Value::NoEnd => out.push_str("Unknown"),
            Value::Elapsed(secs) => out.push_str(&self.duration(*secs)),
            Value::Limit(None) => out.push_str("UNLIMITED"),
            Value::Limit(Some(secs)) => out.push_str(&self.duration(*secs)),
            Value::Memory(mib) => self.push_memory(out, *mib),
            Value::Bytes(bytes) => self.push_bytes(out, *bytes),
            Value::Disk(bytes) => self.push_disk(out, *bytes),
            Value::Count(number) => self.push_count(out, *number),
            Value::Joules(joules) => push_joules(out, *joules),
            Value::Amounts(amounts) => self.push_amounts(out, amounts),
            Value::Cpu(usec) => push_cpu(out, *usec),
            Value::Share(share) => push_display(out, format_args!("{share:.14}")),
            Value::Empty => {}
        }
    }

    /// The value as a text of its own.
    pub(crate) fn text(&self, value: &Value<'_>) -> String {
        let mut out = String::new();
        self.push(&mut out, value);
        out
    }

    fn push_or(&self, out: &mut String, text: &str, unset: &str) {
        match text {
            "" if self.dialect != Dialect::Accounting => out.push_str(unset),
            text => push_printable(out, text),
        }
    }

    const fn unset_time(&self) -> &'static str {
        match self.dialect {
            Dialect::Queue => "N/A",
            Dialect::Accounting | Dialect::Record => "Unknown",
        }
    }

    fn duration(&self, secs: u64) -> String {
        match self.dialect {
            Dialect::Queue => elapsed_short(secs),
            Dialect::Accounting | Dialect::Record => elapsed_long(secs),
        }
    }

    fn push_memory(&self, out: &mut String, mib: u64) {
        match self.units {
            Units::Exact if mib == 0 => out.push('0'),
            Units::Exact => out.push_str(&Mib(mib).to_arg()),
            Units::Raw => push_display(out, format_args!("{mib}M")),
            Units::Fixed(power) => push_scaled(out, Mib(mib).bytes(), power),
        }
    }

    fn push_amounts(&self, out: &mut String, amounts: &[(&'static str, Amount)]) {
        for (at, (name, amount)) in amounts.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(name);
            out.push('=');
            match amount {
                Amount::Secs(secs) => out.push_str(&elapsed_long(*secs)),
                Amount::Memory(bytes) => self.push_bytes(out, *bytes),
                Amount::Bytes(bytes) => match self.units {
                    Units::Fixed(power) => push_scaled(out, *bytes, power),
                    Units::Exact | Units::Raw => self.push_count(out, *bytes),
                },
                Amount::Plain(number) => push_display(out, format_args!("{number}")),
            }
        }
    }

    fn push_count(&self, out: &mut String, number: u64) {
        let (mut amount, mut power) = (number, 0);
        while self.units != Units::Raw && amount > 0 && amount.is_multiple_of(1024) && power < 5 {
            amount /= 1024;
            power += 1;
        }
        push_display(out, format_args!("{amount}{}", UNIT_LETTERS[power]));
    }

    /// As sacct has them: MiB with two decimals unless they are whole.
    fn push_disk(&self, out: &mut String, bytes: u64) {
        let hundredths = (u128::from(bytes) * 100 + (1 << 19)) >> 20;
        match self.units {
            _ if bytes == 0 => out.push('0'),
            Units::Fixed(power) if bytes > 1 << 20 => push_scaled(out, bytes, power),
            Units::Exact if bytes > 1 << 20 && bytes.is_multiple_of(1 << 30) => {
                self.push_bytes(out, bytes);
            }
            _ if bytes > 1 << 20 && bytes.is_multiple_of(1 << 20) => {
                push_display(out, format_args!("{}M", bytes >> 20));
            }
            Units::Exact | Units::Raw | Units::Fixed(_) => {
                push_display(out, format_args!("{}.{:02}M", hundredths / 100, hundredths % 100));
            }
        }
    }

    fn push_bytes(&self, out: &mut String, bytes: u64) {
        match self.units {
            Units::Raw => push_display(out, format_args!("{bytes}")),
            Units::Fixed(power) => push_scaled(out, bytes, power),
            Units::Exact => {
                // Memory is counted in pages, which are whole KiB.
                let (mut amount, mut power) = (bytes / 1024, 1_usize);
                while amount >= 1024 && amount.is_multiple_of(1024) && power < 5 {
                    amount /= 1024;
                    power += 1;
                }
                push_display(out, format_args!("{amount}{}", UNIT_LETTERS[power]));
            }
        }
    }
}

/// Appends a text that anybody may have chosen: a control character in it becomes `?`, so that it
/// neither breaks the line nor steers the terminal of whoever looks.
pub(crate) fn push_printable(out: &mut String, text: &str) {
    if text.contains(char::is_control) {
        out.extend(text.chars().map(|c| if c.is_control() { '?' } else { c }));
    } else {
        out.push_str(text);
    }
}

fn push_display(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

/// Appends a number in decimal; quicker than the formatting machinery for the many there are.
pub(crate) fn push_number(out: &mut String, number: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a remainder by ten is one digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push('-');
    }
    out.push_str(std::str::from_utf8(&digits[at..]).expect("digits are ASCII"));
}

/// In the unit of `power`, with two decimals unless whole.
fn push_scaled(out: &mut String, bytes: u64, power: u32) {
    let power = power.min(5);
    let scale = 1_u128 << (10 * power);
    let bytes = u128::from(bytes);
    let letter = UNIT_LETTERS[power as usize];
    if bytes % scale == 0 {
        push_display(out, format_args!("{}{letter}", bytes / scale));
    } else {
        let hundredths = (bytes * 200 / scale).div_ceil(2);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        push_display(out, format_args!("{whole}.{rest:02}{letter}"));
    }
}

/// `950`, `12.50K`: by thousands, with two decimals unless whole.
fn push_joules(out: &mut String, joules: u64) {
    let (mut scale, mut power) = (1_u64, 0);
    while joules / scale >= 1_000 && power < 5 {
        scale *= 1_000;
        power += 1;
    }
    let letter = UNIT_LETTERS[power];
    if joules.is_multiple_of(scale) {
        push_display(out, format_args!("{}{letter}", joules / scale));
    } else {
        let hundredths = u128::from(joules) * 100 / u128::from(scale);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        push_display(out, format_args!("{whole}.{rest:02}{letter}"));
    }
}

/// `MM:SS.mmm`, and `[D-]HH:MM:SS` from an hour up or for whole seconds, as sacct writes CPU time.
fn push_cpu(out: &mut String, usec: u64) {
    let (secs, millis) = (usec / 1_000_000, usec / 1000 % 1000);
    if secs < 3600 && millis > 0 {
        push_display(out, format_args!("{:02}:{:02}.{millis:03}", secs / 60, secs % 60));
    } else {
        out.push_str(&elapsed_long(secs));
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    fn all(value: &Value<'_>) -> [String; 3] {
        let clock = Clock::new(TimeZone::UTC, None, 0);
        [Dialect::Queue, Dialect::Accounting, Dialect::Record]
            .map(|dialect| Render::new(dialect, &clock).text(value))
    }

    #[test]
    fn a_text_stays_on_its_line_and_steers_no_terminal() {
        let text = "two\nlines\u{1b}[31m and\ttabs, but ünï cödé";
        for value in [Value::word(text), Value::text(text), Value::OrNa(text.into())] {
            assert_eq!(all(&value), ["two?lines?[31m and?tabs, but ünï cödé"; 3]);
        }
    }

    #[test]
    fn each_dialect_has_its_word_for_unset() {
        assert_eq!(all(&Value::text("")), ["(null)", "", "(null)"]);
        assert_eq!(all(&Value::OrNa("".into())), ["N/A", "", "N/A"]);
        assert_eq!(all(&Value::Time(0)), ["N/A", "Unknown", "Unknown"]);
        assert_eq!(all(&Value::NoEnd), ["NONE", "Unknown", "Unknown"]);
        assert_eq!(all(&Value::Elapsed(65)), ["1:05", "00:01:05", "00:01:05"]);
        assert_eq!(all(&Value::Limit(None)), ["UNLIMITED"; 3]);
        assert_eq!(all(&Value::Memory(0)), ["0"; 3]);
        assert_eq!(all(&Value::Memory(4096)), ["4G"; 3]);
        assert_eq!(all(&Value::Number(-12)), ["-12"; 3]);
        assert_eq!(all(&Value::Number(i64::MIN)), ["-9223372036854775808"; 3]);
    }

    #[test]
    fn cpu_time_is_written_as_sacct_does() {
        let check = |usec, expect: &str| assert_eq!(all(&Value::Cpu(usec))[1], expect);
        check(0, "00:00:00");
        check(14_000, "00:00.014");
        check(61_125_900, "01:01.125");
        check(60_000_000, "00:01:00");
        check(3_600_500_000, "01:00:00");
        check(90_061_000_000, "1-01:01:01");
    }

    #[test]
    fn memory_units_are_chosen_or_given() {
        let clock = Clock::new(TimeZone::UTC, None, 0);
        let text = |units, value: &Value<'_>| {
            Render { dialect: Dialect::Accounting, clock: &clock, units }.text(value)
        };
        assert_eq!(text(Units::Exact, &Value::Bytes(3_047_424)), "2976K");
        assert_eq!(text(Units::Raw, &Value::Bytes(3_047_424)), "3047424");
        assert_eq!(text(Units::Fixed(3), &Value::Memory(500)), "0.49G");
        assert_eq!(text(Units::Raw, &Value::Memory(2048)), "2048M");
        assert_eq!(text(Units::Exact, &Value::Bytes(2 << 30)), "2G");
    }
}
