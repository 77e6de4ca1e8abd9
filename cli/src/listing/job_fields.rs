//! Under which names, headers and widths do commands show the fields of a job?
//!
//! The one table behind `squeue -o`, `squeue -O` and `sacct --format`. Headers and widths are those
//! of Slurm 22.05; fields for which no data exist show what Slurm shows when they are unset.

use super::job_row::JobRow;
use super::job_values::{files, identity, size, times, unset, used};
use super::value::Value;

/// The value of one field, of a job or of one of its steps.
pub(crate) type JobValue = for<'a> fn(&JobRow<'a>) -> Value<'a>;

/// A field of a job.
#[derive(Clone, Copy)]
pub(crate) struct JobField {
    /// Letter of squeue's `-o`.
    pub(crate) letter: Option<char>,
    /// squeue's header.
    pub(crate) header: &'static str,
    /// Names of squeue's `-O`, in lower case.
    pub(crate) long: &'static [&'static str],
    /// Names of sacct's columns; the width is the same for all.
    pub(crate) sacct: &'static [SacctName],
    /// Whether a brief listing holds what the value needs.
    pub(crate) brief: bool,
    /// What squeue does with a text that is too long for its column.
    pub(crate) overflow: Overflow,
    /// The value.
    pub(crate) value: JobValue,
}

/// What squeue does with a text that is too long for its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// It is cut.
    Cut,
    /// It is cut, but a column that is aligned right grows: times are never told wrong.
    GrowsRight,
    /// A list of waiting tasks is cut at 31 characters whatever the width; where `SLURM_BITSTR_LEN`
    /// says how long it may be, not at all.
    TaskList,
}

/// Name and width of a column of sacct; a negative width is to the left.
pub(crate) type SacctName = (&'static str, i16);

impl std::fmt::Debug for JobField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobField").field("header", &self.header).finish_non_exhaustive()
    }
}

/// A field that has a letter.
const fn lettered(
    letter: char,
    header: &'static str,
    long: &'static [&'static str],
    sacct: &'static [SacctName],
    value: JobValue,
) -> JobField {
    JobField {
        letter: Some(letter),
        header,
        long,
        sacct,
        brief: false,
        overflow: Overflow::Cut,
        value,
    }
}

/// A field that squeue shows by name only.
const fn named(
    header: &'static str,
    long: &'static [&'static str],
    sacct: &'static [SacctName],
    value: JobValue,
) -> JobField {
    JobField { letter: None, header, long, sacct, brief: false, overflow: Overflow::Cut, value }
}

/// A field of accounting only.
const fn counted(sacct: &'static [SacctName], value: JobValue) -> JobField {
    let long: &'static [&'static str] = &[];
    JobField { letter: None, header: "", long, sacct, brief: false, overflow: Overflow::Cut, value }
}

impl JobField {
    /// The same, told by brief listings too.
    const fn brief(mut self) -> Self {
        self.brief = true;
        self
    }

    /// The same, with another way of too long texts.
    const fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }
}

