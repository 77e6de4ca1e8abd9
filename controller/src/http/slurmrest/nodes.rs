//! `/slurm/v0.0.40/nodes`, `/partitions`, `/ping` and `/diag`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use penstock_proto::v1;
use penstock_proto::v1::penstock_server::Penstock as _;
use penstock_proto::v1::planning_server::Planning as _;
use serde_json::{Value, json};

use super::answer::{Answer, Failure, limit, number, time, whole, with_first};
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::rest::nodes::{listed, listed_partitions};
use crate::http::web::{Web, aside, asked};

async fn written(web: Arc<Web>, nodes: Vec<v1::NodeInfo>) -> Answer {
    let now = time(web.now().0);
    let made = aside(move || with_first(&[("last_update", now)], &(web.shapes.nodes)(&nodes)));
    Ok(made.await?)
}

pub(super) async fn list(State(web): State<Arc<Web>>, Extension(who): Extension<Who>) -> Answer {
    let nodes = listed(&web, &who, "").await?;
    written(web, nodes).await
}

pub(super) async fn one(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
) -> Answer {
    let nodes = listed(&web, &who, &name).await?;
    written(web, nodes).await
}

pub(super) async fn partitions(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
) -> Answer {
    let all = listed_partitions(&web, &who).await?;
    Ok(written_partitions(&web, &all))
}

pub(super) async fn partition(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    Path(name): Path<String>,
) -> Answer {
    let mut all = listed_partitions(&web, &who).await?;
    all.retain(|one| one.name == name);
    if all.is_empty() {
        return Err(Failure(Problem::refused(&v1::Refusal {
            kind: "UnknownRecord".to_owned(),
            slurm_text: "Invalid partition name specified".to_owned(),
            detail: format!("there is no partition {name:?}"),
        })));
    }
    Ok(written_partitions(&web, &all))
}

fn written_partitions(web: &Web, partitions: &[v1::PartitionInfo]) -> axum::response::Response {
    let list: Vec<Value> = partitions.iter().map(partition_shape).collect();
    whole(json!({"partitions": list, "last_update": time(web.now().0)}))
}

/// A partition as slurmrestd tells of it.
fn partition_shape(info: &v1::PartitionInfo) -> Value {
    let nodes = penstock_vocab::compress(info.nodes.iter().map(String::as_str));
    let list = |names: &[String]| names.join(",");
    let minutes = |secs: u64| secs.div_ceil(60);
    let max_time = (info.max_time_secs != 0).then(|| minutes(info.max_time_secs));
    let max_nodes = (info.max_nodes != 0).then(|| u64::from(info.max_nodes));
    json!({
        "nodes": {"allowed_allocation": "", "configured": nodes, "total": info.total_nodes},
        "accounts": {"allowed": list(&info.allow_accounts), "deny": list(&info.deny_accounts)},
        "groups": {"allowed": list(&info.allow_groups)},
        "qos": {
            "allowed": list(&info.allow_qos), "deny": list(&info.deny_qos), "assigned": info.qos,
        },
        "alternate": "",
        "tres": {"billing_weights": "", "configured": info.tres},
        "cluster": "",
        "cpus": {"task_binding": 0, "total": info.total_cpus},
        "defaults": {
            "memory_per_cpu": info.def_mem_per_cpu_mib.unwrap_or(0),
            "partition_memory_per_cpu": number(info.def_mem_per_cpu_mib),
            "partition_memory_per_node": number(info.def_mem_per_node_mib),
            "time": number(info.default_time_secs.map(minutes)),
            "job": "",
        },
        "grace_time": info.grace_secs,
        "maximums": {
            "cpus_per_node": limit(
                Some(u64::from(info.max_cpus_per_node)).filter(|cpus| *cpus != 0),
            ),
            "memory_per_cpu": info.max_mem_per_cpu_mib.unwrap_or(0),
            "partition_memory_per_cpu": number(info.max_mem_per_cpu_mib),
            "partition_memory_per_node": number(info.max_mem_per_node_mib),
            "nodes": limit(max_nodes),
            "shares": 1,
            "time": limit(max_time),
            "over_time_limit": number(None),
            "oversubscribe": {"jobs": 1, "flags": []},
        },
        "minimums": {"nodes": info.min_nodes},
        "name": info.name,
        "node_sets": "",
        "priority": {"job_factor": info.priority_job_factor, "tier": info.priority_tier},
        "timeouts": {"resume": number(None), "suspend": number(None)},
        "partition": {"state": [info.state]},
        "suspend_time": number(None),
    })
}

