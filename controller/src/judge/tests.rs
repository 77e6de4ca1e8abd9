//! Scripts of sites, and what comes of them.

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

/// What the script `body` does with a submission.
async fn judge(
    body: &str,
    spec: v1::JobSpec,
) -> Result<(v1::JobSpec, Vec<String>), (String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let hooks = write(
        dir.path(),
        &format!(
            "function slurm_job_submit(job_desc, part_list, submit_uid)\ndo {body} end\nreturn slurm.SUCCESS\n\
         end\nfunction slurm_job_modify(job_desc, job_rec, part_list, modify_uid)\n\
         return slurm.SUCCESS\nend\n"
        ),
    );
    ask(&Judge::default(), &hooks, spec).await
}

fn write(dir: &Path, text: &str) -> HooksSection {
    let path = dir.join("job_submit.lua");
    std::fs::write(&path, text).unwrap();
    HooksSection { job_submit: Some(path), job_submit_ms: 200, ..HooksSection::default() }
}

async fn ask(
    judge: &Judge,
    hooks: &HooksSection,
    spec: v1::JobSpec,
) -> Result<(v1::JobSpec, Vec<String>), (String, String)> {
    let question = Question::Submit {
        spec: Box::new(spec),
        script: Bytes::from_static(b"#!/bin/sh\ntrue\n"),
        environment: Bytes::from_static(b"A=1\0"),
    };
    let facts = || {
        vec![PartitionFacts {
            name: "main".into(),
            is_default: true,
            max_minutes: Some(60),
            ..PartitionFacts::default()
        }]
    };
    match judge.ask(hooks, question, 1000, facts).await {
        Ok(Judged { question: Question::Submit { spec, .. }, said }) => Ok((*spec, said)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err((refusal.slurm_text().to_owned(), refusal.to_string())),
    }
}

fn spec() -> v1::JobSpec {
    v1::JobSpec { name: "probe".into(), ntasks: Some(4), ..v1::JobSpec::default() }
}

#[tokio::test]
async fn a_script_reads_and_changes_fields_by_slurms_names() {
    let body = "
        assert(submit_uid == 1000 and job_desc.user_id == 1000)
        assert(job_desc.name == 'probe' and job_desc.num_tasks == 4)
        assert(job_desc.time_limit == slurm.NO_VAL and job_desc.account == nil)
        assert(job_desc.cpus_per_task == slurm.NO_VAL16)
        assert(job_desc.pn_min_memory == slurm.NO_VAL64)
        assert(job_desc.environment.A == '1')
        assert(string.match(job_desc.script, '^#!/bin/sh'))
        assert(part_list['main'].max_time == 60 and part_list.main.flag_default == 1)
        if job_desc.time_limit == slurm.NO_VAL then job_desc.time_limit = 90 end
        job_desc.partition = 'gpu,main'
        job_desc.gres = 'gres:gpu:a100:2'
        job_desc.min_mem_per_cpu = 512
        job_desc.comment = 'by ' .. submit_uid
        job_desc.features = 'fast'
        job_desc.mail_type = slurm.MAIL_JOB_END
        slurm.log_info('%s asks for %d tasks', job_desc.name, job_desc.num_tasks)
        slurm.log_user('limit set to %d min', job_desc.time_limit)
        slurm.user_msg('100% yours')";
    let (spec, said) = judge(body, spec()).await.unwrap();
    assert_eq!(spec.time_limit_secs, Some(5_400));
    assert_eq!(spec.partitions, ["gpu", "main"]);
    let gres = &spec.gres_per_node[0];
    assert_eq!((gres.name.as_str(), gres.r#type.as_str(), gres.count), ("gpu", "a100", 2));
    assert_eq!((spec.mem_per_cpu_mib, spec.comment.as_str()), (Some(512), "by 1000"));
    assert_eq!((spec.constraint.as_str(), spec.mail_type.as_str()), ("fast", "END"));
    assert_eq!((spec.ntasks, spec.name.as_str()), (Some(4), "probe"));
    assert_eq!(said, ["limit set to 90 min", "100% yours"]);
}

#[tokio::test]
async fn a_refusal_has_slurms_text_and_the_scripts_lines() {
    for (body, text, detail) in [
        (
            "slurm.log_user('no account\\ngive one') return slurm.ESLURM_INVALID_ACCOUNT",
            "Invalid account or account/partition combination specified",
            "no account\ngive one",
        ),
        ("return slurm.ERROR", "Unspecified error", "Unspecified error"),
        ("return nil", "Unspecified error", "it returned no number"),
        ("error('oops')", "Unspecified error", "job_submit.lua:2: oops"),
        ("job_desc.tiem_limit = 3", "Unspecified error", "job_desc.tiem_limit is no field here"),
        ("job_desc.user_id = 0", "Unspecified error", "job_desc.user_id cannot be changed here"),
        ("job_desc.gres = 'gpu:a:b:c'", "Unspecified error", "job_desc.gres cannot be"),
        ("job_desc.num_tasks = -4", "Unspecified error", "job_desc.num_tasks cannot be \"-4\""),
    ] {
        let (told, why) = judge(body, spec()).await.unwrap_err();
        assert_eq!(told, text, "{body}");
        assert!(why.contains(detail), "{body}: {why}");
    }
}

#[tokio::test]
async fn what_never_ends_is_stopped_also_behind_pcall() {
    for body in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local function f() xpcall(function() while true do end end, function() return 1 end) f() end f()",
        "repeat pcall(error) until false",
        "for i = 1, 1e12 do string.rep('x', 10) end",
    ] {
        let begun = Instant::now();
        let (_, why) = judge(body, spec()).await.unwrap_err();
        assert!(why.contains("longer than it may"), "{body}: {why}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{body}");
    }
}

#[tokio::test]
async fn what_no_instruction_count_stops_is_left_behind() {
    let body = "local a = string.rep('a', 40) return string.find(a, string.rep('a*', 40) .. 'b')";
    let (_, why) = judge(body, spec()).await.unwrap_err();
    assert!(why.contains("cannot be stopped"), "{why}");
}

#[tokio::test]
async fn memory_is_bounded_and_nothing_reaches_out() {
    let (_, why) =
        judge("local t = {} while true do t[#t + 1] = string.rep('x', 1e6) .. #t end", spec())
            .await
            .unwrap_err();
    assert!(why.contains("memory"), "{why}");
    let names =
        "os io package debug coroutine require dofile loadfile load loadstring collectgarbage";
    for name in names.split(' ') {
        judge(&format!("assert({name} == nil)"), spec()).await.unwrap();
    }
    judge("assert(string.dump == nil)", spec()).await.unwrap();
    let (_, why) = judge("setmetatable({}, { __gc = function() end })", spec()).await.unwrap_err();
    assert!(why.contains("__gc"), "{why}");
    // Caught errors stay errors of the script's own.
    let body = "local ok, why = pcall(error, 'x') assert(not ok and why == 'x')
                local ok, a, b = pcall(function(n) return n, 2 end, 1) assert(ok and a == 1 and b == 2)";
    judge(body, spec()).await.unwrap();
}

#[tokio::test]
async fn a_script_that_does_not_load_refuses_until_it_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let judge = Judge::default();
    let hooks = write(dir.path(), "function slurm_job_submit( end");
    let (text, why) = ask(&judge, &hooks, spec()).await.unwrap_err();
    assert_eq!(text, "Unspecified error");
    assert!(
        why.contains("job_submit.lua cannot be used: syntax error: job_submit.lua:1:"),
        "{why}"
    );
    let good = "function slurm_job_submit() return 0 end function slurm_job_modify() return 0 end";
    write(dir.path(), good);
    assert!(ask(&judge, &hooks, spec()).await.is_err(), "it is not read again by itself");
    judge.reload();
    ask(&judge, &hooks, spec()).await.unwrap();
    write(dir.path(), "function slurm_job_submit() return 0 end");
    judge.reload();
    let (_, why) = ask(&judge, &hooks, spec()).await.unwrap_err();
    assert!(why.contains("it has no function slurm_job_modify"), "{why}");
    std::fs::remove_file(dir.path().join("job_submit.lua")).unwrap();
    judge.reload();
    assert!(ask(&judge, &hooks, spec()).await.unwrap_err().1.contains("No such file"));
}

#[tokio::test]
async fn a_change_is_judged_with_the_job_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = write(
        dir.path(),
        "
        function slurm_job_submit() return 0 end
        function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
            assert(job_rec.job_id == 7 and job_rec.time_limit == 10 and job_rec.name == 'old')
            if job_desc.time_limit ~= slurm.NO_VAL and job_desc.time_limit > 60 then
                slurm.log_user('at most an hour')
                return slurm.ESLURM_INVALID_TIME_LIMIT
            end
            job_desc.comment = 'changed by ' .. modify_uid
            return slurm.SUCCESS
        end",
    );
    let judge = Judge::default();
    let change = |minutes: u64| {
        let spec = v1::JobSpec { name: "old".into(), ..v1::JobSpec::default() };
        let job = v1::Job { id: 7, time_limit_secs: 600, spec: Some(spec), ..v1::Job::default() };
        let update =
            v1::JobUpdate { time_limit_secs: Some(minutes * 60), ..v1::JobUpdate::default() };
        Question::Modify { update: Box::new(update), job: Box::new(job) }
    };
    let judged = judge.ask(&hooks, change(30), 1000, Vec::new).await.unwrap();
    let Question::Modify { update, .. } = judged.question else { panic!("another question") };
    assert_eq!(update.comment.as_deref(), Some("changed by 1000"));
    assert_eq!((update.time_limit_secs, update.name), (Some(1800), None));
    let refusal = judge.ask(&hooks, change(61), 1000, Vec::new).await.unwrap_err();
    assert!(refusal.slurm_text().starts_with("Requested time limit is invalid"));
    assert_eq!(refusal.to_string(), "at most an hour");
}
