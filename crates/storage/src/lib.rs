//! The one door to bytes: sealed objects, log and metadata
