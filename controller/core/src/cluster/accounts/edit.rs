//! What does `GrpTRES=cpu=4` or `QOS+=long` make of a record?

use penstock_vocab::{MAX_NAME_LEN, TresKind};

use crate::accounts::{EditMode, FlagEdit, Limit, LimitEdit, ListEdit};
use crate::model::{Association, EachLimits, GroupLimits, JobLimits, Qos, QosFlag, TresLimits};
use crate::refusal::Refusal;

/// The highest count that a limit may have; above are Slurm's words for "none".
const MAX_COUNT: u64 = u32::MAX as u64 - 2;
/// The highest amount: so much of any resource, times all minutes of a century, fits in 128 bits.
const MAX_AMOUNT: u64 = u64::MAX / 2;
/// Most entries of a list of QOS.
const MAX_LIST: usize = 256;
/// Most bytes of a text.
const MAX_TEXT: usize = 1_024;

/// Where a limit is kept.
enum Slot<'a> {
    Tres(&'a mut TresLimits, TresKind),
    Count(&'a mut Option<u32>),
}

/// A name of an account, a user or a QOS, in lower case.
///
/// # Errors
/// When it is empty, too long, or has a letter that lists and files can't carry.
pub(super) fn clean_name(what: &str, name: &str) -> Result<Box<str>, Refusal> {
    let plain = |c: char| c.is_alphanumeric() || "_-.@+\\".contains(c);
    let begins = name.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !begins || name.len() > MAX_NAME_LEN || !name.chars().all(plain) {
        let shown: String = name.chars().take(40).collect();
        let text = format!(
            "{what} name {shown:?} can't be taken: 1 to {MAX_NAME_LEN} bytes of letters, digits \
             and _ - . @ + are allowed, beginning with a letter, a digit or _"
        );
        return Err(Refusal::InvalidChange(text.into()));
    }
    Ok(name.to_lowercase().into())
}

/// A free text that is not too long and stays on its line.
pub(super) fn clean_text(what: &str, text: &str) -> Result<Box<str>, Refusal> {
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        let text = format!("{what} must be one line of at most {MAX_TEXT} bytes");
        return Err(Refusal::InvalidChange(text.into()));
    }
    Ok(text.into())
}

/// Refuses to set a limit that nothing looks at; one that an older version stored can be cleared.
fn refuse_unbuilt(edit: &LimitEdit) -> Result<(), Refusal> {
    match edit.limit {
        Limit::GrpJobsAccrue
        | Limit::MaxJobsAccrue
        | Limit::MaxJobsAccruePerUser
        | Limit::MaxJobsAccruePerAccount
            if edit.value.is_some() =>
        {
            let text = format!(
                "{} is not built: the age of every job that could start counts; leave it out",
                edit.limit.name()
            );
            Err(Refusal::InvalidChange(text.into()))
        }
        _ => Ok(()),
    }
}

/// Sets or clears a limit of an association.
pub(super) fn limit_assoc(assoc: &mut Association, edit: &LimitEdit) -> Result<(), Refusal> {
    refuse_unbuilt(edit)?;
    let is_user = assoc.user.is_some();
    let slot = match &edit.limit {
        Limit::MaxJobs => Slot::Count(&mut assoc.each.jobs),
        Limit::MaxJobsAccrue => Slot::Count(&mut assoc.each.jobs_accrue),
        Limit::MaxSubmitJobs => Slot::Count(&mut assoc.each.submit_jobs),
        Limit::Guaranteed(kind) if !is_user => Slot::Tres(&mut assoc.guaranteed, kind.clone()),
        Limit::Guaranteed(_) => {
            let text = "Guaranteed is a limit of accounts, not of a user in one";
            return Err(Refusal::InvalidChange(text.into()));
        }
        Limit::MinTres(_) => return Err(unknown(&edit.limit, "an association")),
        other => common_slot(other, &mut assoc.group, &mut assoc.job)
            .ok_or_else(|| unknown(other, "an association"))?,
    };
    fill(slot, edit)?;
    let over = assoc.guaranteed.iter().find_map(|(kind, amount)| {
        assoc.group.tres.get(kind).filter(|most| *most < amount).map(|most| (kind, amount, most))
    });
    if let Some((kind, amount, most)) = over {
        let text = format!(
            "account {} can't be guaranteed {amount} of {kind}: GrpTRES allows it {most}",
            assoc.account
        );
        return Err(Refusal::InvalidChange(text.into()));
    }
    Ok(())
}

