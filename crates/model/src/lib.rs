//! Schema, rows, ids, limits and errors shared by all
