//! How are crontabs and their jobs' times stored and sent?

use penstock_core::model::{CronJob, Crontab};
use penstock_proto::v1;
use penstock_vocab::{CronSpec, Timestamp, UserId};

use super::error::ConvertError;

/// A crontab for the wire.
#[must_use]
pub fn crontab_to_wire(crontab: &Crontab) -> v1::Crontab {
    let range = |&(first, last): &(u32, u32)| v1::LineRange { first, last };
    v1::Crontab {
        uid: crontab.uid.0,
        text: crontab.text.to_string(),
        disabled: crontab.disabled.iter().map(range).collect(),
    }
}

/// Inverse of [`crontab_to_wire`].
#[must_use]
pub fn crontab_from_wire(crontab: v1::Crontab) -> Crontab {
    let disabled = crontab.disabled.iter().map(|range| (range.first, range.last));
    Crontab { uid: UserId(crontab.uid), text: crontab.text.into(), disabled: disabled.collect() }
}

pub(super) fn cron_to_wire(cron: &CronJob) -> v1::CronTimes {
    v1::CronTimes {
        spec: cron.spec.to_string(),
        zone: cron.zone.to_string(),
        first_line: cron.lines.0,
        last_line: cron.lines.1,
        upcoming_ms: cron.upcoming.iter().map(|at| at.0).collect(),
    }
}

pub(super) fn cron_from_wire(cron: v1::CronTimes) -> Result<CronJob, ConvertError> {
    let spec = CronSpec::parse(&cron.spec);
    Ok(CronJob {
        spec: spec.map_err(|error| ConvertError::invalid("the times of a job", error))?,
        zone: cron.zone.into(),
        lines: (cron.first_line, cron.last_line),
        upcoming: cron.upcoming_ms.into_iter().map(Timestamp).collect(),
    })
}
