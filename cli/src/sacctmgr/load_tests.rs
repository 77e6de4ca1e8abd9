use super::super::world::example;
use super::*;

fn file() -> String {
    dump::lines(&example()).join("\n")
}

#[test]
fn the_dump_is_slurms() {
    assert_eq!(
        dump::lines(&example()),
        [
            "Cluster - 'bench':Fairshare=1",
            "QOS - 'q1'",
            "QOS - 'high':Priority=100:Flags=DenyOnLimit,OverPartQOS,NoDecay:Preempt='normal':\
             GrpTRES=cpu=8,gres/gpu=2:MaxWallDurationPerJob=1440:MaxJobsPerUser=2",
            "Parent - 'root'",
            "User - 'root':DefaultAccount='root':AdminLevel='Administrator':Fairshare=1",
            "Account - 'a1':Description='a1':Organization='a1':Fairshare=1",
            "Account - 'physics':Description='physics dept':Organization='sci':Fairshare=60",
            "Parent - 'a1'",
            "User - 'nobody':DefaultAccount='a1':Fairshare=7:GrpTRES=cpu=4:MaxJobs=3",
            "Parent - 'physics'",
            "Account - 'p1':Description='foo':Organization='physics':Fairshare=9:\
             GrpTRESMins=gres/gpu=6000:MaxJobs=5",
            "Parent - 'p1'",
            "User - 'bin':DefaultAccount='p1':AdminLevel='Operator':Fairshare=5:MaxJobs=3",
            "User - 'daemon':DefaultAccount='p1':Fairshare=5:MaxWallDurationPerJob=60",
        ]
    );
    assert!(dump::text(&example()).starts_with("# To edit this file start with a cluster line"));
}

#[test]
fn what_was_dumped_changes_nothing() {
    for clean in [false, true] {
        let proposal = propose(&file(), clean, &example()).expect("valid");
        assert_eq!(proposal.changes, [], "clean {clean}: {:?}", proposal.lines);
        assert_eq!(proposal.lines, ["For cluster bench", " Nothing new added."]);
    }
}

#[test]
fn an_empty_cluster_gets_the_whole_tree() {
    let mut tree = example().tree().clone();
    tree.associations.retain(|assoc| assoc.account == ROOT);
    tree.accounts.retain(|account| account.name == ROOT);
    tree.users.retain(|user| user.name == ROOT);
    tree.qos.retain(|qos| qos.name == "normal");
    let empty = World::new(tree);
    let proposal = propose(&file(), true, &empty).expect("valid");
    // Two QOS, three accounts, three users with a place each.
    assert_eq!(proposal.changes.len(), 2 + 3 + 3 + 3, "{:?}", proposal.lines);
    assert_eq!(
        proposal.lines[3],
        " Adding account a1: Description='a1' Organization='a1' Fairshare=1"
    );
}

#[test]
fn clean_takes_away_what_the_file_does_not_name() {
    let file = "Cluster - 'bench'\nParent - 'root'\nUser - 'root':DefaultAccount='root':AdminLevel='Administrator'\n\
                Account - 'a1'\nParent - 'a1'\nUser - 'nobody':DefaultAccount='a1'\n";
    let kept = propose(file, false, &example()).expect("valid");
    assert_eq!(kept.changes, []);
    let proposal = propose(file, true, &example()).expect("valid");
    assert_eq!(
        proposal.lines,
        [
            "For cluster bench",
            " Modifying user nobody in account a1: Fairshare=1 GrpTRES=cpu=-1 MaxJobs=-1",
            " Deleting user bin",
            " Deleting user daemon",
            " Deleting account p1",
            " Deleting account physics",
        ]
    );
}

#[test]
fn wrong_lines_are_told_with_their_number() {
    for (text, number, line) in [
        ("# x\n\nfoo", 3, " Misformatted line: foo"),
        (
            "Parent - 'nope'",
            1,
            " Parent account 'nope' does not exist; its Account line must come first",
        ),
        ("Account - 'x':foo=3", 1, " Unknown option: foo=3"),
        (
            "User - 'x':QOS='nope'",
            1,
            "sacctmgr: error: You gave a bad qos 'nope'. Valid QOS's are normal,q1,high",
        ),
        ("Group - 'x'", 1, " Misformatted line: Group - 'x'"),
    ] {
        match propose(text, false, &example()) {
            Err(Stop::Wrong(lines)) => {
                assert_eq!(
                    lines[0],
                    format!(" Error in line {number} of the file; nothing is changed:")
                );
                assert!(lines[1].starts_with(line), "{lines:?}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn colons_in_quotes_do_not_split() {
    assert_eq!(
        split_options("'a':Description='x: y':GrpTRES='gres/gpu:h100=2':Fairshare=1"),
        ["'a'", "Description='x: y'", "GrpTRES='gres/gpu:h100=2'", "Fairshare=1"]
    );
    let mut tree = example().tree().clone();
    tree.accounts[0].description = "it's: \"fine\"".into();
    let lines = dump::lines(&World::new(tree));
    let line = lines.iter().find(|line| line.starts_with("Account - 'a1'")).expect("there");
    assert!(line.contains(":Description=\"it's: 'fine'\":"), "{line}");
}

#[test]
fn a_large_tree_is_written_and_read_in_linear_time() {
    let mut file = String::from("Cluster - 'bench'\n");
    for account in 0..200 {
        file.push_str(&format!("Parent - 'root'\nAccount - 'b{account}'\nParent - 'b{account}'\n"));
        for user in 0..40 {
            file.push_str(&format!("User - 'u{account}_{user}':Fairshare={user}\n"));
        }
    }
    let begun = std::time::Instant::now();
    let proposal = propose(&file, false, &example()).expect("valid");
    // An account, and for each user a record and a place.
    assert_eq!(proposal.changes.len(), 200 + 2 * 200 * 40);
    // Squared, it would take minutes.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
