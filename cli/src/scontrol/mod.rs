//! `scontrol`: which verb is meant, and who carries it out?
//!
//! Verbs may be cut short as in Slurm, where each has a least length; the first that fits counts.

mod control;
mod daemons;
mod drain;
mod interactive;
mod jobs;
mod node;
mod pids;
mod reservation;
mod show;
mod token;
mod update;

use std::path::Path;

use penstock_proto::v1;

use crate::connect::{Client, Patience};
use crate::errors::RemoteError;
use crate::options::{Operands, Opt, Takes, parse};
use crate::output::{note, print_line, write_bytes};

use self::Takes::{Nothing, Value};

const PROGRAM: &str = "scontrol";

/// Exit status of everything that fails.
const FAILED: i32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    All,
    Details,
    Help,
    Hide,
    Oneliner,
    Quiet,
    Usage,
    Verbose,
    Version,
    Unbuilt(&'static str),
    /// Of drain alone.
    Plan,
    Gpu,
    Deadline,
    Json,
}

const TABLE: &[Opt<Key>] = &[
    Opt::both('a', "all", Nothing, Key::All),
    Opt::both('d', "details", Nothing, Key::Details),
    Opt::both('h', "help", Nothing, Key::Help),
    Opt::long("hide", Nothing, Key::Hide),
    Opt::both('o', "oneliner", Nothing, Key::Oneliner),
    Opt::both('Q', "quiet", Nothing, Key::Quiet),
    Opt::long("usage", Nothing, Key::Usage),
    Opt::both('v', "verbose", Nothing, Key::Verbose),
    Opt::both('V', "version", Nothing, Key::Version),
    Opt::both('M', "clusters", Value, Key::Unbuilt("clusters")),
    Opt::long("cluster", Value, Key::Unbuilt("clusters")),
    Opt::long("federation", Nothing, Key::Unbuilt("federation")),
    Opt::both('F', "future", Nothing, Key::Unbuilt("future")),
    Opt::long("json", Nothing, Key::Json),
    // Ours.
    Opt::long("plan", Nothing, Key::Plan),
    Opt::long("gpu", Value, Key::Gpu),
    Opt::long("deadline", Value, Key::Deadline),
    Opt::both('l', "local", Nothing, Key::Unbuilt("local")),
    Opt::long("sibling", Nothing, Key::Unbuilt("sibling")),
    Opt::both('u', "uid", Value, Key::Unbuilt("uid")),
    Opt::long("yaml", Nothing, Key::Unbuilt("yaml")),
];

/// What a verb does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Job(v1::JobVerb),
    Create,
    Delete,
    Drain,
    Undrain,
    Update,
    Show,
    Ping,
    Reconfigure,
    Version,
    Write,
    Help,
    Top,
    Wait,
    Notify,
    Completing,
    ListPids,
    PidInfo,
    SetDebug,
    SetDebugFlags,
    SchedLogLevel,
    Dampening,
    Takeover,
    Shutdown,
    Reboot,
    CancelReboot,
    Token,
    ErrorText,
    /// Changes how an interactive session prints; alone it does nothing.
    Nothing,
    Unbuilt,
}

/// Verbs with the least number of letters that mean them, in Slurm's order of precedence.
const VERBS: &[(&str, usize, Verb)] = &[
    ("abort", 5, Verb::Shutdown),
    ("all", 3, Verb::Nothing),
    ("cancel_reboot", 3, Verb::CancelReboot),
    ("cluster", 2, Verb::Nothing),
    ("completing", 2, Verb::Completing),
    ("create", 2, Verb::Create),
    ("delete", 3, Verb::Delete),
    ("details", 3, Verb::Nothing),
    ("drain", 3, Verb::Drain),
    ("errnumstr", 2, Verb::ErrorText),
    ("exit", 2, Verb::Nothing),
    ("fsdampeningfactor", 3, Verb::Dampening),
    ("getent", 4, Verb::Unbuilt),
    ("gethost", 4, Verb::Unbuilt),
    ("help", 2, Verb::Help),
    ("hide", 2, Verb::Nothing),
    ("hold", 3, Verb::Job(v1::JobVerb::Hold)),
    ("listpids", 1, Verb::ListPids),
    ("notify", 1, Verb::Notify),
    ("oneliner", 1, Verb::Nothing),
    ("pidinfo", 3, Verb::PidInfo),
    ("ping", 3, Verb::Ping),
    ("power", 3, Verb::Unbuilt),
    ("quiet", 4, Verb::Nothing),
    ("quit", 4, Verb::Nothing),
    ("reboot", 3, Verb::Reboot),
    ("reconfigure", 3, Verb::Reconfigure),
    ("release", 3, Verb::Job(v1::JobVerb::Release)),
    ("requeue", 3, Verb::Job(v1::JobVerb::Requeue)),
    ("requeuehold", 8, Verb::Job(v1::JobVerb::RequeueHold)),
    ("resume", 3, Verb::Job(v1::JobVerb::Resume)),
    ("schedloglevel", 3, Verb::SchedLogLevel),
    ("setdebug", 2, Verb::SetDebug),
    ("setdebugflags", 9, Verb::SetDebugFlags),
    ("show", 2, Verb::Show),
    ("shutdown", 8, Verb::Shutdown),
    ("suspend", 2, Verb::Job(v1::JobVerb::Suspend)),
    ("takeover", 8, Verb::Takeover),
    ("token", 5, Verb::Token),
    ("top", 3, Verb::Top),
    ("uhold", 2, Verb::Job(v1::JobVerb::UserHold)),
    ("undrain", 3, Verb::Undrain),
    ("update", 1, Verb::Update),
    ("verbose", 4, Verb::Nothing),
    ("version", 4, Verb::Version),
    ("wait_job", 2, Verb::Wait),
    ("write", 2, Verb::Write),
];

