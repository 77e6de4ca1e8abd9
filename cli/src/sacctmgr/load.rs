//! What of a file in the form of `sacctmgr dump` is not so yet?
//!
//! Without `clean`, what the file names is made or changed and nothing is taken away; with it, the
//! tree is the file's afterwards: accounts, users and limits that it does not name go. A QOS that it
//! does not name stays in any case, since partitions may need it.

use std::collections::BTreeSet;

use penstock_proto::v1;
use penstock_proto::v1::account_change::{
    Change, Coordinator, PutAccount, PutAssociation, PutQos, PutUser,
};

use super::dump;
use super::edits::{Edit, Of};
use super::proposal::Proposal;
use super::qos_edits::QosEdit;
use super::words::{Stop, Word};
use super::world::{ROOT, World};

/// Proposes what makes `world` as the file says.
///
/// # Errors
/// With its number, at the first line that is not understood.
pub(super) fn propose(text: &str, clean: bool, world: &World) -> Result<Proposal, Stop> {
    let mut load = Load {
        world: world.clone(),
        clean,
        proposal: Proposal::default(),
        parent: ROOT.to_owned(),
        places: BTreeSet::new(),
        users: BTreeSet::new(),
        coordinators: BTreeSet::new(),
        next_id: world.tree().associations.iter().map(|assoc| assoc.id).max().unwrap_or(0),
    };
    load.proposal.line(format!("For cluster {}", world.cluster()));
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        load.line(line).map_err(|stop| at_line(stop, number))?;
    }
    if clean {
        load.take_away();
    }
    if load.proposal.changes.is_empty() {
        load.proposal.line(" Nothing new added.");
    }
    load.proposal.announced = true;
    Ok(load.proposal)
}

fn at_line(stop: Stop, number: usize) -> Stop {
    let lines = match stop {
        Stop::Nothing(line) => vec![line.to_owned()],
        Stop::Wrong(lines) => lines,
    };
    let first = format!(" Error in line {number} of the file; nothing is changed:");
    Stop::Wrong(std::iter::once(first).chain(lines).collect())
}

struct Load {
    /// As it is, with what the file has added so far.
    world: World,
    clean: bool,
    proposal: Proposal,
    parent: String,
    /// Account, user and partition of every place that the file names.
    places: BTreeSet<(String, String, String)>,
    users: BTreeSet<String>,
    /// Account and user.
    coordinators: BTreeSet<(String, String)>,
    /// Above every number that a controller has given so far.
    next_id: u32,
}

impl Load {
    fn line(&mut self, line: &str) -> Result<(), Stop> {
        let (what, rest) = line.split_once(" - ").ok_or_else(|| misformed(line))?;
        let mut options = split_options(rest).into_iter();
        let name = options.next().unwrap_or_default();
        let name = Word::new(&name).value.to_owned();
        if name.is_empty() {
            return Err(misformed(line));
        }
        let options: Vec<String> = options.collect();
        match what.trim().to_ascii_lowercase().as_str() {
            "cluster" | "machine" => self.cluster(&options),
            "qos" => self.qos(&name.to_lowercase(), &options),
            "parent" => self.set_parent(&name.to_lowercase()),
            "account" | "project" => self.account(&name.to_lowercase(), &options),
            "user" => self.user(&name, &options),
            _ => Err(misformed(line)),
        }
    }

    fn cluster(&mut self, options: &[String]) -> Result<(), Stop> {
        let root = self.world.place(ROOT).cloned();
        let known = root.as_ref().map(dump::limits_of).unwrap_or_default();
        self.places.insert((ROOT.to_owned(), String::new(), String::new()));
        let Some(options) = self.wanted(options, &known) else { return Ok(()) };
        let edit = self.edit(Of::Cluster, &options)?;
        self.tell("cluster", self.world.cluster().to_owned().as_str(), &options, true);
        self.put_place(ROOT, "", "", false, edit.assoc);
        Ok(())
    }

