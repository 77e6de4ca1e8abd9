//! Which program does each task run under `--multi-prog`?
//!
//! A line of the file is `RANKS PROGRAM ARGUMENTS`: ranks are `0-2,5` or `*` for all that no line
//! before it names; `%t` in an argument is the task's number and `%o` its place among the line's
//! ranks. `#` begins a comment, and a backslash at the end goes on in the next line.

use penstock_proto::v1::step_frame::Program;

/// Largest file.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Most tasks that a rank may be of.
const MAX_TASKS: u32 = 1 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    number: usize,
    /// Inclusive runs; `None`: all others.
    ranks: Option<Vec<(u32, u32)>>,
    words: Vec<String>,
}

/// Whether the file can be used; with the number of tasks, where it is known.
///
/// # Errors
/// With the lines to print.
pub(super) fn check(path: &str, ntasks: Option<u32>) -> Result<(), Vec<String>> {
    let lines = load(path)?;
    match ntasks {
        Some(ntasks) => assign(path, &lines, ntasks).map(|_| ()),
        None => Ok(()),
    }
}

/// What each of `ntasks` tasks runs.
///
/// # Errors
/// With the lines to print.
pub(super) fn programs(path: &str, ntasks: u32) -> Result<Vec<Program>, Vec<String>> {
    assign(path, &load(path)?, ntasks)
}

fn load(path: &str) -> Result<Vec<Line>, Vec<String>> {
    let unreadable = || vec![format!("Could not open multi_prog config file {path}")];
    let size = std::fs::metadata(path).map_err(|_| unreadable())?.len();
    if size > MAX_FILE_BYTES {
        return Err(vec![format!(
            "multi_prog config file {path} has {size} bytes, {MAX_FILE_BYTES} are allowed"
        )]);
    }
    let text = std::fs::read_to_string(path).map_err(|_| unreadable())?;
    parse(path, &text)
}

fn parse(path: &str, text: &str) -> Result<Vec<Line>, Vec<String>> {
    let mut lines = Vec::new();
    let mut whole = String::new();
    let mut begun = 0;
    for (index, line) in text.lines().enumerate() {
        if whole.is_empty() {
            begun = index + 1;
        }
        if let Some(open) = line.strip_suffix('\\') {
            whole.push_str(open);
            whole.push(' ');
            continue;
        }
        whole.push_str(line);
        let taken = std::mem::take(&mut whole);
        let mut words = split(&taken).into_iter();
        let Some(ranks) = words.next() else { continue };
        let invalid = || vec![format!("Line {begun} of configuration file {path} invalid")];
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            return Err(invalid());
        }
        let ranks = if ranks == "*" { None } else { Some(runs(&ranks).ok_or_else(invalid)?) };
        lines.push(Line { number: begun, ranks, words });
    }
    Ok(lines)
}

/// `0-2,5`.
fn runs(text: &str) -> Option<Vec<(u32, u32)>> {
    let run = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (u32, u32) = (low.parse().ok()?, high.parse().ok()?);
        (low <= high && high < MAX_TASKS).then_some((low, high))
    };
    text.split(',').map(run).collect()
}

/// Words between blanks; quotes keep blanks, and `#` begins a comment.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match quote {
            Some(open) if open == letter => quote = None,
            Some(_) => word.get_or_insert_default().push(letter),
            None if letter == '#' && word.is_none() => break,
            None if matches!(letter, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

fn assign(path: &str, lines: &[Line], ntasks: u32) -> Result<Vec<Program>, Vec<String>> {
    let mut programs: Vec<Option<Program>> = vec![None; usize::try_from(ntasks).unwrap_or(0)];
    for line in lines {
        let all = [(0, ntasks.saturating_sub(1))];
        let mut offset = 0_u32;
        for (low, high) in line.ranks.as_deref().unwrap_or(&all) {
            for task in *low..=*high {
                if task >= ntasks {
                    return Err(vec![
                        format!("Invalid task id, {task} >= ntasks"),
                        format!("Line {} of configuration file {path} invalid", line.number),
                    ]);
                }
                let index = usize::try_from(task).unwrap_or(usize::MAX);
                if let Some(place @ None) = programs.get_mut(index) {
                    *place = Some(program(line, task, offset));
                }
                offset += 1;
            }
        }
    }
    let missing = (0_u32..).zip(&programs).find(|(_, program)| program.is_none());
    if let Some((task, _)) = missing {
        return Err(vec![format!(
            "Configuration file {path} invalid, no record for task id {task}"
        )]);
    }
    Ok(programs.into_iter().flatten().collect())
}

fn program(line: &Line, task: u32, offset: u32) -> Program {
    let mut words = line.words.iter();
    let name = words.next().cloned().unwrap_or_default();
    let argument =
        |word: &String| word.replace("%t", &task.to_string()).replace("%o", &offset.to_string());
    let argv = std::iter::once(name).chain(words.map(argument));
    Program { task, argv: argv.map(|word| word.into_bytes().into()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, ntasks: u32) -> Result<Vec<String>, String> {
        let lines = parse("f", text).map_err(|lines| lines.join("\n"))?;
        let programs = assign("f", &lines, ntasks).map_err(|lines| lines.join("\n"))?;
        let line = |program: &Program| {
            let words: Vec<String> = program
                .argv
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            format!("{} {}", program.task, words.join("|"))
        };
        Ok(programs.iter().map(line).collect())
    }

    #[test]
    fn lines_give_programs() {
        let text = "# all of it\n\n0 echo task %t %o\n1-2 echo 'a b' %t:%o # comment\n";
        assert_eq!(
            told(text, 3).expect("valid"),
            ["0 echo|task|0|0", "1 echo|a b|1:0", "2 echo|a b|2:1"]
        );
        let rest = "0 a\n* b %t:%o\n";
        assert_eq!(told(rest, 3).expect("valid"), ["0 a", "1 b|1:1", "2 b|2:2"]);
        assert_eq!(told("0,2 a %o\\\n x\n1 b\n", 3).expect("valid")[2], "2 a|1|x");
    }

    #[test]
    fn mistakes_are_told_as_slurm_tells_them() {
        let text = "0 a\n1-2 b\n";
        assert_eq!(
            told(text, 2),
            Err("Invalid task id, 2 >= ntasks\nLine 2 of configuration file f invalid".into())
        );
        assert_eq!(
            told(text, 4),
            Err("Configuration file f invalid, no record for task id 3".into())
        );
        for wrong in ["x a", "0", "2-1 a", "0-99999999 a"] {
            assert_eq!(told(wrong, 1), Err("Line 1 of configuration file f invalid".into()));
        }
        let missing = check("/no/such/file", None).expect_err("missing");
        assert_eq!(missing, ["Could not open multi_prog config file /no/such/file"]);
    }
}
