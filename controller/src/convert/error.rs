//! What is wrong with a message or a record that can't be read?

use penstock_proto::RECORD_FORMAT;

/// Why a message can't be what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A code of a newer version, or no code at all.
    #[error("{what} has the code {code}, which this version does not know")]
    UnknownCode {
        /// Which field.
        what: &'static str,
        /// Its value.
        code: i64,
    },
    /// A part that must be there.
    #[error("{what} is missing")]
    Missing {
        /// Which part.
        what: &'static str,
    },
    /// A value out of its range or a text that can't be read.
    #[error("{what} can't be read: {detail}")]
    Invalid {
        /// Which field.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl ConvertError {
    /// An invalid field, with what is wrong about it.
    pub fn invalid(what: &'static str, detail: impl ToString) -> Self {
        Self::Invalid { what, detail: detail.to_string() }
    }
}

/// Why a record of the store can't be read. The store is whole; this version can't use it.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A newer version wrote it.
    #[error(
        "{record} has format {format}, written by a newer version; this one reads up to \
         {RECORD_FORMAT}; start the newer version again"
    )]
    Newer {
        /// Which record.
        record: String,
        /// Its format.
        format: u32,
    },
    /// Its bytes are no message.
    #[error("{record} is no message of its kind")]
    Undecodable {
        /// Which record.
        record: String,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// Its message has no meaning here.
    #[error("{record} can't be used")]
    Invalid {
        /// Which record.
        record: String,
        /// What is wrong with it.
        source: ConvertError,
    },
    /// Its key belongs to no table that this version knows.
    #[error("the record with key {key} belongs to no table known to this version")]
    UnknownKey {
        /// The key in hex.
        key: String,
    },
}
