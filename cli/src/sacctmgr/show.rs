//! `sacctmgr show`: what is there, and in which columns?

use std::collections::HashMap;

use penstock_proto::v1;

use crate::listing::{Report, ReportField, TableStyle};

use super::conditions::{Conditions, Entity};
use super::fields::{self, FIELDS, Row};
use super::qos_fields::{self, TRES_FIELDS};
use super::words::{Stop, Word};
use super::world::{ROOT, World};

/// How a listing is printed.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// What surrounds the values.
    pub(super) style: TableStyle,
    /// Whether there is a header.
    pub(super) header: bool,
    /// Accounts and users with their associations (`-s`).
    pub(super) associations: bool,
}

/// What was asked for besides conditions.
#[derive(Debug, Default)]
struct Asked {
    format: Option<String>,
    associations: bool,
    coordinators: bool,
    tree: bool,
    no_limits: bool,
    own_limits: bool,
    only_defaults: bool,
    below_accounts: bool,
}

/// The listing of `sacctmgr show ENTITY WORDS`.
///
/// # Errors
/// When a word is no condition, or a format names no field.
pub(super) fn text(
    entity: Entity,
    words: &[String],
    world: &World,
    look: &Look,
) -> Result<Vec<u8>, Stop> {
    let mut asked = Asked { associations: look.associations, ..Asked::default() };
    let mut conditions = Conditions::default();
    for word in words.iter().filter(|word| !word.eq_ignore_ascii_case("where")) {
        let word = Word::new(word);
        if !asked.take(&word) && !conditions.take(entity, &word) {
            return Err(Stop::one(format!(" Unknown condition: {}", word.whole)));
        }
    }
    match entity {
        Entity::Account => accounts(world, &conditions, &asked, look),
        Entity::Association => associations(world, &conditions, &asked, look),
        Entity::Cluster => cluster(world, &conditions, &asked, look),
        Entity::Qos => {
            let rows: Vec<v1::Qos> = conditions.qos(world).into_iter().cloned().collect();
            let format = asked.format.as_deref().unwrap_or(qos_fields::DEFAULT);
            report(qos_fields::FIELDS, format, look).map(|report| report.text(&rows))
        }
        Entity::Tres => {
            let mut rows = qos_fields::countables(&world.tree().tres);
            rows.retain(|row| row.is_one_of(&conditions.types, &conditions.names, &conditions.ids));
            let format = asked.format.as_deref().unwrap_or("type,name,id");
            report(TRES_FIELDS, format, look).map(|report| report.text(&rows))
        }
        Entity::User => users(world, &conditions, &asked, look),
        Entity::RunawayJobs => {
            let line =
                format!("Runaway Jobs: No runaway jobs found on cluster {}\n", world.cluster());
            Ok(line.into_bytes())
        }
        Entity::Coordinator | Entity::Unbuilt(_) => Err(no_entity()),
    }
}

/// Slurm's lines for what cannot be listed.
pub(super) fn no_entity() -> Stop {
    Stop::Wrong(vec![
        "No valid entity in list command".to_owned(),
        "Input line must include \"Account\", \"Association\", \"Cluster\", \"Configuration\","
            .to_owned(),
        "\"Event\", \"Federation\", \"Problem\", \"QOS\", \"Resource\", \"Reservation\","
            .to_owned(),
        "\"RunAwayJobs\", \"Stats\", \"Transaction\", \"TRES\", \"User\", or \"WCKey\"".to_owned(),
    ])
}

impl Asked {
    /// Reads `format=` and the switches; false for conditions.
    fn take(&mut self, word: &Word<'_>) -> bool {
        if !word.key.is_empty() {
            let is_format = word.key.len() >= 2
                && "format".get(..word.key.len()).is_some_and(|h| h.eq_ignore_ascii_case(word.key));
            if is_format {
                self.format = Some(word.value.to_owned());
            }
            return is_format;
        }
        let place = match word.value.to_ascii_lowercase().as_str() {
            "withassoc" | "withassociations" | "withassocs" => &mut self.associations,
            "withcoord" | "withcoordinators" => &mut self.coordinators,
            "tree" => &mut self.tree,
            "wolimits" | "withoutlimits" => &mut self.no_limits,
            "woplimits" | "withoutparentlimits" => &mut self.own_limits,
            "onlydefaults" => &mut self.only_defaults,
            "withsub" | "withsubaccounts" => &mut self.below_accounts,
            // Nothing that was deleted is kept, QOS are shown by name in any case, and the
            // parent's name is a column of its own.
            "withdeleted" | "withrawqos" | "wopinfo" | "withoutparentinfo" => return true,
            _ => return false,
        };
        *place = true;
        true
    }

