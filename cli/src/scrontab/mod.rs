//! `scrontab`: how does a user say which jobs come again and again?
//!
//! The text is kept by the controller, and read here: each line with a command becomes a batch job. A file
//! or standard input replaces the crontab as a whole, or not at all.

mod edit;
mod read;

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Read as _};

use nix::unistd::{Uid, User, getuid};
use penstock_proto::v1;

use crate::connect::{Client, Patience, request_id};
use crate::errors::{RemoteError, error, refusal_detail, refusal_text};
use crate::options::{Operands, Opt, Takes, parse};
use crate::output::{note, print_line, write_bytes};
use crate::sbatch::environment::{Export, block};
use crate::sbatch::script::Script;
use crate::sbatch::spec::{Submitter, job_spec};

use self::read::{BadLine, Entry, mark_lines, read};

const PROGRAM: &str = "scrontab";
const FAILED: i32 = 1;
/// Longest text that is read; the controller takes less.
const MOST_BYTES: u64 = 1 << 20;

/// Variables of this process that jobs get, where they are its user's.
const KEPT: &[&str] = &["PATH", "LANG", "PENSTOCK_CONFIG"];
/// The path of jobs of another user.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Edit,
    List,
    Remove,
    User,
    Verbose,
    Help,
    Version,
}

const TABLE: &[Opt<Key>] = &[
    Opt::both('e', "edit", Takes::Nothing, Key::Edit),
    Opt::both('l', "list", Takes::Nothing, Key::List),
    Opt::both('r', "remove", Takes::Nothing, Key::Remove),
    Opt::both('u', "user", Takes::Value, Key::User),
    Opt::both('v', "verbose", Takes::Nothing, Key::Verbose),
    Opt::both('h', "help", Takes::Nothing, Key::Help),
    Opt::both('V', "version", Takes::Nothing, Key::Version),
];

const USAGE: &str = "\
Usage: scrontab [-u user] [file | -]
       scrontab [-u user] [-e | -l | -r]
  -e        edit the crontab
  -l        print it
  -r        remove it, and end its jobs
  -u user   that of this user
  -v        tell the numbers of its jobs
  file      takes the place of the crontab; - is standard input
";

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(TABLE)
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ask {
    Edit,
    List,
    Remove,
    /// A file; `-`: standard input.
    File(String),
    Help,
    Version,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Orders {
    ask: Ask,
    user: Option<String>,
    verbose: bool,
}

/// Runs scrontab; returns its exit status.
pub(crate) fn run(_program: &str, args: Vec<String>) -> i32 {
    let Some(orders) = orders(&args, std::io::stdin().is_terminal()) else {
        note(USAGE.trim_end());
        return FAILED;
    };
    let done = match &orders.ask {
        Ask::Help => {
            write_bytes(USAGE.as_bytes());
            return 0;
        }
        Ask::Version => {
            print_line(crate::dispatch::SLURM_VERSION);
            return 0;
        }
        Ask::Edit | Ask::List | Ask::Remove | Ask::File(_) => carry_out(&orders),
    };
    done.unwrap_or_else(|stop| {
        match stop {
            Stop::Fatal(text) => note(&format!("{PROGRAM}: fatal: {text}")),
            Stop::Told => {}
        }
        FAILED
    })
}

/// Why nothing was done.
enum Stop {
    Fatal(String),
    /// It is printed already.
    Told,
}

/// `None`: the command line makes no sense.
fn orders(args: &[String], terminal: bool) -> Option<Orders> {
    let parsed =
        parse(TABLE, Operands::Anywhere, args).map_err(|usage| usage.report(PROGRAM)).ok()?;
    let value = |key| parsed.given.iter().rev().find(|given| given.key == key);
    let given = |key| value(key).is_some();
    let asks: Vec<Ask> = [
        (Key::Help, Ask::Help),
        (Key::Version, Ask::Version),
        (Key::List, Ask::List),
        (Key::Remove, Ask::Remove),
        (Key::Edit, Ask::Edit),
    ]
    .into_iter()
    .filter(|(key, _)| given(*key))
    .map(|(_, ask)| ask)
    .collect();
    let ask = match (asks.into_iter().next(), parsed.operands.as_slice()) {
        (Some(ask), []) => ask,
        (None, [file]) => Ask::File(file.clone()),
        (None, []) if terminal => Ask::Edit,
        (None, []) => Ask::File("-".to_owned()),
        (Some(_), [_, ..]) | (None, [_, _, ..]) => return None,
    };
    let user = value(Key::User).and_then(|given| given.value.clone());
    Some(Orders { ask, user, verbose: given(Key::Verbose) })
}

fn carry_out(orders: &Orders) -> Result<i32, Stop> {
    let owner = owner(orders.user.as_deref())?;
    if orders.ask == Ask::Edit && !std::io::stdin().is_terminal() {
        return Err(Stop::Fatal("Standard input is not a TTY".to_owned()));
    }
    let new = match &orders.ask {
        Ask::File(file) => Some(text_of(file)?),
        _ => None,
    };
    let client = Client::open().map_err(|failure| told(&failure, "cannot reach the controller"))?;
    if orders.ask == Ask::Remove {
        set(&client, &owner, "", Vec::new())?;
        return Ok(0);
    }
    if let Some(text) = new {
        return install(&client, &owner, &text, orders.verbose);
    }
    let kept = get(&client, &owner)?;
    if orders.ask == Ask::List {
        return Ok(match kept {
            Some(text) => {
                write_bytes(text.as_bytes());
                0
            }
            None => {
                print_line(&format!("no crontab for {}", owner.name));
                FAILED
            }
        });
    }
    edit_and_install(&client, &owner, kept, orders.verbose)
}

/// The user whose crontab is meant.
fn owner(name: Option<&str>) -> Result<User, Stop> {
    let found = match name {
        None => User::from_uid(getuid()),
        Some(text) => match text.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(text),
        },
    };
    let shown = name.map_or_else(|| getuid().to_string(), str::to_owned);
    found.ok().flatten().ok_or_else(|| Stop::Fatal(format!("Could not find user {shown}")))
}

