//! Installed as a service: units that systemd takes, and a watchdog that hears of work.

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::support::{Hq, Process, Store, binary, free_address, wait_for};

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')";

fn project() -> PathBuf {
    std::env::current_dir().expect("there").join("../..")
}

/// Has systemd look at a unit; what it said.
fn verify(unit: &Path) -> String {
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg(unit)
        .output()
        .expect("systemd-analyze is needed: install systemd");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // The program is not where a package puts it, and a machine without systemd has no such
    // targets.
    let about = |line: &&str| {
        line.contains(&*unit.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()))
    };
    said.lines()
        .filter(about)
        .filter(|line| {
            !line.contains("is not executable") && !line.contains("Command 'man") && !line.contains("not found")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// How exposed a unit is, 0 to 10.
fn exposure(unit: &Path) -> f64 {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(unit)
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default().to_owned();
    let number = line.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    number.unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_units_are_taken_and_give_little_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let of_hq = project().join("packaging/systemd/rollcall-hq.service");
    assert_eq!(verify(&of_hq), "");
    assert!(exposure(&of_hq) < 2.0, "{}", exposure(&of_hq));
    let store = Store::new(directory.path(), "berlin-01", SCHEMA);
    let (units, config) = (directory.path().join("units"), directory.path().join("config"));
    let install = || {
        let mut command = store.agent_command(&["install", "--no-start"]);
        command.arg("--unit-dir").arg(&units).arg("--config-dir").arg(&config).output().expect("runs")
    };
    let early = install();
    assert!(String::from_utf8_lossy(&early.stderr).contains("has not joined"), "{early:?}");
    store.join(hq.sites, &hq.invite("berlin-01"), "t");
    let installed = install();
    assert!(installed.status.success(), "{installed:?}");
    let unit = units.join("rollcall-site-berlin-01.service");
    assert_eq!(verify(&unit), "");
    assert!(exposure(&unit) < 3.0, "{}", exposure(&unit));
    let text = std::fs::read_to_string(&unit).expect("written");
    assert!(!text.contains('@') || text.contains("@system-service"), "{text}");
    assert!(text.contains("User=") && text.contains(&*directory.path().to_string_lossy()), "{text}");
    // What a person changed stays.
    let options = config.join("site-berlin-01.env");
    std::fs::write(&options, "ROLLCALL_DB=elsewhere\n").expect("writes");
    assert!(install().status.success());
    assert_eq!(std::fs::read_to_string(&options).expect("there"), "ROLLCALL_DB=elsewhere\n");
}

/// What a service says to whoever started it.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        let socket = UnixDatagram::bind(&path).expect("binds");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("sets");
        Self { socket, path }
    }

    fn hears(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "2000000");
    }

    fn next(&self) -> Option<String> {
        let mut text = [0; 256];
        let length = self.socket.recv(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..length]).into_owned())
    }

    /// Waits until it hears this.
    fn until(&self, what: &str) {
        wait_for(what, || (self.next()? == what).then_some(()));
    }
}

#[test]
fn the_watchdog_hears_of_work_and_of_none_when_there_is_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let managers = [Manager::new(directory.path(), "hq.sock"), Manager::new(directory.path(), "site.sock")];
    let (sites, http) = (free_address().to_string(), free_address().to_string());
    let mut command = Command::new(binary("rollcall"));
    let data = directory.path().join("hq");
    command
        .args(["hq", "--listen-pg", "127.0.0.1:0", "--listen-sites", &sites, "--listen-http", &http, "--data"])
        .arg(&data);
    managers[0].hears(&mut command);
    let mut hq = Process::start(command, &directory.path().join("hq.log"));
    managers[0].until("READY=1");
    managers[0].until("WATCHDOG=1");
    let invited = Command::new(binary("rollcall"))
        .args(["roster", "invite", "x-01", "--new", "--data"])
        .arg(&data)
        .output()
        .expect("runs");
    let token = String::from_utf8_lossy(&invited.stdout).trim().to_owned();
    let mut store = Store::new(directory.path(), "x-01", SCHEMA);
    store.join(sites.parse().expect("an address"), &token, "t");
    let mut command = store.agent_command(&["run"]);
    managers[1].hears(&mut command);
    store.run_as(command);
    managers[1].until("READY=1");
    (0..3).for_each(|_| managers[1].until("WATCHDOG=1"));
    // An agent that only exists is not alive: a process that is stopped says nothing, and no timer
    // beside it does.
    store.stop();
    managers[1].until("STOPPING=1");
    hq.stop();
    managers[0].until("STOPPING=1");
}

#[test]
fn man_pages_and_completions_are_made_of_the_command_lines() {
    let directory = tempfile::tempdir().expect("a directory");
    for program in ["rollcall", "rollcall-site"] {
        let made = Command::new(binary(program)).arg("generate").arg(directory.path()).output().expect("runs");
        assert!(made.status.success(), "{made:?}");
        let page = std::fs::read_to_string(directory.path().join(format!("man/{program}.1"))).expect("written");
        assert!(page.contains(".TH") && page.contains("Example"), "{page}");
        let completions = std::fs::read_to_string(directory.path().join(format!("completions/{program}.bash")));
        assert!(completions.expect("written").contains(program));
    }
    assert!(directory.path().join("man/rollcall-roster-import.1").exists());
    // Every example of a command of the agent is shown.
    let listed = Command::new(binary("rollcall-site")).arg("--help").output().expect("runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names =
        listed.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1).take_while(|line| !line.is_empty());
    for name in names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help" && name.chars().all(|letter| letter.is_ascii_lowercase()))
    {
        let help = Command::new(binary("rollcall-site")).args([name, "--help"]).output().expect("runs");
        if help.status.success() {
            assert!(String::from_utf8_lossy(&help.stdout).contains("Example"), "{name}");
        }
    }
}