pub(super) async fn ping(State(web): State<Arc<Web>>, Extension(who): Extension<Who>) -> Answer {
    let reply = web.service.ping(asked(&who, v1::PingRequest {})).await?.into_inner();
    Ok(whole(json!({"pings": [{
        "hostname": reply.controller_host,
        "pinged": "UP",
        "latency": 0,
        "mode": "primary",
    }]})))
}

pub(super) async fn diag(State(web): State<Arc<Web>>, Extension(who): Extension<Who>) -> Answer {
    let request = v1::DiagnoseRequest { reset: false };
    let reply = web.service.diagnose(asked(&who, request)).await?.into_inner();
    Ok(whole(json!({"statistics": statistics(&reply)})))
}

/// Counters as slurmrestd tells of them.
fn statistics(reply: &v1::DiagnoseReply) -> Value {
    let phase = |name: &str| reply.phases.iter().find(|phase| phase.name == name);
    let plan = phase("plan");
    let mean = plan.map_or(0, |phase| phase.total_us / phase.count.max(1));
    let rpcs: Vec<Value> = (0u32..)
        .zip(&reply.rpcs)
        .map(|(id, rpc)| {
            json!({
                "message_type": rpc.method,
                "type_id": id,
                "count": rpc.count,
                "average_time": rpc.total_us / rpc.count.max(1),
                "total_time": rpc.total_us,
            })
        })
        .collect();
    json!({
        "parts_packed": 1,
        "req_time": time(reply.now_ms),
        "req_time_start": time(reply.since_ms),
        "server_thread_count": 1,
        "agent_queue_size": reply.queued_commands,
        "agent_count": reply.agents_connected,
        "agent_thread_count": 0,
        "dbd_agent_queue_size": 0,
        "gettimeofday_latency": 0,
        "schedule_cycle_max": plan.map_or(0, |phase| phase.max_us),
        "schedule_cycle_last": plan.map_or(0, |phase| phase.last_us),
        "schedule_cycle_sum": plan.map_or(0, |phase| phase.total_us),
        "schedule_cycle_total": reply.plans,
        "schedule_cycle_mean": mean,
        "schedule_cycle_mean_depth": reply.last_depth,
        "schedule_cycle_per_minute": 0,
        "schedule_queue_length": reply.last_queue_length,
        "jobs_submitted": reply.jobs_submitted,
        "jobs_started": reply.jobs_started,
        "jobs_completed": reply.jobs_completed,
        "jobs_canceled": reply.jobs_cancelled,
        "jobs_failed": reply.jobs_failed,
        "jobs_pending": reply.jobs_pending,
        "jobs_running": reply.jobs_running,
        "job_states_ts": time(reply.now_ms),
        "bf_backfilled_jobs": reply.backfilled,
        "bf_last_backfilled_jobs": reply.backfilled_last,
        "bf_cycle_counter": reply.full_plans,
        "bf_last_depth": reply.last_depth,
        "bf_queue_len": reply.last_queue_length,
        "bf_when_last_cycle": time(reply.last_plan_ms),
        "bf_active": false,
        "rpcs_by_message_type": rpcs,
        "rpcs_by_user": [],
        "pending_rpcs": [],
    })
}
