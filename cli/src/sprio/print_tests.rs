use super::super::options::{Choice, read};
use super::*;

fn factor(millionths: u64, points: i64) -> Option<v1::PriorityFactor> {
    Some(v1::PriorityFactor { millionths, points })
}

/// The jobs of a real cluster of four nodes with four CPUs each.
fn reply() -> v1::ListPrioritiesReply {
    let row = |job_id, priority, size: (u64, i64), cpu: (u64, i64), nice| v1::PriorityRow {
        job_id,
        uid: 0,
        user: "root".into(),
        account: "root".into(),
        partition: "main".into(),
        priority,
        fair_share: factor(1_000_000, 10_000),
        job_size: factor(size.0, size.1),
        partition_factor: factor(1_000_000, 1000),
        tres: vec![v1::PriorityFactorOfTres { kind: "cpu".into(), factor: factor(cpu.0, cpu.1) }],
        nice,
        ..v1::PriorityRow::default()
    };
    let mut array = row(5, 11_065, (625_000, 62), (250_000, 2), 0);
    array.shown_id = "5_[2-3%2]".into();
    let weights = v1::PriorityWeights {
        age: 1000,
        fair_share: 10_000,
        job_size: 100,
        partition: 1000,
        qos: 1000,
        tres: vec![
            v1::TresAmount { kind: "cpu".into(), count: 10 },
            v1::TresAmount { kind: "gres/gpu".into(), count: 20 },
        ],
        ..v1::PriorityWeights::default()
    };
    v1::ListPrioritiesReply {
        rows: vec![
            array,
            row(1, 11_036, (343_750, 34), (187_500, 2), 0),
            row(4, 11_010, (187_500, 19), (125_000, 1), 10),
        ],
        weights: Some(weights),
    }
}

fn sprio_of(reply: &v1::ListPrioritiesReply, line: &[&str]) -> String {
    let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
    let Ok(Choice::List(options)) = read("sprio", &args, &|_| None) else {
        panic!("{line:?} is refused");
    };
    String::from_utf8(text("sprio", &options, reply)).expect("UTF-8")
}

fn sprio(line: &[&str]) -> String {
    sprio_of(&reply(), line)
}

#[test]
fn default_and_long_listings_are_slurms() {
    assert_eq!(
        sprio(&[]),
        "          JOBID PARTITION   PRIORITY       SITE        AGE  FAIRSHARE    JOBSIZE  PARTITION        QOS                 TRES
              1 main           11036          0          0      10000         34       1000          0                cpu=2
              4 main           11010          0          0      10000         19       1000          0                cpu=1
              5 main           11065          0          0      10000         62       1000          0                cpu=2
"
    );
    assert_eq!(
        sprio(&["-l", "-S", "-Y"]),
        "          JOBID PARTITION     USER   PRIORITY       SITE        AGE      ASSOC  FAIRSHARE    JOBSIZE  PARTITION        QOS        NICE                 TRES
              5 main          root      11065          0          0          0      10000         62       1000          0           0                cpu=2
              1 main          root      11036          0          0          0      10000         34       1000          0           0                cpu=2
              4 main          root      11010          0          0          0      10000         19       1000          0          10                cpu=1
"
    );
}

#[test]
fn factors_and_weights_are_shown_on_request() {
    assert_eq!(
        sprio(&["-n"]).lines().take(3).collect::<Vec<_>>(),
        [
            "          JOBID PARTITION PRIORITY   AGE        FAIRSHARE  JOBSIZE    PARTITION  QOS        TRES                ",
            "              1 main      0.00000256 0.0000000  1.0000000  0.3437500  1.0000000  0.0000000  cpu=0.19            ",
            "              4 main      0.00000256 0.0000000  1.0000000  0.1875000  1.0000000  0.0000000  cpu=0.12            ",
        ]
    );
    assert_eq!(
        sprio(&["-wh"]),
        "        Weights                               1       1000      10000        100       1000       1000   CPU=10,GRES/gpu=20\n"
    );
    assert_eq!(
        sprio(&["-wnh"]),
        "        Weights                      1000       10000      100        1000       1000                           \n"
    );
    assert_eq!(
        sprio(&["-wlh"]),
        "        Weights                                        1       1000          0      10000        100       1000       1000               CPU=10,GRES/gpu=20\n"
    );
}

#[test]
fn our_factors_are_shown_where_they_have_a_weight() {
    let mut reply = reply();
    if let Some(weights) = &mut reply.weights {
        weights.expansion = 5000;
        weights.small_area = 4000;
        weights.tres.clear();
    }
    reply.rows[1].expansion = factor(500_000, 2500);
    reply.rows[1].small_area = factor(750_000, 3000);
    let lines = sprio_of(&reply, &["-j", "1"]);
    assert!(lines.starts_with(
        "          JOBID PARTITION   PRIORITY       SITE        AGE  FAIRSHARE    JOBSIZE  PARTITION        QOS    XFACTOR       AREA\n"
    ));
    assert!(lines.contains("       1000          0       2500       3000\n"), "{lines}");
    assert!(!sprio(&["-l"]).contains("XFACTOR"));
}

#[test]
fn formats_and_filters_are_read_as_slurm_reads_them() {
    assert_eq!(
        sprio(&["-o", "%i %Y %F %f %J %N %T %t %u %c %r %S %B"]).lines().nth(1),
        Some("1 11036 10000 1.0000000 34 0 cpu=2 cpu=0.19 root (null) main 0 0")
    );
    assert_eq!(sprio(&["-o", "%.5i|%-8u|%Z|"]).lines().nth(1), Some("    1|"));
    assert_eq!(sprio(&["-h", "-u", "12345"]), "");
    assert_eq!(sprio(&["-h", "-p", "nope"]), "");
    assert!(sprio(&["-u", "0"]).starts_with("          JOBID PARTITION     USER "));
    let none = v1::ListPrioritiesReply::default();
    assert_eq!(
        sprio_of(&none, &["-j", "9999"]),
        "Unable to find jobs matching user/id(s) specified\n"
    );
}

#[test]
fn what_is_not_understood_is_refused() {
    for line in [&["--foo"][..], &["-j", "foo"], &["foo"], &["-o"], &["-M", "x"], &["-S", "!"]] {
        let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(read("sprio", &args, &|_| None).err(), Some(1), "{line:?}");
    }
}
