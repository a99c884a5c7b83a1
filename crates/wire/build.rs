//! Compiles the protocol with a protobuf compiler written in Rust: no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/rollcall.proto");
    let descriptors = protox::compile(["rollcall.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::SmallBuffers").compile_fds(descriptors)?;
    Ok(())
}
