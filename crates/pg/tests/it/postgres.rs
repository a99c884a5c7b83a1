//! A real PostgreSQL for as long as a test needs it: made, started and stopped here, under an
//! account without rights, since it refuses to run as root.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::wire::Client;

/// How long it may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Which account it runs under if the test is run by root.
const ACCOUNT: &str = "nobody";
const MISSING: &str = "PostgreSQL is needed: apt-get install postgresql";

/// A running PostgreSQL with one database, in text order "C" and time zone UTC.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: Child,
    directory: TempDir,
}

impl Postgres {
    /// Makes a cluster in a directory of its own and starts it.
    pub(crate) fn start() -> Self {
        let programs = programs();
        let directory = tempfile::tempdir().expect("a directory");
        // The account must reach the data, and the client the socket beside it.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permits");
        if is_root() {
            run(Command::new("chown").arg(ACCOUNT).arg(directory.path()));
        }
        let data = directory.path().join("data");
        let mut init = unprivileged(&programs.join("initdb"), directory.path());
        init.args(["--username=hq", "--auth=trust", "--no-sync", "--encoding=UTF8"]);
        init.args(["--lc-collate=C", "--lc-ctype=C.UTF-8", "--lc-messages=C", "--pgdata"]).arg(&data);
        run(&mut init);
        let log = fs::File::create(directory.path().join("log")).expect("a log");
        let mut server = unprivileged(&programs.join("postgres"), directory.path());
        server.arg("-D").arg(&data).arg("-k").arg(directory.path());
        for setting in
            ["listen_addresses=", "fsync=off", "timezone=UTC", "max_connections=20", "autovacuum=off", "jit=off"]
        {
            server.args(["-c", setting]);
        }
        let server = server.stdout(Stdio::null()).stderr(log).spawn().expect("PostgreSQL starts");
        let mut started = Self { server, directory };
        started.wait();
        started.connect_to("postgres").simple("CREATE DATABASE hq").expect_done();
        started
    }

    /// A connection to its database.
    pub(crate) fn connect(&self) -> Client {
        self.connect_to("hq")
    }

    fn connect_to(&self, database: &str) -> Client {
        let stream = UnixStream::connect(self.socket()).expect("PostgreSQL listens");
        Client::start(Box::new(stream), "hq", None, database).expect("PostgreSQL welcomes")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join(".s.PGSQL.5432")
    }

    /// Waits until it answers.
    fn wait(&mut self) {
        let until = Instant::now() + STARTS_WITHIN;
        loop {
            if let Ok(stream) = UnixStream::connect(self.socket())
                && Client::start(Box::new(stream), "hq", None, "postgres").is_ok()
            {
                return;
            }
            let ended = self.server.try_wait().expect("can be asked");
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "PostgreSQL ended at once: {}", log());
            assert!(Instant::now() < until, "PostgreSQL does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Postgres {
    /// Stops it at once: nothing in it is kept. Its children end when their parent is gone.
    fn drop(&mut self) {
        let stopped = Command::new("kill").args(["-s", "QUIT", &self.server.id().to_string()]).status();
        if !stopped.is_ok_and(|status| status.success()) {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}

/// Where the newest installed version's programs are.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect(MISSING);
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let paths = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let newest = paths.filter(|path| path.join("bin/postgres").exists()).max_by_key(number).expect(MISSING);
    newest.join("bin")
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

/// The program, to be run without root's rights.
fn unprivileged(program: &Path, directory: &Path) -> Command {
    let mut command = if is_root() {
        let mut dropped = Command::new("setpriv");
        dropped.args(["--reuid", ACCOUNT, "--regid", "nogroup", "--clear-groups"]).arg(program);
        dropped
    } else {
        Command::new(program)
    };
    command.current_dir(directory).env_remove("PGOPTIONS");
    command
}

fn run(command: &mut Command) {
    let Output { status, stderr, .. } = command.output().expect("the program is there");
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
}