/// The letters of squeue's `%all`, in its order.
pub(crate) const ALL_LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Every field.
#[rustfmt::skip] // One line a field, so that the table can be read as one.
const FIELDS: &[JobField] = &[
    lettered('a', "ACCOUNT", &["account"], &[("Account", 10)], identity::account),
    lettered('A', "JOBID", &["jobid"], &[], identity::job_id).brief(),
    lettered('b', "TRES_PER_NODE", &["tres-per-node", "gres"], &[], size::tres_per_node),
    lettered('B', "EXEC_HOST", &["batchhost"], &[], files::exec_host),
    lettered('c', "MIN_CPUS", &["mincpus"], &[], size::min_cpus),
    lettered('C', "CPUS", &["numcpus"], &[("AllocCPUS", 10), ("NCPUS", 10)], size::num_cpus),
    lettered('d', "MIN_TMP_DISK", &["mintmpdisk"], &[], unset::zero),
    lettered('D', "NODES", &["numnodes"], &[("NNodes", 8)], size::num_nodes).brief(),
    lettered('e', "END_TIME", &["endtime"], &[], times::end_time),
    lettered('E', "DEPENDENCY", &["dependency"], &[], identity::dependency),
    lettered('f', "FEATURES", &["feature"], &[("Constraints", 19)], files::features),
    lettered('F', "ARRAY_JOB_ID", &["arrayjobid"], &[], identity::array_job_id),
    lettered('g', "GROUP", &["groupname"], &[("Group", 9)], identity::group),
    lettered('G', "GROUP", &["groupid"], &[("GID", 6)], identity::gid),
    lettered('h', "OVER_SUBSCRIBE", &["oversubscribe"], &[], files::over_subscribe),
    lettered('H', "SOCKETS_PER_NODE", &["sockets"], &[], unset::any),
    lettered('i', "JOBID", &["jobarrayid"], &[("JobID", -12)], identity::array_id).brief().overflow(Overflow::TaskList),
    lettered('I', "CORES_PER_SOCKET", &["cores"], &[], unset::any),
    lettered('j', "NAME", &["name"], &[("JobName", 10)], identity::name).brief(),
    lettered('J', "THREADS_PER_CORE", &["threads"], &[], unset::any),
    lettered('k', "COMMENT", &["comment"], &[("Comment", 14)], files::comment),
    lettered('K', "ARRAY_TASK_ID", &["arraytaskid"], &[], identity::array_task),
    lettered('l', "TIME_LIMIT", &["timelimit"], &[("Timelimit", 10)], times::time_limit).overflow(Overflow::GrowsRight),
    lettered('L', "TIME_LEFT", &["timeleft"], &[], times::time_left).overflow(Overflow::GrowsRight),
    lettered('m', "MIN_MEMORY", &["minmemory"], &[], size::min_memory),
    lettered('M', "TIME", &["timeused"], &[("Elapsed", 10)], times::time_used).brief().overflow(Overflow::GrowsRight),
    lettered('n', "REQ_NODES", &["reqnodes"], &[], files::required_nodes),
    lettered('N', "NODELIST", &["nodelist"], &[], files::nodelist).brief(),
    lettered('o', "COMMAND", &["command"], &[], files::command),
    lettered('O', "CONTIGUOUS", &["contiguous"], &[], unset::zero),
    lettered('p', "PRIORITY", &["priority"], &[], identity::priority_share).brief(),
    lettered('P', "PARTITION", &["partition"], &[("Partition", 10)], identity::partition).brief(),
    lettered('q', "QOS", &["qos"], &[("QOS", 10)], identity::qos),
    lettered('Q', "PRIORITY", &["prioritylong"], &[("Priority", 10)], identity::priority).brief(),
    lettered('r', "REASON", &["reason"], &[], identity::reason).brief(),
    lettered('R', "NODELIST(REASON)", &["reasonlist"], &[], identity::reason_or_nodes).brief(),
    lettered('s', "", &["selectjobinfo"], &[], unset::empty),
    lettered('S', "START_TIME", &["starttime"], &[], times::start_time),
    lettered('t', "ST", &["statecompact"], &[], identity::state_code).brief(),
    lettered('T', "STATE", &["state"], &[], identity::state).brief(),
    lettered('u', "USER", &["username"], &[("User", 9)], identity::user).brief(),
    lettered('U', "UID", &["userid"], &[("UID", 6)], identity::uid),
    lettered('v', "RESERVATION", &["reservation"], &[("Reservation", 20)], files::reservation),
    lettered('V', "SUBMIT_TIME", &["submittime"], &[("Submit", 19)], times::submit_time),
    lettered('w', "WCKEY", &["wckey"], &[("WCKey", 10)], files::wckey),
    lettered('W', "LICENSES", &["licenses"], &[], files::licenses),
    lettered('x', "EXC_NODES", &[], &[], files::excluded_nodes),
    lettered('X', "CORE_SPEC", &["corespec"], &[], unset::not_applicable),
    lettered('y', "NICE", &["nice"], &[], identity::nice),
    lettered('Y', "SCHEDNODES", &["schednodes"], &[], files::expected_nodes),
    lettered('z', "S:C:T", &["sct"], &[], unset::any_geometry),
    lettered('Z', "WORK_DIR", &["workdir"], &[("WorkDir", 20)], files::work_dir),
    named("ACCRUE_TIME", &["accruetime"], &[], times::accrue_time),
    named("ADMIN_COMMENT", &["admin_comment"], &[], unset::unset),
    named("ALLOC_NODES", &["allocnodes"], &[], files::submit_host),
    named("ALLOC_SID", &["allocsid"], &[], files::submit_sid),
    named("ASSOC_ID", &["associd"], &[], identity::association),
    named("BATCH_FLAG", &["batchflag"], &[], unset::one),
    named("BOARDS_PER_NODE", &["boardspernode"], &[], unset::zero),
    named("BURST_BUFFER", &["burstbuffer"], &[], unset::unset),
    named("BURST_BUFFER_STATE", &["burstbufferstate"], &[], unset::unset),
    named("CLUSTER_FEATURES", &["clusterfeature"], &[], unset::unset),
    named("CONTAINER", &["container"], &[], files::container),
    named("CPUS_PER_TASK", &["cpus-per-task"], &[], size::cpus_per_task),
    named("CPUS_PER_TRES", &["cpus-per-tres"], &[], unset::not_applicable),
    named("DEADLINE", &["deadline"], &[], times::deadline),
    named("DELAY_BOOT", &["delayboot"], &[], unset::no_time),
    named("DERIVED_EC", &["derivedec"], &[], identity::derived_wait_status),
    named("EXIT_CODE", &["exit_code"], &[], identity::wait_status),
    named("HET_JOB_ID", &["hetjobid"], &[], unset::not_applicable),
    named("HET_JOB_ID_SET", &["hetjobidset"], &[], unset::not_applicable),
    named("HET_JOB_OFFSET", &["hetjoboffset"], &[], unset::not_applicable),
    named("LAST_SCHED_EVAL", &["lastschedeval"], &[], times::last_evaluation),
    named("MAX_CPUS", &["maxcpus"], &[], size::num_cpus),
    named("MAX_NODES", &["maxnodes"], &[], size::max_nodes),
    named("MCSLABEL", &["mcslabel"], &[], unset::unset),
    named("MEM_PER_TRES", &["mem-per-tres"], &[], unset::not_applicable),
    named("TIME_MIN", &["mintime"], &[], times::time_min),
    named("NETWORK", &["network"], &[], unset::unset),
    named("NTASKS_PER_BOARD", &["ntperboard"], &[], unset::zero),
    named("NTASKS_PER_CORE", &["ntpercore"], &[], unset::not_applicable),
    named("NTASKS_PER_NODE", &["ntpernode"], &[], size::tasks_per_node),
    named("NTASKS_PER_SOCKET", &["ntpersocket"], &[], unset::not_applicable),
    named("TASKS", &["numtasks"], &[], size::queued_tasks),
    named("PENDING_TIME", &["pendingtime"], &[], times::pending_secs),
    named("PREEMPT_TIME", &["preempttime"], &[], unset::not_applicable),
    named("PREFER", &["prefer"], &[], unset::unset),
    named("PROFILE", &["profile"], &[], unset::not_set),
    named("REBOOT", &["reboot"], &[], unset::zero),
    named("REQ_SWITCH", &["reqswitch"], &[], size::switches),
    named("REQUEUE", &["requeue"], &[], identity::requeue),
    named("RESIZE_TIME", &["resizetime"], &[], unset::not_applicable),
    named("RESTART_COUNT", &["restartcnt"], &[], identity::restarts),
    named("SOCKETS_PER_BOARD", &["sperboard"], &[], unset::zero),
    named("STDERR", &["stderr"], &[], files::queued_stderr),
    named("STDIN", &["stdin"], &[], files::stdin),
    named("STDOUT", &["stdout"], &[], files::queued_stdout),
    named("SYSTEM_COMMENT", &["system_comment"], &[], unset::unset),
    named("TRES_ALLOC", &["tres-alloc", "tres"], &[], size::tres_allocated),
    named("TRES_BIND", &["tres-bind"], &[], unset::not_applicable),
    named("TRES_FREQ", &["tres-freq"], &[], unset::not_applicable),
    named("TRES_PER_JOB", &["tres-per-job"], &[], size::tres_per_job),
    named("TRES_PER_SOCKET", &["tres-per-socket"], &[], unset::not_applicable),
    named("TRES_PER_TASK", &["tres-per-task"], &[], unset::not_applicable),
    named("WAIT4SWITCH", &["wait4switch"], &[], times::switch_wait),
    named("CLUSTER", &["cluster"], &[("Cluster", 10)], identity::cluster),
    named("ELIGIBLE_TIME", &["eligibletime"], &[("Eligible", 19)], times::eligible_time),
    counted(&[("AdminComment", 15), ("SystemComment", 15)], unset::unset),
    counted(&[("AllocNodes", 10)], size::allocated_nodes),
    counted(&[("AllocTRES", 10)], size::accounted_tres),
    counted(&[("AssocID", 7)], identity::association),
    counted(&[("AveCPU", 10)], used::average_cpu),
    counted(&[("MinCPU", 10)], used::least_cpu),
    counted(&[("AveCPUFreq", 10)], unset::empty),
    counted(&[("ConsumedEnergy", 14)], used::energy),
    counted(&[("ConsumedEnergyRaw", 17)], used::energy_raw),
    counted(&[("AveDiskRead", 14)], used::average_read),
    counted(&[("AveDiskWrite", 14)], used::average_written),
    counted(&[("AvePages", 10)], used::average_pages),
    counted(&[("AveVMSize", 10)], used::average_vm),
    counted(&[("Container", 19)], files::container),
    counted(&[("BlockID", 16), ("McsLabel", 12), ("ReservationId", 8)], unset::empty),
    counted(&[("MaxDiskRead", 12)], used::most_read),
    counted(&[("MaxDiskReadNode", 15)], used::most_read_node),
    counted(&[("MaxDiskReadTask", 15)], used::most_read_task),
    counted(&[("MaxDiskWrite", 12)], used::most_written),
    counted(&[("MaxDiskWriteNode", 16)], used::most_written_node),
    counted(&[("MaxDiskWriteTask", 16)], used::most_written_task),
    counted(&[("MaxPages", 8)], used::most_pages),
    counted(&[("MaxPagesNode", 12)], used::most_pages_node),
    counted(&[("MaxPagesTask", 14)], used::most_pages_task),
    counted(&[("MaxVMSize", 10)], used::peak_vm),
    counted(&[("MaxVMSizeNode", 14)], used::peak_vm_node),
    counted(&[("MaxVMSizeTask", 14)], used::peak_vm_task),
    counted(&[("TRESUsageOutAve", 15)], used::tres_out_mean),
    counted(&[("TRESUsageOutMax", 15)], used::tres_out_max),
    counted(&[("TRESUsageOutMaxNode", 19)], used::tres_out_max_node),
    counted(&[("TRESUsageOutMaxTask", 19)], used::tres_out_max_task),
    counted(&[("TRESUsageOutMin", 15)], used::tres_out_min),
    counted(&[("TRESUsageOutMinNode", 19)], used::tres_out_min_node),
    counted(&[("TRESUsageOutMinTask", 19)], used::tres_out_min_task),
    counted(&[("TRESUsageOutTot", 15)], used::tres_out_total),
    counted(&[("AveRSS", 10)], used::average_memory),
    counted(&[("MaxRSS", 10)], used::peak_memory),
    counted(&[("Cost", 14)], used::cost),
    counted(&[("CPUTime", 10)], used::cpu_time),
    counted(&[("CPUTimeRAW", 10)], used::cpu_time_secs),
    counted(&[("DBIndex", -10)], identity::job_id),
    counted(&[("DerivedExitCode", 15)], identity::derived_exit_code),
    counted(&[("ElapsedRaw", 10)], times::time_used_secs),
    counted(&[("End", 19)], times::accounted_end),
    counted(&[("ExitCode", 8)], identity::accounted_exit_code),
    counted(&[("Flags", 19)], files::flags),
    counted(&[("JobIDRaw", -12)], identity::raw_id),
    counted(&[("Layout", 9)], unset::step_unknown),
    counted(&[("MaxRSSNode", 10)], used::peak_memory_node),
    counted(&[("MaxRSSTask", 10)], used::peak_memory_task),
    counted(&[("MinCPUNode", 10)], used::least_cpu_node),
    counted(&[("MinCPUTask", 10)], used::least_cpu_task),
    counted(&[("NodeList", 15)], files::accounted_nodes),
    counted(&[("NTasks", 8)], size::step_tasks),
    counted(&[("QOSRAW", 6), ("WCKeyID", 10)], unset::job_zero),
    counted(&[("Reason", 22)], identity::accounted_reason),
    counted(&[("ReqCPUFreq", 10), ("ReqCPUFreqGov", 13), ("ReqCPUFreqMax", 13), ("ReqCPUFreqMin", 13)], unset::unknown),
    counted(&[("ReqCPUS", 8)], size::num_cpus),
    counted(&[("ReqMem", 10)], size::total_memory),
    counted(&[("ReqNodes", 8)], size::num_nodes),
    counted(&[("ReqTRES", 10)], size::tres_requested),
    counted(&[("Reserved", 10), ("Planned", 10)], times::reserved),
    counted(&[("ResvCPU", 10), ("PlannedCPU", 10)], times::reserved_cpu),
    counted(&[("ResvCPURAW", 10), ("PlannedCPURAW", 13)], times::reserved_cpu_secs),
    counted(&[("Start", 19)], times::accounted_start),
    counted(&[("State", 10)], identity::accounted_state),
    counted(&[("SubmitLine", 20)], files::submit_line),
    counted(&[("Suspended", 10)], times::suspended),
    counted(&[("SystemCPU", 10)], used::system_cpu),
    counted(&[("TimelimitRaw", 10)], times::time_limit_minutes),
    counted(&[("TotalCPU", 10)], used::total_cpu),
    counted(&[("TRESUsageInAve", 14)], used::tres_in_mean),
    counted(&[("TRESUsageInMax", 14)], used::tres_in_max),
    counted(&[("TRESUsageInMaxNode", 18)], used::tres_in_max_node),
    counted(&[("TRESUsageInMaxTask", 18)], used::tres_in_max_task),
    counted(&[("TRESUsageInMin", 14)], used::tres_in_min),
    counted(&[("TRESUsageInMinNode", 18)], used::tres_in_min_node),
    counted(&[("TRESUsageInMinTask", 18)], used::tres_in_min_task),
    counted(&[("TRESUsageInTot", 14)], used::tres_in_total),
    counted(&[("UserCPU", 10)], used::user_cpu),
];

