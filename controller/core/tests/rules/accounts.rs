//! Accounts, users and QOS: who may change what, what is refused, what a job is charged to.

use penstock_core::accounts::{
    AccountChange, AccountDone, AccountEffect, AssocSettings, EditMode, Limit, MAX_ACCOUNT_CHANGES,
    QosSettings, Subject,
};
use penstock_core::command::{JobUpdate, Target};
use penstock_core::model::{AdminLevel, AssocId, Enforcement, Shares};
use penstock_core::{Cluster, Refusal};
use penstock_vocab::{TresKind, UserId};

use crate::common::accounts::{
    account, add_user, limits, list, member, place, qos, set_account, set_parent, set_qos,
};
use crate::common::{World, admin, job, partition_name, user, world};

/// root > physics > {lab, shop}; alice (1000) in lab, bob (1001) in shop, carol (1002) in both.
fn tree(enforce: Enforcement) -> World {
    let mut w =
        world().nodes(4).partition("other", |_| {}).scheduling(|s| s.enforce = enforce).build();
    let mut changes =
        vec![account("physics", ""), account("lab", "physics"), account("shop", "physics")];
    changes.extend([("alice", 1000), ("bob", 1001), ("carol", 1002)].map(|(n, u)| add_user(n, u)));
    changes.extend([
        member("lab", "alice"),
        member("shop", "bob"),
        member("lab", "carol"),
        member("shop", "carol"),
        qos("long", []),
        qos("short", []),
    ]);
    w.change(changes).unwrap();
    w
}

#[test]
fn a_limit_that_is_not_built_is_refused_by_name_and_cleared_where_it_was_stored() {
    let mut w = tree(Enforcement::Strict);
    let cases = [
        (set_account("lab", limits([(Limit::GrpJobsAccrue, 1)])), "GrpJobsAccrue"),
        (set_account("lab", limits([(Limit::MaxJobsAccrue, 0)])), "MaxJobsAccrue"),
        (set_qos("long", [(Limit::GrpJobsAccrue, 1)]), "GrpJobsAccrue"),
        (set_qos("long", [(Limit::MaxJobsAccruePerUser, 1)]), "MaxJobsAccruePerUser"),
        (qos("odd", [(Limit::MaxJobsAccruePerAccount, 1)]), "MaxJobsAccruePerAccount"),
    ];
    for (change, name) in cases {
        let refusal = refused(&mut w, vec![change]);
        assert_eq!(refusal.kind(), "InvalidChange", "{refusal}");
        assert!(refusal.to_string().starts_with(&format!("{name} is not built")), "{refusal}");
    }
    w.reload(4, |records| {
        let assocs = &mut records.accounts.assocs;
        let lab = assocs.iter_mut().find(|assoc| *assoc.account == *"lab").unwrap();
        (lab.group.jobs_accrue, lab.each.jobs_accrue) = (Some(3), Some(2));
    });
    let lab = w.assoc("lab", None);
    assert_eq!(w.cluster.accounts().assoc(lab).unwrap().group.jobs_accrue, Some(3));
    // A dump can be loaded again all the same.
    let dump = w.cluster.accounts().dump();
    let mut fresh = world().nodes(4).partition("other", |_| {}).build();
    for part in dump.chunks(MAX_ACCOUNT_CHANGES) {
        fresh.change(part.to_vec()).unwrap();
    }
    let none = limits([(Limit::GrpJobsAccrue, -1), (Limit::MaxJobsAccrue, -1)]);
    w.change(vec![set_account("lab", none)]).unwrap();
    assert!(!w.cluster.accounts().assoc(lab).unwrap().has_limits());
}

fn refused(w: &mut World, changes: Vec<AccountChange>) -> Refusal {
    w.change(changes).unwrap_err()
}

#[test]
fn what_is_there_is_not_added_again() {
    let mut w = tree(Enforcement::Strict);
    let added = w.change(vec![account("Chemistry", "physics"), account("lab", "")]).unwrap();
    let subject = Subject::Account("chemistry".into());
    assert_eq!(added, [AccountEffect { done: AccountDone::Added, subject }]);
    let nothing =
        vec![account("lab", ""), add_user("ALICE", 1000), member("lab", "Alice"), qos("long", [])];
    assert_eq!(w.change(nothing).unwrap(), []);
    let accounts = w.cluster.accounts();
    assert_eq!(*accounts.account("chemistry").unwrap().organization, *"physics");
    // The default account is the first one.
    assert_eq!(*accounts.user("carol").unwrap().default_account, *"lab");
}

