//! Under which key and as which bytes is each record stored, and how do records come back?
//!
//! Byte order of the keys puts the counters first, then nodes, hosts, tokens, jobs, arrays, answers,
//! accounts, reservations, steps and crontabs, so that every job finds its nodes when a store is read in key order.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use penstock_core::Cluster;
use penstock_core::cluster::{AccountRecords, Records};
use penstock_core::command::RecordKey;
use penstock_core::model::{JobSpec, NodeIndex, RequestId, UsageOwner};
use penstock_proto::{RECORD_FORMAT, v1};
use penstock_vocab::{NameError, PartitionName, Timestamp, UserId};
use prost::Message;

use super::error::{ConvertError, RecordError};
use super::job::{SpecSharing, job_from_record, job_to_wire, read_spec};
use super::run::NodePlaces;
use super::{accounts, answer, array, cron, host, node, reservation, step};
use crate::store::{Key, KeyBuilder};

const COUNTERS: u8 = 1;
const NODES: u8 = 2;
const HOSTS: u8 = 3;
const TOKENS: u8 = 4;
const JOBS: u8 = 5;
const ARRAYS: u8 = 6;
const ANSWERS: u8 = 7;
const ACCOUNTS: u8 = 8;
const USERS: u8 = 9;
const ASSOCIATIONS: u8 = 10;
const QOS: u8 = 11;
const USAGE: u8 = 12;
const RESERVATIONS: u8 = 13;
const STEPS: u8 = 14;
const CRONTABS: u8 = 15;

/// The key of a record.
///
/// # Panics
/// If a host's name or a token's id is longer than a key may be; both are bounded where they are
/// made, as names of nodes are.
#[must_use]
pub fn key(record: &RecordKey) -> Key {
    let builder = match record {
        RecordKey::Counters => KeyBuilder::new(COUNTERS),
        RecordKey::Node(name) => KeyBuilder::new(NODES).bytes(name.as_str().as_bytes()),
        RecordKey::Host(name) => KeyBuilder::new(HOSTS).bytes(name.as_bytes()),
        RecordKey::Token(id) => KeyBuilder::new(TOKENS).bytes(id.as_bytes()),
        RecordKey::Job(id) => KeyBuilder::new(JOBS).u32(id.0),
        RecordKey::Array(id) => KeyBuilder::new(ARRAYS).u32(id.0),
        RecordKey::Step(key) => {
            KeyBuilder::new(STEPS).u32(key.job.0).u32(key.attempt.0).u32(key.number.0)
        }
        RecordKey::Account(name) => KeyBuilder::new(ACCOUNTS).bytes(name.as_bytes()),
        RecordKey::User(name) => KeyBuilder::new(USERS).bytes(name.as_bytes()),
        RecordKey::Assoc(id) => KeyBuilder::new(ASSOCIATIONS).u32(id.0),
        RecordKey::Qos(name) => KeyBuilder::new(QOS).bytes(name.as_bytes()),
        RecordKey::Usage(UsageOwner::Assoc(id)) => KeyBuilder::new(USAGE).u32(id.0),
        // No association has the number 0.
        RecordKey::Usage(UsageOwner::Qos(name)) => {
            KeyBuilder::new(USAGE).u32(0).bytes(name.as_bytes())
        }
        RecordKey::Reservation(name) => KeyBuilder::new(RESERVATIONS).bytes(name.as_bytes()),
        RecordKey::Crontab(owner) => KeyBuilder::new(CRONTABS).u32(owner.0),
        RecordKey::Answer(uid, request) => {
            KeyBuilder::new(ANSWERS).u32(uid.0).bytes(&request.0.to_be_bytes())
        }
    };
    builder.finish().expect("names of hosts and ids of tokens are bounded where they are made")
}

