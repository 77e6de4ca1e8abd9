//! Who has which share, and what did it use and cost?

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::HeaderMap;
use penstock_proto::v1;
use penstock_proto::v1::accounting_server::Accounting as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Params, tagged};
use super::views::{QosView, ShareView, Tree, amounts};
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::web::{Web, aside, asked};

const DAY_MS: i64 = 86_400_000;
const SECS_PER_HOUR: u128 = 3_600;

/// Accounts, users and QOS by the call that sacctmgr makes.
pub(in crate::http) async fn listed(
    web: &Web,
    who: &Who,
) -> Result<v1::ListAccountsReply, Problem> {
    Ok(web.service.list_accounts(asked(who, v1::ListAccountsRequest {})).await?.into_inner())
}

/// The tree of accounts and users.
#[utoipa::path(get, path = "/api/v1/accounts", tag = "accounts",
    responses((status = 200, body = Tree), (status = 304), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn tree(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
) -> Answer {
    Ok(tagged(&headers, &Tree::of(&listed(&web, &who).await?)))
}

/// QOS.
#[utoipa::path(get, path = "/api/v1/qos", tag = "accounts",
    responses((status = 200, body = [QosView]), (status = 304), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn qos(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
) -> Answer {
    let reply = listed(&web, &who).await?;
    Ok(tagged(&headers, &reply.qos.iter().map(QosView::of).collect::<Vec<_>>()))
}

/// The fair-share tree with its numbers.
#[utoipa::path(get, path = "/api/v1/shares", tag = "accounts",
    responses((status = 200, body = [ShareView]), (status = 304), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn shares(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
) -> Answer {
    let reply = web.service.list_shares(asked(&who, v1::ListSharesRequest {})).await?.into_inner();
    Ok(tagged(&headers, &reply.rows.iter().map(ShareView::of).collect::<Vec<_>>()))
}

/// Which time.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct TimeQuery {
    /// From, milliseconds since the epoch; absent: a day ago.
    pub from_ms: Option<i64>,
    /// Until; absent: now.
    pub to_ms: Option<i64>,
}

/// What was used within a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UsageView {
    /// By account and user.
    pub lines: Vec<UsageLineView>,
    /// What the cluster had, amount times seconds.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    pub capacity_secs: BTreeMap<String, u64>,
    /// What of it was down, amount times seconds.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    pub down_secs: BTreeMap<String, u64>,
    /// From.
    pub from_ms: i64,
    /// Until.
    pub to_ms: i64,
}

/// What jobs of one user in one account had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UsageLineView {
    /// Account.
    pub account: String,
    /// Login name.
    pub user: String,
    /// Jobs.
    pub jobs: u64,
    /// Amount times seconds, by kind of resource.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    pub tres_secs: BTreeMap<String, u64>,
}

/// What jobs cost within a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CostView {
    /// The currency; empty: the cluster has no rates.
    pub currency: String,
    /// Cost of a unit for an hour, millionths of the currency.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    pub rates_millionths: BTreeMap<String, u64>,
    /// By account and user.
    pub lines: Vec<CostLineView>,
    /// Of all, millionths of the currency.
    pub total_millionths: u64,
    /// From.
    pub from_ms: i64,
    /// Until.
    pub to_ms: i64,
}

/// What jobs of one user in one account cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CostLineView {
    /// Account.
    pub account: String,
    /// Login name.
    pub user: String,
    /// Millionths of the currency.
    pub cost_millionths: u64,
}

async fn reported(
    web: &Web,
    who: &Who,
    query: &TimeQuery,
) -> Result<(v1::ReportUsageReply, i64, i64), Problem> {
    let now = web.now().0;
    let to = query.to_ms.unwrap_or(now);
    let from = query.from_ms.unwrap_or_else(|| now.saturating_sub(DAY_MS));
    if from < 0 || to <= from {
        return Err(Problem::bad(format!("from_ms={from} is not before to_ms={to}")));
    }
    let request = v1::ReportUsageRequest { start_ms: from, end_ms: to };
    Ok((web.service.report_usage(asked(who, request)).await?.into_inner(), from, to))
}

