//! What has to change in a bundle's `config.json` so that a job's program runs by it?
//!
//! The program and its variables are put in; the terminal is the shepherd's affair; whatever would
//! take the processes out of the job's cgroup is taken out. Where the user is not root and the bundle
//! knows nothing of user namespaces, it is made to, as `runc spec --rootless` would.

use std::path::Path;

use serde_json::{Map, Value, json};

/// What is to be run.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) argv: &'a [Vec<u8>],
    /// NAME=VALUE.
    pub(super) variables: &'a [Vec<u8>],
    /// Folder to begin in, if the bundle's is not meant.
    pub(super) cwd: Option<&'a str>,
    /// Files that are seen inside under the same name.
    pub(super) binds: &'a [String],
    pub(super) owner: (u32, u32),
}

/// Variables that say where things are in the container; those of the bundle count.
const OF_THE_PLACE: [&str; 3] = ["PATH", "HOME", "LD_LIBRARY_PATH"];

/// The configuration of one task.
///
/// # Errors
/// In words, where it is none, or the program cannot be written down in it.
pub(super) fn adapt(text: &[u8], bundle: &Path, program: &Program<'_>) -> Result<Vec<u8>, String> {
    let mut config: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let whole = config.as_object_mut().ok_or("it is no object")?;
    set_root(whole, bundle)?;
    set_process(whole, program)?;
    let mounts = array(whole, "mounts")?;
    for path in program.binds {
        mounts.push(json!({
            "destination": path, "source": path, "type": "bind", "options": ["bind", "ro"]
        }));
    }
    let process_user = |name: &str| {
        let user = whole.get("process").and_then(|process| process.get("user"));
        user.and_then(|user| user.get(name)).and_then(Value::as_u64).unwrap_or(0)
    };
    let inside = (process_user("uid"), process_user("gid"));
    let linux = object(whole, "linux")?;
    // Limits are the job's; a group of its own would be none of the job's.
    linux.remove("resources");
    linux.remove("cgroupsPath");
    if program.owner.0 != 0 && make_rootless(linux, inside, program.owner)? {
        adapt_mounts(array(whole, "mounts")?);
    }
    serde_json::to_vec(&config).map_err(|error| error.to_string())
}

fn object<'a>(
    whole: &'a mut Map<String, Value>,
    name: &str,
) -> Result<&'a mut Map<String, Value>, String> {
    let part = whole.entry(name).or_insert_with(|| json!({}));
    part.as_object_mut().ok_or_else(|| format!("{name} is no object"))
}

fn array<'a>(whole: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Vec<Value>, String> {
    let part = whole.entry(name).or_insert_with(|| json!([]));
    part.as_array_mut().ok_or_else(|| format!("{name} is no list"))
}

/// The copy lies elsewhere: the root's path is made one that does not depend on that.
fn set_root(whole: &mut Map<String, Value>, bundle: &Path) -> Result<(), String> {
    let root = object(whole, "root")?;
    let path = root.get("path").and_then(Value::as_str).ok_or("root.path is missing")?;
    let path = bundle.join(path).to_string_lossy().into_owned();
    root.insert("path".to_owned(), Value::String(path));
    Ok(())
}