    fn qos(&mut self, name: &str, options: &[String]) -> Result<(), Stop> {
        let known = self.world.qos(name).cloned();
        let pairs = known.as_ref().map(dump::qos_pairs).unwrap_or_default();
        let wanted = self.wanted(options, &pairs);
        let options = match (&known, wanted) {
            (Some(_), None) => return Ok(()),
            (_, wanted) => wanted.unwrap_or_default(),
        };
        if known.is_none() {
            let qos = v1::Qos { name: name.to_owned(), id: u32::MAX, ..v1::Qos::default() };
            self.world.add_qos(qos);
        }
        let words: Vec<Word<'_>> = options.iter().map(|text| Word::new(text)).collect();
        let edit = QosEdit::read(&words, &self.world)?;
        self.tell("QOS", name, &options, known.is_some());
        self.proposal.push(Change::PutQos(PutQos {
            name: name.to_owned(),
            create: known.is_none(),
            ..edit.change
        }));
        Ok(())
    }

    fn set_parent(&mut self, name: &str) -> Result<(), Stop> {
        if self.world.place(name).is_none() {
            return Err(Stop::one(format!(
                " Parent account '{name}' does not exist; its Account line must come first"
            )));
        }
        name.clone_into(&mut self.parent);
        Ok(())
    }

    fn account(&mut self, name: &str, options: &[String]) -> Result<(), Stop> {
        self.places.insert((name.to_owned(), String::new(), String::new()));
        let parent = self.parent.clone();
        let Some(place) = self.world.place(name).cloned() else {
            let edit = self.edit(Of::Account, options)?;
            self.tell("account", name, options, false);
            let organization = if parent == ROOT { name } else { &parent };
            self.proposal.push(Change::PutAccount(PutAccount {
                name: name.to_owned(),
                create: true,
                description: Some(edit.description.unwrap_or_else(|| name.to_owned())),
                organization: Some(edit.organization.unwrap_or_else(|| organization.to_owned())),
                parent: Some(parent.clone()),
                edit: edit.assoc,
            }));
            self.remember(name, "", "");
            return Ok(());
        };
        let moved = self.world.parent_name(&place) != parent && name != ROOT;
        let wanted = self.wanted(options, &dump::account_pairs(&self.world, &place));
        if wanted.is_none() && !moved {
            return Ok(());
        }
        let options = wanted.unwrap_or_default();
        let edit = self.edit(Of::Account, &options)?;
        self.tell("account", name, &options, true);
        self.proposal.push(Change::PutAccount(PutAccount {
            name: name.to_owned(),
            create: false,
            description: edit.description,
            organization: edit.organization,
            parent: moved.then_some(parent),
            edit: edit.assoc,
        }));
        Ok(())
    }

    fn user(&mut self, name: &str, options: &[String]) -> Result<(), Stop> {
        let (own, options) = split_own(options);
        let partition = own.iter().find(|(key, _)| *key == "partition");
        let partition = partition.map_or("", |(_, value)| value).to_owned();
        let account = self.parent.clone();
        self.places.insert((account.clone(), name.to_owned(), partition.clone()));
        self.put_user(name, &account, &options)?;
        for (_, list) in own.iter().filter(|(key, _)| *key == "coordinator") {
            self.coordinate(name, list);
        }
        let place = self.world.association(&account, name, &partition).cloned();
        let known = place.as_ref().map(dump::limits_of).unwrap_or_default();
        let limits: Vec<String> = options.into_iter().filter(|text| !is_of_user(text)).collect();
        let wanted = self.wanted(&limits, &known);
        if place.is_some() && wanted.is_none() {
            return Ok(());
        }
        let limits = wanted.unwrap_or_default();
        let edit = self.edit(Of::User, &limits)?;
        let label = format!("{name} in account {account}");
        self.tell("user", &label, &limits, place.is_some());
        self.put_place(&account, name, &partition, place.is_none(), edit.assoc);
        if place.is_none() {
            self.remember(&account, name, &partition);
        }
        Ok(())
    }

