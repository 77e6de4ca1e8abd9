//! Which columns does a format of sacct ask for?

use crate::listing::{JobField, TableColumn, sacct_fields};

/// A column and where its value comes from.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Name and width.
    pub(super) column: TableColumn,
    /// The value.
    pub(super) field: &'static JobField,
}

/// Why a format is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FieldError {
    /// No field begins so.
    Unknown(String),
    /// A field that Slurm no longer has, and what took its place.
    Removed(&'static str, &'static str),
}

/// sacct's columns when none are named.
pub(super) const DEFAULT: &str = "jobid,jobname,partition,account,alloccpus,state,exitcode";

/// Those of `-b`.
pub(super) const BRIEF: &str = "jobid,state,exitcode";

/// Those of `-l`.
pub(super) const LONG: &str = "jobid,jobidraw,jobname,partition,maxvmsize,maxvmsizenode,\
    maxvmsizetask,avevmsize,maxrss,maxrssnode,maxrsstask,averss,maxpages,maxpagesnode,maxpagestask,\
    avepages,mincpu,mincpunode,mincputask,avecpu,ntasks,alloccpus,elapsed,state,exitcode,\
    avecpufreq,reqcpufreqmin,reqcpufreqmax,reqcpufreqgov,reqmem,consumedenergy,maxdiskread,\
    maxdiskreadnode,maxdiskreadtask,avediskread,maxdiskwrite,maxdiskwritenode,maxdiskwritetask,\
    avediskwrite,reqtres,alloctres,tresusageinave,tresusageinmax,tresusageinmaxnode,\
    tresusageinmaxtask,tresusageinmin,tresusageinminnode,tresusageinmintask,tresusageintot,\
    tresusageoutmax,tresusageoutmaxnode,tresusageoutmaxtask,tresusageoutave,tresusageouttot";

/// Fields that were removed from Slurm, with their heirs.
const REMOVED: [(&str, &str); 2] = [("AllocGRES", "AllocTRES"), ("ReqGRES", "ReqTRES")];

/// Whether Slurm 22.05 has the field: what costs is told here only, and some are known by the names
/// that newer ones have for them, too.
fn is_slurms(name: &str) -> bool {
    !["Cost", "Planned", "PlannedCPU", "PlannedCPURAW"].contains(&name)
}

/// Reads `name[%[-]width],...`; names may be cut short and `ALL` is every one.
pub(super) fn parse(format: &str) -> Result<Vec<Field>, FieldError> {
    let all = sacct_fields();
    let mut fields = Vec::new();
    for word in format.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()) {
        let (name, width) = match word.split_once('%') {
            Some((name, width)) => (name, Some(parse_width(width))),
            None => (word, None),
        };
        if name.eq_ignore_ascii_case("all") {
            fields.extend(all.iter().filter(|((name, _), _)| is_slurms(name)).map(
                |((name, width), field)| Field {
                    column: TableColumn { name, width: *width },
                    field,
                },
            ));
            continue;
        }
        if let Some((old, new)) = REMOVED.iter().find(|(old, _)| old.eq_ignore_ascii_case(name)) {
            return Err(FieldError::Removed(old, new));
        }
        let exact = all.iter().find(|((known, _), _)| known.eq_ignore_ascii_case(name));
        let begins = |known: &str| {
            known.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
        };
        let found = exact.or_else(|| all.iter().find(|((known, _), _)| begins(known)));
        let Some(((known, own), field)) = found else {
            return Err(FieldError::Unknown(name.to_owned()));
        };
        let column = TableColumn { name: known, width: width.unwrap_or(*own) };
        fields.push(Field { column, field });
    }
    Ok(fields)
}

/// As atoi does: what is no number is zero.
fn parse_width(text: &str) -> i16 {
    /// Widest column; more would only waste memory.
    const MAX: i64 = 4096;
    let width = text.trim().parse::<i64>().unwrap_or(0).clamp(-MAX, MAX);
    i16::try_from(width).unwrap_or(0)
}

/// All names, four in a line, as `--helpformat` shows them.
pub(super) fn help() -> String {
    let mut out = String::new();
    let known: Vec<_> =
        sacct_fields().into_iter().filter(|((name, _), _)| is_slurms(name)).collect();
    for line in known.chunks(4) {
        let names: Vec<String> = line.iter().map(|((name, _), _)| format!("{name:<19}")).collect();
        out.push_str(&names.join(" "));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(format: &str) -> Vec<(&'static str, i16)> {
        let fields = parse(format).unwrap_or_else(|error| panic!("{format:?}: {error:?}"));
        fields.iter().map(|field| (field.column.name, field.column.width)).collect()
    }

    #[test]
    fn formats_are_read_as_sacct_does() {
        assert_eq!(names("jobid,State%30"), [("JobID", -12), ("State", 30)]);
        assert_eq!(names("JOBIDRAW%-20,elapsed%3"), [("JobIDRaw", -20), ("Elapsed", 3)]);
        assert_eq!(names("Account%256"), [("Account", 256)]);
        assert_eq!(names("alloc, user%"), [("AllocCPUS", 10), ("User", 0)]);
        assert_eq!(names("user,usercpu,start"), [("User", 9), ("UserCPU", 10), ("Start", 19)]);
        // Slurm 22.05.8 has 109 of them.
        assert_eq!(names("jobid,ALL").len(), 1 + 109);
        assert_eq!(names(LONG).len(), 54);
        assert_eq!(names(DEFAULT).len(), 7);
        assert_eq!(names(BRIEF).len(), 3);
    }

    #[test]
    fn what_is_no_field_is_refused() {
        assert_eq!(parse("jobid,statee").unwrap_err(), FieldError::Unknown("statee".into()));
        assert_eq!(parse("Allocgres").unwrap_err(), FieldError::Removed("AllocGRES", "AllocTRES"));
    }

    #[test]
    fn every_name_of_the_help_is_understood() {
        for name in help().split_whitespace() {
            assert_eq!(names(name).len(), 1, "{name}");
        }
        assert!(help().starts_with(
            "Account             AdminComment        AllocCPUS           AllocNodes         \n"
        ));
    }
}
