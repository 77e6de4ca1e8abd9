//! Golden texts of a session with a real sacctmgr, and what its commands change.

use penstock_proto::v1::account_change::Change;

use super::world::example;
use super::*;

fn words(line: &str) -> Vec<String> {
    line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// What `sacctmgr -i LINE` prints, and what it changes.
fn proposal(line: &str) -> Result<Proposal, Stop> {
    let words = words(line);
    let (_, verb) = find(VERBS, &words[0]).expect("a verb");
    let (_, entity) = find(ENTITIES, &words[1]).expect("an entity");
    match verb {
        Verb::Add => add::propose(entity, &words[2..], &example()),
        Verb::Modify => modify::propose(entity, &words[2..], &example()),
        Verb::Delete => delete::propose(entity, &words[2..], &example()),
        other => panic!("{other:?}"),
    }
}

fn text(line: &str) -> String {
    match proposal(line) {
        Ok(proposal) => proposal.lines.join("\n"),
        Err(Stop::Nothing(line)) => line.to_owned(),
        Err(Stop::Wrong(lines)) => lines.join("\n"),
    }
}

#[test]
fn additions_are_told_as_slurm_tells_them() {
    let table = [
        (
            "add account b1",
            " Adding Account(s)\n  b1\n Settings\n  Description     = Account Name\n  \
             Organization    = Parent/Account Name\n Associations\n  A = b1         C = bench     ",
        ),
        (
            "create account x1,x2 parent=physics fairshare=3 grptresmins=gres/gpu=6000 maxjobs=5",
            " Adding Account(s)\n  x1\n  x2\n Settings\n  Description     = Account Name\n  \
             Organization    = Parent/Account Name\n Associations\n  A = x1         C = bench     \n  \
             A = x2         C = bench     \n Settings\n  Fairshare     = 3\n  \
             GrpTRESMins   = gres/gpu=6000\n  MaxJobs       = 5\n  Parent        = physics",
        ),
        ("add account a1", " Nothing new added."),
        ("add account", " Need name of account to add."),
        (
            "add account a2 parent=nope",
            " Parent account 'nope' doesn't exist on cluster bench\n        \
             Contact your admin to add this account.\n No associations created.",
        ),
        (
            "add account a2 foo=3",
            " Unknown option: foo=3\n Use keyword 'where' to modify condition",
        ),
        (
            "add user root account=physics",
            " Associations =\n  U = root      A = physics    C = bench     \n Non Default Settings",
        ),
        (
            "add user new1,new2 account=p1,a1 fairshare=5 maxwall=60 qos=normal",
            " Adding User(s)\n  new1\n  new2\n Associations =\n  \
             U = new1      A = p1         C = bench     \n  U = new1      A = a1         C = bench     \n  \
             U = new2      A = p1         C = bench     \n  U = new2      A = a1         C = bench     \n \
             Non Default Settings\n  Fairshare     = 5\n  MaxWall       = 01:00:00\n  \
             QOS           = normal",
        ),
        (
            "add user games account=a1 partition=main maxsubmitjobs=3 defaultaccount=a1 adminlevel=operator",
            " Adding User(s)\n  games\n Settings =\n  Default Account = a1\n  Admin Level     = Operator\n \
             Associations =\n  U = games     A = a1         C = bench      P = main      \n \
             Non Default Settings\n  MaxSubmitJobs = 3",
        ),
        ("add user bin account=p1", " Nothing new added."),
        (
            "add user sys account=nope",
            " This account 'nope' doesn't exist.\n        Contact your admin to add this account.\n \
             No associations or wckeys created.",
        ),
        ("add user sys", " Need name of account to add user to."),
        ("add user", " Need name of user to add."),
        ("add qos q2", " Adding QOS(s)\n  q2\n Settings\n  Description    = q2"),
        ("add qos q1", " Nothing new added."),
        ("add qos", " Need name of qos to add."),
        (
            "add coordinator account=p1 names=nobody",
            " Adding Coordinator User(s)\n  nobody\n To Account(s) and all sub-accounts\n  p1",
        ),
        ("add coordinator account=zz names=nobody", " You specified a non-existent account 'zz'."),
    ];
    for (line, expect) in table {
        assert_eq!(text(line), expect, "{line}");
    }
}

#[test]
fn modifications_are_told_as_slurm_tells_them() {
    let table = [
        (
            "modify user nobody set fairshare=7 where account=a1",
            " Modified user associations...\n  C = bench      A = a1                   U = nobody   ",
        ),
        (
            "modify user where name=nobody set maxjobs=3 grptres=cpu=4",
            " Modified user associations...\n  C = bench      A = a1                   U = nobody   ",
        ),
        ("modify user nosuch set maxjobs=3", " Nothing modified"),
        (
            "modify account p1 set description=foo fairshare=9",
            " Modified accounts...\n  p1\n Modified account associations...\n  \
             C = bench      A = p1 of physics",
        ),
        (
            "update account set parent=a1 where name=p1",
            " Modified account associations...\n  C = bench      A = p1 of physics",
        ),
        ("modify account nope set fairshare=1", " Nothing modified"),
        ("modify qos high set maxjobspu=2 flags+=OverPartQOS", " Modified qos...\n  high"),
        ("modify qos nope set priority=1", " Nothing modified"),
        ("modify user bin set defaultaccount=p1", " Modified users...\n  bin"),
        (
            "modify user bin set foo=3",
            " Unknown option: foo=3\n Use keyword 'where' to modify condition",
        ),
        ("modify user bin foo=3", " Unknown condition: foo=3\n Use keyword 'set' to modify value"),
        (
            "modify user bin set maxjobs=abc",
            "sacctmgr: error: Invalid value for MaxJobs (abc)\n Unknown option: maxjobs=abc\n \
             Use keyword 'where' to modify condition",
        ),
        ("modify user bin", " You didn't give me anything to set"),
        ("modify user games where cluster=zz set fairshare=parent", " Nothing modified"),
        (
            "modify user bin set qos=nope",
            "sacctmgr: error: You gave a bad qos 'nope'. Valid QOS's are normal,q1,high\n \
             Unknown option: qos=nope\n Use keyword 'where' to modify condition",
        ),
        (
            "modify cluster bench set grptres=cpu=4",
            " Setting\n  Default Limits:\n  GrpTRES       = cpu=4\n \
             Modified cluster defaults for associations...\n  C = bench      A = root",
        ),
        ("modify user bin set rawusage=0", "sacctmgr: error: An account must be specified"),
    ];
    for (line, expect) in table {
        assert_eq!(text(line), expect, "{line}");
    }
    let all = text("modify user set maxjobs=3");
    assert_eq!(all.lines().count(), 5, "{all}");
}

#[test]
fn deletions_are_told_as_slurm_tells_them() {
    let table = [
        ("delete account a1", " Deleting accounts...\n  a1"),
        ("delete account nope", " Nothing deleted"),
        ("remove account where name=a1", " Deleting accounts...\n  a1"),
        ("delete account", " No conditions given to remove, not executing."),
        (
            "delete account root",
            " You are not allowed to remove the root account.\n Use remove cluster instead.",
        ),
        ("delete user nobody", " Deleting users...\n  nobody"),
        (
            "delete user bin where account=p1",
            " Deleting user associations...\n  C = bench      A = p1         U = bin      \n \
             Deleting users (No Associations)...\n  bin",
        ),
        ("delete user nope", " Nothing deleted"),
        ("delete qos q1", " Deleting QOS(s)...\n  q1"),
        ("delete coordinator account=p1 names=nobody", " Nothing deleted"),
        ("delete user bin foo=3", " Unknown condition: foo=3"),
    ];
    for (line, expect) in table {
        assert_eq!(text(line), expect, "{line}");
    }
}

#[test]
fn changes_are_those_that_were_asked_for() {
    let changes = |line: &str| -> Vec<Change> {
        let proposal = proposal(line).unwrap_or_else(|stop| panic!("{line}: {stop:?}"));
        proposal.changes.into_iter().filter_map(|change| change.change).collect()
    };
    match changes("modify user bin where account=p1 set grptres=cpu=-1,gres/gpu=2 maxwall=-1 qos+=high fairshare=parent")
        .as_slice()
    {
        [Change::PutAssociation(put)] => {
            assert_eq!((put.account.as_str(), put.user.as_str(), put.create), ("p1", "bin", false));
            let edit = put.edit.as_ref().expect("there");
            assert!(edit.parent_shares);
            assert_eq!(edit.qos.as_ref().expect("there").add, ["high"]);
            let limits = edit.limits.as_ref().expect("there");
            assert_eq!(limits.amounts[0].limit, "GrpTRES");
            assert_eq!(limits.amounts[0].clear, ["cpu"]);
            assert_eq!(limits.amounts[0].set[0].kind, "gres/gpu");
            assert_eq!(limits.numbers[0].limit, "MaxWallDurationPerJob");
            assert_eq!(limits.numbers[0].value, None);
        }
        other => panic!("{other:?}"),
    }
    match changes("add user new account=p1,a1").as_slice() {
        [Change::PutUser(user), Change::PutAssociation(first), Change::PutAssociation(_)] => {
            assert_eq!(user.default_account.as_deref(), Some("p1"));
            assert!(first.create);
        }
        other => panic!("{other:?}"),
    }
    match changes("delete account physics,p1").as_slice() {
        [Change::DeleteAccount(first), Change::DeleteAccount(second)] => {
            assert_eq!((first.as_str(), second.as_str()), ("p1", "physics"));
        }
        other => panic!("{other:?}"),
    }
    match changes("modify account p1 set budget=10gpu-hours guaranteed=node=4").as_slice() {
        [Change::PutAccount(put)] => {
            let limits = put.edit.as_ref().and_then(|edit| edit.limits.as_ref()).expect("there");
            assert_eq!(limits.amounts[0].set[0].count, 600);
            assert_eq!(limits.amounts[1].limit, "Guaranteed");
        }
        other => panic!("{other:?}"),
    }
    match changes("modify qos high set usagefactor=0.5 preemptmode=requeue flags=-1").as_slice() {
        [Change::PutQos(put)] => {
            assert_eq!(put.usage_factor, Some(500_000));
            assert_eq!(put.preempt_mode.as_deref(), Some("REQUEUE"));
            assert_eq!(
                put.flags.as_ref().and_then(|f| f.set.clone()),
                Some(v1::NameList::default())
            );
        }
        other => panic!("{other:?}"),
    }
}

fn show(style: TableStyle, line: &str) -> String {
    let words = words(line);
    let (_, entity) = find(ENTITIES, &words[0]).expect("an entity");
    let look = Look { style, header: true, associations: false };
    match show::text(entity, &words[1..], &example(), &look) {
        Ok(text) => String::from_utf8(text).expect("UTF-8"),
        Err(Stop::Nothing(line)) => line.to_owned(),
        Err(Stop::Wrong(lines)) => lines.join("\n"),
    }
}

#[test]
fn listings_are_slurms() {
    let columns = |line: &str| show(TableStyle::Columns, line);
    assert_eq!(
        columns("assoc where account=p1 user=bin"),
        "   Cluster    Account       User  Partition     Share   Priority GrpJobs       GrpTRES GrpSubmit     GrpWall   GrpTRESMins MaxJobs       MaxTRES MaxTRESPerNode MaxSubmit     MaxWall   MaxTRESMins                  QOS   Def QOS GrpTRESRunMin 
---------- ---------- ---------- ---------- --------- ---------- ------- ------------- --------- ----------- ------------- ------- ------------- -------------- --------- ----------- ------------- -------------------- --------- ------------- 
     bench         p1        bin                    5                                                                            3                                                                        normal,q1,high                         
"
    );
    assert_eq!(
        columns("assoc tree format=account,user,share"),
        "Account                    User     Share \n-------------------- ---------- --------- \nroot                                    1 \n root                      root         1 \n a1                                     1 \n  a1                     nobody         7 \n physics                               60 \n  p1                                    9 \n   p1                       bin         5 \n   p1                    daemon         5 \n"
    );
    assert_eq!(
        columns("account"),
        "   Account                Descr                  Org \n\
         ---------- -------------------- -------------------- \n        \
         a1                   a1                   a1 \n        \
         p1                  foo              physics \n   \
         physics         physics dept                  sci \n      \
         root default root account                 root \n"
    );
    assert_eq!(
        columns("user"),
        "      User   Def Acct     Admin \n---------- ---------- --------- \n       bin         p1  Operator \n    daemon         p1      None \n    nobody         a1      None \n      root       root Administ+ \n"
    );
    assert_eq!(columns("user nosuch").lines().count(), 2);
    assert_eq!(
        columns("qos format=name,flags%20,priority"),
        "      Name                Flags   Priority \n---------- -------------------- ---------- \n    normal                               0 \n        q1                               0 \n      high DenyOnLimit,OverPar+        100 \n"
    );
    assert_eq!(
        columns("tres type=gres"),
        "    Type            Name     ID \n-------- --------------- ------ \n    gres             gpu   1001 \n"
    );
    assert_eq!(columns("tres").lines().count(), 11);
    assert_eq!(columns("assoc format=foo"), "Unknown field 'foo'");
    assert_eq!(columns("assoc where foo=bar"), " Unknown condition: foo=bar");
    assert_eq!(columns("runaway"), "Runaway Jobs: No runaway jobs found on cluster bench\n");
}

#[test]
fn parsable_listings_are_slurms() {
    let ended = |line: &str| show(TableStyle::Ended("|".into()), line);
    assert_eq!(
        ended("qos high"),
        "Name|Priority|GraceTime|Preempt|PreemptExemptTime|PreemptMode|Flags|UsageThres|UsageFactor|GrpTRES|GrpTRESMins|GrpTRESRunMins|GrpJobs|GrpSubmit|GrpWall|MaxTRES|MaxTRESPerNode|MaxTRESMins|MaxWall|MaxTRESPU|MaxJobsPU|MaxSubmitPU|MaxTRESPA|MaxJobsPA|MaxSubmitPA|MinTRES|
high|100|00:00:00|normal||cluster|DenyOnLimit,OverPartQOS,NoDecay||1.000000|cpu=8,gres/gpu=2|||||||||1-00:00:00||2||||||
"
    );
    assert_eq!(
        ended("user bin withassoc"),
        "User|Def Acct|Admin|Cluster|Account|Partition|Share|Priority|MaxJobs|MaxNodes|MaxCPUs|MaxSubmit|MaxWall|MaxCPUMins|QOS|Def QOS|\nbin|p1|Operator|bench|p1||5||3||||||normal,q1,high||\n"
    );
    assert_eq!(
        ended("assoc where user=daemon format=user,maxjobs,maxwall,grptresmins,parentname,id"),
        "User|MaxJobs|MaxWall|GrpTRESMins|ParentName|ID|\ndaemon|5|01:00:00|||11|\n"
    );
    assert_eq!(
        ended("assoc where user=daemon woplimits format=user,maxjobs"),
        "User|MaxJobs|\ndaemon||\n"
    );
    assert_eq!(
        ended("assoc where parent=physics format=account,grptresmins"),
        "Account|GrpTRESMins|\np1|gres/gpu=6000|\n"
    );
    assert_eq!(
        ended("assoc where account=physics withsub format=account,user"),
        "Account|User|\nphysics||\np1||\np1|bin|\np1|daemon|\n"
    );
    assert_eq!(ended("cluster format=cluster,rpc,share"), "Cluster|RPC|Share|\nbench|9728|1|\n");
    assert_eq!(ended("user where adminlevel=none format=user"), "User|\ndaemon|\nnobody|\n");
}

#[test]
fn commands_and_entities_may_be_cut_short() {
    for (word, expect) in [
        ("add", Some("add")),
        ("mod", Some("modify")),
        ("upd", Some("update")),
        ("del", Some("delete")),
        ("rem", Some("remove")),
        ("sho", Some("show")),
        ("lis", Some("list")),
        ("lo", Some("load")),
        ("foo", None),
    ] {
        assert_eq!(find(VERBS, word).map(|(name, _)| name), expect, "{word}");
    }
    for (word, expect) in [
        ("acc", "accounts"),
        ("account", "accounts"),
        ("assoc", "associations"),
        ("user", "users"),
        ("qos", "qos"),
        ("tres", "tres"),
        ("txn", "txn"),
        ("cluster", "clusters"),
        ("coord", "coordinators"),
        ("event", "events"),
        ("wckey", "wckeys"),
    ] {
        assert_eq!(find(ENTITIES, word).map(|(name, _)| name), Some(expect), "{word}");
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let run = |line: &str| run("sacctmgr", words(line));
    for line in
        ["show event", "show wckey", "archive dump", "foo", "show", "add foo", "--foo", "--json"]
    {
        assert_eq!(run(line), 1, "{line}");
    }
    assert_eq!(run("-r add account x"), 1);
    assert_eq!(run("--version"), 0);
}
