//! The tutorial does what it says: its commands are run, one after the other, by a shell.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    docs::blocks,
    support::{binary, free_address},
};

#[test]
fn the_tutorial_does_what_it_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let page = Path::new("../../docs/tutorial.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (sites, http, pg) = (free_address(), free_address(), free_address());
    // Others have the usual ports while tests run.
    let script = blocks(&page, "sh").concat().replace("127.0.0.1:7400", &sites.to_string());
    assert!(script.matches("rollcall").count() > 20, "{script}");
    let programs = binary("rollcall").parent().expect("a folder").to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let ran = Command::new("timeout")
        .args(["240", "bash", "-eu", "-c", &script])
        .current_dir(directory.path())
        .env("PATH", path)
        .env("ROLLCALL_LISTEN_SITES", sites.to_string())
        .env("ROLLCALL_LISTEN_HTTP", http.to_string())
        .env("ROLLCALL_LISTEN_PG", pg.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}");
    // What the page shows is what is said.
    for part in [
        "2 added, 0 changed, 0 unchanged",
        "time zone told by country or state: berlin-01, munich-01",
        "2 of 3 can be captured; `--tables all` takes these",
        "berlin-01: Current",
        "| berlin-01 | 15.00    |",
        "| 3     | 29.00    |",
        "2 sites, 2 missing: 1 never-heard, 1 silent",
        "berlin-01: A person must act",
        "whom to call: HQ help desk, +49 30 555 0199",
        "| 4     |",
        "it was read and counted",
        "stopped",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
