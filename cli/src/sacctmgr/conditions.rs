//! Which accounts, users, associations or QOS does a command mean?

use penstock_proto::v1;

use crate::words::{find_name, list};

use super::fields::admin_level;
use super::words::{Stop, Word};
use super::world::World;

/// What a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entity {
    Account,
    Association,
    Cluster,
    Coordinator,
    Qos,
    Tres,
    User,
    RunawayJobs,
    /// One of Slurm's that is refused: what to use instead.
    Unbuilt(&'static str),
}

/// Names of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Accounts,
    AdminLevel,
    Clusters,
    DefaultAccount,
    Description,
    Ids,
    Names,
    Organization,
    Parents,
    Partitions,
    PreemptMode,
    Qos,
    Types,
    Users,
}

const ACCOUNT: &[(&str, Key)] = &[
    ("Names", Key::Names),
    ("Accounts", Key::Names),
    ("Acct", Key::Names),
    ("Clusters", Key::Clusters),
    ("Descriptions", Key::Description),
    ("Organizations", Key::Organization),
    ("Parents", Key::Parents),
    ("QOSLevel", Key::Qos),
];

const ASSOCIATION: &[(&str, Key)] = &[
    ("Accounts", Key::Accounts),
    ("Acct", Key::Accounts),
    ("Clusters", Key::Clusters),
    ("IDs", Key::Ids),
    ("Associations", Key::Ids),
    ("Parents", Key::Parents),
    ("Partitions", Key::Partitions),
    ("QOSLevel", Key::Qos),
    ("Users", Key::Users),
];

const USER: &[(&str, Key)] = &[
    ("Accounts", Key::Accounts),
    ("Acct", Key::Accounts),
    ("AdminLevel", Key::AdminLevel),
    ("Clusters", Key::Clusters),
    ("DefaultAccount", Key::DefaultAccount),
    ("Names", Key::Users),
    ("Users", Key::Users),
    ("Partitions", Key::Partitions),
    ("QOSLevel", Key::Qos),
];

const QOS: &[(&str, Key)] = &[
    ("Descriptions", Key::Description),
    ("IDs", Key::Ids),
    ("Names", Key::Names),
    ("PreemptMode", Key::PreemptMode),
    ("QOS", Key::Names),
    ("QOSLevel", Key::Names),
];

const CLUSTER: &[(&str, Key)] = &[("Names", Key::Clusters), ("Clusters", Key::Clusters)];

const COORDINATOR: &[(&str, Key)] = &[
    ("Accounts", Key::Accounts),
    ("Acct", Key::Accounts),
    ("Names", Key::Users),
    ("Users", Key::Users),
];

const TRES: &[(&str, Key)] = &[("IDs", Key::Ids), ("Names", Key::Names), ("Types", Key::Types)];

/// Conditions that are joined by AND; an empty list holds for all.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) accounts: Vec<String>,
    pub(super) admin_levels: Vec<String>,
    pub(super) clusters: Vec<String>,
    pub(super) default_accounts: Vec<String>,
    pub(super) descriptions: Vec<String>,
    pub(super) ids: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) organizations: Vec<String>,
    pub(super) parents: Vec<String>,
    pub(super) partitions: Vec<String>,
    pub(super) preempt_modes: Vec<String>,
    pub(super) qos: Vec<String>,
    pub(super) types: Vec<String>,
    pub(super) users: Vec<String>,
}

impl Conditions {
    /// Reads conditions on `entity`.
    ///
    /// # Errors
    /// At the first word that names none.
    pub(super) fn read(entity: Entity, words: &[Word<'_>]) -> Result<Self, Stop> {
        let mut conditions = Self::default();
        words.iter().try_for_each(|word| match conditions.take(entity, word) {
            true => Ok(()),
            false => Err(Stop::condition(word)),
        })?;
        Ok(conditions)
    }

    /// Reads one condition; false when it is none.
    pub(super) fn take(&mut self, entity: Entity, word: &Word<'_>) -> bool {
        let (keys, bare) = match entity {
            Entity::Account => (ACCOUNT, Some(Key::Names)),
            Entity::Association => (ASSOCIATION, None),
            Entity::Cluster => (CLUSTER, Some(Key::Clusters)),
            Entity::Coordinator => (COORDINATOR, Some(Key::Users)),
            Entity::Qos => (QOS, Some(Key::Names)),
            Entity::Tres => (TRES, Some(Key::Types)),
            Entity::User => (USER, Some(Key::Users)),
            Entity::RunawayJobs | Entity::Unbuilt(_) => return true,
        };
        if word.sign.is_some() {
            return false;
        }
        let key = if word.key.is_empty() { bare } else { find_name(keys, word.key) };
        let Some(key) = key else { return false };
        let place = match key {
            Key::Accounts => &mut self.accounts,
            Key::AdminLevel => &mut self.admin_levels,
            Key::Clusters => &mut self.clusters,
            Key::DefaultAccount => &mut self.default_accounts,
            Key::Description => &mut self.descriptions,
            Key::Ids => &mut self.ids,
            Key::Names => &mut self.names,
            Key::Organization => &mut self.organizations,
            Key::Parents => &mut self.parents,
            Key::Partitions => &mut self.partitions,
            Key::PreemptMode => &mut self.preempt_modes,
            Key::Qos => &mut self.qos,
            Key::Types => &mut self.types,
            Key::Users => &mut self.users,
        };
        // Login names may have capitals; every other name is kept small.
        let small = key != Key::Users && key != Key::Partitions;
        let text = if small { word.value.to_lowercase() } else { word.value.to_owned() };
        place.extend(list(&text));
        true
    }

    /// Whether there is none at all.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn of_cluster(&self, world: &World) -> bool {
        fits(&self.clusters, world.cluster())
    }

