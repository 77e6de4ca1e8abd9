//! Compiles the wire contract in pure Rust, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "accounts",
        "accounting",
        "job",
        "node",
        "planning",
        "service",
        "agent",
        "step",
        "web",
        "cron",
        "events",
        "record",
        "usage",
    ]
    .map(|name| format!("penstock/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=penstock");
    let descriptors = protox::compile(&files, ["."])?;
    // In nearly every message of a job there is one of these, and most are empty.
    let large = ".penstock.v1.Usage.tasks";
    tonic_prost_build::configure().bytes(".penstock.v1").boxed(large).compile_fds(descriptors)?;
    Ok(())
}
