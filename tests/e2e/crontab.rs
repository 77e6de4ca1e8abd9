//! Do jobs of crontabs come at their times, under one number, and does nobody end them by mistake?

use std::time::Duration;

use crate::harness::{Cluster, Options, wait_until};

/// The longest until the next minute begins, and what its job then takes.
const A_MINUTE: Duration = Duration::from_secs(100);

/// `scrontab` with this text on standard input.
fn install(cluster: &Cluster, text: &str) -> crate::harness::Ran {
    cluster.cmd("scrontab").stdin(text).run()
}

#[test]
fn a_job_comes_each_minute_under_its_number_over_a_restart_too() {
    let mut cluster = Cluster::start(Options::one_node(2));
    let file = cluster.work().join("ran");
    let text = format!(
        "#SCRON -J tick -t 5 -o /dev/null\nFILE={}\n* * * * * echo $SLURM_JOB_ID >> $FILE\n",
        file.display()
    );
    let ran = install(&cluster, &text);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran}");
    assert_eq!(cluster.cmd("scrontab").arg("-l").ok(), text);
    let shown = cluster.scontrol("show job 1");
    assert!(shown.contains("CronJob=Yes CrontabSpec=\"* * * * *\""), "{shown}");
    assert_eq!(cluster.squeue("-o %i|%j|%t|%r"), "1|tick|PD|BeginTime\n");
    wait_until("it ran", A_MINUTE, || cluster.read("ran") == "1\n");
    wait_until("its run is told", Duration::from_secs(30), || {
        cluster.sacct("-X -D -j 1 -o State").contains("COMPLETED")
    });
    cluster.kill_controller();
    cluster.start_controller();
    assert_eq!(cluster.cmd("scrontab").arg("-l").ok(), text);
    assert_eq!(cluster.squeue("-o %i|%j"), "1|tick\n");
    wait_until("it ran again", A_MINUTE, || cluster.read("ran") == "1\n1\n");
    wait_until("both runs are told", Duration::from_secs(30), || {
        cluster.sacct("-X -D -j 1 -o State").matches("COMPLETED").count() == 2
    });
    cluster.cmd("scrontab").arg("-r").ok();
    let none = cluster.cmd("scrontab").arg("-l").fails();
    assert!(none.out.starts_with("no crontab for "), "{none}");
    assert_eq!(cluster.job(1).state(), "CANCELLED");
}

#[test]
fn a_crontab_is_taken_as_a_whole_or_not_at_all() {
    let cluster = Cluster::start(Options::one_node(2));
    let good = "@daily true\n";
    assert_eq!(install(&cluster, good).code, 0);
    // Text, what standard output says, what standard error says.
    let table = [
        ("61 * * * * true\n", "There are errors in your crontab.\n", "line 1: bad minute"),
        ("@never true\n", "There are errors in your crontab.\n", "line 1: invalid @ line"),
        ("\n#SCRON --foo\n@daily x\n", "There are errors in your crontab.\n", "'--foo'"),
        (
            "@daily true\n#SCRON -p nope\n@daily true\n",
            "There was an issue with the job submission on lines 2-3\n\
             The error code return was: Invalid partition name specified\n\
             The error message was: invalid partition specified: nope\n",
            "",
        ),
    ];
    for (text, out, err) in table {
        let ran = install(&cluster, text);
        assert_eq!((ran.code, ran.out.as_str()), (1, out), "{ran}");
        ran.says(err);
    }
    assert_eq!(cluster.cmd("scrontab").arg("-l").ok(), good);
    assert_eq!(cluster.squeue("-o %i"), "1\n");
    let zone = cluster.cmd("scrontab").env("TZ", "Europe/Berlin").stdin("30 2 * * * true\n").run();
    assert_eq!(zone.code, 0, "{zone}");
    let at = cluster.cmd("squeue").env("TZ", "Europe/Berlin").words("-h -o %S").ok();
    assert!(at.ends_with("T02:30:00\n"), "{at}");
    cluster.cmd("scrontab").arg("-e").fails().says("Standard input is not a TTY");
    cluster.cmd("scrontab").words("-u nobody-at-all -l").fails().says("Could not find user");
    cluster.cmd("scrontab").arg("/no/such/file").fails().says("failed to open");
}

#[test]
fn only_scancel_with_the_word_for_it_ends_one() {
    let cluster = Cluster::start(Options::one_node(2));
    assert_eq!(install(&cluster, "#SCRON -J a\n@daily true\n@weekly true\n").code, 0);
    let refused = cluster.cmd("scancel").arg("1").fails();
    refused.says("Cannot cancel scrontab jobs without --cron flag.");
    cluster.cmd("scancel").words("-t PENDING").ok();
    assert_eq!(cluster.squeue("-o %i").lines().count(), 2, "who names none means none of them");
    for words in ["update JobId=1 Name=x", "hold 1"] {
        let ran = cluster.cmd("scontrol").words(words).fails();
        ran.says("Cannot modify scrontab jobs through scontrol");
    }
    cluster.cmd("scancel").words("--cron 1").ok();
    assert_eq!(cluster.squeue("-o %i"), "2\n");
    let text = "#DISABLED: #SCRON -J a\n#DISABLED: @daily true\n@weekly true\n";
    assert_eq!(cluster.cmd("scrontab").arg("-l").ok(), text);
}