    /// The user's own record, at the first line that names the user.
    fn put_user(&mut self, name: &str, account: &str, options: &[String]) -> Result<(), Stop> {
        if !self.users.insert(name.to_owned()) {
            return Ok(());
        }
        let own: Vec<String> = options.iter().filter(|text| is_of_user(text)).cloned().collect();
        let edit = self.edit(Of::User, &own)?;
        let known = self.world.user(name);
        let level = edit.admin_level.unwrap_or(v1::AdminLevel::None);
        let default = edit.default_account.clone().unwrap_or_else(|| account.to_owned());
        let same = known.is_some_and(|user| {
            (edit.default_account.is_none() || user.default_account == default)
                && ((edit.admin_level.is_none() && !self.clean) || user.admin_level() == level)
        });
        if !same {
            self.proposal.push(Change::PutUser(PutUser {
                name: name.to_owned(),
                uid: uzers::get_user_by_name(name).map(|user| user.uid()),
                default_account: Some(default),
                admin_level: Some(level.into()),
            }));
        }
        Ok(())
    }

    fn coordinate(&mut self, user: &str, list: &str) {
        for account in crate::words::list(&list.to_lowercase()) {
            let known = self.world.account(&account);
            let has = known.is_some_and(|known| known.coordinators.iter().any(|name| name == user));
            if self.coordinators.insert((account.clone(), user.to_owned())) && !has {
                self.proposal
                    .line(format!(" Making User '{user}' coordinator for account(s) {account}"));
                self.proposal.push(Change::Coordinator(Coordinator {
                    account,
                    user: user.to_owned(),
                    remove: false,
                }));
            }
        }
    }

    /// The options that are to be set: all, unless they hold already; with `clean`, also those that
    /// take away what the file does not name. `None`: nothing.
    fn wanted(&self, options: &[String], known: &dump::Pairs) -> Option<Vec<String>> {
        let same = |text: &String| {
            let word = Word::new(text);
            known
                .iter()
                .any(|(key, value)| key.eq_ignore_ascii_case(word.key) && *value == word.value)
        };
        let mut wanted: Vec<String> = options.iter().filter(|text| !same(text)).cloned().collect();
        if self.clean {
            let named = |key: &str| {
                options.iter().any(|text| Word::new(text).key.eq_ignore_ascii_case(key))
            };
            wanted.extend(known.iter().filter(|(key, _)| !named(key)).filter_map(cleared));
        }
        (!wanted.is_empty()).then_some(wanted)
    }

    fn edit(&self, of: Of, options: &[String]) -> Result<Edit, Stop> {
        let words: Vec<Word<'_>> = options.iter().map(|text| Word::new(text)).collect();
        Edit::read(of, &words, &self.world)
    }

    fn tell(&mut self, what: &str, name: &str, options: &[String], known: bool) {
        let verb = if known { "Modifying" } else { "Adding" };
        let options =
            if options.is_empty() { String::new() } else { format!(": {}", options.join(" ")) };
        self.proposal.line(format!(" {verb} {what} {name}{options}"));
    }

    fn put_place(
        &mut self,
        account: &str,
        user: &str,
        partition: &str,
        create: bool,
        edit: Option<v1::AssociationEdit>,
    ) {
        self.proposal.push(Change::PutAssociation(PutAssociation {
            account: account.to_owned(),
            user: user.to_owned(),
            partition: partition.to_owned(),
            create,
            edit,
        }));
    }

    /// So that later lines find what earlier ones add.
    fn remember(&mut self, account: &str, user: &str, partition: &str) {
        let parent = self.world.place(if user.is_empty() { &self.parent } else { account });
        let parent = parent.map_or(0, |place| place.id);
        self.next_id = self.next_id.saturating_add(1);
        self.world.add_association(v1::Association {
            id: self.next_id,
            account: account.to_owned(),
            user: user.to_owned(),
            partition: partition.to_owned(),
            parent,
            ..v1::Association::default()
        });
        if user.is_empty() {
            let name = account.to_owned();
            self.world.add_account(v1::Account { name, ..v1::Account::default() });
        }
    }