    /// Accounts by name.
    pub(super) fn accounts<'w>(&self, world: &'w World) -> Vec<&'w v1::Account> {
        if !self.of_cluster(world) {
            return Vec::new();
        }
        let fit = |account: &&v1::Account| {
            let place = world.place(&account.name);
            let parent = place.map_or("", |assoc| world.parent_name(assoc));
            fits(&self.names, &account.name)
                && fits(&self.descriptions, &account.description)
                && fits(&self.organizations, &account.organization)
                && fits(&self.parents, parent)
                && (self.qos.is_empty() || place.is_some_and(|assoc| self.fits_qos(world, assoc)))
        };
        let mut found: Vec<&v1::Account> = world.tree().accounts.iter().filter(fit).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Users by name; one whose associations do not fit is left out.
    pub(super) fn users<'w>(&self, world: &'w World) -> Vec<&'w v1::User> {
        if !self.of_cluster(world) {
            return Vec::new();
        }
        let by_place =
            !self.accounts.is_empty() || !self.partitions.is_empty() || !self.qos.is_empty();
        let fit = |user: &&v1::User| {
            let level = admin_level(user).to_lowercase();
            let of_level =
                |wanted: &String| !wanted.is_empty() && level.starts_with(wanted.as_str());
            fits(&self.users, &user.name)
                && fits(&self.default_accounts, &user.default_account)
                && (self.admin_levels.is_empty() || self.admin_levels.iter().any(of_level))
                && (!by_place || !self.associations_of(world, &user.name).is_empty())
        };
        let mut found: Vec<&v1::User> = world.tree().users.iter().filter(fit).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The places of one user that fit.
    pub(super) fn associations_of<'w>(
        &self,
        world: &'w World,
        user: &str,
    ) -> Vec<&'w v1::Association> {
        world.places_of(user).filter(|assoc| self.fits_place(world, assoc)).collect()
    }

    /// Associations in the order of the tree.
    pub(super) fn associations<'w>(&self, world: &'w World) -> Vec<&'w v1::Association> {
        if !self.of_cluster(world) {
            return Vec::new();
        }
        let fit = |assoc: &&v1::Association| {
            fits(&self.users, &assoc.user)
                && fits(&self.ids, &assoc.id.to_string())
                && fits(&self.parents, world.parent_name(assoc))
                && self.fits_place(world, assoc)
        };
        world.tree().associations.iter().filter(fit).collect()
    }

    /// QOS by number.
    pub(super) fn qos<'w>(&self, world: &'w World) -> Vec<&'w v1::Qos> {
        let fit = |qos: &&v1::Qos| {
            fits(&self.names, &qos.name)
                && fits(&self.ids, &qos.id.to_string())
                && fits(&self.descriptions, &qos.description)
                && fits(&self.preempt_modes, super::qos_fields::preempt_mode(qos))
        };
        let mut found: Vec<&v1::Qos> = world.tree().qos.iter().filter(fit).collect();
        found.sort_by_key(|qos| qos.id);
        found
    }

    /// Whether a cluster of that name is meant.
    pub(super) fn mean_cluster(&self, world: &World) -> bool {
        self.of_cluster(world)
    }

    fn fits_place(&self, world: &World, assoc: &v1::Association) -> bool {
        fits(&self.accounts, &assoc.account)
            && fits(&self.partitions, &assoc.partition)
            && (self.qos.is_empty() || self.fits_qos(world, assoc))
    }

    fn fits_qos(&self, world: &World, assoc: &v1::Association) -> bool {
        let names = world.effective(assoc).qos.unwrap_or_default().names;
        names.iter().any(|name| self.qos.contains(name))
    }
}

fn fits(wanted: &[String], own: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(own))
}
