//! What must hold whatever the code under test believes? Counted here without its help.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_core::model::{DependencyKind, Hold, Job, Node, NodeAdmin, ReservationFlag};
use penstock_core::{Cluster, RecordKey};
use penstock_vocab::{JobId, JobState};

/// Every record as text.
pub(crate) fn dump(cluster: &Cluster) -> BTreeMap<RecordKey, String> {
    let text = |key: &RecordKey| match key {
        RecordKey::Job(id) => format!("{:?}", cluster.job(*id)),
        RecordKey::Step(key) => format!("{:?}", cluster.step(*key)),
        RecordKey::Array(id) => format!("{:?}", cluster.array(*id)),
        RecordKey::Node(name) => {
            let (_, node) = cluster.node_by_name(name).unwrap();
            // What is not stored, or follows from the jobs, is no change of the record.
            let trouble = Default::default();
            format!("{:?}", Node { session: None, last_busy: None, trouble, ..(*node).clone() })
        }
        RecordKey::Host(name) => format!("{:?}", cluster.host(name)),
        RecordKey::Token(id) => format!("{:?}", cluster.token(id)),
        RecordKey::Answer(uid, request) => format!("{:?}", cluster.answer(*uid, *request)),
        RecordKey::Account(name) => format!("{:?}", cluster.accounts().account(name)),
        RecordKey::User(name) => format!("{:?}", cluster.accounts().user(name)),
        RecordKey::Assoc(id) => format!("{:?}", cluster.accounts().assoc(*id)),
        RecordKey::Qos(name) => format!("{:?}", cluster.accounts().qos(name)),
        RecordKey::Usage(owner) => format!("{:?}", cluster.accounts().stored_usage(owner)),
        RecordKey::Reservation(name) => format!("{:?}", cluster.reservation(name)),
        RecordKey::Crontab(owner) => format!("{:?}", cluster.crontab(*owner)),
        RecordKey::Counters => format!("{} {}", cluster.next_job_id(), cluster.usage_reset_at()),
    };
    // A node that only the cluster file names has nothing to be stored.
    let stored = |key: &RecordKey| match key {
        RecordKey::Node(name) => {
            let (_, node) = cluster.node_by_name(name).unwrap();
            node.registered.is_some() || node.admin != NodeAdmin::default()
        }
        _ => true,
    };
    cluster.record_keys().filter(stored).map(|key| (key.clone(), text(&key))).collect()
}

/// Records that differ and are not among `changed`.
pub(crate) fn unannounced(
    before: &BTreeMap<RecordKey, String>,
    after: &BTreeMap<RecordKey, String>,
    changed: &[RecordKey],
) -> Vec<RecordKey> {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(key) != after.get(key) && !changed.contains(key))
        .cloned()
        .collect()
}

/// Panics if a CPU is given to more jobs than share it, a device given out twice, or more memory than a node has.
pub(crate) fn nothing_twice(cluster: &Cluster) {
    for (index, node, _) in cluster.nodes() {
        let mut cpus: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        let mut units = BTreeSet::new();
        let mut memory = 0;
        for job in cluster.jobs() {
            let shares = job.active_run().map(|run| run.shares.to_vec()).unwrap_or_default();
            // One that stands still has given its CPUs to others.
            let still = job.active_run().is_some_and(|run| run.suspended_since.is_some());
            for share in shares.iter().filter(|share| share.node == index) {
                for cpu in share.cpus.ones().filter(|_| !still) {
                    cpus.entry(cpu).or_default().push(share.sharing);
                }
                for gres in &share.gres {
                    for id in &gres.ids {
                        let new = units.insert((gres.name.to_string(), *id));
                        assert!(new, "{} {id} of {} is given out twice", gres.name, node.name);
                    }
                }
                memory += share.memory.0;
            }
        }
        let has = &node.inventory;
        assert!(memory <= has.memory.0, "{} gives out {memory} MiB", node.name);
        for (cpu, holders) in &cpus {
            let most = holders.iter().min().map_or(1, |most| *most as usize);
            assert!(holders.len() <= most, "CPU {cpu} of {} is given out twice", node.name);
            assert!(*cpu < has.cpus as usize, "{} has no CPU {cpu}", node.name);
        }
    }
}

/// How many tasks of each array run.
pub(crate) fn running_tasks(cluster: &Cluster) -> BTreeMap<JobId, u32> {
    let mut running = BTreeMap::new();
    for job in cluster.jobs().filter(|job| job.active_run().is_some()) {
        if let Some(task) = job.array {
            *running.entry(task.base).or_insert(0) += 1;
        }
    }
    running
}

