//! The demo: what a newcomer sees first.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::binary;

/// Starts the demo, and interrupts it after a while; what it printed.
fn interrupted_after(time: Duration) -> String {
    let mut command = Command::new(binary("rollcall"));
    command.args(["demo", "--plain"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let demo = command.spawn().expect("runs");
    std::thread::sleep(time);
    let asked = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().expect("kill");
    assert!(asked.success(), "it ran until it was interrupted");
    let begun = Instant::now();
    let output = demo.wait_with_output().expect("ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !said.contains("panicked"), "after {time:?}: {said}");
    assert!(begun.elapsed() < Duration::from_secs(60), "it ended soon: {said}");
    assert!(said.contains("everything the demo wrote is removed"), "{said}");
    said
}

#[test]
fn the_demo_ends_cleanly_whenever_it_is_interrupted() {
    for tenths in [3, 9, 17, 40, 160] {
        interrupted_after(Duration::from_millis(tenths * 100));
    }
}

#[test]
fn the_demo_tells_its_whole_story() {
    let mut command = Command::new(binary("rollcall"));
    let output = command.args(["demo", "--plain", "--once"]).output().expect("runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    for part in [
        "tacoma-01: not heard since",
        "tacoma-01 silent, complete through",
        "Nobody is called about that",
        "Caught up",
        "calls went meanwhile",
        "Proof: newyork-01 has",
        "That was the story",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut sales = said.lines().filter(|line| line.starts_with("Proof") || line.contains("Proof: "));
    let numbers: Vec<&str> = sales
        .next()
        .expect("proof")
        .split_whitespace()
        .filter(|word| word.trim_end_matches('.').parse::<u64>().is_ok())
        .collect();
    assert_eq!(numbers.len(), 2, "{said}");
    assert_eq!(numbers[0], numbers[1].trim_end_matches('.'));
}
