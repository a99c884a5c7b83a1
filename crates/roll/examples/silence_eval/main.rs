//! How well the watch notices, measured on simulated fleets whose truth is known.
//!
//! `cargo run -p rollcall-roll --release --example silence_eval` prints the tables of `docs/silence.md`.
#![allow(missing_docs)]

mod delays;
mod fleets;
mod world;

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    if only.is_empty() || only == "delays" {
        for seed in [1, 2, 3] {
            print_delays(seed);
        }
    }
    if only.is_empty() || only == "fleets" {
        fleets::run();
    }
}

fn print_delays(seed: u64) {
    let found = delays::run(seed);
    println!(
        "\nSeed {seed}: open minutes until noticed, median / 90th percentile (share missed within 24 open hours)\n"
    );
    println!("| scene | {} |", delays::METHODS.join(" | "));
    println!("|---|---|---|---|");
    for (scene, figures) in &found.rows {
        let cells: Vec<String> = figures
            .iter()
            .map(|(median, p90, missed)| format!("{median:.0} / {p90:.0} ({:.0} %)", missed * 100.0))
            .collect();
        println!("| {} | {} |", scene.name(), cells.join(" | "));
    }
    let nines: Vec<String> = found.thresholds.iter().map(|of| format!("{:.2}", of[0])).collect();
    println!(
        "\nour thresholds at 0.5 natural alarms per site-month, in nines: contact and tables {}",
        nines.join(", ")
    );
    println!("share of our natural alarms at the worst tenth of the sites: {:.0} %", found.worst_tenth * 100.0);
}