fn set_process(whole: &mut Map<String, Value>, program: &Program<'_>) -> Result<(), String> {
    let process = object(whole, "process")?;
    let text = |bytes: &Vec<u8>| {
        String::from_utf8(bytes.clone()).map_err(|_| {
            let shown = String::from_utf8_lossy(bytes).into_owned();
            format!("{shown:?} is no UTF-8, which a container's configuration must be")
        })
    };
    let argv: Vec<String> = program.argv.iter().map(text).collect::<Result<_, _>>()?;
    let own: Vec<String> = array(process, "env")?
        .iter()
        .filter_map(|entry| entry.as_str().map(str::to_owned))
        .collect();
    let mut env: Vec<String> = Vec::new();
    for variable in program.variables {
        let variable = text(variable)?;
        let name = name_of(&variable);
        let of_place = OF_THE_PLACE.contains(&name);
        if !of_place || !own.iter().any(|entry| name_of(entry) == name) {
            env.push(variable);
        }
    }
    let missing = |entry: &String| !env.iter().any(|set| name_of(set) == name_of(entry));
    let kept: Vec<String> = own.iter().filter(|entry| missing(entry)).cloned().collect();
    env.extend(kept);
    process.insert("args".to_owned(), json!(argv));
    process.insert("env".to_owned(), json!(env));
    process.insert("terminal".to_owned(), Value::Bool(false));
    process.remove("consoleSize");
    if let Some(cwd) = program.cwd {
        process.insert("cwd".to_owned(), json!(cwd));
    }
    Ok(())
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// Adds a user namespace in which the program's user is the job's; false if there is one already.
fn make_rootless(
    linux: &mut Map<String, Value>,
    (uid, gid): (u64, u64),
    owner: (u32, u32),
) -> Result<bool, String> {
    let namespaces = array(linux, "namespaces")?;
    let is = |entry: &Value, kind: &str| entry.get("type").and_then(Value::as_str) == Some(kind);
    if namespaces.iter().any(|entry| is(entry, "user")) {
        return Ok(false);
    }
    // One that nobody may configure has no network at all.
    namespaces.retain(|entry| !is(entry, "network"));
    namespaces.push(json!({ "type": "user" }));
    let map = |inside: u64, outside: u32| json!([{ "containerID": inside, "hostID": outside, "size": 1 }]);
    linux.insert("uidMappings".to_owned(), map(uid, owner.0));
    linux.insert("gidMappings".to_owned(), map(gid, owner.1));
    Ok(true)
}

/// Mounts that a user namespace with one user and one group does not allow.
fn adapt_mounts(mounts: &mut [Value]) {
    for mount in mounts {
        let kind = mount.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(mount) = mount.as_object_mut() else { continue };
        if kind == "sysfs" {
            mount.insert("type".to_owned(), json!("none"));
            mount.insert("source".to_owned(), json!("/sys"));
            let options = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
            mount.insert("options".to_owned(), options);
        }
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            options.retain(|option| !option.as_str().is_some_and(|text| text.starts_with("gid=")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLE: &str = r#"{
        "ociVersion": "1.0.2", "hostname": "box", "root": { "path": "rootfs" },
        "process": { "terminal": true, "user": { "uid": 0, "gid": 0 }, "args": ["sh"],
            "env": ["PATH=/bin", "TERM=xterm", "A=theirs"], "cwd": "/" },
        "mounts": [ { "destination": "/dev/pts", "type": "devpts", "options": ["gid=5", "newinstance"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] } ],
        "linux": { "namespaces": [ { "type": "pid" }, { "type": "network" } ],
            "resources": { "devices": [] }, "cgroupsPath": "/elsewhere" } }"#;

    fn adapted(owner: (u32, u32)) -> Value {
        let variables =
            ["A=1", "PATH=/usr/bin", "HOME=/home/x"].map(|text| text.as_bytes().to_vec());
        let program = Program {
            argv: &[b"echo".to_vec(), b"hi".to_vec()],
            variables: &variables,
            cwd: Some("/work"),
            binds: &["/run/script".to_owned()],
            owner,
        };
        let text = adapt(BUNDLE.as_bytes(), Path::new("/b"), &program).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn the_program_is_put_in_and_the_cgroup_left_alone() {
        let config = adapted((0, 0));
        assert_eq!(config["root"]["path"], "/b/rootfs");
        assert_eq!(config["process"]["args"], json!(["echo", "hi"]));
        assert_eq!(
            config["process"]["env"],
            json!(["A=1", "HOME=/home/x", "PATH=/bin", "TERM=xterm"])
        );
        assert_eq!(
            (&config["process"]["terminal"], &config["process"]["cwd"]),
            (&json!(false), &json!("/work"))
        );
        assert_eq!(
            (config["linux"].get("resources"), config["linux"].get("cgroupsPath")),
            (None, None)
        );
        assert_eq!(config["mounts"][2]["source"], "/run/script");
        assert_eq!(config["hostname"], "box", "the rest stays");
        assert_eq!(config["linux"]["namespaces"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_user_who_is_not_root_gets_a_namespace() {
        let config = adapted((1000, 100));
        let linux = &config["linux"];
        assert_eq!(linux["namespaces"], json!([{ "type": "pid" }, { "type": "user" }]));
        assert_eq!(linux["uidMappings"], json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]));
        assert_eq!(config["mounts"][0]["options"], json!(["newinstance"]));
        assert_eq!(config["mounts"][1]["source"], "/sys");
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let program = Program { argv: &[], variables: &[], cwd: None, binds: &[], owner: (0, 0) };
        for text in ["", "[]", "{}", r#"{"root":{"path":"x"},"process":7}"#] {
            assert!(adapt(text.as_bytes(), Path::new("/b"), &program).is_err(), "{text}");
        }
        let strange = Program { argv: &[vec![0xff]], ..program };
        assert!(adapt(BUNDLE.as_bytes(), Path::new("/b"), &strange).is_err());
    }
}