/// Sets or clears a limit of a QOS.
pub(super) fn limit_qos(qos: &mut Qos, edit: &LimitEdit) -> Result<(), Refusal> {
    refuse_unbuilt(edit)?;
    let slot = match &edit.limit {
        Limit::MaxTresPerUser(kind) => Slot::Tres(&mut qos.per_user.tres, kind.clone()),
        Limit::MaxJobsPerUser => Slot::Count(&mut qos.per_user.jobs),
        Limit::MaxJobsAccruePerUser => Slot::Count(&mut qos.per_user.jobs_accrue),
        Limit::MaxSubmitJobsPerUser => Slot::Count(&mut qos.per_user.submit_jobs),
        Limit::MaxTresPerAccount(kind) => Slot::Tres(&mut qos.per_account.tres, kind.clone()),
        Limit::MaxJobsPerAccount => Slot::Count(&mut qos.per_account.jobs),
        Limit::MaxJobsAccruePerAccount => Slot::Count(&mut qos.per_account.jobs_accrue),
        Limit::MaxSubmitJobsPerAccount => Slot::Count(&mut qos.per_account.submit_jobs),
        other => common_slot(other, &mut qos.group, &mut qos.job)
            .ok_or_else(|| unknown(other, "a QOS"))?,
    };
    fill(slot, edit)
}

/// Refuses a QOS in which no job could ever start.
pub(super) fn check_qos(qos: &Qos) -> Result<(), Refusal> {
    let tops = [
        ("MaxTRES", &qos.job.tres),
        ("GrpTRES", &qos.group.tres),
        ("MaxTRESPerUser", &qos.per_user.tres),
        ("MaxTRESPerAccount", &qos.per_account.tres),
    ];
    for (name, top) in tops {
        let over = qos.job.min_tres.iter().find_map(|(kind, least)| {
            top.get(kind).filter(|most| *most < least).map(|most| (kind, least, most))
        });
        if let Some((kind, least, most)) = over {
            let text = format!(
                "QOS {}: MinTRES asks for {least} of {kind} and {name} allows {most}; no job \
                 could have both",
                qos.name
            );
            return Err(Refusal::InvalidChange(text.into()));
        }
    }
    Ok(())
}

/// Limits that associations and QOS both know.
fn common_slot<'a>(
    limit: &Limit,
    group: &'a mut GroupLimits,
    job: &'a mut JobLimits,
) -> Option<Slot<'a>> {
    Some(match limit {
        Limit::GrpTres(kind) => Slot::Tres(&mut group.tres, kind.clone()),
        Limit::GrpTresMins(kind) => Slot::Tres(&mut group.tres_mins, kind.clone()),
        Limit::GrpTresRunMins(kind) => Slot::Tres(&mut group.tres_run_mins, kind.clone()),
        Limit::GrpJobs => Slot::Count(&mut group.jobs),
        Limit::GrpJobsAccrue => Slot::Count(&mut group.jobs_accrue),
        Limit::GrpSubmitJobs => Slot::Count(&mut group.submit_jobs),
        Limit::GrpWall => Slot::Count(&mut group.wall_mins),
        Limit::MaxTres(kind) => Slot::Tres(&mut job.tres, kind.clone()),
        Limit::MaxTresPerNode(kind) => Slot::Tres(&mut job.tres_per_node, kind.clone()),
        Limit::MaxTresMins(kind) => Slot::Tres(&mut job.tres_mins, kind.clone()),
        Limit::MinTres(kind) => Slot::Tres(&mut job.min_tres, kind.clone()),
        Limit::MaxWall => Slot::Count(&mut job.wall_mins),
        Limit::MaxJobs
        | Limit::MaxJobsAccrue
        | Limit::MaxSubmitJobs
        | Limit::MaxTresPerUser(_)
        | Limit::MaxJobsPerUser
        | Limit::MaxJobsAccruePerUser
        | Limit::MaxSubmitJobsPerUser
        | Limit::MaxTresPerAccount(_)
        | Limit::MaxJobsPerAccount
        | Limit::MaxJobsAccruePerAccount
        | Limit::MaxSubmitJobsPerAccount
        | Limit::Guaranteed(_) => return None,
    })
}

fn unknown(limit: &Limit, of: &str) -> Refusal {
    Refusal::InvalidChange(format!("{} is no limit of {of}", limit.name()).into())
}

