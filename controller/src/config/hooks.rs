//! Which scripts of the site does the file name, and who sends mail?
//!
//! `[hooks]` names what runs before and after jobs, on nodes and beside the controller, and the
//! script that judges submissions; `[mail]` the program that tells users.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::de::DeTable;

use super::file::{YEAR_SECS, table};
use super::problem::Problems;
use super::section::Section;

/// Longest time, in milliseconds, that a submission may be judged.
const JUDGED_MS: RangeInclusive<u32> = 10..=60_000;
/// Memory, in MiB, that the script may use.
const LUA_MIB: RangeInclusive<u32> = 1..=4_096;

/// `[hooks]`. Paths are absolute; `None`: there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HooksSection {
    /// Run by every node of a job before anything of it starts, as the agent's user (`Prolog`). Its
    /// last part may have wildcards.
    pub prolog: Option<PathBuf>,
    /// The same after all of it has ended (`Epilog`).
    pub epilog: Option<PathBuf>,
    /// Time of each of their scripts, seconds; 0: no limit (`PrologEpilogTimeout`). Default: 0.
    pub timeout_secs: u32,
    /// A job whose prolog failed is held once it is requeued. Default: true; false is Slurm's
    /// `nohold_on_prolog_fail`.
    pub hold_on_prolog_fail: bool,
    /// Run beside the controller before a job's nodes hear of it (`PrologSlurmctld`).
    pub controller_prolog: Option<PathBuf>,
    /// Run beside the controller when a job has ended (`EpilogSlurmctld`).
    pub controller_epilog: Option<PathBuf>,
    /// Run before each task as its user (`TaskProlog`).
    pub task_prolog: Option<PathBuf>,
    /// Run after each task as its user (`TaskEpilog`).
    pub task_epilog: Option<PathBuf>,
    /// Judges and changes submissions (`JobSubmitPlugins=lua`).
    pub job_submit: Option<PathBuf>,
    /// How long that may take for one submission, milliseconds. 10..=60,000, default 500.
    pub job_submit_ms: u32,
    /// Memory that it may use, MiB. 1..=4,096, default 64.
    pub job_submit_mib: u32,
}

impl Default for HooksSection {
    fn default() -> Self {
        Self {
            prolog: None,
            epilog: None,
            timeout_secs: 0,
            hold_on_prolog_fail: true,
            controller_prolog: None,
            controller_epilog: None,
            task_prolog: None,
            task_epilog: None,
            job_submit: None,
            job_submit_ms: 500,
            job_submit_mib: 64,
        }
    }
}

/// `[mail]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailSection {
    /// Called as `PROGRAM -s SUBJECT ADDRESS` (`MailProg`). Default: `/bin/mail`.
    pub program: PathBuf,
    /// What is put behind `@` of a user's name; empty: nothing (`MailDomain`). Default: nothing.
    pub domain: String,
}

impl Default for MailSection {
    fn default() -> Self {
        Self { program: PathBuf::from("/bin/mail"), domain: String::new() }
    }
}

/// Reads `[hooks]`.
pub(super) fn read(document: &DeTable<'_>, problems: &mut Problems<'_>) -> HooksSection {
    let mut hooks = HooksSection::default();
    let Some((found, at)) = table(document, "hooks", problems) else { return hooks };
    let mut section = Section::new("[hooks]", found, at, problems);
    let mut path = |key, place: &mut Option<PathBuf>| {
        *place = section.path(key, "\"/etc/penstock/prolog\"").map(|path| path.value);
    };
    path("prolog", &mut hooks.prolog);
    path("epilog", &mut hooks.epilog);
    path("controller_prolog", &mut hooks.controller_prolog);
    path("controller_epilog", &mut hooks.controller_epilog);
    path("task_prolog", &mut hooks.task_prolog);
    path("task_epilog", &mut hooks.task_epilog);
    path("job_submit", &mut hooks.job_submit);
    let mut number = |key, range, place: &mut u32| {
        if let Some(number) = section.number(key, range) {
            *place = number.value;
        }
    };
    number("timeout_secs", 0..=YEAR_SECS, &mut hooks.timeout_secs);
    number("job_submit_ms", JUDGED_MS, &mut hooks.job_submit_ms);
    number("job_submit_mib", LUA_MIB, &mut hooks.job_submit_mib);
    if let Some(hold) = section.boolean("hold_on_prolog_fail") {
        hooks.hold_on_prolog_fail = hold.value;
    }
    section.finish();
    hooks
}

/// Reads `[mail]`.
pub(super) fn read_mail(document: &DeTable<'_>, problems: &mut Problems<'_>) -> MailSection {
    let mut mail = MailSection::default();
    let Some((found, at)) = table(document, "mail", problems) else { return mail };
    let mut section = Section::new("[mail]", found, at, problems);
    if let Some(program) = section.path("program", "\"/usr/bin/mail\"") {
        mail.program = program.value;
    }
    let domain = section.parsed("domain", "\"example.org\"", |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
        if text.chars().all(fits) {
            return Ok(text.to_owned());
        }
        Err(format!("{text:?} is no domain; write what stands behind the @ of an address"))
    });
    if let Some(domain) = domain {
        mail.domain = domain.value;
    }
    section.finish();
    mail
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::ClusterFile;

    fn read(more: &str) -> Result<ClusterFile, String> {
        let text = format!("[[partition]]\nname = \"main\"\n{more}");
        ClusterFile::parse(Path::new("c.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn hooks_and_mail_are_read_and_mistakes_are_named() {
        let file = read(
            "[hooks]\nprolog = \"/etc/p.d/*\"\ntimeout_secs = 60\nhold_on_prolog_fail = false\n\
             [mail]\nprogram = \"/bin/true\"\ndomain = \"example.org\"\n",
        )
        .unwrap();
        assert_eq!(file.hooks.prolog.as_deref(), Some(Path::new("/etc/p.d/*")));
        assert_eq!((file.hooks.timeout_secs, file.hooks.hold_on_prolog_fail), (60, false));
        assert_eq!(file.hooks.epilog, None);
        assert_eq!(file.mail.domain, "example.org");
        for (more, says) in [
            ("[hooks]\nprolog = \"prolog.sh\"\n", "is no absolute path"),
            ("[hooks]\nproolog = \"/p\"\n", "did you mean \"prolog\"?"),
            ("[hooks]\njob_submit_ms = 5\n", "from 10 to 60000"),
            ("[mail]\ndomain = \"a b\"\n", "is no domain"),
        ] {
            let said = read(more).unwrap_err();
            assert!(said.contains(says), "{more}: {said}");
        }
    }
}
