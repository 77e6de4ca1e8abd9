//! `sacctmgr delete`: which accounts, users, associations and QOS go?

use penstock_proto::v1;
use penstock_proto::v1::account_change::Change;

use super::add::coordinator;
use super::conditions::{Conditions, Entity};
use super::proposal::{Proposal, gone_line};
use super::words::{Stop, Word, split};
use super::world::{ROOT, World};

const NOTHING: &str = " Nothing deleted";

/// Proposes what `sacctmgr delete ENTITY WORDS` takes away.
///
/// # Errors
/// When a word is no condition, there is none, or nothing is meant.
pub(super) fn propose(entity: Entity, words: &[String], world: &World) -> Result<Proposal, Stop> {
    let split = split(words);
    let words: Vec<Word<'_>> = split.conditions.into_iter().chain(split.values).collect();
    match entity {
        Entity::Coordinator => return coordinator(&words, world, true),
        Entity::Account | Entity::User | Entity::Qos => {}
        Entity::Cluster
        | Entity::Association
        | Entity::Tres
        | Entity::RunawayJobs
        | Entity::Unbuilt(_) => return Err(no_entity()),
    }
    let mut conditions = Conditions::default();
    for word in &words {
        if !conditions.take(entity, word) {
            return Err(Stop::one(format!(" Unknown condition: {}", word.whole)));
        }
    }
    if conditions.is_empty() {
        return Err(Stop::one(" No conditions given to remove, not executing."));
    }
    let proposal = match entity {
        Entity::Account => accounts(&conditions, world)?,
        Entity::User => users(&conditions, world),
        _ => qos(&conditions, world),
    };
    if proposal.changes.is_empty() { Err(Stop::Nothing(NOTHING)) } else { Ok(proposal) }
}

/// Slurm's lines for what cannot be deleted.
pub(super) fn no_entity() -> Stop {
    Stop::Wrong(vec![
        "No valid entity in delete command".to_owned(),
        "Input line must include \"Account\", \"Cluster\", \"Coordinator\", \"Federation\", \
         \"QOS\", \"Resource\", or \"User\""
            .to_owned(),
    ])
}

fn accounts(conditions: &Conditions, world: &World) -> Result<Proposal, Stop> {
    let mut found = conditions.accounts(world);
    if found.iter().any(|account| account.name == ROOT) {
        return Err(Stop::Wrong(vec![
            " You are not allowed to remove the root account.".to_owned(),
            " Use remove cluster instead.".to_owned(),
        ]));
    }
    let mut proposal = Proposal::default();
    proposal.line(" Deleting accounts...");
    found.iter().for_each(|account| proposal.line(format!("  {}", account.name)));
    // Those below go first.
    found.sort_by_key(|account| {
        std::cmp::Reverse(world.place(&account.name).map_or(0, |place| world.depth(place)))
    });
    for account in found {
        proposal.push(Change::DeleteAccount(account.name.clone()));
    }
    Ok(proposal)
}

fn users(conditions: &Conditions, world: &World) -> Proposal {
    let mut proposal = Proposal::default();
    let users = conditions.users(world);
    let by_place = !conditions.accounts.is_empty() || !conditions.partitions.is_empty();
    if !by_place {
        proposal.line(" Deleting users...");
        for user in users {
            proposal.line(format!("  {}", user.name));
            proposal.push(Change::DeleteUser(user.name.clone()));
        }
        return proposal;
    }
    proposal.line(" Deleting user associations...");
    let mut homeless = Vec::new();
    for user in users {
        let places = conditions.associations_of(world, &user.name);
        for place in &places {
            proposal.line(gone_line(world.cluster(), place));
            proposal.push(Change::DeleteAssociation(v1::AssociationPlace {
                account: place.account.clone(),
                user: place.user.clone(),
                partition: place.partition.clone(),
            }));
        }
        let all = world.places_of(&user.name).count();
        if !places.is_empty() && places.len() == all {
            homeless.push(&user.name);
        }
    }
    if !homeless.is_empty() {
        proposal.line(" Deleting users (No Associations)...");
    }
    for name in homeless {
        proposal.line(format!("  {name}"));
        proposal.push(Change::DeleteUser(name.clone()));
    }
    proposal
}

fn qos(conditions: &Conditions, world: &World) -> Proposal {
    let mut proposal = Proposal::default();
    proposal.line(" Deleting QOS(s)...");
    for qos in conditions.qos(world) {
        proposal.line(format!("  {}", qos.name));
        proposal.push(Change::DeleteQos(qos.name.clone()));
    }
    proposal
}