fn fill(slot: Slot<'_>, edit: &LimitEdit) -> Result<(), Refusal> {
    let over = |value: u64, max: u64| {
        let name = edit.limit.name();
        let text = format!("{name}={value} is too much; at most {max}, or -1 for no limit");
        Refusal::InvalidChange(text.into())
    };
    match (slot, edit.value) {
        (Slot::Tres(_, _), Some(value)) if value > MAX_AMOUNT => Err(over(value, MAX_AMOUNT)),
        (Slot::Tres(map, kind), Some(value)) => {
            map.insert(kind, value);
            Ok(())
        }
        (Slot::Tres(map, kind), None) => {
            map.remove(&kind);
            Ok(())
        }
        (Slot::Count(place), None) => {
            *place = None;
            Ok(())
        }
        (Slot::Count(place), Some(value)) => match u32::try_from(value) {
            Ok(count) if value <= MAX_COUNT => {
                *place = Some(count);
                Ok(())
            }
            Ok(_) | Err(_) => Err(over(value, MAX_COUNT)),
        },
    }
}

/// What a change makes of a list of names; sorted, each once.
pub(super) fn edit_list(now: &[Box<str>], edit: &ListEdit) -> Result<Box<[Box<str>]>, Refusal> {
    let mut names: Vec<Box<str>> = match edit.mode {
        EditMode::Set => edit.names.clone(),
        EditMode::Add => now.iter().chain(&edit.names).cloned().collect(),
        EditMode::Remove => now.iter().filter(|name| !edit.names.contains(name)).cloned().collect(),
    };
    names.sort_unstable();
    names.dedup();
    if names.len() > MAX_LIST {
        return Err(Refusal::TooManyItems { got: names.len(), limit: MAX_LIST });
    }
    Ok(names.into())
}

/// Changes the switches of a QOS.
pub(super) fn edit_flags(qos: &mut Qos, edit: &FlagEdit) {
    let flags = edit.flags.iter().copied();
    match edit.mode {
        EditMode::Set => qos.flags = flags.collect(),
        EditMode::Add => qos.flags.extend(flags),
        EditMode::Remove => qos.flags.retain(|flag: &QosFlag| !edit.flags.contains(flag)),
    }
}

/// The limits of an association, as the changes that would set them; those that are not built are
/// left out.
pub(super) fn assoc_limits(assoc: &Association) -> Vec<LimitEdit> {
    let mut edits = common_limits(&assoc.group, &assoc.job);
    let each = &assoc.each;
    counts(&mut edits, [(Limit::MaxJobs, each.jobs), (Limit::MaxSubmitJobs, each.submit_jobs)]);
    amounts(&mut edits, Limit::Guaranteed, &assoc.guaranteed);
    edits
}

/// The limits of a QOS, likewise.
pub(super) fn qos_limits(qos: &Qos) -> Vec<LimitEdit> {
    let mut edits = common_limits(&qos.group, &qos.job);
    let (user, account): (&EachLimits, &EachLimits) = (&qos.per_user, &qos.per_account);
    amounts(&mut edits, Limit::MaxTresPerUser, &user.tres);
    amounts(&mut edits, Limit::MaxTresPerAccount, &account.tres);
    counts(
        &mut edits,
        [
            (Limit::MaxJobsPerUser, user.jobs),
            (Limit::MaxSubmitJobsPerUser, user.submit_jobs),
            (Limit::MaxJobsPerAccount, account.jobs),
            (Limit::MaxSubmitJobsPerAccount, account.submit_jobs),
        ],
    );
    edits
}

fn common_limits(group: &GroupLimits, job: &JobLimits) -> Vec<LimitEdit> {
    let mut edits = Vec::new();
    amounts(&mut edits, Limit::GrpTres, &group.tres);
    amounts(&mut edits, Limit::GrpTresMins, &group.tres_mins);
    amounts(&mut edits, Limit::GrpTresRunMins, &group.tres_run_mins);
    amounts(&mut edits, Limit::MaxTres, &job.tres);
    amounts(&mut edits, Limit::MaxTresPerNode, &job.tres_per_node);
    amounts(&mut edits, Limit::MaxTresMins, &job.tres_mins);
    amounts(&mut edits, Limit::MinTres, &job.min_tres);
    counts(
        &mut edits,
        [
            (Limit::GrpJobs, group.jobs),
            (Limit::GrpSubmitJobs, group.submit_jobs),
            (Limit::GrpWall, group.wall_mins),
            (Limit::MaxWall, job.wall_mins),
        ],
    );
    edits
}

fn amounts(edits: &mut Vec<LimitEdit>, limit: fn(TresKind) -> Limit, from: &TresLimits) {
    let each = from.iter();
    edits.extend(
        each.map(|(kind, value)| LimitEdit { limit: limit(kind.clone()), value: Some(*value) }),
    );
}

fn counts<const N: usize>(edits: &mut Vec<LimitEdit>, from: [(Limit, Option<u32>); N]) {
    let set = from.into_iter().filter_map(|(limit, value)| Some((limit, value?)));
    edits.extend(set.map(|(limit, value)| LimitEdit { limit, value: Some(u64::from(value)) }));
}
