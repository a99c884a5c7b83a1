//! Capture against real SQLite files, with the SQLite command-line shell as the store's own program.

mod handles;
mod incoming;
mod manifest;
mod model;
mod random;
mod shared;
mod store;