/// What accounts and users used within a time.
#[utoipa::path(get, path = "/api/v1/usage", tag = "accounts", params(TimeQuery),
    responses((status = 200, body = UsageView), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn usage(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Params(query): Params<TimeQuery>,
) -> Answer {
    let (reply, from_ms, to_ms) = reported(&web, &who, &query).await?;
    let line = |line: &v1::UsageLine| UsageLineView {
        account: line.account.clone(),
        user: line.user.clone(),
        jobs: line.jobs,
        tres_secs: amounts(&line.tres_secs),
    };
    let view = UsageView {
        lines: reply.lines.iter().map(line).collect(),
        capacity_secs: amounts(&reply.capacity_secs),
        down_secs: amounts(&reply.down_secs),
        from_ms,
        to_ms,
    };
    Ok(tagged(&headers, &view))
}

/// What amounts times seconds cost, millionths of the currency.
fn cost(used: &[v1::TresAmount], rates: &BTreeMap<String, u64>) -> u64 {
    let of_kind = |amount: &v1::TresAmount| {
        let rate = rates.get(&amount.kind)?;
        Some(u128::from(amount.count) * u128::from(*rate) / SECS_PER_HOUR)
    };
    u64::try_from(used.iter().filter_map(of_kind).sum::<u128>()).unwrap_or(u64::MAX)
}

/// What accounts and users cost within a time, by the rates of the cluster file.
#[utoipa::path(get, path = "/api/v1/cost", tag = "accounts", params(TimeQuery),
    responses((status = 200, body = CostView), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn costs(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Params(query): Params<TimeQuery>,
) -> Answer {
    let (reply, from_ms, to_ms) = reported(&web, &who, &query).await?;
    let rates = amounts(&reply.cost_per_hour);
    let line = |line: &v1::UsageLine| CostLineView {
        account: line.account.clone(),
        user: line.user.clone(),
        cost_millionths: cost(&line.tres_secs, &rates),
    };
    let lines: Vec<_> = reply.lines.iter().map(line).collect();
    let sum = lines.iter().fold(0u64, |sum, line| sum.saturating_add(line.cost_millionths));
    let view = CostView {
        currency: reply.currency,
        rates_millionths: rates,
        lines,
        total_millionths: sum,
        from_ms,
        to_ms,
    };
    Ok(tagged(&headers, &view))
}

/// A GPU that is held and computes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct IdleView {
    /// Job.
    pub job: u32,
    /// Login name.
    pub user: String,
    /// Node.
    pub node: String,
    /// Index on the node.
    pub gpu: u32,
    /// First memory slice, of a slice.
    pub slice_start: Option<u32>,
    /// `h100`, or a slice's profile.
    pub kind: String,
    /// How long it has computed nothing, up to the last sample, milliseconds.
    pub idle_now_ms: u64,
    /// How long it computed nothing in all, milliseconds.
    pub idle_ms: Option<u64>,
    /// Percent, over the time that was seen.
    pub utilization_mean: Option<u32>,
    /// What its user says of it.
    pub idle_ok: String,
}

/// How long is idle.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct IdleQuery {
    /// Minutes; absent: 10.
    pub minutes: Option<u64>,
}

/// Who holds GPUs that compute nothing, the longest first.
#[utoipa::path(get, path = "/api/v1/idle", tag = "accounts", params(IdleQuery),
    responses((status = 200, body = [IdleView]), (status = "default", body = Problem,
        content_type = "application/problem+json")))]
pub(super) async fn idle(
    State(web): State<Arc<Web>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    Params(query): Params<IdleQuery>,
) -> Answer {
    let least = query.minutes.unwrap_or(10).saturating_mul(60_000).max(1);
    let filter = v1::JobFilter { states: vec!["RUNNING".to_owned()], ..Default::default() };
    let request =
        v1::ListJobsRequest { filter: Some(filter), full: true, ..v1::ListJobsRequest::default() };
    aside(move || {
        let after = crate::listing::After::Nothing;
        let most = usize::MAX;
        let (jobs, _) = crate::rpc::page_of_jobs(&web.shared, &who.caller, &request, after, most)?;
        let mut idle: Vec<_> = jobs.iter().flat_map(|info| idle_of(info, least)).collect();
        idle.sort_by_key(|one| (std::cmp::Reverse(one.idle_now_ms), one.job));
        Ok(tagged(&headers, &idle))
    })
    .await?
}

fn idle_of(info: &v1::JobInfo, least: u64) -> impl Iterator<Item = IdleView> + '_ {
    let job = info.job.as_ref();
    let idle_ok = job.and_then(|job| job.spec.as_ref()).map_or("", |spec| &spec.idle_ok);
    // Where nothing is known of its use, nothing is said of its idleness.
    let known = info.gpus.iter().filter(|usage| usage.utilization_mean.is_some());
    known.filter(move |usage| usage.idle_now_ms >= least).map(move |usage| IdleView {
        job: job.map_or(0, |job| job.id),
        user: info.user_name.clone(),
        node: usage.node.clone(),
        gpu: usage.gpu,
        slice_start: usage.start,
        kind: usage.r#type.clone(),
        idle_now_ms: usage.idle_now_ms,
        idle_ms: usage.idle_ms,
        utilization_mean: usage.utilization_mean,
        idle_ok: idle_ok.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_the_sum_over_resources() {
        let amount = |kind: &str, count| v1::TresAmount { kind: kind.to_owned(), count };
        let used = [amount("cpu", 7_200), amount("gres/gpu", 3_600), amount("mem", 9)];
        let rates = amounts(&[amount("cpu", 20_000), amount("gres/gpu", 2_000_000)]);
        assert_eq!(cost(&used, &rates), 2_040_000);
    }

    #[test]
    fn only_what_is_known_to_be_idle_is_listed() {
        let usage = |gpu, mean, idle_now_ms| v1::GpuUsage {
            gpu,
            utilization_mean: mean,
            idle_now_ms,
            ..v1::GpuUsage::default()
        };
        let gpus = vec![usage(0, Some(0), 600), usage(1, None, 600), usage(2, Some(9), 599)];
        let info = v1::JobInfo { gpus, ..v1::JobInfo::default() };
        assert_eq!(idle_of(&info, 600).map(|one| one.gpu).collect::<Vec<_>>(), [0]);
    }
}
