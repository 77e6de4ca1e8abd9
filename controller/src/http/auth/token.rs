//! What is in an access token, and is it ours?
//!
//! A JSON web token (RFC 7519) with HMAC-SHA256, as Slurm's `auth/jwt` makes them: `sun` is the user's
//! name there too. The header is one fixed text and is compared as such, so that no token chooses its own
//! algorithm.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// `{"alg":"HS256","typ":"JWT"}`.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// Longest token that is looked at; ours have about 400 bytes.
const MAX_BYTES: usize = 4 << 10;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// When it ends, seconds since the epoch.
    pub(super) exp: i64,
    /// When it was made, seconds since the epoch.
    pub(super) iat: i64,
    /// The same in milliseconds: what a revocation is held against.
    pub(super) ims: i64,
    /// Its name among the revoked.
    pub(super) jti: String,
    /// Login name.
    pub(super) sun: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The way it was asked for.
    pub(super) via: String,
    /// May change nothing.
    #[serde(default)]
    pub(super) ro: bool,
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    /// It is not one, or not one of this cluster, or somebody changed it.
    #[error("the token is not one that this cluster made; make one with `scontrol token`")]
    Foreign,
    /// Its time is over.
    #[error("the token has expired; make another with `scontrol token`")]
    Expired,
    /// Its user or an admin revoked it.
    #[error("the token has been revoked; make another with `scontrol token`")]
    Revoked,
    /// The host through which it was made is gone, or has been revoked.
    #[error("the host through which the token was made has left the cluster; make another token")]
    HostGone,
    /// The request names another user than the token.
    #[error("the token is another user's than X-SLURM-USER-NAME says")]
    OtherUser,
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// The token with these claims.
pub(super) fn sign(key: &[u8], claims: &Claims) -> String {
    let claims = serde_json::to_vec(claims).expect("claims are texts and numbers");
    let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(claims));
    let mut mac = mac(key);
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

/// The claims of a token that `key` signed and that has not expired at `now_ms`.
///
/// # Errors
/// [`TokenProblem::Foreign`] or [`TokenProblem::Expired`]; the latter of our own tokens alone.
pub(super) fn verify(key: &[u8], token: &str, now_ms: i64) -> Result<Claims, TokenProblem> {
    let foreign = TokenProblem::Foreign;
    if token.len() > MAX_BYTES {
        return Err(foreign);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(foreign)?;
    let claims = signed.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('.'));
    let claims = claims.ok_or(foreign)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| foreign)?;
    let mut mac = mac(key);
    mac.update(signed.as_bytes());
    mac.verify_slice(&signature).map_err(|_| foreign)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| foreign)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| foreign)?;
    if claims.exp.saturating_mul(1_000) <= now_ms {
        return Err(TokenProblem::Expired);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &[u8] = b"a key of 32 bytes, more or less.";

    fn claims() -> Claims {
        Claims {
            exp: 2_000,
            iat: 1_000,
            ims: 1_000_500,
            jti: "a1".into(),
            sun: "alice".into(),
            uid: 1000,
            gid: 100,
            via: "controller".into(),
            ro: false,
        }
    }

    #[test]
    fn a_token_holds_until_its_second_and_with_its_key_alone() {
        let token = sign(KEY, &claims());
        assert_eq!(verify(KEY, &token, 1_999_999), Ok(claims()));
        assert_eq!(verify(KEY, &token, 2_000_000), Err(TokenProblem::Expired));
        assert_eq!(verify(b"another key", &token, 0), Err(TokenProblem::Foreign));
    }

    #[test]
    fn no_token_chooses_its_algorithm() {
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap());
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let spaced = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256", "typ":"JWT"}"#);
        for header in [none.as_str(), spaced.as_str()] {
            let signed = format!("{header}.{body}");
            let mut mac = mac(KEY);
            mac.update(signed.as_bytes());
            let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
            for end in [signature.as_str(), ""] {
                assert_eq!(verify(KEY, &format!("{signed}.{end}"), 0), Err(TokenProblem::Foreign));
            }
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = "a".repeat(10_000);
        for text in ["", ".", "..", "a.b.c", HEADER, &long, "eyJ\u{e9}.x.y"] {
            assert_eq!(verify(KEY, text, 0), Err(TokenProblem::Foreign), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_letter_is_noticed(at in 0_usize..300, letter in "[A-Za-z0-9_.-]") {
            let token = sign(KEY, &claims());
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &letter);
            // The last letter of a coding may have bits that say nothing.
            prop_assume!(changed != token);
            if let Ok(same) = verify(KEY, &changed, 0) {
                prop_assert_eq!(same, claims());
                prop_assert_eq!(at, token.len() - 1);
            }
        }
    }
}
