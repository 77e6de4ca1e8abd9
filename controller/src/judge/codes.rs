//! Which numbers does the script know, and what do they mean to a user?

/// `slurm.SUCCESS`.
pub(super) const SUCCESS: i64 = 0;
/// `slurm.ERROR`.
pub(super) const ERROR: i64 = -1;

/// A 16-bit number that was not given.
pub(super) const NO_VAL16: i64 = 0xfffe;
/// A number that was not given.
pub(super) const NO_VAL: i64 = 0xffff_fffe;
/// A number without bound.
pub(super) const INFINITE: i64 = 0xffff_ffff;

/// Constants of the table `slurm` that are numbers.
pub(super) const NUMBERS: &[(&str, i64)] = &[
    ("SUCCESS", SUCCESS),
    ("ERROR", ERROR),
    ("FAILURE", ERROR),
    ("NO_VAL8", 0xfe),
    ("NO_VAL16", NO_VAL16),
    ("NO_VAL", NO_VAL),
    ("INFINITE8", 0xff),
    ("INFINITE16", 0xffff),
    ("INFINITE", INFINITE),
    ("MAIL_JOB_BEGIN", 0x0001),
    ("MAIL_JOB_END", 0x0002),
    ("MAIL_JOB_FAIL", 0x0004),
    ("MAIL_JOB_REQUEUE", 0x0008),
    ("MAIL_JOB_TIME100", 0x0010),
    ("MAIL_JOB_TIME90", 0x0020),
    ("MAIL_JOB_TIME80", 0x0040),
    ("MAIL_JOB_TIME50", 0x0080),
    ("MAIL_JOB_STAGE_OUT", 0x0100),
    ("MAIL_ARRAY_TASKS", 0x0200),
    ("PARTITION_DOWN", 1),
    ("PARTITION_UP", 3),
];

/// Constants that do not fit into a whole number of Lua.
pub(super) const LARGE: &[(&str, f64)] = &[
    ("NO_VAL64", 18_446_744_073_709_551_614.0),
    ("INFINITE64", 18_446_744_073_709_551_615.0),
    ("MEM_PER_CPU", 9_223_372_036_854_775_808.0),
    ("NICE_OFFSET", 2_147_483_648.0),
];

