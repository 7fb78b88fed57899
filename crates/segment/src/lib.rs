//! Columns, indexes and deletes as sealed files; growing and sealed segments
