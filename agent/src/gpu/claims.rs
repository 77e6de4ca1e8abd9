//! Does the node have the GPUs that its file says?

use std::collections::BTreeMap;

use penstock_proto::v1;
use penstock_vocab::GresRequest;

/// The resource whose units are GPUs and slices.
const GPU: &str = "gpu";

/// What is found, as counts by type: whole GPUs first, slices behind, each in the order in which
/// the first of its type comes. A GPU that never told what it is counts nothing.
pub(super) fn counts(gpus: &[v1::Gpu]) -> Vec<v1::GresCount> {
    let mut counts: Vec<v1::GresCount> = Vec::new();
    let mut add = |kind: &str| {
        if kind.is_empty() {
            return;
        }
        match counts.iter_mut().find(|count| count.r#type == kind) {
            Some(count) => count.count += 1,
            None => counts.push(v1::GresCount {
                name: GPU.to_owned(),
                r#type: kind.to_owned(),
                count: 1,
            }),
        }
    };
    let is_cut = |gpu: &&v1::Gpu| gpu.mig() == v1::MigMode::On;
    gpus.iter().filter(|gpu| !is_cut(gpu)).for_each(|gpu| add(&gpu.r#type));
    let slices = gpus.iter().filter(is_cut).flat_map(|gpu| &gpu.slices);
    slices.for_each(|slice| add(&slice.profile));
    counts
}

/// Whether the file claims GPUs.
pub(super) fn claims_gpus(claims: &[GresRequest]) -> bool {
    claims.iter().any(|claim| claim.name.name() == GPU)
}

/// Where the file and what is found differ, for people; `None`: nowhere, or the file claims none.
/// `why`: what is known of the GPUs that are missing; may be empty.
pub(super) fn differences(
    claims: &[GresRequest],
    found: &[v1::GresCount],
    why: &str,
) -> Option<String> {
    if !claims_gpus(claims) {
        return None;
    }
    let mut claimed: BTreeMap<&str, u64> = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.name.name() == GPU) {
        *claimed.entry(claim.name.kind().unwrap_or_default()).or_default() += claim.count;
    }
    let all = |counts: &[v1::GresCount]| counts.iter().map(|count| count.count).sum::<u64>();
    let differs = match claimed.get("") {
        // A count without a type is for all GPUs.
        Some(count) if claimed.len() == 1 => *count != all(found),
        _ => {
            let of = |kind: &str| {
                found.iter().find(|count| count.r#type == kind).map_or(0, |count| count.count)
            };
            claimed.iter().any(|(kind, count)| of(kind) != *count)
                || found.iter().any(|count| !claimed.contains_key(count.r#type.as_str()))
        }
    };
    if !differs {
        return None;
    }
    let written = |kind: &str, count: u64| match kind {
        "" => count.to_string(),
        kind => format!("{kind}:{count}"),
    };
    let said: Vec<String> = claimed.iter().map(|(kind, count)| written(kind, *count)).collect();
    let is: Vec<String> = found.iter().map(|count| written(&count.r#type, count.count)).collect();
    let is = if is.is_empty() { "none".to_owned() } else { is.join(",") };
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    Some(format!("gres/gpu: the node's file says {}, found {is}{why}", said.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(kind: &str, slices: &[&str]) -> v1::Gpu {
        let slice = |profile: &&str| v1::MigSlice {
            profile: (*profile).to_owned(),
            ..v1::MigSlice::default()
        };
        let mig = if slices.is_empty() { v1::MigMode::Off } else { v1::MigMode::On };
        v1::Gpu {
            r#type: kind.to_owned(),
            mig: mig.into(),
            slices: slices.iter().map(slice).collect(),
            ..v1::Gpu::default()
        }
    }

    #[test]
    fn whole_gpus_and_slices_are_counted_by_type() {
        let gpus =
            [gpu("h100", &["1g.10gb", "3g.40gb", "1g.10gb"]), gpu("h100", &[]), gpu("", &[])];
        let counts: Vec<_> = counts(&gpus).into_iter().map(|c| (c.r#type, c.count)).collect();
        let expect = [("h100", 1), ("1g.10gb", 2), ("3g.40gb", 1)];
        assert_eq!(counts, expect.map(|(kind, count)| (kind.to_owned(), count)));
    }

    #[test]
    fn a_difference_is_told_exactly() {
        let found = counts(&[gpu("h100", &[]), gpu("h100", &[]), gpu("a100", &["1g.5gb"])]);
        for (claims, expect) in [
            ("", None),
            ("npu:4", None),
            ("gpu:3", None),
            ("gpu:h100:2,gpu:1g.5gb:1", None),
            ("gpu:2", Some("the node's file says 2, found h100:2,1g.5gb:1 (why)")),
            ("gpu:h100:8", Some("the node's file says h100:8, found h100:2,1g.5gb:1 (why)")),
            ("gpu:h100:2", Some("says h100:2, found h100:2,1g.5gb:1 (why)")),
        ] {
            let claims = penstock_vocab::parse_gres_list(claims).unwrap_or_default();
            let text = differences(&claims, &found, "why");
            match (text, expect) {
                (None, None) => {}
                (Some(text), Some(expect)) => assert!(text.ends_with(expect), "{text}"),
                (text, expect) => panic!("{text:?} is not {expect:?}"),
            }
        }
        let claims = penstock_vocab::parse_gres_list("gpu:8").unwrap();
        let text = differences(&claims, &[], "").unwrap();
        assert_eq!(text, "gres/gpu: the node's file says 8, found none");
    }
}
