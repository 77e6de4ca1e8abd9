use jiff::tz::TimeZone;

use crate::listing::testing::{SUBMIT, drained, node, partition};

use super::super::options::{Choice, read};
use super::*;

/// What sinfo prints of three nodes, of which two are in use and one is drained.
fn sinfo(line: &[&str]) -> String {
    let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
    let Ok(Choice::List(options)) = read("sinfo", &args, &|_| None) else {
        panic!("{line:?} is refused");
    };
    let mut first = node("n1", 4, 3000, 3);
    first.features = vec!["a".into(), "b".into()];
    let nodes =
        [first, node("n2", 8, 4000, 2), drained(node("n3", 8, 4000, 0), "bad fan in there")];
    let mut main = partition("main", &["n1", "n2", "n3"]);
    main.is_default = true;
    main.default_time_secs = Some(3600);
    let mut long = partition("a_very_long_partition", &["n1", "n2"]);
    long.max_time_secs = 86_400;
    let clock = Clock::new(TimeZone::UTC, None, SUBMIT + 32_000);
    String::from_utf8(print(&options, &nodes, &[main, long], &clock)).expect("UTF-8")
}

#[test]
fn default_listing_is_slurms() {
    assert_eq!(
        sinfo(&[]),
        "\
PARTITION             AVAIL  TIMELIMIT  NODES  STATE NODELIST
main*                    up   infinite      1  drain n3
main*                    up   infinite      2    mix n[1-2]
a_very_long_partition    up 1-00:00:00      2    mix n[1-2]
"
    );
}

#[test]
fn long_listing_is_slurms() {
    assert_eq!(
        sinfo(&["-l"]),
        "\
Tue Nov 24 08:06:19 2026
PARTITION             AVAIL  TIMELIMIT   JOB_SIZE ROOT OVERSUBS     GROUPS  NODES       STATE NODELIST
main*                    up   infinite 1-infinite   no       NO        all      1     drained n3
main*                    up   infinite 1-infinite   no       NO        all      2       mixed n[1-2]
a_very_long_partition    up 1-00:00:00 1-infinite   no       NO        all      2       mixed n[1-2]
"
    );
}

#[test]
fn node_listings_are_slurms() {
    assert_eq!(
        sinfo(&["-N"]),
        "\
NODELIST   NODES             PARTITION STATE \n\
n1             1                 main* mix   \n\
n1             1 a_very_long_partition mix   \n\
n2             1                 main* mix   \n\
n2             1 a_very_long_partition mix   \n\
n3             1                 main* drain \n"
    );
    let long = sinfo(&["-Nl"]);
    let last = long.lines().last().unwrap_or_default();
    assert_eq!(
        last,
        "n3             1                 main*     drained 8       8:1:1   4000        0      1   (null) bad fan in there    "
    );
}

#[test]
fn summary_and_reasons_are_slurms() {
    assert_eq!(
        sinfo(&["-s"]),
        "\
PARTITION             AVAIL  TIMELIMIT   NODES(A/I/O/T) NODELIST
main*                    up   infinite          2/0/1/3 n[1-3]
a_very_long_partition    up 1-00:00:00          2/0/0/2 n[1-2]
"
    );
    assert_eq!(
        sinfo(&["-R"]),
        "\
REASON               USER      TIMESTAMP           NODELIST
bad fan in there     root      2026-11-24T08:06:17 n3
"
    );
    assert_eq!(
        sinfo(&["-Rl"]),
        "\
Tue Nov 24 08:06:19 2026
REASON               USER         TIMESTAMP           STATE  NODELIST
bad fan in there     root(0)      2026-11-24T08:06:17 drain  n3
"
    );
}

#[test]
fn nodes_share_a_line_where_the_printed_fields_are_equal() {
    assert_eq!(sinfo(&["-o", "%c %m %D"]), "CPUS MEMORY NODES\n4+ 3000+ 3\n");
    assert_eq!(sinfo(&["-eo", "%c %m %D"]), "CPUS MEMORY NODES\n4 3000 1\n8 4000 2\n");
    assert_eq!(sinfo(&["-ho", "%C"]), "5/7/8/20\n");
    assert_eq!(sinfo(&["-ho", "%z %F"]), "4+:1:1 2/0/1/3\n");
    assert_eq!(
        sinfo(&["-o", "%P %D %T %C"]),
        "PARTITION NODES STATE CPUS(A/I/O/T)\n\
         main* 1 drained 0/0/8/8\n\
         main* 2 mixed 5/7/0/12\n\
         a_very_long_partition 2 mixed 5/7/0/12\n"
    );
    assert_eq!(
        sinfo(&["-h", "-O", "nodelist,cpusstate"]),
        "n[1-3]              5/7/8/20            \n"
    );
}

#[test]
fn filters_leave_a_line_for_each_partition() {
    assert_eq!(
        sinfo(&["-n", "n3"]),
        "\
PARTITION             AVAIL  TIMELIMIT  NODES  STATE NODELIST
main*                    up   infinite      1  drain n3
a_very_long_partition    up 1-00:00:00      0    n/a \n"
    );
    assert_eq!(sinfo(&["-p", "nope"]), "PARTITION AVAIL  TIMELIMIT  NODES  STATE NODELIST\n");
    assert_eq!(sinfo(&["-h", "-t", "drain,idle", "-o", "%t %N"]), "drain n3\n");
    assert_eq!(sinfo(&["-n", "zz", "-o", "%n %c %t"]), "HOSTNAMES CPUS STATE\n");
    assert_eq!(sinfo(&["-h", "-d", "-N"]), "");
}

#[test]
fn order_is_asked_for() {
    assert!(sinfo(&["-h", "-S", "P"]).starts_with("a_very"));
    assert!(sinfo(&["-h", "-S", "-P"]).starts_with("main*"));
    let by_cpus = sinfo(&["-h", "-e", "-o", "%c", "-S", "-c"]);
    assert_eq!(by_cpus, "8\n4\n");
}

#[test]
fn everything_is_shown_with_bars() {
    let all = sinfo(&["-o", "%all"]);
    let mut lines = all.lines();
    let header = lines.next().unwrap_or_default();
    assert!(header.starts_with("AVAIL|ACTIVE_FEATURES|CPUS|TMP_DISK|FREE_MEM|"), "{header}");
    assert!(header.ends_with("|S:C:T|NODES(A/I) |MAX_CPUS_PER_NODE |CPUS(A/I/O/T) |NODES |REASON |NODES(A/I/O/T) |GRES |TIMESTAMP |PRIO_JOB_FACTOR |DEFAULTTIME |PREEMPT_MODE |NODELIST |CPU_LOAD |PARTITION |PARTITION |ALLOCNODES |STATE |USER |CLUSTER |SOCKETS |CORES |THREADS "), "{header}");
    assert_eq!(lines.count(), 5);
}
