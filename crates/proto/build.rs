//! Compiles the `.proto` files without `protoc`.

use std::error::Error;

const FILES: [&str; 12] = [
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
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        // Maps are hashed and compared: their order must not change from run to run.
        .btree_map(".")
        .bytes(".fsutil.types.Packet.data")
        .compile_fds(descriptors)?;
    Ok(())
}
