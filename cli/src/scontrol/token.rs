//! `scontrol token`: with what does a script sign in to REST?
//!
//! `token [lifespan=SECONDS] [username=NAME]` is Slurm's; `readonly` and `revoke=ID|all` are ours.

use penstock_proto::v1;

use super::{FAILED, PROGRAM, Voice};
use crate::connect::{Client, Patience};
use crate::output::{note, print_line};

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ask {
    lifespan_secs: u64,
    user: String,
    read_only: bool,
    revoke: Option<String>,
}

pub(super) fn run(words: &[String], voice: Voice) -> i32 {
    let ask = match read(words) {
        Ok(ask) => ask,
        Err(text) => {
            voice.say(&format!("{PROGRAM}: error: {text}"));
            return FAILED;
        }
    };
    let client = match Client::open() {
        Ok(client) => client,
        Err(failure) => {
            voice.report("Error fetching token", &failure);
            return FAILED;
        }
    };
    match ask.revoke {
        Some(id) => revoke(&client, id, &ask.user, voice),
        None => create(&client, &ask, voice),
    }
}

fn create(client: &Client, ask: &Ask, voice: Voice) -> i32 {
    let request = v1::CreateAccessTokenRequest {
        lifespan_secs: ask.lifespan_secs,
        user_name: ask.user.clone(),
        read_only: ask.read_only,
    };
    let reply = client.web(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.create_access_token(request).await }
    });
    match reply {
        Ok(reply) => {
            print_line(&format!("SLURM_JWT={}", reply.token));
            // Scripts read standard output; people want to know how to take it back.
            if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
                note(&format!("its id is {0}: scontrol token revoke={0} ends it", reply.id));
            }
            0
        }
        Err(failure) => {
            voice.report("Error fetching token", &failure);
            FAILED
        }
    }
}

fn revoke(client: &Client, id: String, user: &str, voice: Voice) -> i32 {
    let token_id = if id.eq_ignore_ascii_case("all") { String::new() } else { id };
    let request = v1::RevokeAccessRequest { token_id, user_name: user.to_owned() };
    let reply = client.web(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.revoke_access(request).await }
    });
    match reply {
        Ok(_) => 0,
        Err(failure) => {
            voice.report("Error revoking token", &failure);
            FAILED
        }
    }
}

fn read(words: &[String]) -> Result<Ask, String> {
    let mut ask = Ask::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match (key.to_ascii_lowercase().as_str(), value) {
            ("lifespan", value) => ask.lifespan_secs = lifespan(value)?,
            ("username", "") => return Err("username= needs a name".to_owned()),
            ("username", name) => name.clone_into(&mut ask.user),
            ("readonly", "" | "yes") => ask.read_only = true,
            ("revoke", "") => return Err("revoke= needs a token's id, or all".to_owned()),
            ("revoke", id) => ask.revoke = Some(id.to_owned()),
            _ => {
                return Err(format!(
                    "{word:?} is not known; token takes lifespan=SECONDS, username=NAME, readonly and \
                     revoke=ID"
                ));
            }
        }
    }
    Ok(ask)
}

fn lifespan(text: &str) -> Result<u64, String> {
    if text.eq_ignore_ascii_case("infinite") {
        return Err("a token always ends; give lifespan= in seconds".to_owned());
    }
    let secs = text.parse::<u64>().ok().filter(|secs| *secs > 0);
    secs.ok_or_else(|| format!("lifespan={text} is no number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let ask = read(&words("lifespan=60 username=bob readonly")).unwrap();
        let expect = Ask { lifespan_secs: 60, user: "bob".into(), read_only: true, revoke: None };
        assert_eq!(ask, expect);
        assert_eq!(read(&words("Revoke=all")).unwrap().revoke.as_deref(), Some("all"));
        for wrong in
            ["lifespan=0", "lifespan=x", "lifespan=infinite", "username=", "life=1", "revoke="]
        {
            assert!(read(&words(wrong)).is_err(), "{wrong}");
        }
    }
}
