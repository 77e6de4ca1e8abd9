//! What can be asked of the daemons themselves: whether they are there, to read their file again, to
//! say more, to stop?

use penstock_proto::v1;

use crate::connect::{Client, Patience, request_id};
use crate::output::print_line;

use super::{FAILED, PROGRAM, Voice};

/// Slurm's words for how much the log tells, from nothing on.
const LEVELS: [&str; 10] =
    ["quiet", "fatal", "error", "info", "verbose", "debug", "debug2", "debug3", "debug4", "debug5"];

/// `ping`.
pub(super) fn ping(voice: Voice) -> i32 {
    let reply = Client::open().and_then(|client| {
        client.call(Patience::READ, |mut rpc| async move { rpc.ping(v1::PingRequest {}).await })
    });
    match reply {
        Ok(reply) => {
            print_line(&format!("Slurmctld(primary) at {} is UP", reply.controller_host));
            0
        }
        Err(failure) => {
            print_line("Slurmctld(primary) at (unknown) is DOWN");
            if let Some(detail) = failure.detail() {
                voice.say(&format!("{PROGRAM}: error: {detail}"));
            }
            FAILED
        }
    }
}

/// `reconfigure`.
pub(super) fn reconfigure(voice: Voice) -> i32 {
    let request = v1::ReconfigureRequest { request_id: request_id() };
    let reply = Client::open().and_then(|client| {
        client.call(Patience::CHANGE, |mut rpc| {
            let request = request.clone();
            async move { rpc.reconfigure(request).await }
        })
    });
    match reply {
        Ok(reply) => {
            reply.changes.iter().for_each(|change| print_line(change));
            0
        }
        Err(failure) => {
            voice.report("slurm_reconfigure error", &failure);
            FAILED
        }
    }
}

/// `setdebug LEVEL`: what is no level is refused in Slurm's words, a level with the way to set it.
pub(super) fn set_debug(words: &[String], voice: Voice) -> i32 {
    let Some(level) = words.first() else {
        return few(voice, "setdebug");
    };
    let number = level.parse::<usize>().is_ok_and(|number| number < LEVELS.len());
    if !number && !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
        return refuse(voice, &format!("invalid debug level: {level}"));
    }
    unavailable(voice, "the daemons say as much as PENSTOCK_LOG tells them when they start")
}

/// `setdebugflags [+|-]NAME`.
pub(super) fn set_debug_flags(words: &[String], voice: Voice) -> i32 {
    match words.first() {
        None => few(voice, "setdebugflags"),
        Some(flag) => {
            voice.say(&format!("invalid debug flag: {flag}"));
            refuse(voice, "Usage: setdebugflags [+|-]NAME")
        }
    }
}

/// `schedloglevel LEVEL`: there is no such log, as in a Slurm without SlurmSchedLogFile.
pub(super) fn sched_log_level(words: &[String], voice: Voice) -> i32 {
    match words.first().map(String::as_str) {
        None => few(voice, "schedloglevel"),
        Some("0" | "1" | "disable" | "enable") => refuse(
            voice,
            "slurm_set_schedlog_level error: Requested operation is presently disabled",
        ),
        Some(level) => refuse(voice, &format!("invalid schedlog level: {level}")),
    }
}

/// `fsdampeningfactor N`: fair share is a tree here, which knows no such factor.
pub(super) fn dampening(words: &[String], voice: Voice) -> i32 {
    match words.first() {
        None => few(voice, "fsdampeningfactor"),
        Some(word) if word.parse::<u16>().is_ok_and(|factor| factor > 0) => {
            unavailable(voice, "fair share is computed as a tree, which has no dampening factor")
        }
        Some(word) => {
            voice.say(&format!("invalid dampening factor: {word}"));
            0
        }
    }
}

/// `takeover [INDEX]`: there is one controller.
pub(super) fn takeover(words: &[String], voice: Voice) -> i32 {
    match words.first() {
        Some(index) if index.parse::<u32>().is_ok() => {
            refuse(voice, &format!("takeover: invalid backup controller index ({index})"))
        }
        Some(_) | None => unavailable(voice, "there is no second controller that could take over"),
    }
}

/// `shutdown` and `abort`: whoever started the daemons stops them.
pub(super) fn shutdown(word: &str, words: &[String], voice: Voice) -> i32 {
    match words.first().map(String::as_str) {
        Some(argument) if !matches!(argument, "slurmctld" | "controller") => {
            refuse(voice, &format!("invalid {word} argument:{argument}"))
        }
        Some(_) | None => unavailable(
            voice,
            "stop the daemons where they run: systemctl stop penstock-controller penstock-agent, \
             or penstock quickstart --stop",
        ),
    }
}

/// `reboot NODES`: as a Slurm without a RebootProgram.
pub(super) fn reboot(words: &[String], voice: Voice) -> i32 {
    if words.is_empty() {
        return refuse(voice, "Missing node list. Specify ALL|<NodeList>");
    }
    voice.say(&format!("{PROGRAM}: error: RebootProgram isn't defined"));
    refuse(voice, "scontrol_reboot_nodes error: Unspecified error")
}

/// `cancel_reboot NODES`: no node ever waits for one.
pub(super) fn cancel_reboot(words: &[String], voice: Voice) -> i32 {
    let Some(nodes) = words.first() else {
        return few(voice, "cancel_reboot");
    };
    let request = v1::ListNodesRequest { nodes: nodes.clone() };
    let reply = Client::open().and_then(|client| {
        client.call(Patience::READ, |mut rpc| {
            let request = request.clone();
            async move { rpc.list_nodes(request).await }
        })
    });
    match reply {
        Ok(reply) if reply.unknown.is_empty() && !reply.nodes.is_empty() => {
            refuse(voice, "slurm_update error: Invalid node state specified")
        }
        Ok(_) => refuse(voice, "slurm_update error: Invalid node name specified"),
        Err(failure) => {
            voice.report("slurm_update error", &failure);
            FAILED
        }
    }
}

/// `errnumstr NUMBER`: the system's numbers; Slurm's own have no meaning here.
pub(super) fn error_text(words: &[String], voice: Voice) -> i32 {
    let Some(word) = words.first() else {
        return few(voice, "errnumstr");
    };
    match word.parse::<i32>() {
        Err(_) => refuse(voice, "numeric arguments required for keyword:errnumstr"),
        Ok(number @ 0..1000) => {
            let text = std::io::Error::from_raw_os_error(number).to_string();
            print_line(text.split(" (os error").next().unwrap_or_default());
            0
        }
        Ok(number) => {
            unavailable(voice, &format!("errors have no numbers here, {number} is one of Slurm's"))
        }
    }
}

fn few(voice: Voice, verb: &str) -> i32 {
    refuse(voice, &format!("too few arguments for keyword:{verb}"))
}

fn unavailable(voice: Voice, why: &str) -> i32 {
    refuse(voice, &format!("{PROGRAM}: error: {why}"))
}

fn refuse(voice: Voice, line: &str) -> i32 {
    voice.say(line);
    FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_or_argument_is_refused() {
        let voice = Voice { quiet: true };
        let words = |text: &str| vec![text.to_owned()];
        for text in ["foo", "99", "info", "3"] {
            assert_eq!(set_debug(&words(text), voice), 1, "{text}");
            assert_eq!(shutdown("shutdown", &words(text), voice), 1, "{text}");
        }
        assert_eq!(error_text(&words("2"), voice), 0);
        assert_eq!(error_text(&words("2017"), voice), 1);
        assert_eq!(error_text(&words("x"), voice), 1);
        assert_eq!(dampening(&words("x"), voice), 0);
    }
}
