//! The server: Milvus's gRPC interface, health, metrics and key states over HTTP on one port, and the `saker` command.
//!
//! What it is for: clients of Milvus work unchanged against it. It is the only crate that knows Milvus's wire types:
//! [`wire`] translates and checks, [`rpc`] binds each RPC to the engine, [`rest`] puts everything on one router,
//! [`listen`] on one port, with or without TLS. [`cli`] is the command line.
//!
//! What it deliberately does not do: it holds no rows and no keys, and decides nothing about them; the engine does.
//! Logs carry names, ids and counts; never row data, vectors, filter text, tokens or keys.
//!
//! Start reading at [`rpc::Service`] for requests, at [`cli::run`] for the command.
#![forbid(unsafe_code)]

pub mod audit;
pub mod auth;
mod carried;
pub mod cli;
pub mod config;
mod console;
pub mod control;
mod evidence;
pub mod listen;
pub mod metrics;
pub mod node;
pub mod rest;
pub mod rpc;
pub mod running;
mod threads;
pub mod wire;
