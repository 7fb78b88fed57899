//! Milvus's wire types and gRPC service, generated at build time from the published interface files.
//!
//! It holds no behaviour: which RPCs are answered, and how, is the server's business. Only the server knows these types;
//! everything below it speaks `saker-model`.
//!
//! Start at [`milvus::milvus_service_server::MilvusService`]. Every method of that trait has a default body that answers
//! UNIMPLEMENTED and names the RPC, so a server writes only the ones it has. `bytes` fields are [`bytes::Bytes`]: slices
//! of the message as received, so keeping one alive keeps its whole message alive.

mod floats;

macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $package:literal $(, $more:item)?) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            unreachable_pub,
            unused_qualifications,
            clippy::all,
            clippy::allow_attributes_without_reason,
            clippy::wildcard_enum_match_arm,
            clippy::large_futures,
            rustdoc::all,
            reason = "generated code"
        )]
        pub mod $name {
            tonic::include_proto!($package);
            $($more)?
        }
    };
}

generated!(
    /// Package `milvus.proto.common`: status, error codes, placeholder groups, message headers.
    common,
    "milvus.proto.common"
);
generated!(
    /// Package `milvus.proto.schema`: collection schemas, field data, search results.
    schema,
    "milvus.proto.schema",
    pub use crate::floats::FloatArray;
);
generated!(
    /// Package `milvus.proto.milvus`: the requests, the responses and the service.
    milvus,
    "milvus.proto.milvus"
);
generated!(
    /// Package `milvus.proto.msg`: log messages, as replication sends them.
    msg,
    "milvus.proto.msg"
);
generated!(
    /// Package `milvus.proto.feder`: index sampling for a visualiser.
    feder,
    "milvus.proto.feder"
);
generated!(
    /// Package `milvus.proto.rg`: resource groups.
    rg,
    "milvus.proto.rg"
);

/// The interface files and what they import as an encoded `google.protobuf.FileDescriptorSet`, as server reflection
/// wants it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Names of all RPCs of `MilvusService`, in the order of the interface file.
pub const MILVUS_RPCS: &[&str] = include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));

#[cfg(test)]
mod tests;
