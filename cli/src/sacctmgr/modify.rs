//! `sacctmgr modify`: what changes in which accounts, users and QOS?

use penstock_proto::v1;
use penstock_proto::v1::account_change::{Change, PutAccount, PutAssociation, PutQos, PutUser};

use super::conditions::{Conditions, Entity};
use super::edits::{Edit, Of};
use super::proposal::{Proposal, place_line};
use super::qos_edits::QosEdit;
use super::words::{Stop, Words, split};
use super::world::{ROOT, World};

const NOTHING: &str = " Nothing modified";

/// Slurm's line when nothing is to be set.
const NO_VALUE: &str = " You didn't give me anything to set";

/// Proposes what `sacctmgr modify ENTITY WORDS` changes.
///
/// # Errors
/// When a word is none, nothing is to be set, or nothing is meant.
pub(super) fn propose(entity: Entity, words: &[String], world: &World) -> Result<Proposal, Stop> {
    let words = split(words);
    let proposal = match entity {
        Entity::Account => account(&words, world)?,
        Entity::User => user(&words, world)?,
        Entity::Qos => qos(&words, world)?,
        Entity::Cluster => cluster(&words, world)?,
        Entity::Association
        | Entity::Coordinator
        | Entity::Tres
        | Entity::RunawayJobs
        | Entity::Unbuilt(_) => return Err(no_entity()),
    };
    if proposal.changes.is_empty() { Err(Stop::Nothing(NOTHING)) } else { Ok(proposal) }
}

/// Slurm's lines for what cannot be modified.
pub(super) fn no_entity() -> Stop {
    Stop::Wrong(vec![
        "No valid entity in modify command".to_owned(),
        "Input line must include \"Account\", \"Cluster\", \"Federation\", \"Job\", \"QOS\", \
         \"Resource\" or \"User\""
            .to_owned(),
    ])
}

fn account(words: &Words<'_>, world: &World) -> Result<Proposal, Stop> {
    let conditions = Conditions::read(Entity::Account, &words.conditions)?;
    let edit = Edit::read(Of::Account, &words.values, world)?;
    if edit.is_empty() {
        return Err(Stop::one(NO_VALUE));
    }
    let mut proposal = Proposal::default();
    let accounts = conditions.accounts(world);
    if (edit.description.is_some() || edit.organization.is_some()) && !accounts.is_empty() {
        proposal.line(" Modified accounts...");
        accounts.iter().for_each(|account| proposal.line(format!("  {}", account.name)));
    }
    let places: Vec<&v1::Association> =
        accounts.iter().filter_map(|account| world.place(&account.name)).collect();
    if (edit.assoc.is_some() || edit.parent.is_some()) && !places.is_empty() {
        proposal.line(" Modified account associations...");
        for place in places {
            proposal.line(place_line(world.cluster(), world.parent_name(place), place));
        }
    }
    for account in accounts {
        proposal.push(Change::PutAccount(PutAccount {
            name: account.name.clone(),
            create: false,
            description: edit.description.clone(),
            organization: edit.organization.clone(),
            parent: edit.parent.clone(),
            edit: edit.assoc.clone(),
        }));
    }
    Ok(proposal)
}

fn user(words: &Words<'_>, world: &World) -> Result<Proposal, Stop> {
    let conditions = Conditions::read(Entity::User, &words.conditions)?;
    let edit = Edit::read(Of::User, &words.values, world)?;
    if edit.is_empty() {
        return Err(Stop::one(NO_VALUE));
    }
    if edit.assoc.as_ref().is_some_and(|assoc| assoc.reset_usage) && conditions.accounts.is_empty()
    {
        return Err(Stop::one("sacctmgr: error: An account must be specified"));
    }
    let users = conditions.users(world);
    let mut proposal = Proposal::default();
    if edit.changes_user() && !users.is_empty() {
        proposal.line(" Modified users...");
        for user in &users {
            proposal.line(format!("  {}", user.name));
            proposal.push(Change::PutUser(PutUser {
                name: user.name.clone(),
                uid: None,
                default_account: edit.default_account.clone(),
                admin_level: edit.admin_level.map(Into::into),
            }));
        }
    }
    let Some(changed) = &edit.assoc else { return Ok(proposal) };
    let places: Vec<&v1::Association> =
        users.iter().flat_map(|user| conditions.associations_of(world, &user.name)).collect();
    if !places.is_empty() {
        proposal.line(" Modified user associations...");
    }
    for place in places {
        proposal.line(place_line(world.cluster(), "", place));
        proposal.push(put(place, changed));
    }
    Ok(proposal)
}

fn put(place: &v1::Association, edit: &v1::AssociationEdit) -> Change {
    Change::PutAssociation(PutAssociation {
        account: place.account.clone(),
        user: place.user.clone(),
        partition: place.partition.clone(),
        create: false,
        edit: Some(edit.clone()),
    })
}

fn qos(words: &Words<'_>, world: &World) -> Result<Proposal, Stop> {
    let conditions = Conditions::read(Entity::Qos, &words.conditions)?;
    let edit = QosEdit::read(&words.values, world)?;
    if edit.is_empty() {
        return Err(Stop::one(NO_VALUE));
    }
    let mut proposal = Proposal::default();
    let found = conditions.qos(world);
    if !found.is_empty() {
        proposal.line(" Modified qos...");
    }
    for qos in found {
        proposal.line(format!("  {}", qos.name));
        proposal.push(Change::PutQos(PutQos { name: qos.name.clone(), ..edit.change.clone() }));
    }
    Ok(proposal)
}

/// What holds for the whole cluster is the root's.
fn cluster(words: &Words<'_>, world: &World) -> Result<Proposal, Stop> {
    let conditions = Conditions::read(Entity::Cluster, &words.conditions)?;
    let edit = Edit::read(Of::Cluster, &words.values, world)?;
    let Some(changed) = &edit.assoc else { return Err(Stop::one(NO_VALUE)) };
    let mut proposal = Proposal::default();
    let Some(root) = world.place(ROOT).filter(|_| conditions.mean_cluster(world)) else {
        return Ok(proposal);
    };
    proposal.line(" Setting");
    proposal.line("  Default Limits:");
    edit.settings().into_iter().for_each(|line| proposal.line(line));
    proposal.line(" Modified cluster defaults for associations...");
    proposal.line(place_line(world.cluster(), "", root));
    proposal.push(put(root, changed));
    Ok(proposal)
}
