//! How do PMI-1 and PMI-2 put their requests and answers into bytes?
//!
//! Both begin with a line (`cmd=init pmi_version=2 ...`). PMI-1 goes on with lines of words
//! `name=value`; PMI-2 with a length of six digits and `name=value;` pairs, in whose values `;;` is a
//! semicolon. As MPICH's simple client and Slurm's libpmi2 write and read them.

/// Longest request: a value of PMI's largest size and some names.
const MAX_REQUEST: usize = 64 << 10;

/// Digits of a PMI-2 length.
const LENGTH_DIGITS: usize = 6;

/// Which of the two a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Lines; also before the client has said which it speaks.
    One,
    Two,
}

/// A request: names and values in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request(Vec<(String, String)>);

impl Request {
    /// The value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What is wanted.
    pub(super) fn command(&self) -> &str {
        self.get("cmd").or_else(|| self.get("mcmd")).unwrap_or_default()
    }
}

/// What cannot be a request; the client is left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nonsense;

/// Takes the first whole request out of `bytes`; `None`: more must come first.
pub(super) fn take(bytes: &mut Vec<u8>, version: Version) -> Result<Option<Request>, Nonsense> {
    let found = match version {
        Version::One => line(bytes),
        Version::Two => counted(bytes)?,
    };
    let Some((begin, end, next)) = found else {
        return if bytes.len() > MAX_REQUEST { Err(Nonsense) } else { Ok(None) };
    };
    let text = String::from_utf8(bytes[begin..end].to_vec()).map_err(|_| Nonsense)?;
    bytes.drain(..next);
    Ok(Some(match version {
        Version::One => Request(words(&text)),
        Version::Two => Request(pairs(&text)),
    }))
}

fn line(bytes: &[u8]) -> Option<(usize, usize, usize)> {
    // A spawn of PMI-1 has many lines, to `endcmd`; all but the first are of no interest.
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    if bytes.starts_with(b"mcmd=") {
        let tail = b"endcmd\n";
        let last = bytes.windows(tail.len()).position(|part| part == tail)?;
        return Some((0, end, last + tail.len()));
    }
    Some((0, end, end + 1))
}

fn counted(bytes: &[u8]) -> Result<Option<(usize, usize, usize)>, Nonsense> {
    let Some(digits) = bytes.get(..LENGTH_DIGITS) else { return Ok(None) };
    let digits = std::str::from_utf8(digits).map_err(|_| Nonsense)?;
    let length: usize = digits.trim().parse().map_err(|_| Nonsense)?;
    if length > MAX_REQUEST {
        return Err(Nonsense);
    }
    let end = LENGTH_DIGITS + length;
    Ok((bytes.len() >= end).then_some((LENGTH_DIGITS, end, end)))
}

fn words(text: &str) -> Vec<(String, String)> {
    let pair = |word: &str| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        (name.to_owned(), value.to_owned())
    };
    text.split_ascii_whitespace().map(pair).collect()
}

fn pairs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_end_matches('\n');
    while let Some((name, tail)) = rest.split_once('=') {
        let mut value = String::new();
        let mut letters = tail.char_indices().peekable();
        rest = "";
        while let Some((at, letter)) = letters.next() {
            if letter != ';' {
                value.push(letter);
            } else if letters.next_if(|(_, next)| *next == ';').is_some() {
                value.push(';');
            } else {
                rest = &tail[at + 1..];
                break;
            }
        }
        found.push((name.to_owned(), value));
    }
    found
}

/// An answer; the first pair is `cmd`.
pub(super) fn answer(version: Version, pairs: &[(&str, &str)]) -> Vec<u8> {
    let text: String = match version {
        Version::One => {
            let words: Vec<String> =
                pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{}\n", words.join(" "))
        }
        Version::Two => {
            let pair =
                |(name, value): &(&str, &str)| format!("{name}={};", value.replace(';', ";;"));
            pairs.iter().map(pair).collect()
        }
    };
    match version {
        Version::One => text.into_bytes(),
        Version::Two => format!("{:6}{text}", text.len()).into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_taken_one_by_one() {
        let mut bytes = b"cmd=init pmi_version=1 pmi_subversion=1\ncmd=get_m".to_vec();
        let init = take(&mut bytes, Version::One).unwrap().unwrap();
        assert_eq!((init.command(), init.get("pmi_version")), ("init", Some("1")));
        assert_eq!(take(&mut bytes, Version::One), Ok(None));
        bytes.extend_from_slice(b"axes\nmcmd=spawn\nnprocs=1\nendcmd\ncmd=finalize\n");
        let mut command = || take(&mut bytes, Version::One).unwrap().unwrap().command().to_owned();
        assert_eq!([command(), command(), command()], ["get_maxes", "spawn", "finalize"]);
    }

    #[test]
    fn lengths_that_are_none_end_the_talk() {
        for text in ["abcdef", "999999", "    -1"] {
            assert_eq!(take(&mut text.as_bytes().to_vec(), Version::Two), Err(Nonsense), "{text}");
        }
        assert_eq!(take(&mut b"    9".to_vec(), Version::Two), Ok(None));
        assert_eq!(take(&mut vec![b'x'; MAX_REQUEST + 1], Version::One), Err(Nonsense));
    }

    proptest! {
        #[test]
        fn answers_are_read_as_they_are_written(value in "[a-z;= ]{0,30}", other in "[;a]{0,5}") {
            let written = [("cmd", "kvs-put"), ("key", value.as_str()), ("value", other.as_str())];
            let mut bytes = answer(Version::Two, &written);
            bytes.extend_from_slice(b"   rest");
            let read = take(&mut bytes, Version::Two).unwrap().unwrap();
            // A semicolon that ends a value cannot be told from what follows; no client writes one.
            prop_assume!(!value.ends_with(';') && !other.ends_with(';'));
            prop_assert_eq!(read.get("key"), Some(value.as_str()));
            prop_assert_eq!(read.get("value"), Some(other.as_str()));
            prop_assert_eq!(bytes, b"   rest");
        }

        #[test]
        fn nothing_is_too_wild(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for version in [Version::One, Version::Two] {
                let mut bytes = bytes.clone();
                while let Ok(Some(_)) = take(&mut bytes, version) {}
            }
        }
    }
}