/// The field of a letter of squeue's `-o`.
pub(crate) fn by_letter(letter: char) -> Option<&'static JobField> {
    FIELDS.iter().find(|field| field.letter == Some(letter))
}

/// The field of a name of squeue's `-O`, in lower case.
pub(crate) fn by_long_name(name: &str) -> Option<&'static JobField> {
    FIELDS.iter().find(|field| field.long.contains(&name))
}

/// Every column of sacct, sorted by name as `--helpformat` lists them.
pub(crate) fn sacct_fields() -> Vec<(SacctName, &'static JobField)> {
    let named = |field: &'static JobField| field.sacct.iter().map(move |name| (*name, field));
    let mut all: Vec<(SacctName, &JobField)> = FIELDS.iter().flat_map(named).collect();
    all.sort_by_key(|((name, _), _)| name.to_ascii_lowercase());
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_letter_and_name_is_there_once() {
        for letter in ALL_LETTERS.chars() {
            let count = FIELDS.iter().filter(|field| field.letter == Some(letter)).count();
            assert_eq!(count, 1, "{letter}");
        }
        let names: Vec<&str> = FIELDS.iter().flat_map(|field| field.long.iter().copied()).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), unique.len());
        assert!(names.iter().all(|name| name.to_ascii_lowercase() == **name));
    }

    #[test]
    fn sacct_has_all_names_of_slurm_with_their_widths() {
        let all = sacct_fields();
        let names: Vec<&str> = all.iter().map(|((name, _), _)| *name).collect();
        assert_eq!(names.first(), Some(&"Account"));
        assert_eq!(names.last(), Some(&"WorkDir"));
        let width = |wanted: &str| {
            all.iter().find(|((name, _), _)| *name == wanted).map(|((_, width), _)| *width)
        };
        for (name, expect) in [
            ("JobID", -12),
            ("ExitCode", 8),
            ("TRESUsageOutMinTask", 19),
            ("WCKeyID", 10),
            ("DBIndex", -10),
        ] {
            assert_eq!(width(name), Some(expect), "{name}");
        }
    }
}
