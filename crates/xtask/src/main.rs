//! `cargo xtask check`: everything a change must pass, fast checks first. `.ci/run` does the same.
//!
//! It has no dependencies, so that it is built within seconds.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod tidy;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::Instant,
};

/// A check: its name, the tool that it needs with the way to get it, and its command.
struct Stage {
    name: &'static str,
    tool: Option<(&'static str, &'static str)>,
    environment: &'static [(&'static str, &'static str)],
    command: &'static [&'static str],
}

const fn stage(name: &'static str, command: &'static [&'static str]) -> Stage {
    Stage { name, tool: None, environment: &[], command }
}

/// What is run after `tidy`, in order. The last one is the README's second command.
const STAGES: &[Stage] = &[
    stage("fmt", &["cargo", "fmt", "--all", "--check"]),
    Stage {
        tool: Some(("shellcheck", "apt-get install shellcheck")),
        ..stage(
            "shellcheck",
            &[
                "bash",
                "-c",
                "shellcheck -x .ci/run .ci/fuzz packaging/build-deb packaging/try-deb packaging/debian/*/postinst",
            ],
        )
    },
    Stage {
        tool: Some(("cargo-deny", "cargo install --locked cargo-deny")),
        ..stage("deny", &["cargo", "deny", "--log-level", "error", "check", "bans", "licenses", "sources"])
    },
    stage("clippy", &["cargo", "clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    Stage {
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        ..stage("doc", &["cargo", "doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"])
    },
    stage("test", &["cargo", "test", "--workspace"]),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (task, only): (Option<String>, Vec<String>) = (arguments.next(), arguments.collect());
    if task.as_deref() != Some("check") {
        let names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        eprintln!("usage: cargo xtask check [STAGE …]; stages: tidy {}", names.join(" "));
        return ExitCode::from(2);
    }
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    if is_wanted("tidy") {
        let faults = tidy::check(&root());
        faults.iter().for_each(|fault| eprintln!("{fault}"));
        if !faults.is_empty() {
            eprintln!("tidy: {} faults", faults.len());
            return ExitCode::FAILURE;
        }
        println!("tidy: ok");
    }
    for stage in STAGES.iter().filter(|stage| is_wanted(stage.name)) {
        if !run(stage) {
            eprintln!("{}: FAILED; again by itself: cargo xtask check {}", stage.name, stage.name);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(stage: &Stage) -> bool {
    if let Some((tool, way)) = stage.tool.filter(|(tool, _)| !is_installed(tool)) {
        eprintln!("{} is missing: {way}", tool);
        return false;
    }
    let [program, arguments @ ..] = stage.command else { return false };
    let began = Instant::now();
    let ran =
        Command::new(program).args(arguments).envs(stage.environment.iter().copied()).current_dir(root()).status();
    let is_fine = ran.is_ok_and(|status| status.success());
    if is_fine {
        println!("{}: ok, {} s", stage.name, began.elapsed().as_secs());
    }
    is_fine
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

/// The project's folder: of the checkout that asks, also where several share what cargo built.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("crates/xtask"), PathBuf::from);
    here.join("../..")
}