const HELP: &str = "\
Usage: scontrol [OPTIONS] VERB ...
  -a, --all        also hidden partitions
  -d, --details    more of each record
  -o, --oneliner   one line a record
  -Q, --quiet      no words about what went wrong
  -v, --verbose    more words
  -h, --help       this text
  -V, --version    version of Slurm whose commands these are

Verbs:
  show ENTITY [ID]                 job, step, node, partition, reservation, licenses, config,
                                   hostnames, hostlist, hostlistsorted, aliases, daemons
  hold | uhold | release JOBS      JOBS: 12,13_4 ... or Name=NAME
  requeue | requeuehold JOBS       start again, or start again held
  suspend | resume JOBS            stop and go on
  update JobId=JOBS KEY=VALUE ...  TimeLimit ([+-]time), Partition, QOS, Account, Priority, Nice,
                                   Dependency, StartTime, NumNodes, NumTasks, CpusPerTask,
                                   MinMemoryNode, MinMemoryCPU, Features, Gres, ReqNodeList,
                                   ExcNodeList, Name, Comment, Requeue, ArrayTaskThrottle,
                                   WorkDir, StdOut, StdErr, StdIn, ReservationName, Licenses,
                                   Deadline, TimeMin
  update NodeName=HOSTS KEY=VALUE ...
                                   State (DRAIN, DOWN, FAIL, RESUME, UNDRAIN, POWER_DOWN,
                                   POWER_UP), Reason, Weight, Features, Comment
  drain HOSTS [--gpu=N,...] [--deadline=TIME] Reason=TEXT
                                   no new jobs there; what still runs at the deadline is
                                   requeued or cancelled
  drain HOSTS [--gpu=N,...] [--deadline=TIME] --plan [--json]
                                   when it would be empty, and what is in the way
  undrain HOSTS [--gpu=N,...]      jobs again
  create reservation KEY=VALUE ...
  update ReservationName=NAME KEY=VALUE ...
                                   StartTime, EndTime, Duration, Nodes, NodeCnt, CoreCnt,
                                   PartitionName, Features, Users and Accounts (= += -=), Licenses,
                                   Flags (= += -=: MAINT, IGNORE_JOBS, OVERLAP, FLEX, DAILY, WEEKLY,
                                   WEEKDAY, WEEKEND, PART_NODES, STATIC_ALLOC,
                                   PURGE_COMP[=time], NO_HOLD_JOBS_AFTER_END), Comment
  delete ReservationName=NAME      an unused reservation goes
  write batch_script JOB [FILE|-]  the script as it was submitted
  top JOBS                         ahead of the user's other waiting jobs
  wait_job JOB                     until its nodes are ready
  listpids [JOB[.STEP]] [NODE]     processes of jobs on this node
  pidinfo PID                      the job of a process, and when it ends
  completing                       jobs that end
  reconfigure                      read the cluster file again
  ping                             is the controller there?
  token [lifespan=SECONDS] [username=NAME] [readonly]
                                   a token for the controller's REST; revoke=ID or revoke=all ends
                                   one, or all and every browser's session
  version                          version of Slurm whose commands these are
";

const USAGE: &str = "Usage: scontrol [-adhoQvV] VERB ... (scontrol --help lists the verbs)\n";

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(TABLE)
}

/// Its verbs, for completion.
pub(crate) fn verbs() -> impl Iterator<Item = &'static str> {
    VERBS.iter().map(|(name, _, _)| *name)
}

