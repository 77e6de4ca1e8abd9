//! Around every answer slurmrestd says who speaks and what went wrong. What does that look like?

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::http::problem::Problem;
use crate::http::rest::answer::text;

/// What handlers answer.
pub(super) type Answer = Result<Response, Failure>;

/// Slurm's numbers of some errors, by the text that it has for them; any other is its general error.
const ERROR_NUMBERS: &[(&str, i64)] = &[
    ("Invalid partition name specified", 2000),
    ("Access/permission denied", 2002),
    ("Invalid node name specified", 2006),
    ("Invalid job id specified", 2017),
    ("Job/step already completing or completed", 2021),
    ("Invalid account or account/partition combination specified", 2045),
    ("Invalid qos specification", 2066),
    ("Requested node configuration is not available", 2014),
];

/// A problem in Slurm's shape.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Problem);

impl<E: Into<Problem>> From<E> for Failure {
    fn from(problem: E) -> Self {
        Self(problem.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = self.0;
        let error = problem.slurm_text();
        let number = ERROR_NUMBERS.iter().find(|(known, _)| *known == error);
        let errors = json!([{
            "description": problem.detail(),
            "error_number": number.map_or(-1, |(_, number)| *number),
            "error": error,
            "source": "penstock",
        }]);
        let body = json!({"meta": meta(), "errors": errors, "warnings": []});
        text(problem.status(), body.to_string())
    }
}

/// Who speaks.
fn meta() -> Value {
    json!({
        "plugin": {
            "type": "openapi/slurmctld",
            "name": "Penstock",
            "data_parser": "data_parser/v0.0.40",
            "accounting_storage": "accounting_storage/penstock",
        },
        "slurm": {
            "version": {"major": "23", "micro": "0", "minor": "11"},
            "release": "23.11.0",
        },
    })
}

/// An answer of these parts.
pub(super) fn whole(parts: Value) -> Response {
    let mut body = match parts {
        Value::Object(parts) => parts,
        _ => Map::new(),
    };
    body.insert("meta".to_owned(), meta());
    body.insert("errors".to_owned(), json!([]));
    body.insert("warnings".to_owned(), json!([]));
    text(StatusCode::OK, Value::Object(body).to_string())
}

/// A number of which Slurm says whether it is set, or without a limit.
pub(super) fn number(value: Option<u64>) -> Value {
    json!({"set": value.is_some(), "infinite": false, "number": value.unwrap_or(0)})
}

/// A limit: absent means none.
pub(super) fn limit(value: Option<u64>) -> Value {
    json!({"set": value.is_some(), "infinite": value.is_none(), "number": value.unwrap_or(0)})
}

/// A time in seconds, of one in milliseconds.
pub(super) fn time(ms: i64) -> Value {
    number(u64::try_from(ms.div_euclid(1_000)).ok())
}

/// A listing of a command, with keys that slurmrestd has before its own.
pub(super) fn with_first(first: &[(&str, Value)], listing: &str) -> Response {
    let Some(rest) = listing.strip_prefix('{') else {
        return text(StatusCode::OK, listing.to_owned());
    };
    let mut body = String::with_capacity(listing.len() + 256);
    body.push('{');
    for (key, value) in first {
        body.push_str(&format!("\"{key}\":{value},"));
    }
    body.push_str(rest);
    text(StatusCode::OK, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_first_and_the_listing_stays_whole() {
        let response = with_first(&[("last_update", number(Some(5)))], "{\n  \"jobs\": []\n}\n");
        let body = futures_body(response);
        let read: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read["last_update"]["number"], 5);
        assert_eq!(read["jobs"], json!([]));
    }

    #[test]
    fn an_error_has_slurms_number() {
        let refusal = penstock_proto::v1::Refusal {
            kind: "InvalidJobId".into(),
            slurm_text: "Invalid job id specified".into(),
            detail: "there is no job 7".into(),
        };
        let response = Failure(Problem::refused(&refusal)).into_response();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let read: Value = serde_json::from_str(&futures_body(response)).unwrap();
        assert_eq!(read["errors"][0]["error_number"], 2017);
        assert_eq!(read["errors"][0]["description"], "there is no job 7");
    }

    fn futures_body(response: Response) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(axum::body::to_bytes(response.into_body(), 1 << 20)).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}