    /// The columns that were named, or `own` ones with those that the switches add.
    fn columns(&self, own: &str, of_associations: &str) -> String {
        if let Some(format) = &self.format {
            return format.clone();
        }
        let added = [(self.associations, of_associations), (self.coordinators, "coordinators")];
        let added = added.into_iter().filter(|(asked, _)| *asked).map(|(_, columns)| columns);
        std::iter::once(own).chain(added).collect::<Vec<_>>().join(",")
    }
}

fn report<R>(
    table: &'static [ReportField<R>],
    format: &str,
    look: &Look,
) -> Result<Report<R>, Stop> {
    Report::new(table, format, look.style.clone(), look.header)
        .map_err(|name| Stop::one(format!("Unknown field '{name}'")))
}

impl Row {
    fn of(world: &World, assoc: Option<&v1::Association>, own_limits: bool) -> Self {
        let parent = assoc.map_or("", |assoc| world.parent_name(assoc));
        Self {
            cluster: world.cluster().to_owned(),
            control_host: world.control_host.clone(),
            parent: parent.to_owned(),
            assoc: assoc.map(
                |assoc| {
                    if own_limits { assoc.clone() } else { world.effective(assoc) }
                },
            ),
            ..Self::default()
        }
    }
}

fn associations(
    world: &World,
    conditions: &Conditions,
    asked: &Asked,
    look: &Look,
) -> Result<Vec<u8>, Stop> {
    let mut conditions = conditions.clone();
    let above =
        if asked.below_accounts { std::mem::take(&mut conditions.accounts) } else { vec![] };
    let below = |assoc: &&v1::Association| {
        above.is_empty() || above.iter().any(|account| world.is_below(assoc, account))
    };
    let is_default = |assoc: &&v1::Association| {
        let user = world.user(&assoc.user);
        !asked.only_defaults || user.is_some_and(|user| user.default_account == assoc.account)
    };
    let found = conditions.associations(world).into_iter().filter(below).filter(is_default);
    let rows: Vec<Row> = found
        .map(|assoc| {
            let mut row = Row::of(world, Some(assoc), asked.own_limits);
            row.indent = if asked.tree { world.depth(assoc) } else { 0 };
            row
        })
        .collect();
    let default = if asked.no_limits { fields::ASSOCIATION_PLAIN } else { fields::ASSOCIATION };
    let format = asked.format.as_deref().unwrap_or(default);
    let mut report = report(FIELDS, format, look)?;
    if asked.tree {
        report.widen("Account", -20);
    }
    Ok(report.text(&rows))
}

fn accounts(
    world: &World,
    conditions: &Conditions,
    asked: &Asked,
    look: &Look,
) -> Result<Vec<u8>, Stop> {
    let mut rows = Vec::new();
    let mut places: HashMap<&str, Vec<&v1::Association>> = HashMap::new();
    for assoc in &world.tree().associations {
        places.entry(assoc.account.as_str()).or_default().push(assoc);
    }
    for account in conditions.accounts(world) {
        let mut coordinators = account.coordinators.clone();
        coordinators.sort_unstable();
        let fill = |mut row: Row| {
            row.account = Some(account.clone());
            row.coordinators = coordinators.join(",");
            row
        };
        if !asked.associations {
            rows.push(fill(Row::of(world, None, false)));
            continue;
        }
        let places = places.get(account.name.as_str()).into_iter().flatten();
        rows.extend(places.map(|assoc| fill(Row::of(world, Some(assoc), asked.own_limits))));
    }
    let format = asked.columns(fields::ACCOUNT, fields::ACCOUNT_ASSOCIATION);
    report(FIELDS, &format, look).map(|report| report.text(&rows))
}

fn users(
    world: &World,
    conditions: &Conditions,
    asked: &Asked,
    look: &Look,
) -> Result<Vec<u8>, Stop> {
    let mut rows = Vec::new();
    for user in conditions.users(world) {
        let fill = |mut row: Row| {
            row.user = Some(user.clone());
            row.coordinators = world.coordinated(&user.name).join(",");
            row
        };
        let places = conditions.associations_of(world, &user.name);
        if !asked.associations || places.is_empty() {
            rows.push(fill(Row::of(world, None, false)));
            continue;
        }
        let places = places.into_iter();
        rows.extend(places.map(|assoc| fill(Row::of(world, Some(assoc), asked.own_limits))));
    }
    let format = asked.columns(fields::USER, fields::USER_ASSOCIATION);
    report(FIELDS, &format, look).map(|report| report.text(&rows))
}

fn cluster(
    world: &World,
    conditions: &Conditions,
    asked: &Asked,
    look: &Look,
) -> Result<Vec<u8>, Stop> {
    let root = world.place(ROOT).filter(|_| conditions.mean_cluster(world));
    let rows: Vec<Row> = root.map(|root| Row::of(world, Some(root), false)).into_iter().collect();
    let format = asked.format.as_deref().unwrap_or(fields::CLUSTER);
    report(FIELDS, format, look).map(|report| report.text(&rows))
}
