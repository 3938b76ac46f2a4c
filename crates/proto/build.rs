//! Compiles the `.proto` files without `protoc`.

use std::error::Error;

use prost::Message as _;

const FILES: [&str; 13] = [
    "proto/content.proto",
    "proto/ops.proto",
    "proto/control.proto",
    "proto/gateway.proto",
    "proto/fsutil.proto",
    "proto/session.proto",
    "proto/secrets.proto",
    "proto/ssh.proto",
    "proto/upload.proto",
    "proto/errdefs.proto",
    "proto/verifier.proto",
    "proto/exporter.proto",
    "proto/otlp_collector.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo gives no OUT_DIR")?;
    std::fs::write(std::path::Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Maps are hashed and compared: their order must not change from run to run.
        .btree_map(".")
        .bytes(".fsutil.types.Packet.data")
        .compile_fds(descriptors)?;
    Ok(())
}
