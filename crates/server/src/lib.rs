//! Milvus gRPC, REST, auth, metrics and the saker binary
