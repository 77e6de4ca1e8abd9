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
        "record",
        "cron",
        "events",
    ]
    .map(|name| format!("penstock/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=penstock");
    let descriptors = protox::compile(&files, ["."])?;
    tonic_prost_build::configure().bytes(".penstock.v1").compile_fds(descriptors)?;
    Ok(())
}
