//! Which fields of a request does the script see, by Slurm's names, and which may it change?
//!
//! A request becomes a table of plain values; what differs in it afterwards is put back. A number that
//! was not given is one of Slurm's `NO_VAL`s, a text that was not given is nil. What a script sets that
//! is no field is refused by name, so that no policy is written in vain.

use bytes::Bytes;
use mlua::{Error, Lua, Result, Table, Value};
use penstock_proto::v1;

use super::codes::{NO_VAL, NO_VAL16};
use super::values::{
    above_zero, gres_text, licenses, list, minutes, nodes, one_gres, plain, set_gres, set_millis,
    set_minutes, set_one_gres, set_option, set_wide, set_zero, text_of, whole,
};

/// Slurm adds this to nice values.
const NICE_OFFSET: i64 = 0x8000_0000;

/// A text of a request: name, how it is read, how it is set (nil comes as empty text).
type Text = (&'static str, fn(&v1::JobSpec) -> String, fn(&mut v1::JobSpec, &str) -> bool);
/// A number: name, what stands for none, and as above.
type Number =
    (&'static str, i64, fn(&v1::JobSpec) -> Option<i64>, fn(&mut v1::JobSpec, Option<i64>) -> bool);

macro_rules! plain {
    ($name:literal, $field:ident) => {
        (
            $name,
            |spec| spec.$field.clone(),
            |spec, text| {
                spec.$field = text.to_owned();
                true
            },
        )
    };
}

macro_rules! count {
    ($name:literal, $none:expr, $field:ident) => {
        (
            $name,
            $none,
            |spec| spec.$field.map(i64::from),
            |spec, value| set_option(&mut spec.$field, value),
        )
    };
}

/// Texts that may be read and set.
const TEXTS: &[Text] = &[
    plain!("account", account),
    plain!("array_inx", array),
    plain!("comment", comment),
    plain!("dependency", dependency),
    plain!("features", constraint),
    plain!("mail_user", mail_user),
    plain!("name", name),
    plain!("qos", qos),
    plain!("reservation", reservation),
    plain!("std_err", stderr),
    plain!("std_in", stdin),
    plain!("std_out", stdout),
    plain!("wckey", wckey),
    plain!("work_dir", work_dir),
    (
        "partition",
        |spec| spec.partitions.join(","),
        |spec, text| {
            spec.partitions = list(text);
            true
        },
    ),
    (
        "req_nodes",
        |spec| spec.required_nodes.join(","),
        |spec, text| nodes(&mut spec.required_nodes, text),
    ),
    (
        "exc_nodes",
        |spec| spec.excluded_nodes.join(","),
        |spec, text| nodes(&mut spec.excluded_nodes, text),
    ),
    (
        "licenses",
        |spec| {
            let one = |one: &v1::LicenseCount| format!("{}:{}", one.name, one.count);
            spec.licenses.iter().map(one).collect::<Vec<_>>().join(",")
        },
        |spec, text| licenses(spec, text),
    ),
    (
        "gres",
        |spec| gres_text(&spec.gres_per_node),
        |spec, text| set_gres(&mut spec.gres_per_node, text),
    ),
    (
        "tres_per_node",
        |spec| gres_text(&spec.gres_per_node),
        |spec, text| set_gres(&mut spec.gres_per_node, text),
    ),
    (
        "tres_per_job",
        |spec| one_gres(spec.gpus_total.as_ref()),
        |spec, text| set_one_gres(&mut spec.gpus_total, text),
    ),
    (
        "tres_per_task",
        |spec| one_gres(spec.gpus_per_task.as_ref()),
        |spec, text| set_one_gres(&mut spec.gpus_per_task, text),
    ),
    (
        "tres_per_socket",
        |spec| one_gres(spec.gpus_per_socket.as_ref()),
        |spec, text| set_one_gres(&mut spec.gpus_per_socket, text),
    ),
];

/// Numbers that may be read and set.
const NUMBERS: &[Number] = &[
    count!("cpus_per_task", NO_VAL16, cpus_per_task),
    count!("num_tasks", NO_VAL, ntasks),
    count!("ntasks_per_node", NO_VAL16, ntasks_per_node),
    (
        "min_nodes",
        NO_VAL,
        |spec| above_zero(spec.nodes_min),
        |spec, value| set_zero(&mut spec.nodes_min, value),
    ),
    (
        "max_nodes",
        NO_VAL,
        |spec| above_zero(spec.nodes_max),
        |spec, value| set_zero(&mut spec.nodes_max, value),
    ),
    (
        "ntasks_per_core",
        NO_VAL16,
        |spec| above_zero(spec.ntasks_per_core),
        |spec, value| set_zero(&mut spec.ntasks_per_core, value),
    ),
    (
        "ntasks_per_socket",
        NO_VAL16,
        |spec| above_zero(spec.ntasks_per_socket),
        |spec, value| set_zero(&mut spec.ntasks_per_socket, value),
    ),
    (
        "threads_per_core",
        NO_VAL16,
        |spec| above_zero(spec.threads_per_core),
        |spec, value| set_zero(&mut spec.threads_per_core, value),
    ),
    (
        "time_limit",
        NO_VAL,
        |spec| spec.time_limit_secs.map(minutes),
        |spec, value| set_minutes(&mut spec.time_limit_secs, value),
    ),
    (
        "time_min",
        NO_VAL,
        |spec| spec.min_time_secs.map(minutes),
        |spec, value| set_minutes(&mut spec.min_time_secs, value),
    ),
    (
        "begin_time",
        0,
        |spec| Some(spec.begin_time_ms / 1000),
        |spec, value| set_millis(&mut spec.begin_time_ms, value),
    ),
    (
        "deadline",
        0,
        |spec| Some(spec.deadline_ms / 1000),
        |spec, value| set_millis(&mut spec.deadline_ms, value),
    ),
    (
        "requeue",
        NO_VAL16,
        |spec| spec.requeue.map(i64::from),
        |spec, value| {
            spec.requeue = value.map(|value| value != 0);
            true
        },
    ),
    (
        "shared",
        NO_VAL16,
        |spec| match (spec.exclusive, spec.exclusive_user) {
            (true, _) => Some(0),
            (false, true) => Some(2),
            (false, false) => None,
        },
        |spec, value| {
            (spec.exclusive, spec.exclusive_user) = (value == Some(0), value == Some(2));
            matches!(value, None | Some(0..=2))
        },
    ),
    (
        "priority",
        NO_VAL,
        |spec| if spec.hold { Some(0) } else { spec.priority.map(i64::from) },
        |spec, value| {
            spec.hold = value == Some(0);
            set_option(&mut spec.priority, value.filter(|&value| value != 0))
        },
    ),
    (
        "nice",
        NO_VAL,
        |spec| Some(i64::from(spec.nice)).filter(|&nice| nice != 0).map(|nice| nice + NICE_OFFSET),
        |spec, value| {
            let nice = value.map_or(0, |value| value - NICE_OFFSET);
            i32::try_from(nice).map(|nice| spec.nice = nice).is_ok()
        },
    ),
    (
        "min_mem_per_node",
        -1,
        |spec| spec.mem_per_node_mib.and_then(|mib| i64::try_from(mib).ok()),
        |spec, value| {
            let set = set_wide(&mut spec.mem_per_node_mib, value);
            if value.is_some() {
                (spec.mem_per_cpu_mib, spec.mem_per_gpu_mib) = (None, None);
            }
            set
        },
    ),
    (
        "min_mem_per_cpu",
        -1,
        |spec| spec.mem_per_cpu_mib.and_then(|mib| i64::try_from(mib).ok()),
        |spec, value| {
            let set = set_wide(&mut spec.mem_per_cpu_mib, value);
            if value.is_some() {
                (spec.mem_per_node_mib, spec.mem_per_gpu_mib) = (None, None);
            }
            set
        },
    ),
    (
        "mail_type",
        0,
        |spec| Some(i64::from(crate::mail::types_of(&spec.mail_type).bits())),
        |spec, value| {
            let bits = u32::try_from(value.unwrap_or(0)).ok();
            let types = bits.and_then(penstock_vocab::MailTypes::from_bits);
            types.map(|types| spec.mail_type = types.to_string()).is_some()
        },
    ),
];

/// Fields that a script reads and that are not its to change.
const FIXED: &[&str] = &[
    "user_id",
    "group_id",
    "user_name",
    "argc",
    "alloc_node",
    "alloc_sid",
    "immediate",
    "min_cpus",
    "pn_min_memory",
    "submit_line",
    "container",
];

/// The table `job_desc` of a submission.
pub(super) fn submission_table(
    lua: &Lua,
    spec: &v1::JobSpec,
    (script, environment): (&Bytes, &Bytes),
    uid: u32,
) -> Result<Table> {
    let table = lua.create_table()?;
    for (name, get, _) in TEXTS {
        let text = get(spec);
        if !text.is_empty() {
            table.set(*name, text)?;
        }
    }
    for (name, none, get, _) in NUMBERS {
        match get(spec) {
            Some(number) => table.set(*name, number)?,
            None if *none >= 0 => table.set(*name, *none)?,
            None => {}
        }
    }
    table.set("user_id", uid)?;
    if !spec.user_name.is_empty() {
        table.set("user_name", spec.user_name.as_str())?;
    }
    table.set("argc", spec.script_arguments.len())?;
    table.set("alloc_node", spec.submit_host.as_str())?;
    table.set("alloc_sid", spec.submit_sid)?;
    table.set("submit_line", spec.submit_line.as_str())?;
    table.set("immediate", u32::from(spec.immediate_secs.is_some()))?;
    let least = spec.ntasks.map(|n| i64::from(n) * i64::from(spec.cpus_per_task.unwrap_or(1)));
    table.set("min_cpus", least.unwrap_or(NO_VAL))?;
    table.set("pn_min_memory", memory(spec))?;
    if !script.is_empty() {
        table.set("script", lua.create_string(script)?)?;
    }
    let variables = lua.create_table()?;
    for entry in environment.split(|&byte| byte == 0) {
        if let Some(at) = entry.iter().position(|&byte| byte == b'=') {
            variables
                .set(lua.create_string(&entry[..at])?, lua.create_string(&entry[at + 1..])?)?;
        }
    }
    table.set("environment", variables)?;
    Ok(table)
}

/// As Slurm has it in one number: MiB, with the highest bit for "of each CPU".
fn memory(spec: &v1::JobSpec) -> Value {
    let float = |mib: u64| {
        #[expect(clippy::cast_precision_loss, reason = "Slurm gives scripts the same doubles")]
        let mib = mib as f64;
        mib
    };
    match (spec.mem_per_node_mib, spec.mem_per_cpu_mib) {
        (Some(mib), _) => Value::Number(float(mib)),
        (None, Some(mib)) => Value::Number(float(mib) + 9_223_372_036_854_775_808.0),
        (None, None) => Value::Number(18_446_744_073_709_551_614.0),
    }
}

/// What was given in `table`, to compare with later. The environment is copied too.
pub(super) fn copy(lua: &Lua, table: &Table) -> Result<Table> {
    let other = lua.create_table()?;
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let value = match value {
            Value::Table(inner) => Value::Table(copy(lua, &inner)?),
            plain => plain,
        };
        other.raw_set(key, value)?;
    }
    Ok(other)
}

/// The fields that differ, with their new values.
fn changes(before: &Table, after: &Table) -> Result<Vec<(String, Value)>> {
    let mut changed = Vec::new();
    for pair in after.pairs::<Value, Value>() {
        let (key, value) = pair?;
        if !value.is_table() && before.raw_get::<Value>(key.clone())? != value {
            changed.push((key_text(&key)?, value));
        }
    }
    for pair in before.pairs::<Value, Value>() {
        let (key, _) = pair?;
        if after.raw_get::<Value>(key.clone())?.is_nil() {
            changed.push((key_text(&key)?, Value::Nil));
        }
    }
    Ok(changed)
}

fn key_text(key: &Value) -> Result<String> {
    key.as_string()
        .map(mlua::LuaString::to_string_lossy)
        .ok_or_else(|| Error::runtime("job_desc has a field whose name is no text"))
}

/// Puts what the script changed back into the request.
pub(super) fn read_submission(before: &Table, after: &Table, spec: &mut v1::JobSpec) -> Result<()> {
    for (name, value) in changes(before, after)? {
        if matches!(name.as_str(), "script" | "environment") {
            continue;
        }
        set_field(spec, &name, &value)?;
    }
    Ok(())
}

fn set_field(spec: &mut v1::JobSpec, name: &str, value: &Value) -> Result<()> {
    let wrong = || Error::runtime(format!("job_desc.{name} cannot be {}", plain(value)));
    if let Some((_, _, set)) = TEXTS.iter().find(|(known, ..)| *known == name) {
        let text = text_of(value).ok_or_else(wrong)?;
        return if set(spec, &text) { Ok(()) } else { Err(wrong()) };
    }
    if let Some((_, none, _, set)) = NUMBERS.iter().find(|(known, ..)| *known == name) {
        let number = match value {
            Value::Nil => None,
            Value::Boolean(flag) => Some(i64::from(*flag)),
            value => Some(whole(value).ok_or_else(wrong)?),
        };
        let given = number.filter(|number| number != none);
        return if set(spec, given) { Ok(()) } else { Err(wrong()) };
    }
    let why = if FIXED.contains(&name) { "cannot be changed here" } else { "is no field here" };
    Err(Error::runtime(format!("job_desc.{name} {why}")))
}

/// Puts a changed script or environment back.
pub(super) fn read_blobs(
    before: &Table,
    after: &Table,
    (script, environment): (&mut Bytes, &mut Bytes),
) -> Result<()> {
    let text: Value = after.raw_get("script")?;
    if before.raw_get::<Value>("script")? != text {
        let text = text.as_string().ok_or_else(|| Error::runtime("job_desc.script is no text"))?;
        *script = Bytes::copy_from_slice(&text.as_bytes());
    }
    let (old, new): (Value, Value) =
        (before.raw_get("environment")?, after.raw_get("environment")?);
    let (Value::Table(old), Value::Table(new)) = (&old, &new) else {
        return Err(Error::runtime("job_desc.environment is no table"));
    };
    let mut block = Vec::new();
    let mut differs = false;
    for pair in new.pairs::<Value, Value>() {
        let (key, value) = pair?;
        differs |= old.raw_get::<Value>(key.clone())? != value;
        let (Some(key), Some(value)) = (key.as_string(), text_of(&value)) else {
            return Err(Error::runtime("job_desc.environment holds what is no text"));
        };
        block.extend_from_slice(&key.as_bytes());
        block.push(b'=');
        block.extend_from_slice(value.as_bytes());
        block.push(0);
    }
    for pair in old.pairs::<Value, Value>() {
        let (key, _) = pair?;
        differs |= new.raw_get::<Value>(key)?.is_nil();
    }
    if differs {
        *environment = block.into();
    }
    Ok(())
}

/// The table `job_desc` of a change: what is to change, the rest as not given.
pub(super) fn change_table(lua: &Lua, update: &v1::JobUpdate) -> Result<Table> {
    submission_table(lua, &as_spec(update), (&Bytes::new(), &Bytes::new()), 0).and_then(|table| {
        for name in FIXED.iter().chain(&["environment"]) {
            table.raw_set(*name, Value::Nil)?;
        }
        Ok(table)
    })
}

/// Puts what the script changed back into the change.
pub(super) fn read_change(before: &Table, after: &Table, update: &mut v1::JobUpdate) -> Result<()> {
    let changed = changes(before, after)?;
    let mut spec = as_spec(update);
    for (name, value) in &changed {
        set_field(&mut spec, name, value)?;
    }
    for (name, _) in &changed {
        let text = |text: &str| Some(text.to_owned());
        match name.as_str() {
            "account" => update.account = text(&spec.account),
            "comment" => update.comment = text(&spec.comment),
            "cpus_per_task" => update.cpus_per_task = spec.cpus_per_task,
            "deadline" => update.deadline_ms = Some(spec.deadline_ms),
            "begin_time" => update.begin_time_ms = Some(spec.begin_time_ms),
            "dependency" => update.dependency = text(&spec.dependency),
            "exc_nodes" => update.excluded_nodes = Some(spec.excluded_nodes.join(",")),
            "features" => update.constraint = text(&spec.constraint),
            "min_mem_per_cpu" => update.mem_per_cpu_mib = spec.mem_per_cpu_mib,
            "min_mem_per_node" => update.mem_per_node_mib = spec.mem_per_node_mib,
            "min_nodes" => update.nodes_min = Some(spec.nodes_min),
            "max_nodes" => update.nodes_max = Some(spec.nodes_max),
            "name" => update.name = text(&spec.name),
            "nice" => update.nice = Some(spec.nice),
            "num_tasks" => update.ntasks = spec.ntasks,
            "partition" => update.partition = Some(spec.partitions.join(",")),
            "priority" => update.priority = if spec.hold { Some(0) } else { spec.priority },
            "qos" => update.qos = text(&spec.qos),
            "req_nodes" => update.required_nodes = Some(spec.required_nodes.join(",")),
            "requeue" => update.requeue = spec.requeue,
            "reservation" => update.reservation = text(&spec.reservation),
            "std_err" => update.stderr = text(&spec.stderr),
            "std_in" => update.stdin = text(&spec.stdin),
            "std_out" => update.stdout = text(&spec.stdout),
            "time_limit" => update.time_limit_secs = spec.time_limit_secs,
            "time_min" => update.min_time_secs = spec.min_time_secs,
            "work_dir" => update.work_dir = text(&spec.work_dir),
            other => {
                return Err(Error::runtime(format!(
                    "job_desc.{other} cannot be changed by slurm_job_modify"
                )));
            }
        }
    }
    Ok(())
}

/// The job as it is: `job_rec`.
pub(super) fn job_table(lua: &Lua, job: &v1::Job) -> Result<Table> {
    let none = v1::JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&none);
    let table = submission_table(lua, spec, (&Bytes::new(), &Bytes::new()), job.uid)?;
    table.set("job_id", job.id)?;
    table.set("group_id", job.gid)?;
    table.set("job_state", job.state)?;
    table.set("restart_cnt", job.restarts)?;
    table.set("time_limit", minutes(job.time_limit_secs))?;
    table.raw_set("environment", Value::Nil)?;
    Ok(table)
}

