//! Which devices does the file declare that no driver tells us of?

use penstock_proto::v1;

use super::settings::Accelerator;

/// Counts by type of what is declared.
pub(super) fn counts(declared: &[Accelerator]) -> impl Iterator<Item = v1::GresCount> {
    declared.iter().map(|accelerator| v1::GresCount {
        name: accelerator.name.name().to_owned(),
        r#type: accelerator.name.kind().unwrap_or_default().to_owned(),
        count: accelerator.files.len() as u64,
    })
}