/// Slurm's codes (slurm_errno.h), which the table `slurm` has by name, and its texts for them.
pub(super) const ERRORS: &[(&str, i64, &str)] = &[
    ("ESLURM_INVALID_PARTITION_NAME", 2000, "Invalid partition name specified"),
    (
        "ESLURM_DEFAULT_PARTITION_NOT_SET",
        2001,
        "No partition specified or system default partition",
    ),
    ("ESLURM_ACCESS_DENIED", 2002, "Access/permission denied"),
    (
        "ESLURM_JOB_MISSING_REQUIRED_PARTITION_GROUP",
        2003,
        "User's group not permitted to use this partition",
    ),
    ("ESLURM_REQUESTED_NODES_NOT_IN_PARTITION", 2004, "Requested nodes not in this partition"),
    ("ESLURM_TOO_MANY_REQUESTED_CPUS", 2005, "More processors requested than permitted"),
    ("ESLURM_INVALID_NODE_COUNT", 2006, "Node count specification invalid"),
    ("ESLURM_JOB_MISSING_SIZE_SPECIFICATION", 2008, "Job size specification needs to be provided"),
    ("ESLURM_JOB_SCRIPT_MISSING", 2009, "No script specified"),
    ("ESLURM_USER_ID_MISSING", 2010, "User's uid not found"),
    ("ESLURM_DUPLICATE_JOB_ID", 2011, "Duplicate job id"),
    ("ESLURM_PATHNAME_TOO_LONG", 2012, "Pathname of a file, directory or other parameter too long"),
    ("ESLURM_NOT_TOP_PRIORITY", 2013, "Immediate execution impossible, insufficient priority"),
    (
        "ESLURM_REQUESTED_NODE_CONFIG_UNAVAILABLE",
        2014,
        "Requested node configuration is not available",
    ),
    (
        "ESLURM_REQUESTED_PART_CONFIG_UNAVAILABLE",
        2015,
        "Requested partition configuration not available now",
    ),
    ("ESLURM_NODES_BUSY", 2016, "Requested nodes are busy"),
    ("ESLURM_INVALID_JOB_ID", 2017, "Invalid job id specified"),
    ("ESLURM_INVALID_NODE_NAME", 2018, "Invalid node name specified"),
    ("ESLURM_BAD_DIST", 2023, "Task distribution specification invalid"),
    ("ESLURM_BAD_TASK_COUNT", 2025, "Task count specification invalid"),
    ("ESLURM_INVALID_FEATURE", 2029, "Invalid feature specification"),
    ("ESLURM_NOT_SUPPORTED", 2036, "Function not supported"),
    ("ESLURM_DISABLED", 2037, "Requested operation is presently disabled"),
    ("ESLURM_DEPENDENCY", 2038, "Job dependency problem"),
    ("ESLURM_BATCH_ONLY", 2039, "Only batch jobs are accepted or processed"),
    ("ESLURM_LICENSES_UNAVAILABLE", 2040, "Licenses not available"),
    ("ESLURM_INVALID_TASK_MEMORY", 2044, "Memory required by task is not available"),
    ("ESLURM_INVALID_ACCOUNT", 2045, "Invalid account or account/partition combination specified"),
    ("ESLURM_INVALID_LICENSES", 2048, "Invalid license specification"),
    (
        "ESLURM_ACCOUNTING_POLICY",
        2050,
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    ),
    (
        "ESLURM_INVALID_TIME_LIMIT",
        2051,
        "Requested time limit is invalid (missing or exceeds some limit)",
    ),
    ("ESLURM_RESERVATION_ACCESS", 2052, "Access denied to requested reservation"),
    ("ESLURM_RESERVATION_INVALID", 2053, "Requested reservation is invalid"),
    ("ESLURM_INVALID_TIME_VALUE", 2054, "Invalid time specified"),
    ("ESLURM_INVALID_WCKEY", 2057, "Invalid wckey specification"),
    ("ESLURM_INVALID_QOS", 2066, "Invalid qos specification"),
    ("ESLURM_NODE_NOT_AVAIL", 2068, "Requested nodes not available"),
    ("ESLURM_INVALID_CPU_COUNT", 2069, "CPU count specification invalid"),
    ("ESLURM_PARTITION_NOT_AVAIL", 2070, "Required partition not available (inactive or drain)"),
    ("ESLURM_CIRCULAR_DEPENDENCY", 2071, "Circular job dependency"),
    ("ESLURM_INVALID_GRES", 2072, "Invalid generic resource (gres) specification"),
    ("ESLURM_JOB_NOT_PENDING", 2073, "Job is no longer pending execution"),
    ("ESLURM_INVALID_ARRAY", 2081, "Invalid job array specification"),
    ("ESLURM_INTERNAL", 2090, "Slurm internal error"),
    ("ESLURM_PARTITION_DOWN", 2101, "Requested partition is down"),
    ("ESLURM_SUBMISSIONS_DISABLED", 2105, "System submissions disabled"),
    ("ESLURM_INVALID_TRES", 2115, "Invalid Trackable RESource (TRES) specification"),
    ("ESLURM_INVALID_NICE", 2123, "Invalid nice value, must be between -2147483645 and 2147483645"),
    ("ESLURM_MISSING_TIME_LIMIT", 8000, "Time limit specification required, but not provided"),
];

/// What Slurm's commands print for a code.
pub(super) fn text(code: i64) -> String {
    if code == ERROR {
        return "Unspecified error".to_owned();
    }
    let known = ERRORS.iter().find(|(_, number, _)| *number == code);
    match (known, i32::try_from(code)) {
        (Some((_, _, text)), _) => (*text).to_owned(),
        (None, Ok(number)) if (1..134).contains(&number) => {
            let text = std::io::Error::from_raw_os_error(number).to_string();
            // Without the number that the standard library puts behind it.
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
        (None, _) => format!("Unknown error {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_slurms_texts() {
        assert_eq!(text(-1), "Unspecified error");
        assert_eq!(text(2072), "Invalid generic resource (gres) specification");
        assert_eq!(text(1), "Operation not permitted");
        assert_eq!(text(4711), "Unknown error 4711");
    }
}