fn text_of(file: &str) -> Result<String, Stop> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().lock().take(MOST_BYTES).read_to_end(&mut bytes),
        path => {
            std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes))
        }
    };
    read.map_err(|error| Stop::Fatal(format!("failed to open {file}: {error}")))?;
    String::from_utf8(bytes).map_err(|_| Stop::Fatal(format!("{file} is not valid UTF-8")))
}

/// The crontab as it stands, lines of cancelled jobs marked.
fn get(client: &Client, owner: &User) -> Result<Option<String>, Stop> {
    let uid = Some(owner.uid.as_raw());
    let reply = client
        .cron(Patience::READ, |mut rpc| async move {
            rpc.get_crontab(v1::GetCrontabRequest { uid }).await
        })
        .map_err(|failure| told(&failure, "slurm_request_crontab failed"))?;
    Ok(reply.crontab.map(|crontab| {
        let disabled: Vec<_> =
            crontab.disabled.iter().map(|range| (range.first, range.last)).collect();
        match disabled[..] {
            [] => crontab.text,
            _ => mark_lines(&crontab.text, &disabled, "#DISABLED: "),
        }
    }))
}

/// Puts a text in the place of the crontab; what is wrong with it is printed.
fn install(client: &Client, owner: &User, text: &str, verbose: bool) -> Result<i32, Stop> {
    let entries = match read(text) {
        Ok(entries) => entries,
        Err(bad) => {
            tell(&bad);
            print_line("There are errors in your crontab.");
            return Ok(FAILED);
        }
    };
    let reply = set(client, owner, text, entries)?;
    match reply.refusal {
        None => {
            tell_ids(&reply, verbose);
            Ok(0)
        }
        Some(refusal) => {
            write_bytes(refused(&reply.failed_lines.unwrap_or_default(), &refusal).as_bytes());
            Ok(FAILED)
        }
    }
}

fn edit_and_install(
    client: &Client,
    owner: &User,
    kept: Option<String>,
    verbose: bool,
) -> Result<i32, Stop> {
    let mut text = kept;
    loop {
        let new = edit::edit(text.as_deref()).map_err(Stop::Fatal)?;
        let (bad, question) = match read(&new) {
            Err(bad) => {
                tell(&bad);
                let question = "There are errors in your crontab.\n\
                                The failed line(s) is commented out with #BAD:\n";
                ((bad.line, bad.line), question.to_owned())
            }
            Ok(entries) => {
                let reply = set(client, owner, &new, entries)?;
                let Some(refusal) = &reply.refusal else {
                    tell_ids(&reply, verbose);
                    return Ok(0);
                };
                let lines = reply.failed_lines.unwrap_or_default();
                let question =
                    refused(&lines, refusal) + "The failed lines are commented out with #BAD:\n";
                ((lines.first, lines.last), question)
            }
        };
        if !edit::wants_retry(&format!("{question}Do you want to retry the edit? (y/n) ")) {
            return Ok(0);
        }
        text = Some(mark_lines(&new, &[bad], "#BAD: "));
    }
}

fn tell(bad: &BadLine) {
    for text in &bad.texts {
        error(PROGRAM, &format!("line {}: {text}", bad.line));
    }
}

fn tell_ids(reply: &v1::SetCrontabReply, verbose: bool) {
    for id in reply.job_ids.iter().filter(|_| verbose) {
        note(&format!("{PROGRAM}: job {id}"));
    }
}

