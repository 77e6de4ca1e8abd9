//! What does the word that an admin handed over say?

use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "pst1";
const ID_DIGITS: usize = 8;
const SECRET_DIGITS: usize = 32;
const FINGERPRINT_BYTES: usize = 32;

/// A join token: `pst1.<id>.<secret>.<fingerprint>`, all parts hex (8, 32 and 64 digits).
///
/// The fingerprint is sha256 of the CA's certificate; it stays here. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JoinToken {
    /// Names the token at the controller.
    pub(crate) id: String,
    /// Shown to a controller only once its CA has been checked.
    pub(crate) secret: String,
    /// sha256 of the certificate of the CA that made the token.
    pub(crate) fingerprint: [u8; 32],
}

/// Why a text is no join token. Never shows the text: it may hold the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Nothing there.
    #[error("the join token is empty; give the word that the controller printed")]
    Empty,
    /// Something else, or a later version's.
    #[error("this is no join token: one begins with `{PREFIX}.` and is one word")]
    Prefix,
    /// Too few or too many parts; most likely cut when copied.
    #[error(
        "the join token has {found} parts joined by dots, not 4; copy the whole word that the \
         controller printed"
    )]
    Parts {
        /// How many it has.
        found: usize,
    },
    /// A part is damaged.
    #[error(
        "the join token's {part} is not {digits} hex digits; copy the whole word that the \
         controller printed"
    )]
    Part {
        /// Which.
        part: &'static str,
        /// How long it should be.
        digits: usize,
    },
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// Space around the word is ignored, as is the case of letters.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let word = text.trim().to_ascii_lowercase();
        if word.is_empty() {
            return Err(TokenError::Empty);
        }
        let parts: Vec<_> = word.split('.').collect();
        let [PREFIX, id, secret, fingerprint] = parts[..] else {
            return Err(match parts.first() {
                Some(&PREFIX) => TokenError::Parts { found: parts.len() },
                Some(_) | None => TokenError::Prefix,
            });
        };
        Ok(Self {
            id: hex_part("id", id, ID_DIGITS)?.to_owned(),
            secret: hex_part("secret", secret, SECRET_DIGITS)?.to_owned(),
            fingerprint: bytes(hex_part("fingerprint", fingerprint, 2 * FINGERPRINT_BYTES)?),
        })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .field("fingerprint", &super::hex(&self.fingerprint))
            .finish_non_exhaustive()
    }
}

fn hex_part<'a>(part: &'static str, text: &'a str, digits: usize) -> Result<&'a str, TokenError> {
    let whole = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if whole { Ok(text) } else { Err(TokenError::Part { part, digits }) }
}

/// The value of 64 hex digits.
fn bytes(digits: &str) -> [u8; FINGERPRINT_BYTES] {
    std::array::from_fn(|at| {
        u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("the digits were checked")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123abcd";
    const SECRET: &str = "00112233445566778899aabbccddeeff";

    fn word() -> String {
        format!("pst1.{ID}.{SECRET}.{}", "5a".repeat(32))
    }

    #[test]
    fn a_whole_token_is_read() {
        for text in [word(), format!("  {}\n", word()), word().to_uppercase()] {
            let token: JoinToken = text.parse().unwrap();
            assert_eq!((token.id.as_str(), token.secret.as_str()), (ID, SECRET));
            assert_eq!(token.fingerprint, [0x5a; 32]);
            assert!(!format!("{token:?}").contains(SECRET));
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_showing_it() {
        let fingerprint = "5a".repeat(32);
        let cases = [
            (String::new(), "empty"),
            (" \n".to_owned(), "empty"),
            ("hello".to_owned(), "begins with `pst1.`"),
            (word().replace("pst1", "pst2"), "begins with `pst1.`"),
            (format!("pst1.{ID}.{SECRET}"), "has 3 parts"),
            (format!("{}.x", word()), "has 5 parts"),
            (format!("pst1..{SECRET}.{fingerprint}"), "id is not 8"),
            (format!("pst1.{ID}.{}.{fingerprint}", &SECRET[1..]), "secret is not 32"),
            (format!("pst1.{ID}.{SECRET}.{}", &fingerprint[1..]), "fingerprint is not 64"),
            (format!("pst1.{ID}.{SECRET}.{}", "é".repeat(32)), "fingerprint is not 64"),
            (format!("pst1.{ID}.{SECRET}.+{}", &fingerprint[1..]), "fingerprint is not 64"),
        ];
        for (text, expect) in cases {
            let err = text.parse::<JoinToken>().unwrap_err().to_string();
            assert!(err.contains(expect), "{text}: {err}");
            assert!(!err.contains(SECRET), "{err}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,140}") {
            prop_assert!(text.parse::<JoinToken>().is_err());
            let long = format!("pst1.{text}");
            prop_assert!(long.parse::<JoinToken>().is_err());
        }
    }
}
