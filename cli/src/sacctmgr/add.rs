//! `sacctmgr add`: which accounts, users, QOS and coordinators are new?

use std::fmt::Write as _;

use penstock_proto::v1;
use penstock_proto::v1::account_change::{
    Change, Coordinator, PutAccount, PutAssociation, PutQos, PutUser,
};

use super::conditions::{Conditions, Entity};
use super::edits::{Edit, Of};
use super::proposal::Proposal;
use super::qos_edits::QosEdit;
use super::words::{Stop, Word, split};
use super::world::{ROOT, World};

const NOTHING: &str = " Nothing new added.";

/// Proposes what `sacctmgr add ENTITY WORDS` adds.
///
/// # Errors
/// When a word is none, something is missing, or all of it is there already.
pub(super) fn propose(entity: Entity, words: &[String], world: &World) -> Result<Proposal, Stop> {
    let split = split(words);
    let words: Vec<Word<'_>> = split.conditions.into_iter().chain(split.values).collect();
    match entity {
        Entity::Account => account(&words, world),
        Entity::User => user(&words, world),
        Entity::Qos => qos(&words, world),
        Entity::Coordinator => coordinator(&words, world, false),
        Entity::Cluster => Err(Stop::one(" Penstock has the one cluster that its controller runs")),
        Entity::Association | Entity::Tres | Entity::RunawayJobs | Entity::Unbuilt(_) => {
            Err(no_entity())
        }
    }
}

/// Slurm's lines for what cannot be added.
pub(super) fn no_entity() -> Stop {
    Stop::Wrong(vec![
        "No valid entity in add command".to_owned(),
        "Input line must include \"Account\", \"Cluster\", \"Coordinator\", \"Federation\", \
         \"QOS\", \"Resource\", or \"User\""
            .to_owned(),
    ])
}

fn account(words: &[Word<'_>], world: &World) -> Result<Proposal, Stop> {
    let edit = Edit::read(Of::Account, words, world)?;
    if edit.names.is_empty() {
        return Err(Stop::one(" Need name of account to add."));
    }
    let parent = edit.parent.clone().unwrap_or_else(|| ROOT.to_owned());
    if world.place(&parent).is_none() {
        return Err(Stop::Wrong(vec![
            format!(" Parent account '{parent}' doesn't exist on cluster {}", world.cluster()),
            "        Contact your admin to add this account.".to_owned(),
            " No associations created.".to_owned(),
        ]));
    }
    let new: Vec<&String> =
        edit.names.iter().filter(|name| world.account(name).is_none()).collect();
    if new.is_empty() || edit.of_other_cluster(world) {
        return Err(Stop::Nothing(NOTHING));
    }
    let mut proposal = Proposal { announced: true, ..Proposal::default() };
    proposal.line(" Adding Account(s)");
    new.iter().for_each(|name| proposal.line(format!("  {name}")));
    proposal.line(" Settings");
    let description = edit.description.as_deref().unwrap_or("Account Name");
    proposal.line(format!("  Description     = {description}"));
    let organization = edit.organization.as_deref().unwrap_or("Parent/Account Name");
    proposal.line(format!("  Organization    = {organization}"));
    proposal.line(" Associations");
    for name in &new {
        proposal.line(format!("  A = {name:<10.10} C = {:<10.10}", world.cluster()));
    }
    let settings = edit.settings();
    if !settings.is_empty() || edit.parent.is_some() {
        proposal.line(" Settings");
        settings.into_iter().for_each(|line| proposal.line(line));
        // Slurm tells the parent wherever it tells settings.
        proposal.line(format!("  Parent        = {parent}"));
    }
    for name in new {
        let organization = if parent == ROOT { name } else { &parent };
        proposal.push(Change::PutAccount(PutAccount {
            name: name.clone(),
            create: true,
            description: Some(edit.description.clone().unwrap_or_else(|| name.clone())),
            organization: Some(edit.organization.clone().unwrap_or_else(|| organization.clone())),
            parent: Some(parent.clone()),
            edit: edit.assoc.clone(),
        }));
    }
    Ok(proposal)
}

/// The places of new associations: account, user, partition.
type Place<'e> = (&'e str, &'e str, &'e str);

fn user(words: &[Word<'_>], world: &World) -> Result<Proposal, Stop> {
    let mut edit = Edit::read(Of::User, words, world)?;
    if edit.names.is_empty() {
        return Err(Stop::one(" Need name of user to add."));
    }
    if edit.accounts.is_empty() {
        let default = edit.default_account.clone();
        edit.accounts.extend(default);
    }
    if edit.accounts.is_empty() {
        return Err(Stop::one(" Need name of account to add user to."));
    }
    if let Some(missing) = edit.accounts.iter().find(|name| world.place(name).is_none()) {
        return Err(Stop::Wrong(vec![
            format!(" This account '{missing}' doesn't exist."),
            "        Contact your admin to add this account.".to_owned(),
            " No associations or wckeys created.".to_owned(),
        ]));
    }
    let places = new_places(&edit, world);
    let new: Vec<&String> = edit.names.iter().filter(|name| world.user(name).is_none()).collect();
    if (places.is_empty() && new.is_empty()) || edit.of_other_cluster(world) {
        return Err(Stop::Nothing(NOTHING));
    }
    let mut proposal = Proposal { announced: true, ..Proposal::default() };
    tell_user(&mut proposal, &edit, &new, &places, world);
    for name in &edit.names {
        let is_new = new.contains(&name);
        if is_new || edit.changes_user() {
            let default = edit.default_account.clone();
            let first = || edit.accounts.first().cloned().filter(|_| is_new);
            proposal.push(Change::PutUser(PutUser {
                name: name.clone(),
                uid: uzers::get_user_by_name(name).map(|user| user.uid()),
                default_account: default.or_else(first),
                admin_level: edit.admin_level.map(Into::into),
            }));
        }
    }
    for (account, user, partition) in places {
        proposal.push(Change::PutAssociation(PutAssociation {
            account: account.to_owned(),
            user: user.to_owned(),
            partition: partition.to_owned(),
            create: true,
            edit: edit.assoc.clone(),
        }));
    }
    Ok(proposal)
}

fn new_places<'e>(edit: &'e Edit, world: &World) -> Vec<Place<'e>> {
    let everywhere = [String::new()];
    let partitions =
        if edit.partitions.is_empty() { &everywhere } else { edit.partitions.as_slice() };
    let mut places: Vec<Place<'e>> = Vec::new();
    for user in &edit.names {
        for account in &edit.accounts {
            for partition in partitions {
                if world.association(account, user, partition).is_none() {
                    let partition =
                        edit.partitions.iter().find(|name| *name == partition).map_or("", |p| p);
                    places.push((account, user, partition));
                }
            }
        }
    }
    places
}

