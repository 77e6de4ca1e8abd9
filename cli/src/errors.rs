//! What went wrong between a command and its daemon, and in which words is it told?
//!
//! Slurm's text comes last and alone on its line, since tools match it; what helps a person stands
//! on the line before.

use penstock_proto::v1;

use crate::output::note;

/// Slurm's text when no controller answers.
const UNREACHABLE: &str = "Unable to contact slurm controller (connect failure)";

/// Slurm's text when an answer does not come in time.
pub(crate) const TIMED_OUT: &str = "Socket timed out on send/recv operation";

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RemoteError {
    /// The controller refused, and says why.
    Refused(v1::Refusal),
    /// Nobody answered, however often it was tried; says who was asked and what came back.
    Unreachable(String),
    /// The answer was an error of ours, or none that this version understands.
    Failed(String),
}

impl RemoteError {
    /// The line that tools match.
    pub(crate) fn slurm_text(&self) -> &str {
        match self {
            Self::Refused(refusal) => refusal_text(refusal),
            Self::Unreachable(_) => UNREACHABLE,
            Self::Failed(text) => text,
        }
    }

    /// One sentence more for people, where there is one.
    pub(crate) fn detail(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => refusal_detail(refusal),
            Self::Unreachable(text) => Some(text.clone()),
            Self::Failed(_) => None,
        }
    }

    /// Prints `PROGRAM: error: DETAIL`, if there is one, and `PROGRAM: error: [WHAT: ]TEXT`.
    pub(crate) fn report(&self, program: &str, what: &str) {
        if let Some(detail) = self.detail() {
            error(program, &detail);
        }
        if what.is_empty() {
            error(program, self.slurm_text());
        } else {
            error(program, &format!("{what}: {}", self.slurm_text()));
        }
    }
}

/// Slurm's text of a refusal; its detail where the daemon is newer and has no text for it.
pub(crate) fn refusal_text(refusal: &v1::Refusal) -> &str {
    [&refusal.slurm_text, &refusal.detail, &refusal.kind]
        .into_iter()
        .find(|text| !text.is_empty())
        .map_or("refused without a reason", String::as_str)
}

/// The detail of a refusal, unless it says no more than Slurm's text and the line it stands in.
pub(crate) fn refusal_detail(refusal: &v1::Refusal) -> Option<String> {
    let told = refusal_text(refusal);
    let same = refusal.detail.is_empty() || refusal.detail.eq_ignore_ascii_case(told);
    // Whoever typed an unknown id reads it in Slurm's line, or knows it.
    let known = refusal.kind == "InvalidJobId";
    (!same && !known).then(|| refusal.detail.clone())
}

/// Prints `PROGRAM: error: TEXT` on standard error, each line of a text so.
pub(crate) fn error(program: &str, text: &str) {
    for (at, line) in text.split('\n').enumerate() {
        // Slurm ends some of its errors with an empty line.
        if at > 0 && line.is_empty() {
            note("");
        } else {
            note(&format!("{program}: error: {line}"));
        }
    }
}

/// An error and what it comes from, joined by colons.
pub(crate) fn chain(failure: &dyn std::error::Error) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: &str, slurm_text: &str, detail: &str) -> v1::Refusal {
        v1::Refusal { kind: kind.into(), slurm_text: slurm_text.into(), detail: detail.into() }
    }

    #[test]
    fn the_detail_is_told_only_where_it_adds_something() {
        let text = "Invalid partition name specified";
        for (detail, expect) in [
            ("", None),
            (text, None),
            ("partition \"x\" is unknown", Some("partition \"x\" is unknown")),
        ] {
            let error = RemoteError::Refused(refusal("InvalidPartition", text, detail));
            assert_eq!(error.slurm_text(), text);
            assert_eq!(error.detail().as_deref(), expect);
        }
    }

    #[test]
    fn an_unknown_job_needs_no_detail() {
        let refusal = refusal("InvalidJobId", "Invalid job id specified", "there is no job 9");
        assert_eq!(refusal_detail(&refusal), None);
    }

    #[test]
    fn a_refusal_of_a_newer_daemon_still_has_a_text() {
        assert_eq!(refusal_text(&refusal("NewKind", "", "too new")), "too new");
        assert_eq!(refusal_text(&refusal("NewKind", "", "")), "NewKind");
        assert_eq!(refusal_text(&refusal("", "", "")), "refused without a reason");
    }

    #[test]
    fn nobody_there_is_told_in_slurms_words() {
        let error = RemoteError::Unreachable("no daemon answers at /x".into());
        assert_eq!(error.slurm_text(), "Unable to contact slurm controller (connect failure)");
        assert_eq!(error.detail().as_deref(), Some("no daemon answers at /x"));
    }
}
