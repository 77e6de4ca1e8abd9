//! How do the cluster's node names resolve inside a job, on a machine that does not know them?
//!
//! By an `/etc/hosts` of the job's own: a mount namespace in which a file with the names is bound
//! over the machine's. Root may simply do that; others need a user namespace, in which they stay
//! who they are.

use std::fs;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use penstock_proto::v1;

/// The file to replace.
const HOSTS: &str = "/etc/hosts";
/// The replacement, in the current folder.
const OWN: &str = "hosts";

/// Gives this process, and what it starts, a private `/etc/hosts` in which `hosts` resolve.
///
/// # Errors
/// With a line for the agent's log; the process goes on as it was, with the machine's names.
pub(super) fn make_private(hosts: &[v1::HostAddress]) -> Result<(), String> {
    let no = |what: &str, error: &dyn std::fmt::Display| {
        format!("node names do not resolve inside jobs: {what}: {error}")
    };
    let old = fs::read_to_string(HOSTS).map_err(|error| no(HOSTS, &error))?;
    fs::write(OWN, merged(&old, hosts)).map_err(|error| no("the spool", &error))?;
    let root = Uid::effective().is_root();
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let spaces = if root {
        CloneFlags::CLONE_NEWNS
    } else {
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER
    };
    unshare(spaces).map_err(|error| no("no namespace can be made", &error))?;
    if !root {
        let map = |file: &str, text: String| {
            let path = format!("/proc/self/{file}");
            fs::write(path, text).map_err(|error| no(file, &error))
        };
        map("setgroups", "deny".to_owned())?;
        map("uid_map", format!("{uid} {uid} 1"))?;
        map("gid_map", format!("{gid} {gid} 1"))?;
    }
    let none: Option<&str> = None;
    // What the machine mounts later still appears here, what is mounted here stays here.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(|error| no("mounts cannot be made private", &error))?;
    mount(Some(OWN), HOSTS, none, MsFlags::MS_BIND, none)
        .map_err(|error| no("the file cannot be mounted", &error))
}

/// The machine's lines without the names that `hosts` define, then those.
fn merged(old: &str, hosts: &[v1::HostAddress]) -> String {
    let ours = |name: &str| hosts.iter().any(|host| host.name == name);
    let mut text = String::with_capacity(old.len() + hosts.len() * 32);
    for line in old.lines() {
        let (entry, comment) = line.split_once('#').map_or((line, None), |(e, c)| (e, Some(c)));
        let mut words = entry.split_ascii_whitespace();
        let address = words.next();
        let names: Vec<&str> = words.clone().filter(|name| !ours(name)).collect();
        let untouched = names.len() == words.count();
        match address {
            _ if untouched => text.push_str(line),
            Some(address) if !names.is_empty() => {
                text.push_str(&format!("{address} {}", names.join(" ")));
                text.push_str(&comment.map_or_else(String::new, |c| format!(" #{c}")));
            }
            _ => continue,
        }
        text.push('\n');
    }
    for host in hosts.iter().filter(|host| is_word(&host.name) && is_word(&host.address)) {
        text.push_str(&format!("{} {}\n", host.address, host.name));
    }
    text
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(pairs: &[(&str, &str)]) -> Vec<v1::HostAddress> {
        let host = |&(name, address): &(&str, &str)| v1::HostAddress {
            name: name.to_owned(),
            address: address.to_owned(),
        };
        pairs.iter().map(host).collect()
    }

    #[test]
    fn our_names_replace_the_machines_and_the_rest_stays() {
        let old = "# top\n127.0.0.1\tlocalhost\n10.0.0.1 n1\n10.0.0.2 n2 big # disk\n\n::1 ip6";
        let new = merged(old, &hosts(&[("n1", "127.0.0.2"), ("n2", "127.0.0.3")]));
        assert_eq!(
            new,
            "# top\n127.0.0.1\tlocalhost\n10.0.0.2 big # disk\n\n::1 ip6\n127.0.0.2 n1\n127.0.0.3 n2\n"
        );
    }

    #[test]
    fn a_name_cannot_smuggle_lines_in() {
        let new = merged("", &hosts(&[("a\n6.6.6.6 bank", "1.1.1.1"), ("", "1.1.1.1")]));
        assert_eq!(new, "");
    }
}
