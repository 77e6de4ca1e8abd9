//! In which words is REST described to programs that make clients?
//!
//! The description is made from the handlers and types themselves; docs/openapi.json is a copy of it, held
//! equal by a test.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{accounts, changes, events, jobs, nodes, planning};

/// REST of version 1.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Penstock",
        description = "REST of Penstock's controller. Sign in with a token of `scontrol token`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        jobs::list, jobs::submit, jobs::one, jobs::script, jobs::history, changes::change,
        changes::end, changes::action, changes::actions, planning::explain, planning::what_if,
        planning::reservations, planning::ping, nodes::list, nodes::one, nodes::change,
        nodes::drain_plan, nodes::gpus, nodes::partitions, accounts::tree, accounts::qos,
        accounts::shares, accounts::usage, accounts::costs, accounts::idle, events::events
    ),
    modifiers(&Tokens),
    security(("bearer" = []), ("slurm" = []))
)]
struct Description;

/// Either header may carry the token.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let slurm = ApiKey::Header(ApiKeyValue::new("X-SLURM-USER-TOKEN"));
        components.add_security_scheme("slurm", SecurityScheme::ApiKey(slurm));
    }
}

/// The description as JSON, in a fixed order.
#[must_use]
pub fn description() -> String {
    let mut text =
        Description::openapi().to_pretty_json().expect("a description has texts for keys");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_description_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        if std::env::var_os("PENSTOCK_RECORD").is_some() {
            std::fs::write(path, description()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == description(),
            "docs/openapi.json is out of date; run this test with PENSTOCK_RECORD=1"
        );
    }

    #[test]
    fn every_route_is_described() {
        let text = description();
        for (path, _) in super::super::ROUTES {
            assert!(text.contains(&format!("\"{path}\": {{")), "{path}");
        }
    }
}
