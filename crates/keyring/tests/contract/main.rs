//! The crate's contract: what was sealed comes back, and whatever was done to it in between is refused.
//!
//! Start at `fixtures`, then `files`. `golden` opens files that older builds sealed; `by_the_book` reads them with
//! nothing but the tables of `docs/formats.md`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod by_the_book;
mod files;
mod fixtures;
mod golden;
mod locking;
mod logs;
mod rewrap;
mod secrets;
mod values;
