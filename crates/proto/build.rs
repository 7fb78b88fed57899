//! Compiles Milvus's interface files to Rust.
//!
//! The files belong to the crate `milvus-sdk-rust`, which `interface/Cargo.toml` names and `interface/Cargo.lock` pins.
//! Cargo fetches and verifies that crate; this script only asks where it lies (`cargo metadata`) and never compiles it.
//! `SAKER_MILVUS_PROTO_DIR` names a folder with the same files instead, for builds from vendored sources.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use prost::Message as _;
use tonic_prost_build::FileDescriptorSet;

type Error = Box<dyn std::error::Error>;

/// What tonic writes as the body of a method that a server leaves out.
const DEFAULT_STUB: &str = r#"Err(tonic::Status::unimplemented("Not yet implemented"))"#;
const ENTRY_FILES: [&str; 3] = ["common.proto", "schema.proto", "milvus.proto"];
const OVERRIDE_VARIABLE: &str = "SAKER_MILVUS_PROTO_DIR";

fn main() -> ExitCode {
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), Error> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=interface/Cargo.toml");
    println!("cargo::rerun-if-changed=interface/Cargo.lock");
    println!("cargo::rerun-if-env-changed={OVERRIDE_VARIABLE}");

    let proto_dir = match env::var_os(OVERRIDE_VARIABLE) {
        Some(dir) => PathBuf::from(dir),
        None => fetched_proto_dir()?,
    };
    println!("cargo::rerun-if-changed={}", proto_dir.display());

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(ENTRY_FILES, [&proto_dir])?;
    fs_write(&out_dir.join("descriptors.bin"), &descriptors.encode_to_vec())?;

    let service_file = out_dir.join("milvus.proto.milvus.rs");
    let rpcs = method_names(&descriptors, "milvus.proto.milvus");
    tonic_prost_build::configure()
        // Milvus has an RPC named Connect; tonic's transport adds a constructor of the same name.
        .build_transport(false)
        .generate_default_stubs(true)
        // Placeholder groups, JSON values and packed vectors stay slices of the received message.
        .bytes(".")
        // Decoded in one piece; see `floats`.
        .extern_path(".milvus.proto.schema.FloatArray", "crate::floats::FloatArray")
        .compile_fds(descriptors.clone())?;
    name_the_stubs(&service_file, &rpcs)?;

    let milvus_rpcs: Vec<&str> = rpcs
        .iter()
        .filter(|(service, _)| service == "MilvusService")
        .map(|(_, method)| method.as_str())
        .collect();
    fs_write(&out_dir.join("rpcs.rs"), format!("&{milvus_rpcs:?}").as_bytes())
}

/// Asks Cargo for the folder of the pinned crate, which Cargo fetches first if it is not there yet.
fn fetched_proto_dir() -> Result<PathBuf, Error> {
    let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("interface/Cargo.toml");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        &env::var("HOST")?,
    ]);
    command.arg("--manifest-path").arg(&manifest);
    // These belong to the build that runs this script, not to a question about another manifest.
    for variable in [
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
    ] {
        command.env_remove(variable);
    }
    let output = command
        .output()
        .map_err(|error| format!("cargo metadata did not start: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the Milvus interface files could not be fetched: run `cargo fetch --locked --manifest-path {}` once with a \
             package registry in reach, or set {OVERRIDE_VARIABLE} to a folder that holds milvus.proto and the files \
             it imports\n{}",
            manifest.display(),
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "milvus-sdk-rust")
        .and_then(|package| Path::new(package["manifest_path"].as_str()?).parent())
        .map(|root| root.join("milvus-proto/proto"))
        .ok_or_else(|| format!("{} does not depend on milvus-sdk-rust", manifest.display()).into())
}

/// Service and method names of one package, in the order in which tonic generates them.
fn method_names(descriptors: &FileDescriptorSet, package: &str) -> Vec<(String, String)> {
    let files = descriptors.file.iter().filter(|file| file.package() == package);
    files
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            service
                .method
                .iter()
                .map(|method| (service.name().to_owned(), method.name().to_owned()))
        })
        .collect()
}

/// Makes each default stub say which RPC it stands for, since tonic's own message is the same for all.
fn name_the_stubs(service_file: &Path, rpcs: &[(String, String)]) -> Result<(), Error> {
    let generated = fs::read_to_string(service_file)?;
    let pieces: Vec<&str> = generated.split(DEFAULT_STUB).collect();
    if pieces.len() != rpcs.len() + 1 {
        return Err(format!("found {} default stubs for {} RPCs", pieces.len() - 1, rpcs.len()).into());
    }
    let mut named = pieces[0].to_owned();
    for ((_, method), rest) in rpcs.iter().zip(&pieces[1..]) {
        named += &format!(r#"Err(tonic::Status::unimplemented("{method} is not implemented by this server"))"#);
        named += rest;
    }
    fs_write(service_file, named.as_bytes())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a build script writes generated code, no data at rest"
)]
fn fs_write(path: &Path, content: &[u8]) -> Result<(), Error> {
    fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()).into())
}
