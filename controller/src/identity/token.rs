//! What does a join token look like, and when is a secret the right one?
//!
//! A token is one word, `pst1.<id>.<secret>.<fingerprint>`, all parts lowercase hex: the id 8
//! digits (public, it shows in listings), the secret 32, the fingerprint 64 (sha256 of the CA's
//! certificate). A host sends id and secret, over a connection whose CA it has checked against
//! the fingerprint; the controller stores only the secret's hash. Expiry, count and role are
//! records of the cluster, not parts of the word.

use std::fmt::{self, Write as _};
use std::hint::black_box;

use rand::CryptoRng;
use sha2::{Digest as _, Sha256};

/// First part of every token; says how the rest is to be read.
const PREFIX: &str = "pst1";
/// 128 bits: not guessable, whatever the rate.
const SECRET_BYTES: usize = 16;
const ID_BYTES: usize = 4;

/// A token that was just made: the only moment at which its secret is known here.
///
/// [`Display`](fmt::Display) gives the word for the admin; `Debug` hides the secret.
pub struct NewToken {
    /// Names the token in listings and in the host's request.
    pub id: String,
    secret: String,
    fingerprint: [u8; 32],
}

impl NewToken {
    /// Draws a token for the CA with this fingerprint. Ids are random and may collide: the caller
    /// draws again where the id is taken.
    pub fn generate(rng: &mut impl CryptoRng, ca_fingerprint: [u8; 32]) -> Self {
        let mut id = [0; ID_BYTES];
        let mut secret = [0; SECRET_BYTES];
        rng.fill_bytes(&mut id);
        rng.fill_bytes(&mut secret);
        Self { id: hex(&id), secret: hex(&secret), fingerprint: ca_fingerprint }
    }

    /// What is stored of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        secret_hash(&self.secret)
    }
}

impl fmt::Display for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}.{}", self.id, self.secret, hex(&self.fingerprint))
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// sha256 of a secret as the host sends it. The secret is random, so that no salt is needed.
pub fn secret_hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Whether `secret` is the one whose hash was stored. Takes the same time wherever they differ;
/// a stored hash of another length matches nothing.
pub fn secret_matches(secret: &str, stored_hash: &[u8]) -> bool {
    let hash = secret_hash(secret);
    let differing = hash
        .iter()
        .zip(stored_hash)
        .fold(0, |bits, (left, right)| black_box(bits | (left ^ right)));
    stored_hash.len() == hash.len() && differing == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn a_token_is_one_word_of_four_parts() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let token = NewToken::generate(&mut rng, [0xab; 32]);
        let text = token.to_string();
        let parts: Vec<_> = text.split('.').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [4, 8, 32, 64]);
        assert_eq!(parts[0], "pst1");
        assert_eq!(parts[1], token.id);
        assert_eq!(parts[3], "ab".repeat(32));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'));
        assert!(!format!("{token:?}").contains(parts[2]));
        let other = NewToken::generate(&mut rng, [0xab; 32]);
        assert_ne!(other.to_string(), text);
    }

    #[test]
    fn only_the_right_secret_matches() {
        let token = NewToken::generate(&mut ChaCha20Rng::seed_from_u64(2), [0; 32]);
        let text = token.to_string();
        let secret = text.split('.').nth(2).unwrap();
        let hash = token.secret_hash();
        assert!(secret_matches(secret, &hash));
        assert!(!secret_matches(&secret[1..], &hash));
        assert!(!secret_matches("", &hash));
        assert!(!secret_matches(&secret.to_uppercase(), &hash));
        assert!(!secret_matches(secret, &hash[..31]));
        assert!(!secret_matches(secret, &[]));
        let longer: Vec<u8> = hash.iter().copied().chain([0]).collect();
        assert!(!secret_matches(secret, &longer));
        for at in 0..32 {
            let mut wrong = hash;
            wrong[at] ^= 1;
            assert!(!secret_matches(secret, &wrong));
        }
    }
}
