//! SQL over the lake: current rows, history, Rollcall's own tables, and the coverage of an answer.
#![forbid(unsafe_code)]
