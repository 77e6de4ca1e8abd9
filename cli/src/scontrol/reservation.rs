//! `scontrol create`, `update` and `delete` of a reservation: for whom, on what, and when?

use jiff::ZonedDateTime;
use penstock_proto::v1;
use penstock_proto::v1::reservation_change::Verb;
use penstock_vocab::parse_walltime;

use crate::connect::{Client, Patience, request_id};
use crate::errors::RemoteError;
use crate::output::print_line;
use crate::sbatch::parse_licenses;
use crate::scontrol::{FAILED, PROGRAM, Voice, is_prefix};
use crate::when::{Looking, parse_when};
use crate::words::{find_name, list};

/// A reservation without an end lasts a year, as Slurm's.
const ENDLESS_SECS: u64 = 365 * 86_400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Accounts,
    Comment,
    CoreCount,
    Duration,
    EndTime,
    Features,
    Flags,
    Licenses,
    Name,
    NodeCount,
    Nodes,
    Partition,
    StartTime,
    Users,
    Unbuilt,
}

/// Keys of a reservation; those that Slurm has besides are refused by name.
const KEYS: &[(&str, Key)] = &[
    ("Accounts", Key::Accounts),
    ("Comment", Key::Comment),
    ("CoreCnt", Key::CoreCount),
    ("Duration", Key::Duration),
    ("EndTime", Key::EndTime),
    ("Features", Key::Features),
    ("Flags", Key::Flags),
    ("Licenses", Key::Licenses),
    ("ReservationName", Key::Name),
    ("NodeCnt", Key::NodeCount),
    ("NodeCount", Key::NodeCount),
    ("Nodes", Key::Nodes),
    ("NodeList", Key::Nodes),
    ("PartitionName", Key::Partition),
    ("StartTime", Key::StartTime),
    ("Users", Key::Users),
    ("BurstBuffer", Key::Unbuilt),
    ("Groups", Key::Unbuilt),
    ("MaxStartDelay", Key::Unbuilt),
    ("Skip", Key::Unbuilt),
    ("TRES", Key::Unbuilt),
    ("Watts", Key::Unbuilt),
];

/// Switches that can be set, by the names under which they are typed.
const FLAGS: &[(&str, &str)] = &[
    ("DAILY", "DAILY"),
    ("FLEX", "FLEX"),
    ("IGNORE_JOBS", "IGNORE_JOBS"),
    ("MAINT", "MAINT"),
    ("NO_HOLD_JOBS_AFTER_END", "NO_HOLD_JOBS_AFTER_END"),
    ("OVERLAP", "OVERLAP"),
    ("PART_NODES", "PART_NODES"),
    ("PURGE_COMP", "PURGE_COMP"),
    ("STATIC_ALLOC", "STATIC"),
    ("WEEKDAY", "WEEKDAY"),
    ("WEEKEND", "WEEKEND"),
    ("WEEKLY", "WEEKLY"),
    // What listings show, and what follows from Nodes=.
    ("SPEC_NODES", ""),
    ("ALL_NODES", ""),
];

/// Switches of Slurm that there are not.
const UNBUILT_FLAGS: [&str; 9] = [
    "ANY_NODES",
    "FIRST_CORES",
    "HOURLY",
    "MAGNETIC",
    "NO_MAGNETIC",
    "REPLACE",
    "REPLACE_DOWN",
    "TIME_FLOAT",
    "USER_DELETE",
];

/// Runs `scontrol create WORDS`.
pub(super) fn create(words: &[String], voice: Voice) -> i32 {
    let done = (|| {
        let first = words.first().ok_or("too few arguments for create keyword").map_err(one)?;
        let (what, _) = first.split_once('=').unwrap_or((first, ""));
        if is_prefix("PartitionName", what, 3) {
            let why = "partitions are in the cluster file; change it and run scontrol reconfigure";
            return Err(one(&error_line(&format!("create partition is not built: {why}"))));
        }
        if !is_prefix("ReservationName", what, 3) {
            return Err(one(&error_line(&format!("Invalid creation entity: {first}"))));
        }
        let rest = if first.contains('=') { words } else { &words[1..] };
        let mut change = read(Verb::Create, rest, &ZonedDateTime::now)?;
        complete(&mut change)?;
        Ok(change)
    })();
    let change = match done {
        Ok(change) => change,
        Err(lines) => return refuse(&lines, voice),
    };
    match send(change) {
        Ok(reply) => {
            print_line(&format!("Reservation created: {}", reply.name));
            0
        }
        Err(failure) => {
            voice.report("Error creating the reservation", &failure);
            FAILED
        }
    }
}