fn tell_user(
    proposal: &mut Proposal,
    edit: &Edit,
    new: &[&String],
    places: &[Place<'_>],
    world: &World,
) {
    if !new.is_empty() {
        proposal.line(" Adding User(s)");
        new.iter().for_each(|name| proposal.line(format!("  {name}")));
    }
    if edit.changes_user() {
        proposal.line(" Settings =");
        if let Some(account) = &edit.default_account {
            proposal.line(format!("  Default Account = {account}"));
        }
        if let Some(level) = edit.admin_level {
            let user = v1::User { admin_level: level.into(), ..v1::User::default() };
            proposal.line(format!("  Admin Level     = {}", super::fields::admin_level(&user)));
        }
    }
    if places.is_empty() {
        return;
    }
    proposal.line(" Associations =");
    for (account, user, partition) in places {
        let mut line =
            format!("  U = {user:<9.9} A = {account:<10.10} C = {:<10.10}", world.cluster());
        if !partition.is_empty() {
            write!(line, " P = {partition:<10.10}").expect("writing to a String cannot fail");
        }
        proposal.line(line);
    }
    proposal.line(" Non Default Settings");
    edit.settings().into_iter().for_each(|line| proposal.line(line));
}

fn qos(words: &[Word<'_>], world: &World) -> Result<Proposal, Stop> {
    let edit = QosEdit::read(words, world)?;
    if edit.names.is_empty() {
        return Err(Stop::one(" Need name of qos to add."));
    }
    let new: Vec<&String> = edit.names.iter().filter(|name| world.qos(name).is_none()).collect();
    let Some(first) = new.first() else { return Err(Stop::Nothing(NOTHING)) };
    let mut proposal = Proposal { announced: true, ..Proposal::default() };
    proposal.line(" Adding QOS(s)");
    new.iter().for_each(|name| proposal.line(format!("  {name}")));
    proposal.line(" Settings");
    let description = edit.change.description.as_ref().unwrap_or(first);
    proposal.line(format!("  Description    = {description}"));
    edit.settings().into_iter().for_each(|line| proposal.line(line));
    for name in new {
        let description = edit.change.description.clone().unwrap_or_else(|| name.clone());
        proposal.push(Change::PutQos(PutQos {
            name: name.clone(),
            create: true,
            description: Some(description),
            ..edit.change.clone()
        }));
    }
    Ok(proposal)
}

/// Adds coordinators, or with `remove` takes them away.
///
/// # Errors
/// When a word is none, or an account or user is missing.
pub(super) fn coordinator(
    words: &[Word<'_>],
    world: &World,
    remove: bool,
) -> Result<Proposal, Stop> {
    let mut given = Conditions::default();
    for word in words {
        if !given.take(Entity::Coordinator, word) {
            return Err(Stop::one(format!(" Unknown condition: {}", word.whole)));
        }
    }
    let verb = if remove { "remove" } else { "add" };
    if given.users.is_empty() {
        return Err(Stop::one(format!(" Need name of user to {verb} as coordinator.")));
    }
    if given.accounts.is_empty() {
        return Err(Stop::one(format!(" Need name of account to {verb} a coordinator of.")));
    }
    if let Some(missing) = given.accounts.iter().find(|name| world.account(name).is_none()) {
        return Err(Stop::one(format!(" You specified a non-existent account '{missing}'.")));
    }
    if let Some(missing) = given.users.iter().find(|name| world.user(name).is_none()) {
        return Err(Stop::one(format!(" You specified a non-existent user '{missing}'.")));
    }
    let mut proposal = Proposal { announced: true, ..Proposal::default() };
    let (first, second) = if remove {
        (" Removing Coordinators with user name", " From Account(s)")
    } else {
        (" Adding Coordinator User(s)", " To Account(s) and all sub-accounts")
    };
    proposal.line(first);
    given.users.iter().for_each(|name| proposal.line(format!("  {name}")));
    proposal.line(second);
    given.accounts.iter().for_each(|name| proposal.line(format!("  {name}")));
    let mut gone = Vec::new();
    for account in &given.accounts {
        let known = world.account(account).map_or(&[][..], |account| &account.coordinators);
        for user in &given.users {
            if remove && !known.contains(user) {
                continue;
            }
            gone.push(format!("  U = {user:<9} A = {account:<10}"));
            proposal.push(Change::Coordinator(Coordinator {
                account: account.clone(),
                user: user.clone(),
                remove,
            }));
        }
    }
    if remove && gone.is_empty() {
        return Err(Stop::Nothing(" Nothing deleted"));
    }
    if remove {
        proposal.line(" Removed Coordinators (sub accounts not listed)...");
        proposal.lines.extend(gone);
    }
    Ok(proposal)
}