#[test]
fn senseless_changes_are_refused_as_a_whole() {
    let mut w = tree(Enforcement::Strict);
    w.submit(&job());
    let settings = |qos: &[&str]| AssocSettings {
        qos: Some(list(EditMode::Set, qos)),
        ..AssocSettings::default()
    };
    let min = Limit::MinTres(TresKind::Cpu);
    let max = Limit::MaxTres(TresKind::Cpu);
    let cases: Vec<(AccountChange, &str, &str)> = vec![
        (set_parent("physics", "lab"), "InvalidChange", "stands below account physics"),
        (set_parent("lab", "lab"), "InvalidChange", "its own parent"),
        (set_parent("root", "lab"), "InvalidChange", "nothing above"),
        (set_parent("lab", "nowhere"), "UnknownRecord", "no account nowhere"),
        (account("x", "nowhere"), "UnknownRecord", "no account nowhere"),
        (account("", ""), "InvalidChange", "account name \"\""),
        (account("a b", ""), "InvalidChange", "account name \"a b\""),
        (account("a,b", ""), "InvalidChange", "can't be taken"),
        (account("-a", ""), "InvalidChange", "can't be taken"),
        (account(&"a".repeat(256), ""), "InvalidChange", "can't be taken"),
        (member("lab", "nobody"), "UnknownRecord", "no user nobody"),
        (add_user("dave", 1000), "InvalidChange", "uid 1000 is user alice"),
        (add_user("alice", 5), "InvalidChange", "another number"),
        (set_account("lab", settings(&["nope"])), "UnknownRecord", "no QOS nope"),
        (AccountChange::DeleteAccount("root".into()), "InvalidChange", "root can't be deleted"),
        (AccountChange::DeleteAccount("physics".into()), "JobsActive", "1 job(s) that wait"),
        (AccountChange::DeleteUser("alice".into()), "JobsActive", "1 job(s)"),
        (AccountChange::DeleteAssoc(place("lab", "alice")), "JobsActive", "cancel them first"),
        (AccountChange::DeleteAssoc(place("lab", "carol")), "DefaultAccount", "carol"),
        (AccountChange::DeleteAssoc(place("lab", "bob")), "UnknownRecord", "bob is not in"),
        (AccountChange::DeleteQos("normal".into()), "InvalidChange", "normal can't be deleted"),
        (qos("odd", [(min.clone(), 4), (max, 2)]), "InvalidChange", "no job could have both"),
        (set_account("lab", limits([(min, 1)])), "InvalidChange", "MinTRES is no limit of"),
        (set_qos("long", [(Limit::MaxJobs, 1)]), "InvalidChange", "MaxJobs is no limit of a QOS"),
        (
            set_account("lab", limits([(Limit::GrpJobs, i64::from(u32::MAX))])),
            "InvalidChange",
            "too much",
        ),
        (
            set_account(
                "lab",
                limits([(Limit::GrpTres(TresKind::Cpu), 4), (Limit::Guaranteed(TresKind::Cpu), 8)]),
            ),
            "InvalidChange",
            "can't be guaranteed 8 of cpu",
        ),
    ];
    for (change, kind, text) in cases {
        let shown = format!("{change:?}");
        // Nothing of the command is done, whatever came before.
        let refusal = refused(&mut w, vec![account("before", ""), change]);
        assert_eq!(refusal.kind(), kind, "{shown}: {refusal}");
        assert!(refusal.to_string().contains(text), "{shown}: {refusal}");
        assert!(w.cluster.accounts().account("before").is_none(), "{shown}");
    }
    let many = (0..=MAX_ACCOUNT_CHANGES).map(|n| account(&format!("a{n}"), "")).collect();
    assert_eq!(refused(&mut w, many).kind(), "TooManyItems");
}

#[test]
fn a_subtree_moves_with_what_it_uses() {
    let mut w = tree(Enforcement::Strict);
    w.submit(&job());
    w.submit(&job().by(user(1001)));
    assert_eq!(w.run_plan().len(), 2);
    w.submit(&job().array(0, 4, 0));
    // The check of every command compares the counts with the records.
    w.change(vec![account("art", ""), set_parent("lab", "art")]).unwrap();
    w.change(vec![set_parent("physics", "art")]).unwrap();
    let art = penstock_core::policy::limits::Owner::Assoc(w.assoc("art", None));
    assert_eq!((w.cluster.limits().queued(&art), w.cluster.limits().jobs(&art)), (7, 2));
    assert_eq!(refused(&mut w, vec![set_parent("art", "shop")]).kind(), "InvalidChange");
}