/// Runs `scontrol update ReservationName=NAME WORDS`; the words hold the name too.
pub(super) fn update(words: &[String], voice: Voice) -> i32 {
    let change = match read(Verb::Update, words, &ZonedDateTime::now) {
        Ok(change) => change,
        Err(lines) => return refuse(&lines, voice),
    };
    match send(change) {
        Ok(_) => {
            print_line("Reservation updated.");
            0
        }
        Err(failure) => {
            voice.report("Error updating the reservation", &failure);
            voice.say(&format!("slurm_update error: {}", failure.slurm_text()));
            FAILED
        }
    }
}

/// Runs `scontrol delete ENTITY=ID` or `ENTITY ID`.
pub(super) fn delete(words: &[String], voice: Voice) -> i32 {
    let (what, name, told) = match words {
        [] => return refuse(&one("too few arguments for delete keyword"), voice),
        [word] => match word.split_once('=') {
            Some((what, name)) => (what, name, word.clone()),
            None => (word.as_str(), "", word.clone()),
        },
        [what, name, ..] => (what.as_str(), name.as_str(), format!("{what} {name}")),
    };
    if is_prefix("PartitionName", what, 3) {
        let why = "partitions are in the cluster file; change it and run scontrol reconfigure";
        return refuse(&one(&error_line(&format!("delete partition is not built: {why}"))), voice);
    }
    if !is_prefix("ReservationName", what, 3) {
        return refuse(&one(&format!("Invalid deletion entity: {told}")), voice);
    }
    if name.is_empty() {
        let line = "Proper format is 'delete <ENTITY>=<ID>' or 'delete <ENTITY> <ID>'";
        return refuse(&one(&error_line(line)), voice);
    }
    let change = v1::ReservationChange {
        verb: Verb::Delete.into(),
        name: name.to_owned(),
        ..v1::ReservationChange::default()
    };
    match send(change) {
        Ok(_) => 0,
        Err(failure) => {
            voice.report(&format!("delete_reservation {told}"), &failure);
            FAILED
        }
    }
}

fn send(change: v1::ReservationChange) -> Result<v1::ChangeReservationReply, RemoteError> {
    let request = v1::ChangeReservationRequest { request_id: request_id(), change: Some(change) };
    Client::open()?.planning(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.change_reservation(request).await }
    })
}

fn one(line: &str) -> Vec<String> {
    vec![line.to_owned()]
}

fn error_line(text: &str) -> String {
    format!("{PROGRAM}: error: {text}")
}

fn refuse(lines: &[String], voice: Voice) -> i32 {
    lines.iter().for_each(|line| voice.say(line));
    FAILED
}

/// How Slurm's lines end, by what was to be done.
fn tail(verb: Verb) -> &'static str {
    if verb == Verb::Create { "No reservation created." } else { "No reservation update." }
}

/// Reads the words; `now` is asked only for a time.
fn read(
    verb: Verb,
    words: &[String],
    now: &dyn Fn() -> ZonedDateTime,
) -> Result<v1::ReservationChange, Vec<String>> {
    let mut change = v1::ReservationChange { verb: verb.into(), ..<_>::default() };
    let wrong = |what: &str| one(&error_line(&format!("{what}  {}", tail(verb))));
    for word in words {
        let Some((typed, value)) = word.split_once('=') else {
            return Err(wrong(&format!(
                "Misformatted parameter '{word}', most options have a parameter after '='."
            )));
        };
        let sign = typed.chars().last().filter(|letter| matches!(letter, '+' | '-'));
        let name = sign.map_or(typed, |sign| typed.strip_suffix(sign).unwrap_or(typed));
        let key = if is_prefix("ReservationName", name, 3) {
            Some(Key::Name)
        } else {
            find_name(KEYS, name)
        };
        let listed = matches!(key, Some(Key::Users | Key::Accounts | Key::Flags));
        let unknown = || wrong(&format!("Unknown parameter {word}."));
        let key = key.filter(|_| sign.is_none() || listed).ok_or_else(unknown)?;
        match key {
            Key::Unbuilt => {
                return Err(wrong(&format!("{typed} is not built in Penstock.")));
            }
            Key::Flags => set_flags(&mut change, sign, value, &wrong)?,
            Key::Users => change.users = Some(names(change.users.take(), sign, value)),
            Key::Accounts => {
                let small = value.to_lowercase();
                change.accounts = Some(names(change.accounts.take(), sign, &small));
            }
            Key::StartTime | Key::EndTime => {
                let time = parse_when(value, &now(), Looking::Ahead).map_err(|error| {
                    let what = if key == Key::StartTime { "start" } else { "end" };
                    let line = error_line(&format!("Invalid {what} time {word}.  {}", tail(verb)));
                    vec![error.to_string(), line]
                })?;
                let place =
                    if key == Key::StartTime { &mut change.start_ms } else { &mut change.end_ms };
                *place = Some(time.as_millisecond());
            }
            Key::Duration => {
                let limit = parse_walltime(value)
                    .map_err(|_| wrong(&format!("Invalid duration {word}.")))?;
                change.duration_secs = Some(limit.as_secs().unwrap_or(ENDLESS_SECS));
            }
            Key::NodeCount | Key::CoreCount => {
                let number = value.trim().parse().ok().filter(|&n: &u32| n > 0);
                let number = number.ok_or_else(|| wrong(&format!("Invalid count {word}.")))?;
                let place = if key == Key::NodeCount {
                    &mut change.node_count
                } else {
                    &mut change.core_count
                };
                *place = Some(number);
            }
            Key::Licenses => {
                change.licenses_given = true;
                change.licenses = match value.trim() {
                    "" => Vec::new(),
                    text => parse_licenses(text).map_err(|why| wrong(&format!("{why}.")))?,
                };
            }
            Key::Name => value.clone_into(&mut change.name),
            Key::Nodes => change.nodes = Some(value.to_owned()),
            Key::Partition => change.partition = Some(value.to_owned()),
            Key::Features => change.features = Some(value.to_owned()),
            Key::Comment => change.comment = Some(value.to_owned()),
        }
    }
    Ok(change)
}

