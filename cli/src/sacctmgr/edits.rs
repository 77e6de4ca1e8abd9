//! What is to be set on accounts, users and their associations?

use penstock_proto::v1;

use crate::words::{find_name, list};

use super::limits::{self, Limit};
use super::words::{Stop, Word};
use super::world::World;

/// Keys that are no limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    AdminLevel,
    Cluster,
    DefaultAccount,
    DefaultQos,
    Description,
    Fairshare,
    Names,
    Accounts,
    Organization,
    Parent,
    Partitions,
    Priority,
    Qos,
    RawUsage,
    Limit(Limit),
}

const COMMON: &[(&str, Key)] = &[
    ("Clusters", Key::Cluster),
    ("DefaultQOS", Key::DefaultQos),
    ("DefQOS", Key::DefaultQos),
    ("Fairshare", Key::Fairshare),
    ("Shares", Key::Fairshare),
    ("Priority", Key::Priority),
    ("QOSLevel", Key::Qos),
    ("QOS", Key::Qos),
    ("RawUsage", Key::RawUsage),
];

const OF_ACCOUNTS: &[(&str, Key)] = &[
    ("Description", Key::Description),
    ("Names", Key::Names),
    ("Accounts", Key::Names),
    ("Acct", Key::Names),
    ("Organization", Key::Organization),
    ("Parent", Key::Parent),
];

const OF_USERS: &[(&str, Key)] = &[
    ("AdminLevel", Key::AdminLevel),
    ("Accounts", Key::Accounts),
    ("Acct", Key::Accounts),
    ("DefaultAccount", Key::DefaultAccount),
    ("Names", Key::Names),
    ("Users", Key::Names),
    ("Partitions", Key::Partitions),
];

/// Whose values are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Account,
    User,
    Cluster,
}

/// Values that were given.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Edit {
    /// Things that are added.
    pub(super) names: Vec<String>,
    /// Accounts of added users.
    pub(super) accounts: Vec<String>,
    /// Partitions of added users.
    pub(super) partitions: Vec<String>,
    /// Clusters; ours is the only one.
    pub(super) clusters: Vec<String>,
    pub(super) description: Option<String>,
    pub(super) organization: Option<String>,
    pub(super) parent: Option<String>,
    pub(super) default_account: Option<String>,
    pub(super) admin_level: Option<v1::AdminLevel>,
    /// What changes in the association; `None`: nothing.
    pub(super) assoc: Option<v1::AssociationEdit>,
    /// Labels and values, as they are told.
    pub(super) told: Vec<(&'static str, String)>,
}

