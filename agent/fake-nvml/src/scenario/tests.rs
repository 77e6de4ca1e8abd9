//! Nonsense is explained, with the value and the way out.

use super::*;

fn problem(text: &str) -> String {
    Scenario::parse(text, "s.toml").expect_err(text).to_string()
}

#[test]
fn the_shortest_scenario_is_one_line_a_gpu() {
    let scenario =
        Scenario::parse("gpu = [{ model = 'h100-80' }, { model = 'a30' }]", "s").unwrap();
    assert_eq!(scenario.gpus.len(), 2);
    let [first, second] = &scenario.gpus[..] else { panic!("two") };
    assert_ne!(first.uuid, second.uuid);
    assert_eq!((first.minor, second.minor), (Some(0), Some(1)));
    let again = Scenario::parse("gpu = [{ model = 'h100-80' }]", "s").unwrap();
    assert_eq!(again.gpus[0].uuid, first.uuid, "the same at each reading");
    let other = Scenario::parse("gpu = [{ model = 'h100-80' }]", "t").unwrap();
    assert_ne!(other.gpus[0].uuid, first.uuid, "another node has others");
}

#[test]
fn nonsense_is_explained() {
    let gpu = "[[gpu]]\nmodel = 'a100-40'\n";
    let mig = "mig = { current = true }\n";
    for (text, expect) in [
        ("gpu = 3", "line 1"),
        ("\n[[gpu]]\nmodel = 'h100-80'\ncolour = 1", "line 4: unknown field `colour`"),
        ("[[gpu]]\nmodel = 'h1000'", "gpu 0: there is no model \"h1000\"; there are a30, a100-40"),
        ("driver = 'new'", "driver \"new\" is no version"),
        ("missing = ['nvmlFly']", "no symbol \"nvmlFly\""),
        ("missing = ['nvmlShutdown']", "init = { code = 9 }"),
        (&format!("{gpu}uuid = 'x'"), "uuid \"x\" is not GPU- and a UUID"),
        (&format!("{gpu}bdf = '3b:00'"), "bdf \"3b:00\" is no PCI address"),
        (&format!("{gpu}{gpu}minor = 0"), "gpu 1: minor 0 is an earlier GPU's"),
        (&format!("{gpu}nvlink_to = [1]"), "nvlink_to names GPU 1, and there are 1"),
        (&format!("{gpu}cpus = '9-3'"), "cpus \"9-3\" is no list"),
        (&format!("{gpu}util = {{ kind = 'const', percent = 200 }}"), "util: 200 %"),
        (&format!("{gpu}gi = [{{ id = 1, profile = 9, start = 4 }}]"), "MIG is off"),
        (
            &format!("{gpu}{mig}gi = [{{ id = 1, profile = 8, start = 4 }}]"),
            "no profile 8; it has 19",
        ),
        (
            &format!("{gpu}{mig}gi = [{{ id = 1, profile = 9, start = 1 }}]"),
            "cannot begin at slice 1",
        ),
        (
            &format!(
                "{gpu}{mig}gi = [{{ id = 1, profile = 9, start = 4 }}, \
                 {{ id = 7, profile = 19, start = 6 }}]"
            ),
            "1g.5gb at slice 6 overlaps the instance 1 at slice 4",
        ),
        ("[[gpu]]\nmodel = 'l40s'\nmig = { current = true }", "l40s has no MIG"),
        (&format!("{gpu}[[at]]\nt = 1\ngpu = 1\nxid = 79"), "at 0: gpu = 1, and there are 1"),
        (&format!("{gpu}[[at]]\nt = 1\ngpu = 0"), "nothing happens"),
        ("[[fault]]\ncall = 'nvmlFly'\nhang = true", "fault 0: this library has no symbol"),
        ("[[fault]]\ncall = '*'", "it does nothing"),
    ] {
        let problem = problem(text);
        assert!(problem.contains(expect), "{text:?}: {problem}");
        assert!(problem.contains("s.toml"), "{problem}");
    }
}
