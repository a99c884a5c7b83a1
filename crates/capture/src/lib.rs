//! Captures the changes of a SQLite database into a journal inside it, and reads that journal.
#![forbid(unsafe_code)]
