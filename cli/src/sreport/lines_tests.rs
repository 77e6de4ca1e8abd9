use jiff::ZonedDateTime;

use super::super::options::{Choice, read};
use super::*;

fn now() -> ZonedDateTime {
    "2026-11-24T11:22:33+00:00[UTC]".parse().expect("a time")
}

fn amount(kind: &str, count: u64) -> v1::TresAmount {
    v1::TresAmount { kind: kind.into(), count }
}

/// A day of 16 CPUs and 4 GPUs, of which three users had some.
fn usage() -> v1::ReportUsageReply {
    let line = |account: &str, user: &str, cpu: u64, gpu: u64, large: u64| v1::UsageLine {
        account: account.into(),
        uid: 4_000_000_000,
        user: user.into(),
        tres_secs: vec![amount("cpu", cpu), amount("gres/gpu", gpu)],
        jobs: 1,
        cpu_secs_by_size: vec![cpu - large, 0, large, 0, 0],
    };
    v1::ReportUsageReply {
        cluster: "bench".into(),
        lines: vec![
            line("p1", "zbob", 72_000, 3600, 0),
            line("p1", "zann", 36_000, 0, 18_000),
            line("a1", "zbob", 6000, 0, 0),
        ],
        capacity_secs: vec![amount("cpu", 16 * 86_400), amount("gres/gpu", 4 * 86_400)],
        down_secs: vec![amount("cpu", 86_400)],
        planned_down_secs: vec![],
        planned_secs: vec![amount("cpu", 60_000)],
        cost_per_hour: vec![amount("cpu", 20_000), amount("gres/gpu", 2_000_000)],
        currency: "EUR".into(),
    }
}

fn tree() -> v1::ListAccountsReply {
    let place = |id, account: &str, parent| v1::Association {
        id,
        account: account.into(),
        parent,
        ..v1::Association::default()
    };
    v1::ListAccountsReply {
        associations: vec![
            place(1, "root", 0),
            place(3, "physics", 1),
            place(2, "a1", 1),
            place(4, "p1", 3),
        ],
        ..v1::ListAccountsReply::default()
    }
}

fn sreport_of(line: &str, usage: &v1::ReportUsageReply) -> Result<String, String> {
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let Ok(Choice::Report(options)) = read("sreport", &args, &now()) else {
        panic!("{line} is refused");
    };
    let clock = Clock::new(jiff::tz::TimeZone::UTC, None, 0);
    let text = text(&options, usage, &tree(), &clock)?;
    Ok(String::from_utf8(text).expect("UTF-8"))
}

fn sreport(line: &str) -> String {
    sreport_of(line, &usage()).unwrap_or_else(|why| panic!("{line}: {why}"))
}

#[test]
fn utilization_is_slurms() {
    assert_eq!(
        sreport("cluster utilization"),
        "\
--------------------------------------------------------------------------------
Cluster Utilization 2026-11-23T00:00:00 - 2026-11-23T23:59:59
Usage reported in CPU Minutes
--------------------------------------------------------------------------------
  Cluster Allocate     Down PLND Dow     Idle  Planned Reported 
--------- -------- -------- -------- -------- -------- -------- 
    bench     1900     1440        0    18700     1000    23040 
"
    );
    assert_eq!(
        sreport("-nP -t percent cluster util"),
        "bench|8.25%|6.25%|0.00%|81.16%|4.34%|100.00%\n"
    );
    let both = sreport("-T gres/gpu,cpu -t hourper cluster utilization");
    assert!(both.contains("\nUsage reported in TRES Hours/Percentage of Total\n"), "{both}");
    assert!(
        both.contains(
            "  Cluster      TRES Name         Allocated              Down         PLND Down "
        ),
        "{both}"
    );
    assert!(both.contains("    bench       gres/gpu          1(1.04%) "), "{both}");
}

#[test]
fn accounts_and_users_are_reported() {
    assert_eq!(
        sreport("cluster AccountUtilizationByUser tree"),
        "\
--------------------------------------------------------------------------------
Cluster/Account/User Utilization 2026-11-23T00:00:00 - 2026-11-23T23:59:59 (86400 secs)
Usage reported in CPU Minutes
--------------------------------------------------------------------------------
  Cluster Account                  Login     Proper Name     Used   Energy 
--------- -------------------- --------- --------------- -------- -------- 
    bench root                                               1900        0 
    bench  a1                                                 100        0 
    bench   a1                      zbob                      100        0 
    bench  physics                                           1800        0 
    bench   p1                                               1800        0 
    bench    p1                     zann                      600        0 
    bench    p1                     zbob                     1200        0 
"
    );
    assert_eq!(
        sreport("-nP cluster user"),
        "bench|zann||p1|600|0\nbench|zbob||a1|100|0\nbench|zbob||p1|1200|0\n"
    );
    assert_eq!(
        sreport("-nP -t hours -T all cluster account accounts=a1"),
        "bench|a1|||cpu|2\nbench|a1|||gres/gpu|0\nbench|a1|zbob||cpu|2\nbench|a1|zbob||gres/gpu|0\n"
    );
}

