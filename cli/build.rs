//! Links the release binary without position independence, and the unwinder into it.
//!
//! Every command is this one binary, started afresh; a position-independent one of its size spends
//! a millisecond of each start on some 86,000 relocations. What is lost is the randomised base
//! address of the executable itself; stack, heap and libraries stay randomised. Libc stays
//! dynamic, so that name services (LDAP, sssd) work.
//!
//! The unwinder is the compiler's own library, which every start would load and map for a tenth of a
//! millisecond. Where the compiler has no static one, it stays as it is.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if release && linux {
        println!("cargo:rustc-link-arg-bins=-no-pie");
        if let Some(folder) = static_unwinder() {
            println!("cargo:rustc-link-arg-bins=-L{}", folder.display());
        }
    }
}

/// A folder where the linker finds, by the name of the shared unwinder, the static one.
fn static_unwinder() -> Option<PathBuf> {
    let variable = |name| std::env::var(name).ok();
    let native = variable("TARGET") == variable("HOST");
    if !native || variable("CARGO_CFG_TARGET_ENV").as_deref() != Some("gnu") {
        return None;
    }
    // The linker that cargo is configured with, or else rustc's own choice; one that is no compiler
    // does not understand the question.
    let linker = variable("RUSTC_LINKER").unwrap_or_else(|| "cc".to_owned());
    let file = |name: &str| {
        let said = Command::new(&linker).arg(format!("-print-file-name={name}")).output().ok()?;
        let path = PathBuf::from(String::from_utf8(said.stdout).ok()?.trim());
        // A name that the compiler does not know comes back as it is.
        path.is_absolute().then_some(path)
    };
    let (unwinder, helpers) = (file("libgcc_eh.a")?, file("libgcc.a")?);
    let folder = PathBuf::from(variable("OUT_DIR")?).join("unwinder");
    std::fs::create_dir_all(&folder).ok()?;
    let script = format!("INPUT(\"{}\" \"{}\")\n", unwinder.display(), helpers.display());
    std::fs::write(folder.join("libgcc_s.so"), script).ok()?;
    Some(folder)
}
