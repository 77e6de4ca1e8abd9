//! What does a partition look like to sinfo?

use std::borrow::Cow;

use penstock_proto::v1;
use penstock_vocab::elapsed_short;

use super::value::Value;

/// A partition and its place in the controller's order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionRow<'a> {
    /// The message.
    pub(crate) info: &'a v1::PartitionInfo,
    /// 0 for the first one configured.
    pub(crate) place: usize,
}

impl<'a> PartitionRow<'a> {
    /// The name, with `*` behind that of the default.
    pub(crate) fn marked_name(&self) -> Cow<'a, str> {
        if self.info.is_default {
            Cow::Owned(format!("{}*", self.info.name))
        } else {
            Cow::Borrowed(&self.info.name)
        }
    }

    /// `up`, `down`, `drain` or `inact`.
    pub(crate) fn available(&self) -> Value<'a> {
        Value::word(match self.info.state.as_str() {
            "UP" | "" => "up",
            "DOWN" => "down",
            "DRAIN" => "drain",
            "INACTIVE" => "inact",
            other => other,
        })
    }

    /// `infinite` or the longest time.
    pub(crate) fn max_time(&self) -> Value<'a> {
        match self.info.max_time_secs {
            0 => Value::word("infinite"),
            secs => Value::Word(Cow::Owned(elapsed_short(secs))),
        }
    }

    /// The time that jobs get that name none.
    pub(crate) fn default_time(&self) -> Value<'a> {
        match self.info.default_time_secs {
            None => Value::word("n/a"),
            Some(0) => Value::word("infinite"),
            Some(secs) => Value::Word(Cow::Owned(elapsed_short(secs))),
        }
    }

    /// `1-infinite`: how many nodes a job may have.
    pub(crate) fn job_size(&self) -> Value<'a> {
        let (least, most) = (self.info.min_nodes.max(1), self.info.max_nodes);
        Value::Word(Cow::Owned(match most {
            0 => format!("{least}-infinite"),
            most if most == least => least.to_string(),
            most => format!("{least}-{most}"),
        }))
    }

    /// `all`, or who may use it.
    pub(crate) fn groups(&self) -> Value<'a> {
        if self.info.allow_groups.is_empty() {
            Value::word("all")
        } else {
            Value::Word(Cow::Owned(self.info.allow_groups.join(",")))
        }
    }

    /// Whether jobs share nodes.
    pub(crate) fn oversubscribe(&self) -> Value<'a> {
        Value::word(match self.info.oversubscribe.as_str() {
            _ if self.info.exclusive => "EXCLUSIVE",
            "" => "NO",
            word => word,
        })
    }

    /// Most CPUs of a node that jobs may use.
    pub(crate) fn max_cpus_per_node(&self) -> Value<'a> {
        match self.info.max_cpus_per_node {
            0 => Value::word("UNLIMITED"),
            cpus => Value::number(cpus),
        }
    }
}