/// The bytes of a record as it is in `cluster`; `None` if it is gone.
#[must_use]
pub fn value(cluster: &Cluster, record: &RecordKey) -> Option<Bytes> {
    let format = RECORD_FORMAT;
    let bytes = match record {
        RecordKey::Counters => v1::CounterRecord {
            format,
            next_job_id: cluster.next_job_id(),
            last_time_ms: cluster.now().0,
            usage_reset_ms: cluster.usage_reset_at().0,
            next_association: cluster.accounts().next_assoc_number(),
            next_qos: cluster.accounts().next_qos_number(),
        }
        .encode_to_vec(),
        RecordKey::Node(name) => {
            let (node, _) = cluster.node(cluster.node_index(name.as_str())?)?;
            v1::NodeRecord { format, node: Some(node::node_to_wire(node)) }.encode_to_vec()
        }
        RecordKey::Host(name) => {
            let host = Some(host::host_to_wire(cluster.host(name)?));
            v1::HostRecord { format, host }.encode_to_vec()
        }
        RecordKey::Token(id) => {
            let token = Some(host::token_to_wire(cluster.token(id)?));
            v1::TokenRecord { format, token }.encode_to_vec()
        }
        RecordKey::Job(id) => {
            let job = Some(job_to_wire(cluster, cluster.job(*id)?));
            v1::JobRecord { format, job }.encode_to_vec()
        }
        RecordKey::Array(id) => {
            let array = Some(array::array_to_wire(cluster.array(*id)?));
            v1::ArrayRecord { format, array }.encode_to_vec()
        }
        RecordKey::Step(key) => {
            let step = Some(step::step_to_wire(cluster, cluster.step(*key)?));
            v1::StepRecord { format, step }.encode_to_vec()
        }
        RecordKey::Account(name) => {
            let account = Some(accounts::account_to_wire(cluster.accounts().account(name)?));
            v1::AccountRecord { format, account }.encode_to_vec()
        }
        RecordKey::User(name) => {
            let user = Some(accounts::user_to_wire(cluster.accounts().user(name)?));
            v1::UserRecord { format, user }.encode_to_vec()
        }
        RecordKey::Assoc(id) => {
            let association = Some(accounts::association_to_wire(cluster.accounts().assoc(*id)?));
            v1::AssociationRecord { format, association }.encode_to_vec()
        }
        RecordKey::Qos(name) => {
            let qos = Some(accounts::qos_to_wire(cluster.accounts().qos(name)?));
            v1::QosRecord { format, qos }.encode_to_vec()
        }
        RecordKey::Usage(owner) => {
            let usage = cluster.accounts().stored_usage(owner)?;
            let usage = Some(accounts::usage_to_wire(owner, usage));
            v1::UsageRecord { format, usage }.encode_to_vec()
        }
        RecordKey::Reservation(name) => {
            let found = cluster.reservation(name)?;
            let reservation = Some(reservation::reservation_to_wire(found));
            v1::ReservationRecord { format, reservation }.encode_to_vec()
        }
        RecordKey::Crontab(owner) => {
            let crontab = Some(cron::crontab_to_wire(cluster.crontab(*owner)?));
            v1::CrontabRecord { format, crontab }.encode_to_vec()
        }
        RecordKey::Answer(uid, request) => {
            answer::answer_to_wire(cluster.answer(*uid, *request)?).encode_to_vec()
        }
    };
    Some(Bytes::from(bytes))
}

/// Takes a store's records in key order and gives back what a cluster is restored from.
#[derive(Debug, Default)]
pub struct Loader {
    shared: Shared,
    last_time: Timestamp,
}

/// What records have in common, so that a million jobs don't hold a million copies of it.
#[derive(Debug, Default)]
struct Shared {
    records: Records,
    places: HashMap<Box<str>, NodeIndex>,
    partitions: HashMap<Box<str>, PartitionName>,
    newest_spec: Option<Arc<JobSpec>>,
}

impl Loader {
    /// A loader that has taken nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one record.
    ///
    /// # Errors
    /// If it is of a newer version, of an unknown table, or can't be read.
    pub fn take(&mut self, key: &Key, value: &Bytes) -> Result<(), RecordError> {
        self.read(key, value).map_err(|fault| fault.of(key))
    }

    /// Newest wall time that was ever used; the epoch if none was stored.
    #[must_use]
    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// Everything that was taken.
    #[must_use]
    pub fn finish(self) -> Records {
        self.shared.records
    }