fn as_spec(update: &v1::JobUpdate) -> v1::JobSpec {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    v1::JobSpec {
        time_limit_secs: update.time_limit_secs,
        partitions: update.partition.as_deref().map(list).unwrap_or_default(),
        qos: text(&update.qos),
        account: text(&update.account),
        priority: update.priority.filter(|&priority| priority != 0),
        hold: update.priority == Some(0),
        nice: update.nice.unwrap_or(0),
        dependency: text(&update.dependency),
        begin_time_ms: update.begin_time_ms.unwrap_or(0),
        nodes_min: update.nodes_min.unwrap_or(0),
        nodes_max: update.nodes_max.unwrap_or(0),
        ntasks: update.ntasks,
        cpus_per_task: update.cpus_per_task,
        mem_per_node_mib: update.mem_per_node_mib,
        mem_per_cpu_mib: update.mem_per_cpu_mib,
        constraint: text(&update.constraint),
        required_nodes: update.required_nodes.as_deref().map(list).unwrap_or_default(),
        excluded_nodes: update.excluded_nodes.as_deref().map(list).unwrap_or_default(),
        name: text(&update.name),
        comment: text(&update.comment),
        requeue: update.requeue,
        work_dir: text(&update.work_dir),
        stdout: text(&update.stdout),
        stderr: text(&update.stderr),
        stdin: text(&update.stdin),
        reservation: text(&update.reservation),
        deadline_ms: update.deadline_ms.unwrap_or(0),
        min_time_secs: update.min_time_secs,
        ..v1::JobSpec::default()
    }
}
