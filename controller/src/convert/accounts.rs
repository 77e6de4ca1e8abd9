//! How are accounts, users, associations, QOS and usage stored and sent?

use std::collections::BTreeMap;

use penstock_core::model::{
    Account, AdminLevel, AssocId, Association, DecayedUsage, PreemptMode, Qos, QosFlag, Shares,
    UsageOwner, User,
};
use penstock_proto::v1;
use penstock_vocab::{PartitionName, Timestamp, UserId};

use super::error::ConvertError;
use super::limits::{
    each_from_wire, each_to_wire, group_from_wire, group_to_wire, kind_from_wire,
    per_job_from_wire, per_job_to_wire, tres_from_wire, tres_to_wire,
};

/// Texts as messages have them.
pub(super) fn texts(list: &[Box<str>]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Inverse of [`texts`].
pub(super) fn boxed(list: Vec<String>) -> Box<[Box<str>]> {
    list.into_iter().map(Into::into).collect()
}

/// `None` for an empty text.
fn some(text: String) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// An account.
#[must_use]
pub fn account_to_wire(account: &Account) -> v1::Account {
    v1::Account {
        name: account.name.to_string(),
        description: account.description.to_string(),
        organization: account.organization.to_string(),
        coordinators: texts(&account.coordinators),
    }
}

/// Inverse of [`account_to_wire`].
#[must_use]
pub fn account_from_wire(account: v1::Account) -> Account {
    Account {
        name: account.name.into(),
        description: account.description.into(),
        organization: account.organization.into(),
        coordinators: boxed(account.coordinators),
    }
}

/// A user.
#[must_use]
pub fn user_to_wire(user: &User) -> v1::User {
    v1::User {
        name: user.name.to_string(),
        uid: user.uid.map(|uid| uid.0),
        default_account: user.default_account.to_string(),
        admin_level: admin_level(user.admin_level) as i32,
    }
}

/// Inverse of [`user_to_wire`].
///
/// # Errors
/// If the admin level is unknown.
pub fn user_from_wire(user: v1::User) -> Result<User, ConvertError> {
    Ok(User {
        admin_level: admin_level_from(user.admin_level)?,
        name: user.name.into(),
        uid: user.uid.map(UserId),
        default_account: user.default_account.into(),
    })
}

/// What a user may administer.
#[must_use]
pub fn admin_level(level: AdminLevel) -> v1::AdminLevel {
    match level {
        AdminLevel::None => v1::AdminLevel::None,
        AdminLevel::Operator => v1::AdminLevel::Operator,
        AdminLevel::Administrator => v1::AdminLevel::Administrator,
    }
}

/// Inverse of [`admin_level`].
///
/// # Errors
/// For a code of a newer version.
pub fn admin_level_from(code: i32) -> Result<AdminLevel, ConvertError> {
    let unknown = |_| ConvertError::UnknownCode { what: "admin level", code: code.into() };
    Ok(match v1::AdminLevel::try_from(code).map_err(unknown)? {
        v1::AdminLevel::None => AdminLevel::None,
        v1::AdminLevel::Operator => AdminLevel::Operator,
        v1::AdminLevel::Administrator => AdminLevel::Administrator,
    })
}

/// An association.
#[must_use]
pub fn association_to_wire(assoc: &Association) -> v1::Association {
    v1::Association {
        id: assoc.id.0,
        account: assoc.account.to_string(),
        user: assoc.user.as_deref().unwrap_or_default().to_owned(),
        partition: assoc.partition.as_ref().map(ToString::to_string).unwrap_or_default(),
        parent: assoc.parent.map_or(0, |parent| parent.0),
        shares: match assoc.shares {
            Shares::Raw(shares) => Some(shares),
            Shares::Parent => None,
        },
        priority: assoc.priority,
        group: Some(group_to_wire(&assoc.group)),
        each: Some(each_to_wire(&assoc.each)),
        job: Some(per_job_to_wire(&assoc.job)),
        qos: assoc.qos.as_ref().map(|names| v1::NameList { names: texts(names) }),
        default_qos: assoc.default_qos.as_deref().unwrap_or_default().to_owned(),
        guaranteed: tres_to_wire(&assoc.guaranteed),
        implicit: assoc.implicit,
    }
}

/// Inverse of [`association_to_wire`].
///
/// # Errors
/// If a name or a kind of resource can't be one.
pub fn association_from_wire(assoc: v1::Association) -> Result<Association, ConvertError> {
    let partition = match assoc.partition.as_str() {
        "" => None,
        name => Some(
            PartitionName::new(name)
                .map_err(|error| ConvertError::invalid("the association's partition", error))?,
        ),
    };
    Ok(Association {
        id: AssocId(assoc.id),
        account: assoc.account.into(),
        user: some(assoc.user),
        partition,
        parent: (assoc.parent != 0).then_some(AssocId(assoc.parent)),
        shares: assoc.shares.map_or(Shares::Parent, Shares::Raw),
        priority: assoc.priority,
        group: group_from_wire(assoc.group)?,
        each: each_from_wire(assoc.each)?,
        job: per_job_from_wire(assoc.job)?,
        qos: assoc.qos.map(|list| boxed(list.names)),
        default_qos: some(assoc.default_qos),
        guaranteed: tres_from_wire(&assoc.guaranteed)?,
        implicit: assoc.implicit,
    })
}

/// A QOS.
#[must_use]
pub fn qos_to_wire(qos: &Qos) -> v1::Qos {
    v1::Qos {
        name: qos.name.to_string(),
        id: qos.id,
        description: qos.description.to_string(),
        priority: qos.priority,
        flags: qos.flags.iter().map(|flag| flag.name().to_owned()).collect(),
        grace_secs: qos.grace_secs,
        preempt: texts(&qos.preempt),
        preempt_mode: qos.preempt_mode.map(|mode| preempt_mode(mode) as i32),
        preempt_exempt_secs: qos.preempt_exempt_secs,
        usage_factor: qos.usage_factor,
        usage_threshold: qos.usage_threshold,
        limit_factor: qos.limit_factor,
        group: Some(group_to_wire(&qos.group)),
        per_user: Some(each_to_wire(&qos.per_user)),
        per_account: Some(each_to_wire(&qos.per_account)),
        job: Some(per_job_to_wire(&qos.job)),
    }
}

/// Inverse of [`qos_to_wire`].
///
/// # Errors
/// If a flag, a mode or a kind of resource is unknown.
pub fn qos_from_wire(qos: v1::Qos) -> Result<Qos, ConvertError> {
    let flag = |name: &String| {
        QosFlag::parse(name).ok_or_else(|| ConvertError::invalid("a flag of the QOS", name))
    };
    Ok(Qos {
        flags: qos.flags.iter().map(flag).collect::<Result<_, _>>()?,
        preempt_mode: qos.preempt_mode.map(preempt_mode_from).transpose()?,
        name: qos.name.into(),
        id: qos.id,
        description: qos.description.into(),
        priority: qos.priority,
        grace_secs: qos.grace_secs,
        preempt: boxed(qos.preempt),
        preempt_exempt_secs: qos.preempt_exempt_secs,
        usage_factor: qos.usage_factor,
        usage_threshold: qos.usage_threshold,
        limit_factor: qos.limit_factor,
        group: group_from_wire(qos.group)?,
        per_user: each_from_wire(qos.per_user)?,
        per_account: each_from_wire(qos.per_account)?,
        job: per_job_from_wire(qos.job)?,
    })
}

/// What becomes of preempted jobs.
#[must_use]
pub fn preempt_mode(mode: PreemptMode) -> v1::PreemptMode {
    match mode {
        PreemptMode::Off => v1::PreemptMode::Off,
        PreemptMode::Cancel => v1::PreemptMode::Cancel,
        PreemptMode::Requeue => v1::PreemptMode::Requeue,
        PreemptMode::Suspend => v1::PreemptMode::Suspend,
    }
}

/// Inverse of [`preempt_mode`].
///
/// # Errors
/// For a code of a newer version.
pub fn preempt_mode_from(code: i32) -> Result<PreemptMode, ConvertError> {
    let unknown = |_| ConvertError::UnknownCode { what: "preempt mode", code: code.into() };
    Ok(match v1::PreemptMode::try_from(code).map_err(unknown)? {
        v1::PreemptMode::Off => PreemptMode::Off,
        v1::PreemptMode::Cancel => PreemptMode::Cancel,
        v1::PreemptMode::Requeue => PreemptMode::Requeue,
        v1::PreemptMode::Suspend => PreemptMode::Suspend,
    })
}

/// Usage of an owner.
#[must_use]
pub fn usage_to_wire(owner: &UsageOwner, usage: &DecayedUsage) -> v1::StoredUsage {
    let (association, qos) = match owner {
        UsageOwner::Assoc(id) => (id.0, String::new()),
        UsageOwner::Qos(name) => (0, name.to_string()),
    };
    let amount = |(kind, amount): (&penstock_vocab::TresKind, &u128)| v1::UsageAmount {
        kind: kind.to_string(),
        amount: Some(wide(*amount)),
    };
    v1::StoredUsage {
        association,
        qos,
        as_of_ms: usage.as_of.0,
        tres: usage.tres.iter().map(amount).collect(),
        wall: Some(wide(usage.wall)),
        half_life_secs: usage.half_life_secs,
    }
}

/// Inverse of [`usage_to_wire`].
///
/// # Errors
/// If a kind of resource can't be one.
pub fn usage_from_wire(usage: v1::StoredUsage) -> Result<(UsageOwner, DecayedUsage), ConvertError> {
    let owner = match usage.association {
        0 => UsageOwner::Qos(usage.qos.into()),
        id => UsageOwner::Assoc(AssocId(id)),
    };
    let amount = |amount: v1::UsageAmount| {
        Ok((kind_from_wire(&amount.kind)?, wide_from(amount.amount.unwrap_or_default())))
    };
    let tres: Result<BTreeMap<_, _>, ConvertError> = usage.tres.into_iter().map(amount).collect();
    let usage = DecayedUsage {
        as_of: Timestamp(usage.as_of_ms),
        tres: tres?,
        wall: wide_from(usage.wall.unwrap_or_default()),
        half_life_secs: usage.half_life_secs,
    };
    Ok((owner, usage))
}

fn wide(number: u128) -> v1::Wide {
    let [low, high] = [number, number >> 64]
        .map(|part| u64::try_from(part & u128::from(u64::MAX)).expect("a masked half fits"));
    v1::Wide { low, high }
}

fn wide_from(wide: v1::Wide) -> u128 {
    u128::from(wide.high) << 64 | u128::from(wide.low)
}