#[test]
fn an_account_goes_with_all_below_it() {
    let mut w = tree(Enforcement::Strict);
    let gone = w.change(vec![AccountChange::DeleteAccount("physics".into())]).unwrap();
    assert_eq!(gone.len(), 3 + 4);
    let accounts = w.cluster.accounts();
    assert_eq!(accounts.all_accounts().count(), 1);
    assert_eq!(accounts.all_assocs().count(), 1);
    assert!(accounts.all_users().all(|user| user.default_account.is_empty()));
    assert_eq!(w.try_submit(&job()).unwrap_err().kind(), "InvalidAccount");
}

#[test]
fn a_qos_that_is_deleted_leaves_the_lists() {
    let mut w = tree(Enforcement::Strict);
    let set = |names: &[&str], default: &str| AssocSettings {
        qos: Some(list(EditMode::Set, names)),
        default_qos: Some(default.into()),
        ..AssocSettings::default()
    };
    w.change(vec![set_account("lab", set(&["long", "short"], "short"))]).unwrap();
    let refusal = refused(&mut w, vec![AccountChange::DeleteQos("short".into())]);
    assert_eq!(refusal.kind(), "DefaultQos");
    w.change(vec![AccountChange::DeleteQos("long".into())]).unwrap();
    let lab = w.assoc("lab", None);
    assert_eq!(w.cluster.accounts().qos_allowed(lab), Some(&["short".into()][..]));
    // A default outside the list is refused.
    let refusal = refused(&mut w, vec![set_account("lab", set(&["short"], "normal"))]);
    assert_eq!(refusal.kind(), "InvalidQos");
}

#[test]
fn coordinators_manage_their_accounts_and_no_more() {
    let mut w = tree(Enforcement::Strict);
    let coordinate = AccountChange::AddCoordinators("lab".into(), vec!["alice".into()]);
    w.change(vec![
        coordinate,
        account("sub", "lab"),
        set_account("lab", limits([(Limit::MaxJobs, 5)])),
        AccountChange::AddUser {
            name: "op".into(),
            uid: Some(UserId(7)),
            default_account: "".into(),
            admin_level: AdminLevel::Operator,
        },
    ])
    .unwrap();
    let (alice, operator) = (user(1000), user(7));
    let jobs = |n| AccountChange::ModifyAssoc(place("lab", "carol"), limits([(Limit::MaxJobs, n)]));
    let allowed = [
        vec![add_user("dave", 1003), member("lab", "dave")],
        vec![member("sub", "bob")],
        vec![jobs(5)],
        vec![jobs(-1)],
        vec![AccountChange::DeleteAssoc(place("sub", "bob"))],
    ];
    for changes in allowed {
        let shown = format!("{changes:?}");
        assert!(w.change_as(alice, changes).is_ok(), "{shown}");
    }
    let denied = [
        vec![member("shop", "alice")],
        vec![jobs(6)],
        vec![account("mine", "lab")],
        vec![AccountChange::DeleteUser("carol".into())],
        vec![AccountChange::DeleteAssoc(place("shop", "bob"))],
        vec![set_qos("normal", [])],
        vec![AccountChange::ResetAccountUsage("lab".into())],
        vec![AccountChange::ModifyUser {
            name: "alice".into(),
            uid: None,
            default_account: None,
            admin_level: Some(AdminLevel::Administrator),
        }],
    ];
    for changes in denied {
        let refusal = w.change_as(alice, changes.clone()).unwrap_err();
        assert_eq!(refusal.kind(), "AccessDenied", "{changes:?}");
        assert!(w.change_as(user(1001), changes).is_err());
    }
    w.change_as(operator, vec![account("by-op", "")]).unwrap();
    let raise = AccountChange::ModifyUser {
        name: "op".into(),
        uid: None,
        default_account: None,
        admin_level: Some(AdminLevel::Administrator),
    };
    assert_eq!(w.change_as(operator, vec![raise]).unwrap_err().kind(), "AccessDenied");
}

