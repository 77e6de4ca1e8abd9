//! How is a stored record written as text, whatever it is a record of?
//!
//! A record is a protobuf message. Its fields are written by their numbers in the wire contract, so
//! that a record of a newer version is shown in whole too:
//! `{1:1 2:{1:17 4:{1:"train" 6:2}}}`.

use std::fmt::Write as _;

/// Deepest nesting that is followed; records of ours have a handful of levels.
const MAX_DEPTH: u32 = 16;

/// The text of one record; bytes that are no message are written in hexadecimal.
pub(super) fn record_text(bytes: &[u8]) -> String {
    message(bytes, 0).unwrap_or_else(|| hex(bytes))
}

/// The fields of a message; `None` if the bytes are none.
fn message(mut bytes: &[u8], depth: u32) -> Option<String> {
    let mut text = String::from("{");
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let number = tag >> 3;
        if number == 0 || number > 536_870_911 {
            return None;
        }
        if text.len() > 1 {
            text.push(' ');
        }
        write!(text, "{number}:").ok()?;
        match tag & 7 {
            0 => write!(text, "{}", varint(&mut bytes)?).ok()?,
            1 => write!(text, "0x{}", hex_reversed(take(&mut bytes, 8)?)).ok()?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                text.push_str(&delimited(take(&mut bytes, length)?, depth));
            }
            5 => write!(text, "0x{}", hex_reversed(take(&mut bytes, 4)?)).ok()?,
            _ => return None,
        }
    }
    text.push('}');
    Some(text)
}

/// Text where it can be printed, else a message where it is one, else bytes.
fn delimited(bytes: &[u8], depth: u32) -> String {
    let printable = |text: &&str| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    if let Some(text) = std::str::from_utf8(bytes).ok().filter(printable) {
        return format!("{text:?}");
    }
    let inner = if depth < MAX_DEPTH { message(bytes, depth + 1) } else { None };
    inner.unwrap_or_else(|| hex(bytes))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("0x"), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Fixed numbers stand lowest byte first.
fn hex_reversed(bytes: &[u8]) -> String {
    bytes.iter().rev().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    use penstock_proto::v1;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    #[test]
    fn fields_are_written_by_number() {
        let spec =
            v1::JobSpec { name: "train".into(), nodes_max: 2, nice: -1, ..v1::JobSpec::default() };
        let job = v1::Job { id: 17, spec: Some(spec), ..v1::Job::default() };
        let record = v1::JobRecord { format: 1, job: Some(job) };
        assert_eq!(
            record_text(&record.encode_to_vec()),
            "{1:1 2:{1:17 4:{1:\"train\" 6:2 22:18446744073709551615}}}"
        );
    }

    #[test]
    fn bytes_that_are_no_message_are_written_as_bytes() {
        assert_eq!(record_text(&[0xff, 0x01]), "0xff01");
        assert_eq!(record_text(&[]), "{}");
        assert_eq!(record_text(&[0x0a, 0x02, 0xff, 0xfe]), "{1:0xfffe}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _text = record_text(&bytes);
        }
    }
}
