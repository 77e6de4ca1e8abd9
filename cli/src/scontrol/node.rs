//! `scontrol update NodeName=`: what is done to which nodes, and why?

use penstock_proto::v1;
use penstock_vocab::expand;

use crate::connect::{Client, Patience, request_id};
use crate::scontrol::update::{Setting, number};
use crate::scontrol::{FAILED, PROGRAM, Voice, is_prefix};
use crate::words::find_name;

/// Slurm's words when a node is taken out without a reason.
const NO_REASON: &str = "You must specify a reason when DOWNING or DRAINING a node. Request denied";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Comment,
    Features,
    Gres,
    Reason,
    State,
    Weight,
    Unbuilt,
}

/// Keys of a node; those that Slurm has besides keep abbreviations from changing their meaning.
const KEYS: &[(&str, Key)] = &[
    ("Comment", Key::Comment),
    ("Features", Key::Features),
    ("AvailableFeatures", Key::Features),
    ("Reason", Key::Reason),
    ("State", Key::State),
    ("Weight", Key::Weight),
    ("ActiveFeatures", Key::Unbuilt),
    ("CpuBind", Key::Unbuilt),
    ("Extra", Key::Unbuilt),
    ("Gres", Key::Gres),
    ("NodeAddr", Key::Unbuilt),
    ("NodeHostName", Key::Unbuilt),
    ("ResumeAfter", Key::Unbuilt),
];

/// States that can be asked for; three letters are enough where they are unique.
const STATES: &[(&str, v1::NodeAction)] = &[
    ("DOWN", v1::NodeAction::Down),
    ("DRAIN", v1::NodeAction::Drain),
    ("FAIL", v1::NodeAction::Fail),
    ("IDLE", v1::NodeAction::Resume),
    ("POWER_DOWN", v1::NodeAction::PowerDown),
    ("POWER_UP", v1::NodeAction::PowerUp),
    ("RESUME", v1::NodeAction::Resume),
    ("UNDRAIN", v1::NodeAction::Undrain),
];

/// States of Slurm that cannot be asked for yet.
const UNBUILT_STATES: [&str; 5] =
    ["CANCEL_REBOOT", "FUTURE", "NORESP", "POWER_DOWN_ASAP", "POWER_DOWN_FORCE"];