/// Runs scontrol; returns its exit status.
pub(crate) fn run(_program: &str, args: Vec<String>) -> i32 {
    let parsed = match parse(TABLE, Operands::Anywhere, &args) {
        Ok(parsed) => parsed,
        Err(usage) => {
            usage.report(PROGRAM);
            return FAILED;
        }
    };
    let mut flags = Vec::new();
    let mut voice = Voice { quiet: false };
    let mut drain = drain::Options::default();
    let mut json = false;
    for given in &parsed.given {
        match given.key {
            Key::All => flags.push("-a".to_owned()),
            Key::Details => flags.push("-d".to_owned()),
            Key::Oneliner => flags.push("-o".to_owned()),
            Key::Verbose => flags.push("-v".to_owned()),
            Key::Hide => flags.retain(|flag| flag != "-a"),
            Key::Quiet => voice.quiet = true,
            Key::Plan => drain.plan = true,
            Key::Gpu => drain.gpus.clone_from(&given.value),
            Key::Deadline => drain.deadline.clone_from(&given.value),
            Key::Json => json = true,
            Key::Help => return print(HELP),
            Key::Usage => return print(USAGE),
            Key::Version => return print_version(),
            Key::Unbuilt(name) => {
                voice.say(&format!("{PROGRAM}: error: --{name} is not built yet"));
                return FAILED;
            }
        }
    }
    let verb = parsed.operands.first().and_then(|word| find_verb(word));
    match (verb, parsed.operands.split_first()) {
        (Some((_, Verb::Drain)), Some((_, words))) => {
            return drain::drain(words, &drain::Options { json, ..drain }, voice);
        }
        (Some((_, Verb::Undrain)), Some((_, words))) if !drain.plan && drain.deadline.is_none() => {
            return drain::undrain(words, &drain, voice);
        }
        _ if drain != drain::Options::default() => {
            voice.say(&format!("{PROGRAM}: error: --plan, --gpu and --deadline go with drain"));
            return FAILED;
        }
        _ if json => {
            voice.say(&format!("{PROGRAM}: error: --json is not built yet"));
            return FAILED;
        }
        _ => {}
    }
    match parsed.operands.split_first() {
        Some((word, words)) => dispatch(word, words, flags, voice),
        None => interactive::run(&flags, voice),
    }
}

/// Carries out one verb with its words.
fn dispatch(word: &str, words: &[String], flags: Vec<String>, voice: Voice) -> i32 {
    match find_verb(word) {
        Some((name, Verb::Unbuilt)) => {
            voice.say(&format!("{PROGRAM}: error: {name} is not built yet"));
            FAILED
        }
        Some((name, verb)) => carry_out(verb, name, word, words, flags, voice),
        None => {
            voice.say(&format!("invalid keyword: {word}"));
            FAILED
        }
    }
}

/// Where words for people go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Voice {
    quiet: bool,
}

impl Voice {
    /// Prints a line on standard error unless `-Q` was given.
    fn say(self, line: &str) {
        if !self.quiet {
            note(line);
        }
    }

    /// Prints a failed call, Slurm's text behind `what`.
    fn report(self, what: &str, failure: &RemoteError) {
        if let Some(detail) = failure.detail() {
            self.say(&format!("{PROGRAM}: error: {detail}"));
        }
        self.say(&format!("{what}: {}", failure.slurm_text()));
    }
}

fn find_verb(word: &str) -> Option<(&'static str, Verb)> {
    let exact = VERBS.iter().find(|(name, _, _)| name.eq_ignore_ascii_case(word));
    let short = || {
        VERBS.iter().find(|(name, least, _)| {
            let head = name.get(..word.len());
            word.len() >= *least && head.is_some_and(|head| head.eq_ignore_ascii_case(word))
        })
    };
    exact.or_else(short).map(|(name, _, verb)| (*name, *verb))
}

fn carry_out(
    verb: Verb,
    name: &str,
    word: &str,
    words: &[String],
    flags: Vec<String>,
    voice: Voice,
) -> i32 {
    match verb {
        Verb::Job(verb) => control::run(verb, word, words, voice),
        Verb::Create => reservation::create(words, voice),
        Verb::Delete => reservation::delete(words, voice),
        Verb::Drain => drain::drain(words, &drain::Options::default(), voice),
        Verb::Undrain => drain::undrain(words, &drain::Options::default(), voice),
        Verb::Update => update::run(words, voice),
        Verb::Show => show(flags, words),
        Verb::Ping => daemons::ping(voice),
        Verb::Reconfigure => daemons::reconfigure(voice),
        Verb::Top => jobs::top(words, voice),
        Verb::Wait => jobs::wait(words, voice),
        Verb::Notify => jobs::notify(words, voice),
        Verb::Completing => jobs::completing(voice),
        Verb::ListPids => pids::list(words, voice),
        Verb::PidInfo => pids::info(words, voice),
        Verb::SetDebug => daemons::set_debug(words, voice),
        Verb::SetDebugFlags => daemons::set_debug_flags(words, voice),
        Verb::SchedLogLevel => daemons::sched_log_level(words, voice),
        Verb::Dampening => daemons::dampening(words, voice),
        Verb::Takeover => daemons::takeover(words, voice),
        Verb::Shutdown => daemons::shutdown(name, words, voice),
        Verb::Reboot => daemons::reboot(words, voice),
        Verb::CancelReboot => daemons::cancel_reboot(words, voice),
        Verb::Token => token::run(words, voice),
        Verb::ErrorText => daemons::error_text(words, voice),
        Verb::Nothing => 0,
        Verb::Write => write_out(words, voice),
        Verb::Version => print_version(),
        Verb::Help | Verb::Unbuilt => print(HELP),
    }
}