impl Edit {
    /// Reads values.
    ///
    /// # Errors
    /// At the first word that cannot be set, or whose value is none.
    pub(super) fn read(of: Of, words: &[Word<'_>], world: &World) -> Result<Self, Stop> {
        let mut edit = Self::default();
        words.iter().try_for_each(|word| edit.take(of, word, world))?;
        edit.told.sort_by_key(|(label, _)| ORDER.iter().position(|known| known == label));
        Ok(edit)
    }

    /// Reads one value.
    pub(super) fn take(&mut self, of: Of, word: &Word<'_>, world: &World) -> Result<(), Stop> {
        let key = if word.key.is_empty() { Some(Key::Names) } else { find_key(of, word.key) };
        let key = key.ok_or_else(|| Stop::option(word))?;
        if word.sign.is_some() && key != Key::Qos {
            return Err(Stop::option(word));
        }
        let value = word.value;
        match key {
            Key::Names if of == Of::Account => self.names.extend(list(&value.to_lowercase())),
            Key::Names => self.names.extend(list(value)),
            Key::Accounts => self.accounts.extend(list(&value.to_lowercase())),
            Key::Partitions => self.partitions.extend(list(value)),
            Key::Cluster => self.clusters.extend(list(&value.to_lowercase())),
            Key::Description => self.description = Some(value.to_owned()),
            Key::Organization => self.organization = Some(value.to_owned()),
            Key::Parent => self.parent = Some(value.to_lowercase()),
            Key::DefaultAccount => self.default_account = Some(value.to_lowercase()),
            Key::AdminLevel => self.admin_level = Some(admin_level(word)?),
            Key::Fairshare => self.set_shares(word)?,
            Key::Priority => {
                let read = limits::count(value).ok_or_else(|| invalid("Priority", word))?;
                self.assoc.get_or_insert_default().priority = Some(read.unwrap_or(0));
                self.told.push(("Priority", value.to_owned()));
            }
            Key::DefaultQos => {
                let name = if value == "-1" { "" } else { value };
                check_qos(name, world, word)?;
                self.assoc.get_or_insert_default().default_qos = Some(name.to_lowercase());
                self.told.push(("DefQOS", value.to_owned()));
            }
            Key::Qos => {
                let edit = qos_list(word, world)?;
                self.assoc.get_or_insert_default().qos = Some(edit);
                self.told.push(("QOS", value.to_owned()));
            }
            Key::RawUsage if value.trim() == "0" => {
                self.assoc.get_or_insert_default().reset_usage = true;
            }
            Key::RawUsage => {
                return Err(Stop::one("sacctmgr: error: RawUsage can only be set to 0"));
            }
            Key::Limit(limit) => {
                let assoc = self.assoc.get_or_insert_default();
                let edit = assoc.limits.get_or_insert_default();
                let told = limits::set(edit, limit, world, word)?;
                self.told.push((limit.1, told));
            }
        }
        Ok(())
    }

    fn set_shares(&mut self, word: &Word<'_>) -> Result<(), Stop> {
        let assoc = self.assoc.get_or_insert_default();
        (assoc.shares, assoc.parent_shares) = (None, false);
        if word.value.eq_ignore_ascii_case("parent") {
            assoc.parent_shares = true;
        } else {
            let shares = limits::count(word.value).ok_or_else(|| invalid("FairShare", word))?;
            assoc.shares = Some(shares.unwrap_or(1));
        }
        self.told.push(("Fairshare", word.value.to_lowercase()));
        Ok(())
    }

    /// Whether no value was given that changes anything.
    pub(super) fn is_empty(&self) -> bool {
        self.assoc.is_none() && !self.changes_account() && !self.changes_user()
    }

    /// Whether what people know of an account changes.
    pub(super) fn changes_account(&self) -> bool {
        self.description.is_some() || self.organization.is_some() || self.parent.is_some()
    }

    /// Whether a user's own record changes.
    pub(super) fn changes_user(&self) -> bool {
        self.default_account.is_some() || self.admin_level.is_some()
    }

    /// Whether a cluster is named that is not ours.
    pub(super) fn of_other_cluster(&self, world: &World) -> bool {
        !self.clusters.is_empty() && !self.clusters.iter().any(|name| name == world.cluster())
    }

    /// The lines `  LABEL = VALUE`.
    pub(super) fn settings(&self) -> Vec<String> {
        self.told.iter().map(|(label, value)| format!("  {label:<13} = {value}")).collect()
    }
}

/// Labels in the order in which Slurm tells them.
const ORDER: &[&str] = &[
    "Fairshare",
    "GrpTRESMins",
    "GrpTRESRunMins",
    "GrpTRES",
    "GrpJobs",
    "GrpJobsAccrue",
    "GrpSubmitJobs",
    "GrpWall",
    "MaxTRESMins",
    "MaxTRES",
    "MaxTRESPerNode",
    "MaxJobs",
    "MaxJobsAccrue",
    "MaxSubmitJobs",
    "MaxWall",
    "Priority",
    "QOS",
    "DefQOS",
    "Guaranteed",
];

fn find_key(of: Of, name: &str) -> Option<Key> {
    let own: &[(&str, Key)] = match of {
        Of::Account => OF_ACCOUNTS,
        Of::User => OF_USERS,
        Of::Cluster => &[],
    };
    let limits = limits::SHARED.iter().chain(limits::OF_ASSOCIATIONS);
    let limits = limits.map(|(name, limit)| (*name, Key::Limit(*limit)));
    let all: Vec<(&str, Key)> = own.iter().chain(COMMON).copied().chain(limits).collect();
    find_name(&all, name)
}

fn invalid(label: &str, word: &Word<'_>) -> Stop {
    Stop::value(word, &format!("Invalid value for {label} ({})", word.value))
}

fn admin_level(word: &Word<'_>) -> Result<v1::AdminLevel, Stop> {
    let levels = [
        ("None", v1::AdminLevel::None),
        ("Operator", v1::AdminLevel::Operator),
        ("Administrator", v1::AdminLevel::Administrator),
        ("SuperUser", v1::AdminLevel::Administrator),
    ];
    find_name(&levels, word.value).ok_or_else(|| {
        let value = word.value;
        Stop::value(
            word,
            &format!("{value:?} is no admin level; there are None, Operator and Administrator"),
        )
    })
}

/// Refuses a QOS that there is not; an empty name is none.
pub(super) fn check_qos(name: &str, world: &World, word: &Word<'_>) -> Result<(), Stop> {
    if name.is_empty() || world.qos(&name.to_lowercase()).is_some() {
        return Ok(());
    }
    let known = world.qos_names().join(",");
    Err(Stop::value(word, &format!("You gave a bad qos '{name}'. Valid QOS's are {known}")))
}

/// A list of QOS that is set, added to, or taken from.
pub(super) fn qos_list(word: &Word<'_>, world: &World) -> Result<v1::NameListEdit, Stop> {
    let mut edit = v1::NameListEdit::default();
    let names = match word.value.trim() {
        "" | "-1" => Vec::new(),
        text => list(&text.to_lowercase()),
    };
    names
        .iter()
        .try_for_each(|name| check_qos(name.trim_start_matches(['+', '-']), world, word))?;
    if names.is_empty() && word.sign.is_none() {
        edit.inherit = true;
        return Ok(edit);
    }
    // Slurm also takes the signs before each name.
    let mut plain = Vec::new();
    for name in names {
        match (word.sign, name.strip_prefix('+'), name.strip_prefix('-')) {
            (Some('+'), _, _) => edit.add.push(name),
            (Some(_), _, _) => edit.remove.push(name),
            (None, Some(added), _) => edit.add.push(added.to_owned()),
            (None, None, Some(removed)) => edit.remove.push(removed.to_owned()),
            (None, None, None) => plain.push(name),
        }
    }
    if !plain.is_empty() {
        edit.set = Some(v1::NameList { names: plain });
    }
    Ok(edit)
}