    fn read(&mut self, key: &Key, value: &Bytes) -> Result<(), Fault> {
        let shared = &mut self.shared;
        match Table::of(key)? {
            Table::Counters => {
                let record = decode::<v1::CounterRecord>(value, |record| record.format)?;
                shared.records.next_job = record.next_job_id;
                self.last_time = Timestamp(record.last_time_ms);
                shared.records.usage_reset_at = Timestamp(record.usage_reset_ms);
                shared.records.accounts.next_assoc = record.next_association;
                shared.records.accounts.next_qos = record.next_qos;
            }
            Table::Node => {
                let record = decode::<v1::NodeRecord>(value, |record| record.format)?;
                shared.records.add_node(node::node_from_wire(present(record.node)?)?);
            }
            Table::Host => {
                let record = decode::<v1::HostRecord>(value, |record| record.format)?;
                shared.records.hosts.push(host::host_from_wire(present(record.host)?)?);
            }
            Table::Token => {
                let record = decode::<v1::TokenRecord>(value, |record| record.format)?;
                shared.records.tokens.push(host::token_from_wire(present(record.token)?)?);
            }
            Table::Job => {
                let record = decode::<v1::JobRecord>(value, |record| record.format)?;
                let job = job_from_record(present(record.job)?, shared)?;
                shared.records.jobs.push(job);
            }
            Table::Array => {
                let record = decode::<v1::ArrayRecord>(value, |record| record.format)?;
                let array = array::array_from_wire(present(record.array)?, shared)?;
                shared.records.arrays.push(array);
            }
            Table::Account | Table::User | Table::Association | Table::Qos | Table::Usage => {
                read_of_accounts(&mut shared.records.accounts, key, value)?;
            }
            Table::Reservation => {
                let record = decode::<v1::ReservationRecord>(value, |record| record.format)?;
                let found = reservation::reservation_from_wire(present(record.reservation)?)?;
                shared.records.reservations.push(found);
            }
            Table::Crontab => {
                let record = decode::<v1::CrontabRecord>(value, |record| record.format)?;
                let crontab = cron::crontab_from_wire(present(record.crontab)?);
                shared.records.crontabs.push(crontab);
            }
            Table::Step => {
                let record = decode::<v1::StepRecord>(value, |record| record.format)?;
                let step = step::step_from_wire(present(record.step)?, shared)?;
                shared.records.steps.push(step);
            }
            Table::Answer(uid, request) => {
                let record = decode::<v1::AnswerRecord>(value, |record| record.format)?;
                let answer = answer::answer_from_wire(record)?;
                shared.records.answers.push(((uid, request), answer));
            }
        }
        Ok(())
    }
}

/// Reads a record of the accounts.
fn read_of_accounts(records: &mut AccountRecords, key: &Key, value: &Bytes) -> Result<(), Fault> {
    match key.table() {
        ACCOUNTS => {
            let record = decode::<v1::AccountRecord>(value, |record| record.format)?;
            let account = accounts::account_from_wire(present(record.account)?);
            records.accounts.push(account);
        }
        USERS => {
            let record = decode::<v1::UserRecord>(value, |record| record.format)?;
            let user = accounts::user_from_wire(present(record.user)?)?;
            records.users.push(user);
        }
        ASSOCIATIONS => {
            let record = decode::<v1::AssociationRecord>(value, |record| record.format)?;
            let assoc = accounts::association_from_wire(present(record.association)?)?;
            records.assocs.push(assoc);
        }
        QOS => {
            let record = decode::<v1::QosRecord>(value, |record| record.format)?;
            let qos = accounts::qos_from_wire(present(record.qos)?)?;
            records.qos.push(qos);
        }
        USAGE => {
            let record = decode::<v1::UsageRecord>(value, |record| record.format)?;
            let usage = accounts::usage_from_wire(present(record.usage)?)?;
            records.usage.push(usage);
        }
        _ => return Err(Fault::Key),
    }
    Ok(())
}

impl NodePlaces for Shared {
    fn place(&mut self, name: &str) -> Result<NodeIndex, NameError> {
        if let Some(index) = self.places.get(name) {
            return Ok(*index);
        }
        let index = self.records.place(name)?;
        self.places.insert(name.into(), index);
        Ok(index)
    }

