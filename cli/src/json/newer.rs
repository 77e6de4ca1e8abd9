//! What does Slurm 23.11's data version v0.0.40 change against v0.0.38?
//!
//! Numbers that may be unset or without a limit become `{set, infinite, number}`, states and some words
//! become lists, exit codes are taken apart, and the answer says more about itself.

use std::borrow::Cow;

use penstock_vocab::Signal;

use super::{Json, Source, map, version};

/// Keys whose numbers say whether they are set.
const NUMBERS: &[&str] = &[
    "accrue_time",
    "array_job_id",
    "array_task_id",
    "array_max_tasks",
    "billable_tres",
    "core_spec",
    "thread_spec",
    "cores_per_socket",
    "cpus_per_task",
    "cpu_frequency_minimum",
    "cpu_frequency_maximum",
    "cpu_frequency_governor",
    "deadline",
    "delay_boot",
    "eligible_time",
    "end_time",
    "het_job_id",
    "het_job_offset",
    "last_sched_evaluation",
    "max_cpus",
    "max_nodes",
    "tasks_per_core",
    "tasks_per_node",
    "tasks_per_socket",
    "tasks_per_board",
    "cpus",
    "node_count",
    "tasks",
    "memory_per_node",
    "memory_per_cpu",
    "minimum_cpus_per_node",
    "minimum_tmp_disk_per_node",
    "preempt_time",
    "pre_sus_time",
    "priority",
    "resize_time",
    "start_time",
    "submit_time",
    "suspend_time",
    "time_limit",
    "time_minimum",
    "threads_per_core",
    "boot_time",
    "free_memory",
    "last_busy",
    "reason_changed_at",
    "slurmd_start_time",
];

/// Of these, those that are plain numbers where a node or an accounted job has them.
const PLAIN_ELSEWHERE: &[&str] = &["cpus", "tasks"];

/// The answer in the newer shape.
pub(super) fn answer(source: Source, key: &'static str, records: Json) -> Json {
    let queued = key == "jobs" && source == Source::Controller;
    let records = match records {
        Json::List(list) => {
            Json::List(list.into_iter().map(|record| renewed(record, queued)).collect())
        }
        other => other,
    };
    map(vec![
        (key, records),
        ("meta", meta()),
        ("errors", Json::List(Vec::new())),
        ("warnings", Json::List(Vec::new())),
    ])
}

fn meta() -> Json {
    let (major, minor, micro, release) = version();
    let plugin = vec![
        ("type", Json::text("")),
        ("name", Json::text("")),
        ("data_parser", Json::text("data_parser/v0.0.40")),
        ("accounting_storage", Json::text("")),
    ];
    let numbers = vec![
        ("major", Json::text(major.to_string())),
        ("micro", Json::text(micro.to_string())),
        ("minor", Json::text(minor.to_string())),
    ];
    let slurm = vec![("version", map(numbers)), ("release", Json::text(release))];
    map(vec![("plugin", map(plugin)), ("slurm", map(slurm))])
}

fn renewed(record: Json, queued: bool) -> Json {
    let Json::Map(entries) = record else { return record };
    let renew = |(key, value): (Cow<'static, str>, Json)| {
        let value = entry(&key, value, queued);
        (key, value)
    };
    Json::Map(entries.into_iter().map(renew).collect())
}

fn entry(key: &str, value: Json, queued: bool) -> Json {
    match (key, value) {
        ("job_state", Json::Text(state)) => Json::List(vec![Json::Text(state)]),
        // A node's base state, in capitals as the flags are.
        ("state", Json::Text(state)) => Json::List(vec![Json::Text(state.to_uppercase())]),
        ("current", Json::Text(state)) => Json::List(vec![Json::Text(state)]),
        ("shared", Json::Null) => Json::List(Vec::new()),
        ("profile", Json::Null) => Json::List(vec![Json::text("NOT_SET")]),
        ("exit_code" | "derived_exit_code", value) => exit_code(value),
        // In accounting an unlimited job has no number for its limit.
        ("limit", value @ (Json::Int(_) | Json::Null)) => number(value),
        (key, value @ (Json::Int(_) | Json::Float(_) | Json::Null))
            if NUMBERS.contains(&key) && (queued || !PLAIN_ELSEWHERE.contains(&key)) =>
        {
            number(value)
        }
        (_, Json::Map(entries)) => renewed(Json::Map(entries), false),
        (_, Json::List(list)) => {
            Json::List(list.into_iter().map(|value| renewed(value, false)).collect())
        }
        (_, value) => value,
    }
}

fn number(value: Json) -> Json {
    let (set, value) = match value {
        Json::Null => (false, Json::Int(0)),
        value => (true, value),
    };
    map(vec![("set", Json::Bool(set)), ("infinite", Json::Bool(false)), ("number", value)])
}

/// From a wait status, or from the parts that accounting has.
fn exit_code(value: Json) -> Json {
    let (code, signal) = match &value {
        Json::Int(status) => (Some((status >> 8) & 0xff), status & 0x7f),
        other => {
            let code = match other.get("return_code") {
                Some(Json::Int(code)) => Some(*code),
                _ => None,
            };
            let signal = match other.get("signal").and_then(|signal| signal.get("signal_id")) {
                Some(Json::Int(signal)) => *signal,
                _ => 0,
            };
            (code, signal)
        }
    };
    let status = match (code, signal) {
        (_, 1..) => "SIGNALED",
        (Some(0) | None, _) => "SUCCESS",
        (Some(_), _) => "ERROR",
    };
    let known = u8::try_from(signal).ok().and_then(Signal::new);
    let name = known.and_then(Signal::name).map(str::to_owned);
    map(vec![
        ("status", Json::List(vec![Json::text(status)])),
        ("return_code", number(code.map_or(Json::Null, Json::Int))),
        (
            "signal",
            map(vec![
                ("id", number(if signal == 0 { Json::Null } else { Json::Int(signal) })),
                ("name", Json::text(name.unwrap_or_default())),
            ]),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_whether_they_are_set_and_states_are_lists() {
        let record = map(vec![
            ("job_state", Json::text("FAILED")),
            ("time_limit", Json::Null),
            ("cpus", Json::Int(4)),
            ("exit_code", Json::Int(768)),
            ("name", Json::text("x")),
        ]);
        let new = renewed(record, true);
        assert_eq!(new.get("job_state"), Some(&Json::List(vec![Json::text("FAILED")])));
        let limit = new.get("time_limit").expect("kept");
        assert_eq!(limit.get("set"), Some(&Json::Bool(false)));
        assert_eq!(new.get("cpus").and_then(|cpus| cpus.get("number")), Some(&Json::Int(4)));
        let code = new.get("exit_code").expect("kept");
        assert_eq!(code.get("status"), Some(&Json::List(vec![Json::text("ERROR")])));
        assert_eq!(
            code.get("return_code").and_then(|code| code.get("number")),
            Some(&Json::Int(3))
        );
        assert_eq!(new.get("name"), Some(&Json::text("x")));
    }

    #[test]
    fn a_node_keeps_its_plain_numbers() {
        let node = map(vec![("cpus", Json::Int(4)), ("state", Json::text("mixed"))]);
        let new = renewed(node, false);
        assert_eq!(new.get("cpus"), Some(&Json::Int(4)));
        assert_eq!(new.get("state"), Some(&Json::List(vec![Json::text("MIXED")])));
    }
}