#[test]
fn unknown_users_find_a_place_by_themselves() {
    let mut w = world().nodes(4).partition("paid", |p| p.allow_accounts = vec!["x".into()]).build();
    let plain = w.submit(&job());
    assert_eq!((&*w.job(plain).spec.account, &*w.job(plain).spec.qos), ("users", "normal"));
    let named = w.submit(&job().by(user(5)).spec(|s| s.account = "Maths".into()));
    assert_eq!(*w.job(named).spec.account, *"maths");
    let accounts = w.cluster.accounts();
    let parent = accounts.assoc(w.assoc("maths", None)).unwrap().parent;
    assert_eq!(parent, Some(w.assoc("users", None)));
    assert!(accounts.assoc(w.job(named).assoc).unwrap().implicit);
    assert_eq!(*accounts.user_by_uid(UserId(5)).unwrap().default_account, *"maths");
    // Nothing is left of a job that is refused.
    let before = w.cluster.accounts().clone();
    let odd = job().by(user(6)).partition(&["paid"]).spec(|s| s.account = "y".into());
    assert_eq!(w.try_submit(&odd).unwrap_err().kind(), "AccountNotAllowed");
    let odd = job().by(user(6)).spec(|s| s.account = "a b".into());
    assert_eq!(w.try_submit(&odd).unwrap_err().kind(), "InvalidAccount");
    assert_eq!(*w.cluster.accounts(), before);
}

#[test]
fn strict_enforcement_refuses_whom_nobody_entered() {
    let mut w = tree(Enforcement::Strict);
    for (uid, account, qos, kind) in [
        (1000, "", "", None),
        (1000, "LAB", "long", None),
        (1000, "shop", "", Some("InvalidAccount")),
        (1000, "nowhere", "", Some("InvalidAccount")),
        (1000, "", "nope", Some("InvalidQos")),
        (1002, "shop", "", None),
        (4242, "", "", Some("InvalidAccount")),
        (4242, "lab", "", Some("InvalidAccount")),
    ] {
        let request = job().by(user(uid)).spec(|s| {
            s.account = account.into();
            s.qos = qos.into();
        });
        let result = w.try_submit(&request).map_err(|why| why.kind().to_owned()).err();
        assert_eq!(result.as_deref(), kind, "{uid} {account:?} {qos:?}");
    }
    let text = w.try_submit(&job().by(user(4242))).unwrap_err();
    let slurm = "Invalid account or account/partition combination specified";
    assert_eq!(text.slurm_text(), slurm);
}

#[test]
fn a_users_number_is_learnt_and_kept() {
    let mut w = tree(Enforcement::Strict);
    let erin = AccountChange::AddUser {
        name: "Erin".into(),
        uid: None,
        default_account: "lab".into(),
        admin_level: AdminLevel::None,
    };
    w.change(vec![erin, member("lab", "erin")]).unwrap();
    let submit = |w: &mut World, uid, name: &str| {
        let request = job().by(user(uid));
        let submission =
            penstock_core::command::Submission { user: name.into(), ..request.submission() };
        w.execute(penstock_core::Command::Submit(request.caller, Box::new(submission)))
    };
    submit(&mut w, 77, "Erin").unwrap();
    assert_eq!(w.cluster.accounts().user("erin").unwrap().uid, Some(UserId(77)));
    submit(&mut w, 77, "erin").unwrap();
    let refusal = submit(&mut w, 78, "erin").unwrap_err();
    assert!(refusal.to_string().contains("uid 77 among the accounts and uid 78"), "{refusal}");
}

