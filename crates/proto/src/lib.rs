//! Generated Milvus wire types and service
