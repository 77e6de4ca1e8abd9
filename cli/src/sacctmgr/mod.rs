//! `sacctmgr`: who may use the cluster, with which shares and within which limits?
//!
//! A command is read against the tree as the controller has it, becomes a list of changes, and is
//! told and asked about before it is sent. The controller carries out all of a request or nothing;
//! only a file with more changes than fit into one takes several.

mod add;
mod conditions;
mod delete;
mod dump;
mod edits;
mod fields;
mod limits;
mod load;
mod modify;
mod proposal;
mod qos_edits;
mod qos_fields;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod words;
mod world;

use std::io::Read as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use penstock_proto::v1;

use crate::connect::{Client, Patience, request_id};
use crate::errors::{RemoteError, error};
use crate::listing::TableStyle;
use crate::options::{Operands, parse};
use crate::output::{note, print_line, write_bytes};
use crate::text_file::read_text;

use self::conditions::Entity;
use self::proposal::Proposal;
use self::show::Look;
use self::table::{ENTITIES, Key, VERBS, Verb};
use self::words::{Stop, Word};
use self::world::World;

const PROGRAM: &str = "sacctmgr";

const FAILED: i32 = 1;

/// How long sacctmgr waits for an answer before it discards the change, as Slurm's does.
const DECIDE: Duration = Duration::from_secs(30);

/// Longest file of accounts that is read: a million lines.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Most changes in one request; a message has a largest size.
const MAX_CHANGES: usize = 20_000;

/// How commands are carried out.
#[derive(Debug, Clone)]
struct Manner {
    immediate: bool,
    quiet: bool,
    read_only: bool,
    look: Look,
}

/// Its options, for completion.
pub(crate) fn options() -> Vec<crate::options::Name> {
    crate::options::names(table::TABLE)
}

/// Runs sacctmgr; returns its exit status.
pub(crate) fn run(program: &str, args: Vec<String>) -> i32 {
    let parsed = match parse(table::TABLE, Operands::Anywhere, &args) {
        Ok(parsed) => parsed,
        Err(problem) => {
            problem.report(program);
            return FAILED;
        }
    };
    let look = Look { style: TableStyle::Columns, header: true, associations: false };
    let mut manner = Manner { immediate: false, quiet: false, read_only: false, look };
    for given in &parsed.given {
        match given.key {
            Key::Associations => manner.look.associations = true,
            Key::Help => return say(table::HELP),
            Key::Immediate => manner.immediate = true,
            Key::NoHeader => manner.look.header = false,
            Key::Parsable => manner.look.style = TableStyle::Ended("|".to_owned()),
            Key::Parsable2 => manner.look.style = TableStyle::Between("|".to_owned()),
            Key::Quiet => manner.quiet = true,
            Key::ReadOnly => manner.read_only = true,
            Key::Usage => return say(table::USAGE),
            Key::Version => return say_version(),
            Key::Ignored => {}
            Key::Unbuilt(name) => {
                error(program, &format!("--{name} is not built in Penstock"));
                return FAILED;
            }
        }
    }
    match parsed.operands.split_first() {
        Some((verb, words)) => carry_out(verb, words, &manner),
        None => {
            error(PROGRAM, "interactive mode is not built; give a command (sacctmgr --help)");
            FAILED
        }
    }
}

/// The changes that `sacctmgr ARGS` would make; nothing is changed.
///
/// # Errors
/// With the exit status, once the reason is printed.
pub(crate) fn changes_of(args: &[String]) -> Result<Vec<v1::AccountChange>, i32> {
    let words: Vec<&String> = args.iter().filter(|word| *word != "-i").collect();
    let found = words.first().and_then(|word| find(VERBS, word));
    let entity = words.get(1).and_then(|word| find(ENTITIES, word));
    let (Some((_, verb)), Some((_, entity))) = (found, entity) else {
        error(
            PROGRAM,
            "give add, modify or delete and what of, as in: modify account physics set fairshare=10",
        );
        return Err(FAILED);
    };
    let words: Vec<String> = words.into_iter().skip(2).cloned().collect();
    let mut changes = Vec::new();
    let status = with_world(|_, world| {
        let proposal = match verb {
            Verb::Add => add::propose(entity, &words, world)?,
            Verb::Modify => modify::propose(entity, &words, world)?,
            Verb::Delete => delete::propose(entity, &words, world)?,
            _ => {
                return Err(Stop::one(
                    "sacctmgr: error: only add, modify and delete change anything",
                ));
            }
        };
        changes = proposal.changes;
        Ok(0)
    });
    if status == 0 { Ok(changes) } else { Err(status) }
}

fn say(text: &str) -> i32 {
    write_bytes(text.as_bytes());
    0
}

fn say_version() -> i32 {
    print_line(crate::dispatch::SLURM_VERSION);
    0
}