#[test]
fn top_users_are_sorted_by_use() {
    let top = sreport("user top topcount=2");
    assert!(top.contains("\nTop 2 Users 2026-11-23T00:00:00 - "), "{top}");
    assert_eq!(
        top.lines().skip(4).collect::<Vec<_>>(),
        [
            "  Cluster     Login     Proper Name         Account     Used   Energy ",
            "--------- --------- --------------- --------------- -------- -------- ",
            "    bench      zbob                              p1     1200        0 ",
            "    bench      zann                              p1      600        0 ",
        ]
    );
    assert_eq!(sreport("-nP user top group users=zbob"), "bench|zbob||a1, p1|1300|0\n");
}

#[test]
fn sizes_are_those_of_slurm() {
    let sizes = sreport("job SizesByAccount");
    assert_eq!(
        sizes.lines().skip(1).collect::<Vec<_>>(),
        [
            "Job Sizes 2026-11-23T00:00:00 - 2026-11-23T23:59:59 (86400 secs)",
            "Time reported in Minutes",
            "--------------------------------------------------------------------------------",
            "  Cluster   Account     0-49 CPUs   50-249 CPUs  250-499 CPUs  500-999 CPUs  >= 1000 CPUs % of cluster ",
            "--------- --------- ------------- ------------- ------------- ------------- ------------- ------------ ",
            "    bench      root          1600             0           300             0             0      100.00% ",
        ]
    );
    assert_eq!(
        sreport("-nP job sizesbyaccount flatview"),
        "bench|a1|100|0|0|0|0|5.26%\nbench|p1|1500|0|300|0|0|94.74%\n"
    );
}

#[test]
fn cost_is_told_in_the_currency() {
    let report = sreport("-t cost cluster user");
    assert!(report.contains("\nCost reported in EUR\n"), "{report}");
    assert_eq!(
        sreport("-nP -t cost cluster user"),
        "bench|zann||p1|0.20|\nbench|zbob||a1|0.03|\nbench|zbob||p1|2.40|\n"
    );
    let free = v1::ReportUsageReply { cost_per_hour: Vec::new(), ..usage() };
    assert!(sreport_of("-t cost cluster user", &free).is_err());
    assert!(sreport_of("-t cost job sizes", &usage()).is_err());
}

#[test]
fn windows_are_read() {
    let window = |line: &str| {
        let text = sreport(line);
        text.lines().nth(1).map(str::to_owned).unwrap_or_default()
    };
    assert_eq!(
        window("cluster util start=now-1hour"),
        "Cluster Utilization 2026-11-24T10:22:33 - 2026-11-24T11:22:32"
    );
    assert_eq!(
        window("cluster util start=2026-11-24 end=2026-11-25"),
        "Cluster Utilization 2026-11-24T00:00:00 - 2026-11-24T11:22:32"
    );
    assert_eq!(
        window("cluster util start=2026-11-25 end=2026-11-24"),
        "Cluster Utilization 2026-11-25T00:00:00 - 2026-11-25T00:59:59"
    );
}

#[test]
fn what_is_not_understood_is_refused() {
    for line in [
        "foo",
        "cluster",
        "cluster foo",
        "user",
        "job foo",
        "--foo",
        "-t foo cluster util",
        "cluster util foo=3",
        "cluster util start=foo",
        "reservation utilization",
        "cluster UserUtilizationByWckey",
        "job sizes printjobcount",
        "cluster util foo",
    ] {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert!(matches!(read("sreport", &args, &now()), Err(1)), "{line}");
    }
    assert!(sreport_of("cluster util format=foo", &usage()).is_err());
    assert!(sreport_of("-T nope cluster util", &usage()).is_err());
    let other = sreport_of("cluster util clusters=other", &usage());
    assert_eq!(other, Err("this is cluster bench; nothing is known of other".to_owned()));
    assert_eq!(sreport("cluster util clusters=other,Bench"), sreport("cluster util"));
}