/// Passes on to the listing: flags first, then what was to be shown.
fn show(mut flags: Vec<String>, words: &[String]) -> i32 {
    flags.extend(words.iter().cloned());
    show::run(PROGRAM, flags)
}

fn print(text: &str) -> i32 {
    write_bytes(text.as_bytes());
    0
}

fn print_version() -> i32 {
    print_line(crate::dispatch::SLURM_VERSION);
    0
}

/// `write batch_script JOB [FILE|-]`.
fn write_out(words: &[String], voice: Voice) -> i32 {
    let Some((what, words)) = words.split_first() else {
        voice.say("too few arguments for keyword:write");
        return FAILED;
    };
    if is_prefix("config", what, 1) {
        voice.say(&format!(
            "{PROGRAM}: error: the configuration is the cluster file, which no command writes"
        ));
        return FAILED;
    }
    if !is_prefix("batch_script", what, 1) {
        voice.say(&format!("invalid write argument:{what}"));
        return FAILED;
    }
    let Some((job, words)) = words.split_first() else {
        voice.say("too few arguments for keyword:write batch_script");
        return FAILED;
    };
    let request = v1::GetBatchScriptRequest { selector: job.clone() };
    let reply = Client::open().and_then(|client| {
        client.call(Patience::READ, |mut rpc| {
            let request = request.clone();
            async move { rpc.get_batch_script(request).await }
        })
    });
    match reply {
        Ok(reply) => store_script(&reply.script, job, words.first(), voice),
        Err(failure) => {
            voice.report("job script retrieval failed", &failure);
            FAILED
        }
    }
}

fn store_script(script: &[u8], job: &str, file: Option<&String>, voice: Voice) -> i32 {
    if file.is_some_and(|file| file == "-") {
        write_bytes(script);
        return 0;
    }
    let file = file.cloned().unwrap_or_else(|| format!("slurm-{job}.sh"));
    match std::fs::write(Path::new(&file), script) {
        Ok(()) => {
            if !voice.quiet {
                print_line(&format!("batch script for job {job} written to {file}"));
            }
            0
        }
        Err(error) => {
            voice.say(&format!("{PROGRAM}: error: failed to open file `{file}`: {error}"));
            FAILED
        }
    }
}

/// Whether `word` has at least `least` letters of the head of `name`, in any case.
fn is_prefix(name: &str, word: &str, least: usize) -> bool {
    let head = name.get(..word.len());
    word.len() >= least && head.is_some_and(|head| head.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_may_be_cut_short() {
        let table = [
            ("hold", Some("hold")),
            ("HOL", Some("hold")),
            ("ho", None),
            ("req", Some("requeue")),
            ("requeue", Some("requeue")),
            ("requeueh", Some("requeuehold")),
            ("requeuehold", Some("requeuehold")),
            ("rel", Some("release")),
            ("rec", Some("reconfigure")),
            ("res", Some("resume")),
            ("sh", Some("show")),
            ("su", Some("suspend")),
            ("u", Some("update")),
            ("uh", Some("uhold")),
            ("upd", Some("update")),
            ("vers", Some("version")),
            ("foo", None),
            ("", None),
            ("holds", None),
        ];
        for (word, expect) in table {
            assert_eq!(find_verb(word).map(|(name, _)| name), expect, "{word}");
        }
    }

    #[test]
    fn every_verb_is_found_by_its_name_and_by_its_least_letters() {
        for (name, least, _) in VERBS {
            assert_eq!(find_verb(name).map(|(found, _)| found), Some(*name));
            assert!(find_verb(&name[..*least]).is_some(), "{name}");
        }
    }

    #[test]
    fn a_script_goes_to_its_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("out.sh").to_string_lossy().into_owned();
        let voice = Voice { quiet: true };
        assert_eq!(store_script(b"#!/bin/sh\n", "7", Some(&file), voice), 0);
        assert_eq!(std::fs::read(&file).expect("written"), b"#!/bin/sh\n");
        assert_eq!(store_script(b"", "7", Some(&"/no/such/dir/x".to_owned()), voice), 1);
    }
}