/// The first entry of `table` that `word` means.
fn find<T: Copy>(table: &[(&'static str, usize, T)], word: &str) -> Option<(&'static str, T)> {
    let exact = table.iter().find(|(name, _, _)| name.eq_ignore_ascii_case(word));
    let short = || {
        table.iter().find(|(name, least, _)| {
            let head = name.get(..word.len());
            word.len() >= *least && head.is_some_and(|head| head.eq_ignore_ascii_case(word))
        })
    };
    exact.or_else(short).map(|(name, _, meaning)| (*name, *meaning))
}

fn carry_out(word: &str, words: &[String], manner: &Manner) -> i32 {
    let Some((name, verb)) = find(VERBS, word) else {
        note(&format!("invalid keyword: {word}"));
        return FAILED;
    };
    let changes = matches!(verb, Verb::Add | Verb::Modify | Verb::Delete | Verb::Load);
    if changes && manner.read_only {
        note(&format!("Can't run this command in readonly mode: {name}"));
        return FAILED;
    }
    match verb {
        Verb::Help => say(table::HELP),
        Verb::Version => say_version(),
        Verb::Unbuilt(instead) => refuse(name, instead),
        Verb::Dump => with_world(|_, world| dump_to_file(words, world)),
        Verb::Load => load_from_file(words, manner),
        Verb::Add | Verb::Modify | Verb::Delete | Verb::Show => {
            let what = words.first().map_or("", String::as_str);
            match find(ENTITIES, what) {
                Some((name, Entity::Unbuilt(instead))) => refuse(name, instead),
                Some((_, entity)) => of_entity(verb, entity, &words[1..], manner),
                None => told(&match verb {
                    Verb::Add => add::no_entity(),
                    Verb::Modify => modify::no_entity(),
                    Verb::Delete => delete::no_entity(),
                    _ => show::no_entity(),
                }),
            }
        }
    }
}

fn refuse(name: &str, instead: &str) -> i32 {
    error(PROGRAM, &format!("{name} is not built in Penstock: {instead}"));
    FAILED
}

fn of_entity(verb: Verb, entity: Entity, words: &[String], manner: &Manner) -> i32 {
    with_world(|client, world| {
        let proposal = match verb {
            Verb::Add => add::propose(entity, words, world)?,
            Verb::Modify => modify::propose(entity, words, world)?,
            Verb::Delete => delete::propose(entity, words, world)?,
            _ => {
                write_bytes(&show::text(entity, words, world, &manner.look)?);
                return Ok(0);
            }
        };
        Ok(commit(client, &proposal, manner))
    })
}

/// Asks for the tree and hands it to `act`.
fn with_world(act: impl FnOnce(&Client, &World) -> Result<i32, Stop>) -> i32 {
    let answer = Client::open().and_then(|client| {
        let tree = client.accounting(Patience::READ, |mut rpc| async move {
            rpc.list_accounts(v1::ListAccountsRequest {}).await
        })?;
        let mut world = World::new(tree);
        let ping = client
            .call(Patience::READ, |mut rpc| async move { rpc.ping(v1::PingRequest {}).await });
        if let Ok(ping) = ping {
            world.control_host = ping.controller_host;
        }
        Ok((client, world))
    });
    match answer {
        Ok((client, world)) => act(&client, &world).unwrap_or_else(|stop| told(&stop)),
        Err(problem) => {
            if let Some(detail) = problem.detail() {
                error(PROGRAM, &detail);
            }
            error(PROGRAM, &format!("Problem talking to the database: {}", problem.slurm_text()));
            FAILED
        }
    }
}

/// Prints why a command is not carried out; returns the exit status.
fn told(stop: &Stop) -> i32 {
    match stop {
        Stop::Nothing(line) => print_line(line),
        Stop::Wrong(lines) => lines.iter().for_each(|line| note(line)),
    }
    FAILED
}

/// Tells what is proposed, asks, and sends it.
fn commit(client: &Client, proposal: &Proposal, manner: &Manner) -> i32 {
    let early = proposal.announced || !manner.immediate;
    if early {
        tell(proposal, manner);
    }
    if !manner.immediate {
        write_bytes(b"Would you like to commit changes? (You have 30 seconds to decide)\n");
        if !decided() {
            print_line(" Changes Discarded");
            return 0;
        }
    }
    if let Err((made, problem)) = send(client, &proposal.changes) {
        if made > 0 {
            let all = proposal.changes.len();
            let how = "run the command again for the rest";
            error(PROGRAM, &format!("only the first {made} of {all} changes are made; {how}"));
        }
        if let Some(detail) = problem.detail() {
            error(PROGRAM, &detail);
        }
        note(&format!(" Error with request: {}", problem.slurm_text()));
        return FAILED;
    }
    if !early {
        tell(proposal, manner);
    }
    0
}

fn tell(proposal: &Proposal, manner: &Manner) {
    if !manner.quiet {
        let mut text = proposal.lines.join("\n");
        text.push('\n');
        write_bytes(text.as_bytes());
    }
}

/// Sends changes; the error says how many were made before it.
fn send(client: &Client, changes: &[v1::AccountChange]) -> Result<(), (usize, RemoteError)> {
    // More than one request only where one would be too long: a whole tree that is loaded.
    for (nth, changes) in changes.chunks(MAX_CHANGES).enumerate() {
        let request =
            v1::ChangeAccountsRequest { request_id: request_id(), changes: changes.to_vec() };
        let answer = client.accounting(Patience::CHANGE, |mut rpc| {
            let request = request.clone();
            async move { rpc.change_accounts(request).await }
        });
        answer.map_err(|problem| (nth * MAX_CHANGES, problem))?;
    }
    Ok(())
}

/// Whether the user says yes in time. The end of the input means no.
fn decided() -> bool {
    let (sender, answers) = mpsc::channel();
    // It ends with the process: a read from a terminal cannot be called off.
    std::thread::spawn(move || {
        for byte in std::io::stdin().lock().bytes() {
            let Ok(byte) = byte else { return };
            if sender.send(byte).is_err() {
                return;
            }
        }
    });
    let begun = Instant::now();
    let mut line_begins = true;
    write_bytes(b"(N/y): ");
    loop {
        let left = DECIDE.saturating_sub(begun.elapsed());
        let answer = answers.recv_timeout(left);
        match answer {
            Ok(b'\n') if line_begins => break,
            Ok(b'\n') => {
                line_begins = true;
                write_bytes(b"Y or N please\n(N/y): ");
            }
            Ok(b'y' | b'Y') if line_begins => {
                write_bytes(b"\n");
                return true;
            }
            Ok(b'n' | b'N') if line_begins => break,
            Ok(_) => line_begins = false,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                write_bytes(b"timeout\n");
                return false;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    write_bytes(b"\n");
    false
}

/// `dump [CLUSTER] [file=FILE]`.
fn dump_to_file(words: &[String], world: &World) -> Result<i32, Stop> {
    let (mut cluster, mut file) = (None, None);
    for word in words {
        let word = Word::new(word);
        let key = word.key.to_ascii_lowercase();
        match key.as_str() {
            "" | "cluster" | "name" => cluster = Some(word.value.to_lowercase()),
            key if !key.is_empty() && "file".starts_with(key) => {
                file = Some(word.value.to_owned());
            }
            _ => return Err(Stop::one(format!(" Unknown option: {}", word.whole))),
        }
    }
    let cluster = cluster.unwrap_or_else(|| world.cluster().to_owned());
    if cluster != world.cluster() {
        return Err(Stop::one(format!(" Cluster {cluster} doesn't exist.")));
    }
    let file = file.unwrap_or_else(|| format!("./{cluster}.cfg"));
    std::fs::write(&file, dump::text(world))
        .map_err(|error| Stop::one(format!("Can't open file {file}: {error}")))?;
    Ok(0)
}

/// `load FILE [clean]`.
fn load_from_file(words: &[String], manner: &Manner) -> i32 {
    let (mut file, mut clean, mut cluster) = (None, false, None);
    for word in words {
        let word = Word::new(word);
        match word.key.to_ascii_lowercase().as_str() {
            "" if word.value.eq_ignore_ascii_case("clean") => clean = true,
            "clean" => clean = true,
            "" | "file" if file.is_none() => file = Some(word.value.to_owned()),
            "cluster" => cluster = Some(word.value.to_lowercase()),
            _ => return told(&Stop::one(format!(" Unknown option: {}", word.whole))),
        }
    }
    let Some(file) = file else {
        return told(&Stop::one(" No filename given, specify one with file=''"));
    };
    let text = match read_text(Path::new(&file), MAX_FILE_BYTES) {
        Ok(text) => text,
        Err(why) => return told(&Stop::one(format!(" Unable to read \"{file}\": {why}"))),
    };
    with_world(|client, world| {
        if let Some(cluster) = cluster.filter(|cluster| cluster != world.cluster()) {
            return Err(Stop::one(format!(" Cluster {cluster} doesn't exist.")));
        }
        let proposal = load::propose(&text, clean, world)?;
        if proposal.changes.is_empty() {
            tell(&proposal, manner);
            return Ok(0);
        }
        let begun = Instant::now();
        let status = commit(client, &proposal, manner);
        if status == 0 && !manner.quiet {
            let taken = begun.elapsed().as_micros();
            note(&format!("{PROGRAM}: Done adding cluster in usec={taken}"));
        }
        Ok(status)
    })
}