/// Panics if more tasks of an array run than before and than its throttle lets. (A throttle may be
/// lowered below what runs.)
pub(crate) fn throttles_hold(cluster: &Cluster, before: &BTreeMap<JobId, u32>) {
    for (base, running) in running_tasks(cluster) {
        let most = cluster.array(base).map_or(0, |array| array.throttle());
        let had = before.get(&base).copied().unwrap_or(0);
        assert!(running <= most.max(had), "{running} tasks of array {base} run, {most} may");
    }
}

/// Panics if a job started that something it was to wait for, or a hold, kept back.
pub(crate) fn starts_were_due(before: &Cluster, after: &Cluster) {
    for job in after.jobs().filter(|job| job.active_run().is_some()) {
        let known = before.job(job.id).map(|old| (old.last_attempt, old.hold));
        if known.is_some_and(|(attempt, _)| attempt == job.last_attempt) {
            continue;
        }
        let array = job.array.and_then(|task| Some((task, before.array(task.base)?)));
        let held = match (known, array) {
            (Some((_, hold)), _) => hold != Hold::None,
            (None, Some((task, array))) => array.hold_of(task.index.0) != Hold::None,
            (None, None) => false,
        };
        assert!(!held, "job {} was held and started", job.id);
        let dependency = &job.spec.dependency;
        if dependency.any {
            continue;
        }
        let twin = |other: &&Arc<Job>| {
            other.active_run().is_some() && other.uid == job.uid && other.spec.name == job.spec.name
        };
        let others = before.jobs().filter(twin).count();
        assert!(!dependency.singleton || others == 0, "{} is not the only one", job.id);
        for term in dependency.terms.iter().filter(|term| term.kind == DependencyKind::AfterCorr) {
            let Some(index) = job.array.map(|task| task.index) else { continue };
            let Some(other) = before.array(term.job) else { continue };
            let open = other.pending.contains(index.0)
                || other.failed.contains(index.0)
                || other.cancelled.contains(index.0);
            let twin = before.task(term.job, index);
            let well = twin.is_none_or(|twin| twin.state == JobState::Completed);
            assert!(!open && well, "{} did not wait for its twin", job.id);
        }
    }
}

/// Panics if a job started on nodes, or with licences, that are kept for others while it may run.
pub(crate) fn reservations_hold(before: &Cluster, after: &Cluster) {
    let now = after.now();
    let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
    for job in after.jobs() {
        let Some(run) = job.active_run() else { continue };
        for (name, count) in &job.spec.shape.licenses {
            *taken.entry(name).or_insert(0) += count;
        }
        if before.job(job.id).is_some_and(|old| old.last_attempt == job.last_attempt) {
            continue;
        }
        let own = before.reservation(&job.spec.reservation);
        assert!(own.is_some() || job.spec.reservation.is_empty(), "{} has no reservation", job.id);
        let has = |flag| own.is_some_and(|own| own.flags.contains(&flag));
        let limit = job.time_limit.as_secs().map_or(i64::MAX, |secs| now.plus_secs(secs).0);
        let limit = match own {
            Some(own) if !has(ReservationFlag::Flex) => limit.min(own.end.0),
            _ => limit,
        };
        for share in &run.shares {
            let name = &after.node(share.node).unwrap().0.name;
            if let Some(own) = own.filter(|_| !has(ReservationFlag::Flex)) {
                assert!(own.nodes.is_empty() || own.nodes.contains(name), "{}", job.id);
                assert!(own.start <= now && now < own.end, "{} is not in its time", job.id);
            }
            if has(ReservationFlag::Maint) || has(ReservationFlag::Overlap) {
                continue;
            }
            for other in before.reservations().filter(|one| one.nodes.contains(name)) {
                let mut times = vec![(other.start, other.end)];
                times.extend(other.upcoming.iter().copied());
                let meets = times.iter().any(|(start, end)| start.0 < limit && *end > now);
                let mine = own.is_some_and(|own| own.name == other.name);
                assert!(mine || !meets, "job {} runs into {}", job.id, other.name);
            }
        }
    }
    for (name, taken) in taken {
        let total = after.config().scheduling.licenses.get(name).copied().unwrap_or(0);
        assert!(taken <= total, "{taken} of {total} licences {name} are in use");
    }
}