fn refused(lines: &v1::LineRange, refusal: &v1::Refusal) -> String {
    let text = refusal_text(refusal);
    let detail = refusal_detail(refusal).unwrap_or_else(|| text.to_owned());
    format!(
        "There was an issue with the job submission on lines {}-{}\n\
         The error code return was: {text}\nThe error message was: {detail}\n",
        lines.first, lines.last
    )
}

fn set(
    client: &Client,
    owner: &User,
    text: &str,
    entries: Vec<Entry>,
) -> Result<v1::SetCrontabReply, Stop> {
    let mut submitter = Submitter::of_this_process(PROGRAM.to_owned()).map_err(Stop::Fatal)?;
    submitter.cwd.clone_from(&owner.dir);
    let request = v1::SetCrontabRequest {
        request_id: request_id(),
        uid: Some(owner.uid.as_raw()),
        gid: owner.gid.as_raw(),
        text: text.to_owned(),
        entries: entries.into_iter().map(|entry| to_wire(entry, &submitter)).collect(),
        zone: zone(),
        environment: environment(owner).into(),
    };
    let what =
        if text.is_empty() { "slurm_remove_crontab failed" } else { "slurm_update_crontab failed" };
    client
        .cron(Patience::CHANGE, |mut rpc| {
            let request = request.clone();
            async move { rpc.set_crontab(request).await }
        })
        .map_err(|failure| told(&failure, what))
}

fn to_wire(entry: Entry, submitter: &Submitter) -> v1::CronEntry {
    let script = Script {
        text: entry.script.into_bytes(),
        path: entry.command.clone(),
        default_name: entry.command.split(' ').next().unwrap_or_default().to_owned(),
    };
    v1::CronEntry {
        spec: Some(job_spec(&entry.request, &script, &[], submitter)),
        script: script.text.into(),
        time: entry.time,
        lines: Some(v1::LineRange { first: entry.lines.0, last: entry.lines.1 }),
    }
}

/// Name of the user's time zone, as far as it has one.
fn zone() -> String {
    jiff::tz::TimeZone::system().iana_name().unwrap_or_default().to_owned()
}

/// What jobs find: who their user is, and from this process where it looks for programs.
fn environment(owner: &User) -> Vec<u8> {
    let own = owner.uid == getuid();
    let kept = KEPT.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
    let mut here: Vec<_> = kept.filter(|_| own).collect();
    if !own {
        here.push(("PATH".into(), PATH.into()));
    }
    let added: [(&str, &OsStr); 4] = [
        ("HOME", owner.dir.as_os_str()),
        ("USER", OsStr::new(&owner.name)),
        ("LOGNAME", OsStr::new(&owner.name)),
        ("SHELL", owner.shell.as_os_str()),
    ];
    block(&Export::All, &here, &added)
}

fn told(failure: &RemoteError, what: &str) -> Stop {
    if let Some(detail) = failure.detail() {
        error(PROGRAM, &detail);
    }
    note(&format!("{PROGRAM}: fatal: {what}: {}", failure.slurm_text()));
    Stop::Told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(args: &[&str], terminal: bool) -> Option<Orders> {
        let words: Vec<String> = args.iter().map(|&word| word.to_owned()).collect();
        orders(&words, terminal)
    }

    #[test]
    fn the_command_line_is_slurms() {
        let plain = |ask| Some(Orders { ask, user: None, verbose: false });
        assert_eq!(asked(&[], true), plain(Ask::Edit));
        assert_eq!(asked(&[], false), plain(Ask::File("-".into())));
        assert_eq!(asked(&["-"], true), plain(Ask::File("-".into())));
        assert_eq!(asked(&["f"], true), plain(Ask::File("f".into())));
        assert_eq!(asked(&["-l"], true), plain(Ask::List));
        assert_eq!(asked(&["-r"], false), plain(Ask::Remove));
        let of_bob = Orders { ask: Ask::List, user: Some("bob".into()), verbose: true };
        assert_eq!(asked(&["-v", "-u", "bob", "-l"], true), Some(of_bob));
        for wrong in [&["-l", "f"][..], &["a", "b"], &["-x"]] {
            assert_eq!(asked(wrong, true), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_lines() {
        let refusal = v1::Refusal {
            kind: "InvalidPartition".into(),
            slurm_text: "Invalid partition name specified".into(),
            detail: "invalid partition specified: nope".into(),
        };
        assert_eq!(
            refused(&v1::LineRange { first: 3, last: 4 }, &refusal),
            "There was an issue with the job submission on lines 3-4\n\
             The error code return was: Invalid partition name specified\n\
             The error message was: invalid partition specified: nope\n"
        );
    }
}