    fn partition(&mut self, name: &str) -> Result<PartitionName, NameError> {
        known_partition(&mut self.partitions, name)
    }
}

fn known_partition(
    known: &mut HashMap<Box<str>, PartitionName>,
    name: &str,
) -> Result<PartitionName, NameError> {
    if let Some(known) = known.get(name) {
        return Ok(known.clone());
    }
    let made = PartitionName::new(name)?;
    known.insert(name.into(), made.clone());
    Ok(made)
}

impl SpecSharing for Shared {
    /// Jobs that were submitted together stand together, tasks of an array above all, so comparing
    /// with the one before finds most that are equal.
    fn shared_spec(&mut self, spec: Option<v1::JobSpec>) -> Result<Arc<JobSpec>, ConvertError> {
        let partitions = &mut self.partitions;
        let mut spec = read_spec(spec, &mut |name| known_partition(partitions, name))?;
        if let Some(newest) = &self.newest_spec {
            if **newest == spec {
                return Ok(Arc::clone(newest));
            }
            spec.share_with(newest);
        }
        let spec = Arc::new(spec);
        self.newest_spec = Some(Arc::clone(&spec));
        Ok(spec)
    }
}

/// Which record a key stands for.
enum Table {
    Counters,
    Node,
    Host,
    Token,
    Job,
    Array,
    Account,
    User,
    Association,
    Qos,
    Usage,
    Reservation,
    Step,
    Crontab,
    Answer(UserId, RequestId),
}

impl Table {
    fn of(key: &Key) -> Result<Self, Fault> {
        match key.table() {
            COUNTERS => Ok(Self::Counters),
            NODES => Ok(Self::Node),
            HOSTS => Ok(Self::Host),
            TOKENS => Ok(Self::Token),
            JOBS => Ok(Self::Job),
            ARRAYS => Ok(Self::Array),
            ACCOUNTS => Ok(Self::Account),
            USERS => Ok(Self::User),
            ASSOCIATIONS => Ok(Self::Association),
            QOS => Ok(Self::Qos),
            USAGE => Ok(Self::Usage),
            RESERVATIONS => Ok(Self::Reservation),
            STEPS => Ok(Self::Step),
            CRONTABS => Ok(Self::Crontab),
            ANSWERS => {
                let (uid, request) = key.ids().split_first_chunk::<4>().ok_or(Fault::Key)?;
                let request = request.try_into().map_err(|_| Fault::Key)?;
                let request = RequestId(u128::from_be_bytes(request));
                Ok(Self::Answer(UserId(u32::from_be_bytes(*uid)), request))
            }
            _ => Err(Fault::Key),
        }
    }
}

/// What is wrong with a record, before its name is added.
enum Fault {
    Newer(u32),
    Undecodable(prost::DecodeError),
    Invalid(ConvertError),
    Key,
}

impl From<ConvertError> for Fault {
    fn from(error: ConvertError) -> Self {
        Self::Invalid(error)
    }
}

impl Fault {
    #[cold]
    fn of(self, key: &Key) -> RecordError {
        let record = name(key);
        match self {
            Self::Newer(format) => RecordError::Newer { record, format },
            Self::Undecodable(source) => RecordError::Undecodable { record, source },
            Self::Invalid(source) => RecordError::Invalid { record, source },
            Self::Key => RecordError::UnknownKey { key: hex(key.as_bytes()) },
        }
    }
}

fn decode<M: Message + Default>(value: &Bytes, format: fn(&M) -> u32) -> Result<M, Fault> {
    let message = M::decode(value.clone()).map_err(Fault::Undecodable)?;
    check_format(format(&message))?;
    Ok(message)
}

fn check_format(format: u32) -> Result<(), Fault> {
    match format {
        0 => Err(Fault::Invalid(ConvertError::Missing { what: "the record's format" })),
        1..=RECORD_FORMAT => Ok(()),
        newer => Err(Fault::Newer(newer)),
    }
}

fn present<T>(part: Option<T>) -> Result<T, Fault> {
    part.ok_or(Fault::Invalid(ConvertError::Missing { what: "the record's content" }))
}

