//! Does quickstart work where its folder is odd, and does it leave foreign files alone?

use std::fs;
use std::path::PathBuf;

use crate::harness::Home;

/// Where the cluster's file says the controller's socket is.
fn socket(home: &Home) -> PathBuf {
    let text = fs::read_to_string(home.dir().join("cluster.toml")).expect("there");
    let line = text.lines().find(|line| line.starts_with("socket = ")).expect("a socket");
    PathBuf::from(line.trim_start_matches("socket = ").trim_matches(['"', '\'']))
}

#[test]
fn a_folder_too_long_for_sockets_has_them_elsewhere() {
    let home = Home::named(&format!("{}/{}", "l".repeat(80), "o".repeat(80)));
    home.quickstart("--nodes 2 --detach").ok();
    let sockets = socket(&home).parent().expect("a folder").to_owned();
    assert!(sockets.starts_with("/tmp") && socket(&home).exists(), "{}", sockets.display());
    let id = home.submit("-W -o out --export=NONE", "squeue -h -o %i; sinfo -h -o %D");
    assert_eq!(home.read("out"), format!("{id}\n2\n"));
    home.quickstart("--stop").ok();
    assert!(!sockets.exists(), "{}", sockets.display());
    home.assert_nothing_left();
    home.quickstart("--exit").ok().shows(&["Submitted batch job 2", "COMPLETED"]);
    assert!(!socket(&home).parent().expect("a folder").exists());
}

#[test]
fn a_folder_with_blanks_and_quotes_is_quoted() {
    let home = Home::named("it's a $(folder)");
    let script = "eval \"$(\"$penstock\" quickstart --detach --dir \"$dir\")\"
        sbatch -W -o out --wrap 'command -v squeue; squeue -h -o %i'
        penstock quickstart --stop --dir \"$dir\" >/dev/null";
    home.sh(script).ok();
    assert_eq!(home.read("out"), format!("{}/bin/squeue\n1\n", home.dir().display()));
    home.assert_nothing_left();
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let home = Home::new();
    fs::create_dir(home.dir()).expect("new");
    fs::write(home.dir().join("thesis.tex"), "precious").expect("ours");
    for words in ["--exit", "--stop", "--status", "--detach"] {
        let ran = home.quickstart(words).run();
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran}");
        ran.says("quickstart: error: cannot use the folder ");
    }
    assert_eq!(fs::read_dir(home.dir()).expect("there").count(), 1);
}
