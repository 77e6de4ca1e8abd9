//! How do values of Lua become what a request holds, and back?

use mlua::Value;
use penstock_proto::v1;

use super::codes::INFINITE;

/// A whole number, also where it is written as a fraction of none.
pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => {
            #[expect(clippy::cast_possible_truncation, reason = "within 53 bits and whole")]
            let whole = *number as i64;
            Some(whole)
        }
        Value::String(text) => text.to_string_lossy().trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Nil => Some(String::new()),
        Value::String(text) => Some(text.to_string_lossy()).filter(|text| !text.contains('\0')),
        Value::Integer(number) => Some(number.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

pub(super) fn plain(value: &Value) -> String {
    text_of(value).map_or_else(|| format!("a {}", value.type_name()), |text| format!("{text:?}"))
}

pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

pub(super) fn nodes(place: &mut Vec<String>, text: &str) -> bool {
    let names = if text.is_empty() { Ok(Vec::new()) } else { penstock_vocab::expand(text) };
    names.map(|names| *place = names).is_ok()
}

pub(super) fn licenses(spec: &mut v1::JobSpec, text: &str) -> bool {
    let one = |part: String| {
        let (name, count) = part.split_once(':').unwrap_or((&part, "1"));
        Some(v1::LicenseCount { name: name.to_owned(), count: count.parse().ok()? })
    };
    let all: Option<Vec<_>> = list(text).into_iter().map(one).collect();
    all.map(|all| spec.licenses = all).is_some()
}

pub(super) fn gres_text(counts: &[v1::GresCount]) -> String {
    counts.iter().map(|count| one_gres(Some(count))).collect::<Vec<_>>().join(",")
}

pub(super) fn one_gres(count: Option<&v1::GresCount>) -> String {
    let Some(count) = count else { return String::new() };
    let v1::GresCount { name, r#type, count } = count;
    if r#type.is_empty() {
        format!("gres:{name}:{count}")
    } else {
        format!("gres:{name}:{}:{count}", r#type)
    }
}

pub(super) fn gres_of(text: &str) -> Option<Vec<v1::GresCount>> {
    let bare = |part: String| {
        let part =
            part.strip_prefix("gres:").or_else(|| part.strip_prefix("gres/")).unwrap_or(&part);
        part.to_owned()
    };
    let parts: Vec<String> = list(text).into_iter().map(bare).collect();
    let wire = |request: penstock_vocab::GresRequest| v1::GresCount {
        name: request.name.name().to_owned(),
        r#type: request.name.kind().unwrap_or_default().to_owned(),
        count: request.count,
    };
    if parts.is_empty() {
        return Some(Vec::new());
    }
    let parsed = penstock_vocab::parse_gres_list(&parts.join(",")).ok()?;
    Some(parsed.into_iter().map(wire).collect())
}

pub(super) fn set_gres(place: &mut Vec<v1::GresCount>, text: &str) -> bool {
    gres_of(text).map(|counts| *place = counts).is_some()
}

pub(super) fn set_one_gres(place: &mut Option<v1::GresCount>, text: &str) -> bool {
    match gres_of(text) {
        Some(counts) if counts.len() <= 1 => {
            *place = counts.into_iter().next();
            true
        }
        Some(_) | None => false,
    }
}

pub(super) fn above_zero(value: u32) -> Option<i64> {
    Some(i64::from(value)).filter(|&value| value > 0)
}

pub(super) fn set_zero(place: &mut u32, value: Option<i64>) -> bool {
    u32::try_from(value.unwrap_or(0)).map(|value| *place = value).is_ok()
}

pub(super) fn set_option(place: &mut Option<u32>, value: Option<i64>) -> bool {
    value.map(u32::try_from).transpose().map(|value| *place = value).is_ok()
}

pub(super) fn set_wide(place: &mut Option<u64>, value: Option<i64>) -> bool {
    value.map(u64::try_from).transpose().map(|value| *place = value).is_ok()
}

/// Minutes of a limit; 0 s is none.
pub(super) fn minutes(secs: u64) -> i64 {
    match secs {
        0 => INFINITE,
        secs => i64::try_from(secs.div_ceil(60)).unwrap_or(INFINITE),
    }
}

pub(super) fn set_minutes(place: &mut Option<u64>, value: Option<i64>) -> bool {
    let secs = match value {
        None => Ok(None),
        Some(INFINITE) => Ok(Some(0)),
        Some(minutes) => u64::try_from(minutes).map(|minutes| Some(minutes.saturating_mul(60))),
    };
    secs.map(|secs| *place = secs).is_ok()
}

pub(super) fn set_millis(place: &mut i64, value: Option<i64>) -> bool {
    *place = value.unwrap_or(0).saturating_mul(1000);
    *place >= 0
}
