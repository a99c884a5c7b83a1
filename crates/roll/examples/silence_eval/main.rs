//! How well the watch notices, measured on simulated fleets whose truth is known.
//!
//! `cargo run -p rollcall-roll --release --example silence_eval` prints the tables of
//! `docs/silence.md`.
#![allow(missing_docs)]

mod baselines;
mod delays;
mod fleets;
mod hard;
mod incidents;
mod run;
mod world;

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    let is_wanted = |part: &str| only.is_empty() || only == part;
    if is_wanted("delays") {
        delays::print(&[1, 2, 3]);
    }
    if is_wanted("incidents") {
        incidents::run();
    }
    if only == "flapping" {
        incidents::flapping();
    }
    if is_wanted("hard") {
        hard::run();
    }
    if is_wanted("fleets") {
        fleets::run();
    }
    if is_wanted("calendar") {
        fleets::calendar();
    }
}
