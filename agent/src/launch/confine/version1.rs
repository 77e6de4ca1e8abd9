//! How does the devices controller of version 1 keep rules?
//!
//! A group begins with what its parent may, and `devices.deny` takes away. There a denial of a whole
//! major number cannot have exceptions: then the group is closed, and everything else opened again,
//! major by major.

use std::io;
use std::path::Path;

use super::{Rule, with_path};

/// Major numbers of character devices that the kernel has.
const MAJORS: u32 = 512;

/// Minor numbers that are opened again one by one beside a denied one.
const MINORS: u32 = 256;

/// What is written, and into which file.
type Line = (&'static str, String);

/// Holds the group in `dir` to `rules`.
///
/// # Errors
/// With the file that could not be written.
pub(crate) fn confine(dir: &Path, rules: &[Rule]) -> io::Result<()> {
    for (file, text) in lines(rules) {
        let path = dir.join(file);
        let opened = std::fs::OpenOptions::new().write(true).open(&path);
        let written = opened.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
        match written {
            // What the parent may not, its child cannot be given: nothing is lost by that.
            Err(error)
                if file == "devices.allow" && error.kind() == io::ErrorKind::PermissionDenied => {}
            written => written.map_err(|error| with_path(&path, error))?,
        }
    }
    Ok(())
}

fn lines(rules: &[Rule]) -> Vec<Line> {
    let letter = |rule: &Rule| if rule.block { 'b' } else { 'c' };
    let one = |rule: &Rule, minor: u32| format!("{} {}:{minor} rwm", letter(rule), rule.major);
    let denied = || rules.iter().filter(|rule| !rule.allow);
    if denied().all(|rule| rule.minor.is_some()) {
        let one = |rule: &Rule| Some(("devices.deny", one(rule, rule.minor?)));
        return denied().filter_map(one).collect();
    }
    let mut lines = vec![("devices.deny", "a".to_owned())];
    let mut allow = |text: String| lines.push(("devices.allow", text));
    allow("b *:* rwm".to_owned());
    for major in 0..MAJORS {
        let here = || rules.iter().filter(|rule| rule.major == major && !rule.block);
        let closed = here().any(|rule| !rule.allow && rule.minor.is_none());
        let single = here().any(|rule| !rule.allow);
        if closed {
            let own = here().filter(|rule| rule.allow);
            own.filter_map(|rule| Some(one(rule, rule.minor?))).for_each(&mut allow);
        } else if single {
            let taken = |minor: &u32| here().any(|r| !r.allow && r.minor == Some(*minor));
            let free = (0..MINORS).filter(|minor| !taken(minor));
            free.map(|minor| format!("c {major}:{minor} rwm")).for_each(&mut allow);
        } else {
            allow(format!("c {major}:* rwm"));
        }
    }
    let blocks = denied().filter(|rule| rule.block);
    lines.extend(blocks.filter_map(|rule| Some(("devices.deny", one(rule, rule.minor?)))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(major: u32, minor: Option<u32>, allow: bool) -> Rule {
        Rule { block: false, major, minor, allow }
    }

    #[test]
    fn single_devices_are_taken_away() {
        let rules = [rule(1, Some(5), true), rule(1, Some(7), false)];
        assert_eq!(lines(&rules), [("devices.deny", "c 1:7 rwm".to_owned())]);
        assert_eq!(lines(&rules[..1]), []);
    }

    #[test]
    fn a_closed_major_leaves_everything_else_open() {
        let rules = [rule(195, Some(3), true), rule(236, Some(1), false), rule(195, None, false)];
        let lines = lines(&rules);
        assert_eq!(lines[0], ("devices.deny", "a".to_owned()));
        let allows = |text: &str| lines.contains(&("devices.allow", text.to_owned()));
        assert!(allows("c 195:3 rwm") && allows("c 1:* rwm") && allows("c 236:0 rwm"));
        assert!(!allows("c 195:* rwm") && !allows("c 195:4 rwm") && !allows("c 236:1 rwm"));
    }
}