    /// What the file does not name goes: places, then users, then accounts from below.
    fn take_away(&mut self) {
        let key = |assoc: &v1::Association| {
            (assoc.account.clone(), assoc.user.clone(), assoc.partition.clone())
        };
        let associations = &self.world.tree().associations;
        let gone: Vec<&v1::Association> =
            associations.iter().filter(|assoc| !self.places.contains(&key(assoc))).collect();
        let (mut users, mut accounts) = (Vec::new(), Vec::new());
        for assoc in gone {
            if assoc.user.is_empty() {
                accounts.push((self.world.depth(assoc), assoc.account.clone()));
            } else if self.users.contains(&assoc.user) {
                users.push(key(assoc));
            }
        }
        let unknown =
            self.world.tree().users.iter().filter(|user| !self.users.contains(&user.name));
        let unknown: Vec<String> = unknown.map(|user| user.name.clone()).collect();
        let lost: Vec<(String, String)> = self
            .world
            .tree()
            .accounts
            .iter()
            .flat_map(|account| {
                account.coordinators.iter().map(|user| (account.name.clone(), user.clone()))
            })
            .filter(|(account, user)| {
                self.users.contains(user)
                    && !self.coordinators.contains(&(account.clone(), user.clone()))
            })
            .collect();
        for (account, user) in lost {
            self.proposal.line(format!(" Removing coordinator {user} of account {account}"));
            self.proposal.push(Change::Coordinator(Coordinator { account, user, remove: true }));
        }
        for (account, user, partition) in users {
            self.proposal.line(format!(" Deleting user {user} from account {account}"));
            let place = v1::AssociationPlace { account, user, partition };
            self.proposal.push(Change::DeleteAssociation(place));
        }
        for user in unknown {
            self.proposal.line(format!(" Deleting user {user}"));
            self.proposal.push(Change::DeleteUser(user));
        }
        accounts.sort_by(|a, b| b.cmp(a));
        for (_, account) in accounts {
            self.proposal.line(format!(" Deleting account {account}"));
            self.proposal.push(Change::DeleteAccount(account));
        }
    }
}

fn misformed(line: &str) -> Stop {
    Stop::one(format!(
        " Misformatted line: {line}\n a line is Cluster, QOS, Parent, Account or User, then - 'name' \
         and :Key=Value options"
    ))
}

/// Splits at colons that are not inside quotes.
fn split_options(text: &str) -> Vec<String> {
    let mut quote = None;
    let mut options = vec![String::new()];
    for letter in text.chars() {
        match (quote, letter) {
            (None, ':') => {
                options.push(String::new());
                continue;
            }
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if letter == open => quote = None,
            _ => {}
        }
        if let Some(last) = options.last_mut() {
            last.push(letter);
        }
    }
    options.into_iter().map(|option| option.trim().to_owned()).filter(|o| !o.is_empty()).collect()
}

/// Partition and coordinator, which are no values of an association, and the rest.
fn split_own(options: &[String]) -> (Vec<(&'static str, String)>, Vec<String>) {
    let mut own = Vec::new();
    let mut rest = Vec::new();
    for text in options {
        let word = Word::new(text);
        match word.key.to_ascii_lowercase().as_str() {
            "partition" => own.push(("partition", word.value.to_owned())),
            "coordinator" => own.push(("coordinator", word.value.to_owned())),
            // Slurm writes them, and there are none here.
            "defaultwckey" => {}
            _ => rest.push(text.clone()),
        }
    }
    (own, rest)
}

fn is_of_user(text: &str) -> bool {
    let key = Word::new(text).key;
    key.eq_ignore_ascii_case("DefaultAccount") || key.eq_ignore_ascii_case("AdminLevel")
}

/// The option that takes a value away.
fn cleared((key, value): &(&'static str, String)) -> Option<String> {
    let amounts = matches!(*key, "GrpTRES" | "GrpTRESMins" | "GrpTRESRunMins" | "Guaranteed")
        || key.starts_with("MaxTRES")
        || key.starts_with("MinTRES");
    if amounts {
        let kinds = value.split(',').filter_map(|entry| entry.rsplit_once('='));
        let kinds: Vec<String> = kinds.map(|(kind, _)| format!("{kind}=-1")).collect();
        return Some(format!("{key}={}", kinds.join(",")));
    }
    match *key {
        "Description" | "Organization" | "DefaultAccount" | "AdminLevel" | "Coordinator"
        | "Partition" => None,
        "Fairshare" => (value != "1").then(|| "Fairshare=1".to_owned()),
        "PreemptMode" => Some("PreemptMode=cluster".to_owned()),
        "UsageFactor" => Some("UsageFactor=1".to_owned()),
        "GraceTime" | "Priority" => Some(format!("{key}=0")),
        "Preempt" => Some(format!("Preempt-={value}")),
        key => Some(format!("{key}=-1")),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