/// Updates the nodes of a hostlist; the error is the lines to print.
pub(super) fn update(
    nodes: &str,
    settings: &[Setting<'_>],
    voice: Voice,
) -> Result<i32, Vec<String>> {
    let request = node_request(nodes, settings)?;
    let reply = Client::open().and_then(|client| {
        client.call(Patience::CHANGE, |mut rpc| {
            let request = request.clone();
            async move { rpc.update_node(request).await }
        })
    });
    Ok(match reply {
        Ok(_) => 0,
        Err(failure) => {
            voice.report("slurm_update error", &failure);
            FAILED
        }
    })
}

fn node_request(
    nodes: &str,
    settings: &[Setting<'_>],
) -> Result<v1::UpdateNodeRequest, Vec<String>> {
    let all = nodes.eq_ignore_ascii_case("ALL");
    let named = all || expand(nodes).is_ok_and(|names| !names.is_empty());
    if !named {
        return Err(vec!["slurm_update error: Invalid node name specified".to_owned()]);
    }
    if settings.is_empty() {
        return Err(vec!["No changes specified".to_owned()]);
    }
    let mut request = v1::UpdateNodeRequest {
        request_id: request_id(),
        nodes: nodes.to_owned(),
        ..v1::UpdateNodeRequest::default()
    };
    for setting in settings {
        if setting.sign.is_some() {
            return Err(setting.not_supported());
        }
        let value = setting.value;
        match find_name(KEYS, setting.key).unwrap_or(Key::Unbuilt) {
            Key::Comment => request.comment = Some(value.to_owned()),
            Key::Features => request.features = Some(value.to_owned()),
            // Ours: the state concerns these GPUs of the node.
            Key::Gres => value.clone_into(&mut request.gres),
            Key::Reason => request.reason = value.trim_matches(['"', '\'']).to_owned(),
            Key::State => request.action = action(setting)?.into(),
            Key::Weight => request.weight = Some(number(setting)?),
            Key::Unbuilt => return Err(setting.not_supported()),
        }
    }
    let takes_out = matches!(
        request.action(),
        v1::NodeAction::Down | v1::NodeAction::Drain | v1::NodeAction::Fail
    );
    if takes_out && request.reason.trim().is_empty() {
        return Err(vec![NO_REASON.to_owned()]);
    }
    Ok(request)
}

fn action(setting: &Setting<'_>) -> Result<v1::NodeAction, Vec<String>> {
    let word = setting.value.trim();
    let unbuilt = UNBUILT_STATES.iter().find(|name| name.eq_ignore_ascii_case(word));
    if let Some(name) = unbuilt {
        return Err(vec![format!("{PROGRAM}: error: State={name} is not built yet")]);
    }
    let known = find_name(STATES, word);
    let long_enough = STATES.iter().any(|(name, _)| is_prefix(name, word, 3));
    known.filter(|_| long_enough).ok_or_else(|| {
        let mut lines = setting.invalid("");
        lines.push(
            "Valid states are: NoResp DRAIN FAIL FUTURE RESUME POWER_DOWN POWER_UP UNDRAIN"
                .to_owned(),
        );
        lines.push("Not all states are valid given a node's prior state".to_owned());
        lines
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(nodes: &str, words: &[&str]) -> Result<v1::UpdateNodeRequest, Vec<String>> {
        let settings: Vec<Setting<'_>> = words
            .iter()
            .map(|word| {
                let (key, value) = word.split_once('=').expect("a setting");
                Setting { key, sign: None, value, word }
            })
            .collect();
        let mut request = node_request(nodes, &settings)?;
        request.request_id = v1::UpdateNodeRequest::default().request_id;
        Ok(request)
    }

    #[test]
    fn settings_of_nodes_are_read() {
        use v1::NodeAction as A;
        type Set = fn(&mut v1::UpdateNodeRequest);
        let table: &[(&[&str], Set)] = &[
            (&["State=DRAIN", "Reason=bad fan"], |r| {
                r.set_action(A::Drain);
                r.reason = "bad fan".into();
            }),
            (&["state=dra", "reason='x'"], |r| {
                r.set_action(A::Drain);
                r.reason = "x".into();
            }),
            (&["State=DOWN", "Reason=x"], |r| {
                r.set_action(A::Down);
                r.reason = "x".into();
            }),
            (&["State=RESUME"], |r| r.set_action(A::Resume)),
            (&["State=IDLE"], |r| r.set_action(A::Resume)),
            (&["State=undrain"], |r| r.set_action(A::Undrain)),
            (&["State=POWER_DOWN"], |r| r.set_action(A::PowerDown)),
            (&["State=power_up"], |r| r.set_action(A::PowerUp)),
            (&["Weight=5"], |r| r.weight = Some(5)),
            (&["AvailableFeatures=a,b"], |r| r.features = Some("a,b".into())),
            (&["Comment="], |r| r.comment = Some(String::new())),
            (&["Reason=later"], |r| r.reason = "later".into()),
        ];
        for (words, set) in table {
            let mut expect = v1::UpdateNodeRequest {
                nodes: "n[1-2]".into(),
                ..v1::UpdateNodeRequest::default()
            };
            set(&mut expect);
            assert_eq!(read("n[1-2]", words), Ok(expect), "{words:?}");
        }
        assert!(read("ALL", &["State=RESUME"]).is_ok());
    }

    #[test]
    fn refusals_are_slurms() {
        let table: &[(&str, &[&str], &str)] = &[
            ("n1", &["State=DRAIN"], NO_REASON),
            ("n1", &["State=DOWN", "Reason= "], NO_REASON),
            ("n1", &["State=FAIL"], NO_REASON),
            ("n1", &["State=foo"], "Invalid input: State=foo"),
            ("n1", &["State=d"], "Invalid input: State=d"),
            ("n1", &["State=POWER"], "Invalid input: State=POWER"),
            ("n1", &["State=FUTURE"], "scontrol: error: State=FUTURE is not built yet"),
            ("n1", &["foo=2"], "Update of this parameter is not supported: foo=2"),
            ("n1", &["Weight=x"], "Invalid input: Weight=x"),
            ("n1", &[], "No changes specified"),
            ("n[1", &["State=RESUME"], "slurm_update error: Invalid node name specified"),
            ("", &["State=RESUME"], "slurm_update error: Invalid node name specified"),
        ];
        for (nodes, words, first) in table {
            let lines = read(nodes, words).expect_err(first);
            assert_eq!(lines[0], *first, "{words:?}");
        }
    }
}
