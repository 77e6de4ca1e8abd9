//! How are hostlists expanded and compressed for scripts?

use penstock_vocab::{compress_keep_order, expand};

use crate::errors::error;
use crate::output::{note, print_line, write_bytes};

use super::FAILED;

/// `show hostnames [LIST]`: one name a line; inside a job its nodes when no list is given.
pub(super) fn names(program: &str, list: Option<&str>) -> i32 {
    let of_job =
        || std::env::var("SLURM_JOB_NODELIST").or_else(|_| std::env::var("SLURM_NODELIST"));
    let list = match list {
        Some(list) => list.to_owned(),
        None => of_job().unwrap_or_default(),
    };
    if list.is_empty() {
        error(program, "host list is empty");
        return 0;
    }
    match expand(&list) {
        Ok(names) => {
            let lines: String = names.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
            write_bytes(lines.as_bytes());
        }
        // Slurm exits with 0 here, and scripts look at the lines.
        Err(_) => note(&format!("Invalid hostlist: {list}")),
    }
    0
}

/// `show hostlist LIST` and `hostlistsorted`: names or a file of names, compressed.
pub(super) fn list(list: Option<&str>, sorted: bool) -> i32 {
    let Some(text) = list.map(read_list) else {
        note("invalid encode argument");
        return FAILED;
    };
    let text = match text {
        Ok(text) => text,
        Err(problem) => {
            note(&problem);
            return FAILED;
        }
    };
    match expand(&text) {
        Ok(names) => print_line(&compressed(names, sorted)),
        Err(_) => note(&format!("Invalid hostlist: {text}")),
    }
    0
}

/// A list as given, or the file that it names by an absolute path.
fn read_list(list: &str) -> Result<String, String> {
    if !list.starts_with('/') {
        return Ok(list.to_owned());
    }
    let text = std::fs::read_to_string(list);
    text.map_err(|problem| format!("Unable to open {list}: {problem}"))
}

fn compressed(mut names: Vec<String>, sorted: bool) -> String {
    if sorted {
        names.sort_by_cached_key(|name| {
            let digits = name.bytes().rev().take(18).take_while(u8::is_ascii_digit).count();
            let (head, number) = name.split_at(name.len() - digits);
            (head.to_owned(), number.parse::<u64>().unwrap_or(0), digits)
        });
    }
    compress_keep_order(names.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_or_are_sorted() {
        let names = expand("n3,n1,n2,n2").expect("valid");
        assert_eq!(compressed(names.clone(), false), "n[3,1-2,2]");
        assert_eq!(compressed(names, true), "n[1-2,2-3]");
        let names = expand("b10,b9,a1").expect("valid");
        assert_eq!(compressed(names, true), "a1,b[9-10]");
    }

    #[test]
    fn a_path_names_a_file_of_hosts() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), "n1\nn2\n").expect("written");
        let text = read_list(file.path().to_str().expect("plain path")).expect("readable");
        assert_eq!(expand(&text).expect("valid"), ["n1", "n2"]);
        assert!(read_list("/no/such/file").is_err());
    }
}