#[test]
fn the_partitions_association_and_the_inherited_qos_count() {
    let mut w = tree(Enforcement::Strict);
    let mut there = place("lab", "alice");
    there.partition = Some(partition_name("other"));
    let only =
        AssocSettings { qos: Some(list(EditMode::Set, &["long"])), ..AssocSettings::default() };
    w.change(vec![
        AccountChange::AddAssoc(there, AssocSettings::default()),
        set_account("physics", only),
    ])
    .unwrap();
    let (here, there) = (w.submit(&job()), w.submit(&job().partition(&["other"])));
    let other = partition_name("other");
    let assoc = w.cluster.accounts().assoc_at("lab", Some("alice"), Some(&other));
    assert_eq!(Some(w.job(there).assoc), assoc);
    assert_eq!(w.job(here).assoc, w.assoc("lab", Some("alice")));
    // The only one that may be used is the default.
    assert_eq!(*w.job(here).spec.qos, *"long");
    let normal = job().spec(|s| s.qos = "normal".into());
    assert_eq!(w.try_submit(&normal).unwrap_err().kind(), "InvalidQos");
    // +=, -=.
    let edit = |mode, names: &[&str]| AssocSettings {
        qos: Some(list(mode, names)),
        ..AssocSettings::default()
    };
    w.change(vec![set_account("lab", edit(EditMode::Add, &["normal"]))]).unwrap();
    w.submit(&normal);
    w.change(vec![set_account("lab", edit(EditMode::Remove, &["long"]))]).unwrap();
    let lab = w.assoc("lab", None);
    assert_eq!(w.cluster.accounts().qos_allowed(lab), Some(&["normal".into()][..]));
    w.change(vec![set_account("lab", edit(EditMode::Set, &[]))]).unwrap();
    assert_eq!(w.cluster.accounts().qos_allowed(lab), Some(&["long".into()][..]));
    let none = set_account("lab", edit(EditMode::Remove, &["long"]));
    assert_eq!(refused(&mut w, vec![none]).kind(), "InvalidChange");
}

#[test]
fn scontrol_update_moves_a_job_to_another_account() {
    let mut w = tree(Enforcement::Strict);
    let id = w.submit(&job().by(user(1002)));
    let array = w.submit(&job().by(user(1002)).array(0, 9, 0));
    let to = |account: &str| JobUpdate { account: Some(account.into()), ..JobUpdate::default() };
    for id in [id, array] {
        assert_eq!(w.update(user(1002), Target::Id(id), to("Shop")), None);
        let refusal = w.update(user(1002), Target::Id(id), to("physics")).unwrap();
        assert_eq!(refusal.kind(), "InvalidAccount");
    }
    let shop = w.assoc("shop", Some("carol"));
    assert_eq!((w.job(id).assoc, w.cluster.array(array).unwrap().assoc), (shop, shop));
    let odd = JobUpdate { qos: Some("nope".into()), ..JobUpdate::default() };
    assert_eq!(w.update(admin(), Target::Id(id), odd).unwrap().kind(), "InvalidQos");
    // Where unknown users are let in, the place is made.
    let mut w = tree(Enforcement::None);
    let id = w.submit(&job());
    assert_eq!(w.update(user(1000), Target::Id(id), to("new")), None);
    assert_eq!(w.job(id).assoc, w.assoc("new", Some("alice")));
}

#[test]
fn a_dump_makes_the_same_tree() {
    let mut w = tree(Enforcement::Strict);
    let mut there = place("lab", "alice");
    there.partition = Some(partition_name("other"));
    let settings = QosSettings {
        priority: Some(7),
        preempt: Some(list(EditMode::Set, &["long", "short"])),
        usage_threshold: Some(Some(250_000)),
        ..QosSettings::default()
    };
    w.change(vec![
        AccountChange::AddAssoc(there, limits([(Limit::GrpTresMins(TresKind::Cpu), 9)])),
        set_account(
            "physics",
            AssocSettings {
                shares: Some(Shares::Parent),
                default_qos: Some("long".into()),
                ..limits([(Limit::GrpJobs, 0), (Limit::Guaranteed(TresKind::Node), 2)])
            },
        ),
        set_account("root", limits([(Limit::MaxWall, 60)])),
        set_qos("normal", [(Limit::MaxTresPerUser(TresKind::Cpu), 3)]),
        AccountChange::ModifyQos("short".into(), Box::new(settings)),
        AccountChange::AddCoordinators("lab".into(), vec!["carol".into(), "bob".into()]),
        AccountChange::ModifyUser {
            name: "carol".into(),
            uid: None,
            default_account: Some("shop".into()),
            admin_level: Some(AdminLevel::Operator),
        },
    ])
    .unwrap();
    let dump = w.cluster.accounts().dump();
    let mut fresh = w;
    fresh.cluster = Cluster::new(fresh.cluster.config().clone(), fresh.now);
    for part in dump.chunks(MAX_ACCOUNT_CHANGES) {
        fresh.change(part.to_vec()).unwrap();
    }
    assert_eq!(fresh.cluster.accounts().dump(), dump);
    let lab = fresh.assoc("lab", None);
    assert_eq!(fresh.cluster.accounts().chain(lab).last().unwrap().id, AssocId::ROOT);
}