fn names(
    earlier: Option<v1::NameListChange>,
    sign: Option<char>,
    text: &str,
) -> v1::NameListChange {
    let mut change = earlier.unwrap_or_default();
    match sign {
        Some('+') => change.add.extend(list(text)),
        Some(_) => change.remove.extend(list(text)),
        None => change.set = list(text),
    }
    change
}

/// Reads `MAINT,PURGE_COMP=1:00`.
fn set_flags(
    change: &mut v1::ReservationChange,
    sign: Option<char>,
    text: &str,
    wrong: &dyn Fn(&str) -> Vec<String>,
) -> Result<(), Vec<String>> {
    for word in list(text) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        let unbuilt = UNBUILT_FLAGS.map(|flag| (flag, flag));
        if let Some(flag) = find_name(&unbuilt, name)
            && find_name(FLAGS, name).is_none()
        {
            return Err(wrong(&format!("Flag {flag} is not built in Penstock.")));
        }
        let flag =
            find_name(FLAGS, name).ok_or_else(|| wrong(&format!("Error parsing flags {text}.")))?;
        match (flag, value) {
            ("PURGE_COMP", Some(after)) => {
                let after = parse_walltime(after)
                    .map_err(|_| wrong(&format!("Error parsing flags {text}.")))?;
                change.purge_after_secs = after.as_secs();
            }
            (_, Some(_)) => return Err(wrong(&format!("Error parsing flags {text}."))),
            (_, None) => {}
        }
        match (flag, sign) {
            ("", _) => {}
            (flag, Some('-')) => change.clear_flags.push(flag.to_owned()),
            (flag, _) => change.set_flags.push(flag.to_owned()),
        }
    }
    Ok(())
}

