//! Links the release binary without position independence.
//!
//! Every command is this one binary, started afresh; a position-independent one of its size spends
//! a millisecond of each start on some 86,000 relocations. What is lost is the randomised base
//! address of the executable itself; stack, heap and libraries stay randomised. Libc stays
//! dynamic, so that name services (LDAP, sssd) work.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if release && linux {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