/// Reads a line of the history.
///
/// # Errors
/// If it is of a newer version or can't be read.
pub fn history_from_bytes(line: &Bytes) -> Result<v1::HistoryRecord, RecordError> {
    let record = || "a line of the history".to_owned();
    let message = v1::HistoryRecord::decode(line.clone())
        .map_err(|source| RecordError::Undecodable { record: record(), source })?;
    match message.format {
        format if format > RECORD_FORMAT => Err(RecordError::Newer { record: record(), format }),
        _ => Ok(message),
    }
}

/// What people call the record of a key.
fn name(key: &Key) -> String {
    let ids = key.ids();
    let text = String::from_utf8_lossy(ids);
    let number =
        || ids.try_into().map_or_else(|_| hex(ids), |id| u32::from_be_bytes(id).to_string());
    match Table::of(key) {
        Ok(Table::Counters) => "the record of the counters".to_owned(),
        Ok(Table::Node) => format!("the record of node {text}"),
        Ok(Table::Host) => format!("the record of host {text}"),
        Ok(Table::Token) => format!("the record of join token {text}"),
        Ok(Table::Job) => format!("the record of job {}", number()),
        Ok(Table::Array) => format!("the record of job array {}", number()),
        Ok(Table::Account) => format!("the record of account {text}"),
        Ok(Table::User) => format!("the record of user {text}"),
        Ok(Table::Association) => format!("the record of association {}", number()),
        Ok(Table::Qos) => format!("the record of QOS {text}"),
        Ok(Table::Usage) => match ids.split_first_chunk::<4>() {
            Some(([0, 0, 0, 0], name)) => {
                format!("the usage of QOS {}", String::from_utf8_lossy(name))
            }
            Some(_) | None => format!("the usage of association {}", number()),
        },
        Ok(Table::Reservation) => format!("the record of reservation {text}"),
        Ok(Table::Step) => match *ids.as_chunks::<4>().0 {
            [job, attempt, step] => format!(
                "the record of step {} of attempt {} of job {}",
                u32::from_be_bytes(step),
                u32::from_be_bytes(attempt),
                u32::from_be_bytes(job)
            ),
            _ => format!("the record of step {}", hex(ids)),
        },
        Ok(Table::Crontab) => format!("the crontab of uid {}", number()),
        Ok(Table::Answer(uid, request)) => {
            format!("the answer to request {:032x} of user {uid}", request.0)
        }
        Err(_) => format!("the record with key {}", hex(key.as_bytes())),
    }
}

/// One line for people about a record, whatever is in it; for exports.
#[must_use]
pub fn describe(key: &Key, value: &Bytes) -> String {
    fn shown<M: Message + Default + std::fmt::Debug>(value: &Bytes) -> String {
        match M::decode(value.clone()) {
            Ok(message) => format!("{message:?}"),
            Err(error) => format!("unreadable ({error}): {}", hex(value)),
        }
    }
    let content = match Table::of(key) {
        Ok(Table::Counters) => shown::<v1::CounterRecord>(value),
        Ok(Table::Node) => shown::<v1::NodeRecord>(value),
        Ok(Table::Host) => shown::<v1::HostRecord>(value),
        Ok(Table::Token) => shown::<v1::TokenRecord>(value),
        Ok(Table::Job) => shown::<v1::JobRecord>(value),
        Ok(Table::Array) => shown::<v1::ArrayRecord>(value),
        Ok(Table::Account) => shown::<v1::AccountRecord>(value),
        Ok(Table::User) => shown::<v1::UserRecord>(value),
        Ok(Table::Association) => shown::<v1::AssociationRecord>(value),
        Ok(Table::Qos) => shown::<v1::QosRecord>(value),
        Ok(Table::Usage) => shown::<v1::UsageRecord>(value),
        Ok(Table::Reservation) => shown::<v1::ReservationRecord>(value),
        Ok(Table::Step) => shown::<v1::StepRecord>(value),
        Ok(Table::Crontab) => shown::<v1::CrontabRecord>(value),
        Ok(Table::Answer(..)) => shown::<v1::AnswerRecord>(value),
        Err(_) => hex(value),
    };
    format!("{}: {content}", name(key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}