/// Slurm's demands on a new reservation, in its order.
fn complete(change: &mut v1::ReservationChange) -> Result<(), Vec<String>> {
    let lacks = |what: &str| Err(one(&error_line(&format!("{what}  {}", tail(Verb::Create)))));
    if change.start_ms.is_none() {
        return lacks("A start time must be given.");
    }
    if change.end_ms.is_none() && change.duration_secs.is_none() {
        return lacks("An end time or duration must be given.");
    }
    let whole_partition =
        change.partition.is_some() && change.set_flags.iter().any(|flag| flag == "PART_NODES");
    let has_something = change.nodes.is_some()
        || change.node_count.is_some()
        || change.core_count.is_some()
        || !change.licenses.is_empty()
        || whole_partition;
    if !has_something {
        return lacks("CoreCnt, Nodes, NodeCnt, BurstBuffer, Licenses or Watts must be specified.");
    }
    if whole_partition && change.nodes.is_none() && change.node_count.is_none() {
        change.nodes = Some("ALL".to_owned());
    }
    let named = |list: &Option<v1::NameListChange>| {
        list.as_ref().is_some_and(|list| !list.set.is_empty() || !list.add.is_empty())
    };
    if !named(&change.users) && !named(&change.accounts) {
        return lacks("Either Users/Groups and/or Accounts must be specified.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> ZonedDateTime {
        "2024-05-15T10:30:20[UTC]".parse().expect("a zoned time")
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn new(line: &str) -> Result<v1::ReservationChange, Vec<String>> {
        let mut change = read(Verb::Create, &words(line), &now)?;
        complete(&mut change)?;
        Ok(change)
    }

    #[test]
    fn a_reservation_is_read() {
        let change = new(
            "reservationname=maint starttime=now+1hour duration=1-0 nodes=n[1-4] user=root,bin \
             accounts=A1 flags=maint,ignore_jobs,purge_comp=1:00 licenses=matlab:3 partition=main",
        )
        .expect("valid");
        assert_eq!(change.name, "maint");
        assert_eq!(change.duration_secs, Some(86_400));
        assert_eq!(change.nodes.as_deref(), Some("n[1-4]"));
        assert_eq!(change.users.expect("given").set, ["root", "bin"]);
        assert_eq!(change.accounts.expect("given").set, ["a1"]);
        assert_eq!(change.set_flags, ["MAINT", "IGNORE_JOBS", "PURGE_COMP"]);
        assert_eq!(change.purge_after_secs, Some(60));
        assert_eq!(change.licenses[0].count, 3);
        let at = now().timestamp().as_millisecond() + 3_600_000;
        assert_eq!(change.start_ms, Some(at));
        let endless = new("start=now duration=UNLIMITED nodecnt=2 user=-root").expect("valid");
        assert_eq!(endless.duration_secs, Some(365 * 86_400));
        assert_eq!(endless.users.expect("given").set, ["-root"]);
    }

    #[test]
    fn what_is_wrong_is_told_in_slurms_words() {
        let table = [
            ("", "scontrol: error: A start time must be given.  No reservation created."),
            (
                "starttime=now+1hour duration=30 nodes=n1",
                "scontrol: error: Either Users/Groups and/or Accounts must be specified.  No reservation created.",
            ),
            (
                "starttime=now nodes=n1 user=root",
                "scontrol: error: An end time or duration must be given.  No reservation created.",
            ),
            (
                "starttime=now duration=10 user=root",
                "scontrol: error: CoreCnt, Nodes, NodeCnt, BurstBuffer, Licenses or Watts must be specified.  No reservation created.",
            ),
            (
                "starttime=now duration=10 nodes=n1 user=root flags=foo",
                "scontrol: error: Error parsing flags foo.  No reservation created.",
            ),
            (
                "starttime=now duration=foo nodes=n1 user=root",
                "scontrol: error: Invalid duration duration=foo.  No reservation created.",
            ),
            (
                "starttime=foo duration=10 nodes=n1 user=root",
                "Invalid time specification (pos=0): foo",
            ),
            (
                "starttime=now foo=3",
                "scontrol: error: Unknown parameter foo=3.  No reservation created.",
            ),
            (
                "starttime=now foo",
                "scontrol: error: Misformatted parameter 'foo', most options have a parameter after '='.  No reservation created.",
            ),
            (
                "flags=magnetic",
                "scontrol: error: Flag MAGNETIC is not built in Penstock.  No reservation created.",
            ),
            (
                "starttime=now duration=10 nodecnt=1 user=root flags=any_nodes",
                "scontrol: error: Flag ANY_NODES is not built in Penstock.  No reservation created.",
            ),
            (
                "groups=x",
                "scontrol: error: groups is not built in Penstock.  No reservation created.",
            ),
        ];
        for (line, expect) in table {
            let lines = new(line).expect_err(line);
            assert_eq!(lines[0], expect, "{line}");
        }
    }

    #[test]
    fn lists_are_added_to_and_taken_from() {
        let line = "reservationname=x users+=bin accounts-=a1 flags-=ignore_jobs flags+=daily";
        let change = read(Verb::Update, &words(line), &now).expect("valid");
        assert_eq!(change.users.expect("given").add, ["bin"]);
        assert_eq!(change.accounts.expect("given").remove, ["a1"]);
        assert_eq!(change.clear_flags, ["IGNORE_JOBS"]);
        assert_eq!(change.set_flags, ["DAILY"]);
        let lines = read(Verb::Update, &words("nodes+=n1"), &now).expect_err("no list");
        assert_eq!(
            lines,
            ["scontrol: error: Unknown parameter nodes+=n1.  No reservation update."]
        );
    }

    #[test]
    fn things_that_are_no_reservations_are_refused() {
        let voice = Voice { quiet: true };
        for line in ["", "foo=3", "partition=x", "reservation"] {
            assert_eq!(create(&words(line), voice), 1, "create {line}");
            assert_eq!(delete(&words(line), voice), 1, "delete {line}");
        }
    }
}
