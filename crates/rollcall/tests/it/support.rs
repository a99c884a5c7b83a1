//! HQ and agents as processes, stores written by foreign programs, and questions to HQ.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::bucket::Bucket;

/// Waiting for anything takes at most this long; on a busy machine much is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A program of ours; `ROLLCALL_BINARIES` names another directory than the tests' own, such as a
/// release build's.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = match std::env::var_os("ROLLCALL_BINARIES") {
        Some(directory) => PathBuf::from(directory).join(name),
        None => PathBuf::from(env!("CARGO_BIN_EXE_rollcall")).with_file_name(name),
    };
    assert!(path.exists(), "{} is not built: run the tests of the whole workspace", path.display());
    path
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Waits until `state` is reached.
pub(crate) fn wait_for<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(reached) = state() {
            return reached;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process that dies with the test.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("starts");
        Self(child)
    }

    /// As a power cut ends it.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// As an operator ends it.
    pub(crate) fn stop(&mut self) {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
        self.wait();
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("waits").is_some()
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        wait_for("a process to end", || self.0.try_wait().expect("waits"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An HQ in a directory, at ports that stay the same over restarts.
pub(crate) struct Hq {
    pub(crate) data: PathBuf,
    pub(crate) sites: SocketAddr,
    http: SocketAddr,
    pub(crate) pg: SocketAddr,
    log: PathBuf,
    /// More arguments of `rollcall hq`.
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    pub(crate) process: Option<Process>,
}

impl Hq {
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, "hq", Vec::new(), Vec::new())
    }

    /// An HQ that asks its sites seldom enough for them to let go of their files in between, as HQs
    /// in earnest do.
    pub(crate) fn start_unhurried(directory: &Path) -> Self {
        Self::start_with(directory, "hq", ["--beacon-interval-ms", "3000"].map(str::to_owned).into(), Vec::new())
    }

    /// An HQ with these settings of its environment.
    pub(crate) fn start_in(directory: &Path, environment: Vec<(String, String)>) -> Self {
        Self::start_with(directory, "hq", Vec::new(), environment)
    }

    /// An HQ that people know by this name, at this address.
    pub(crate) fn start_named(directory: &Path, name: &str, url: &str) -> Self {
        let arguments = ["--name", name, "--public-url", url].map(str::to_owned).into();
        Self::start_with(directory, "hq", arguments, Vec::new())
    }

    /// One of several nodes on a bucket; those after the first are given the first one's key.
    pub(crate) fn start_node(directory: &Path, name: &str, bucket: &Bucket) -> Self {
        let first_key = directory.join("node-1/node.key");
        let own = directory.join(name);
        std::fs::create_dir_all(&own).expect("a directory");
        if first_key.exists() && name != "node-1" {
            std::fs::copy(&first_key, own.join("node.key")).expect("copies");
        }
        Self::start_with(directory, name, vec!["--store".to_owned(), bucket.url()], bucket.environment())
    }

    /// An HQ that loses the replies to some of its commits, after they took effect.
    pub(crate) fn start_losing_replies(directory: &Path) -> Self {
        Self::start_with(directory, "hq", ["--lose-replies", "0.05"].map(str::to_owned).into(), Vec::new())
    }

    fn start_with(directory: &Path, name: &str, arguments: Vec<String>, environment: Vec<(String, String)>) -> Self {
        let (data, log) = (directory.join(name), directory.join(format!("{name}.log")));
        let mut hq = Self {
            data,
            sites: free_address(),
            http: free_address(),
            pg: free_address(),
            log,
            arguments,
            environment,
            process: None,
        };
        hq.restart();
        hq
    }

    /// What HQ wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many commits HQ found to have taken effect although their reply was lost.
    pub(crate) fn lost_replies(&self) -> usize {
        self.log().matches("although its reply was lost").count()
    }

    /// Where the API is.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary("rollcall"));
        command.arg("hq");
        if !self.arguments.iter().any(|argument| argument == "--beacon-interval-ms") {
            command.args(["--beacon-interval-ms", "300"]);
        }
        command.args(["--silent-after", "5", "--data"]).arg(&self.data).args([
            "--listen-sites",
            &self.sites.to_string(),
            "--listen-http",
            &self.http.to_string(),
            "--listen-pg",
            &self.pg.to_string(),
        ]);
        command.args(&self.arguments).envs(self.environment.clone());
        command
    }

    pub(crate) fn restart(&mut self) {
        self.process = None;
        self.process = Some(Process::start(self.command(), &self.log));
        wait_for("HQ to answer", || self.try_sql("SELECT 1 AS one"));
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops and continues the node's process, as a machine that sleeps does.
    pub(crate) fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("runs");
        let status = Command::new("kill").args([signal, &process.0.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
    }

    /// Whether the process has ended by itself.
    pub(crate) fn is_over(&mut self) -> bool {
        self.process.as_mut().is_none_or(Process::is_over)
    }

    /// The process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("runs").0.id()
    }

    /// A second HQ on the same directory, at other ports.
    pub(crate) fn second(&self) -> Output {
        self.second_on(&self.data)
    }

    /// A second HQ with a directory of its own, at other ports.
    pub(crate) fn second_on(&self, data: &Path) -> Output {
        let mut command = Command::new(binary("rollcall"));
        command.arg("hq").arg("--data").arg(data).args(&self.arguments).envs(self.environment.clone());
        for port in ["--listen-sites", "--listen-http", "--listen-pg"] {
            command.args([port, "127.0.0.1:0"]);
        }
        command.output().expect("runs")
    }

    /// What the API answers, as JSON; null if it does not.
    pub(crate) fn api(&self, path: &str) -> Value {
        serde_json::from_slice(&self.get(path)).unwrap_or_default()
    }

    /// What HQ answers to the operator.
    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        let token = std::fs::read_to_string(self.data.join("operator.token")).unwrap_or_default();
        let output = Command::new("curl")
            .args(["-s", "-m", "5", "-H", &format!("authorization: Bearer {}", token.trim())])
            .arg(format!("http://{}{path}", self.http))
            .output()
            .expect("curl is needed by these tests");
        output.stdout
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(binary("rollcall")).args(arguments).arg("--data").arg(&self.data).output().expect("runs")
    }

    /// The same with a line on standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], line: &str) -> Output {
        let mut command = Command::new(binary("rollcall"));
        command.args(arguments).arg("--data").arg(&self.data);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("runs");
        writeln!(child.stdin.take().expect("piped"), "{line}").expect("writes");
        child.wait_with_output().expect("ends")
    }

    fn try_sql(&self, sql: &str) -> Option<Value> {
        let output = self.run(&["sql", "--format", "json", sql]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What HQ's log says of epochs after the first; there should be none where no database was
    /// restored.
    pub(crate) fn new_epochs(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains("a new epoch")).map(str::to_owned).collect()
    }

    /// An answer's rows.
    pub(crate) fn rows(&self, sql: &str) -> Vec<Value> {
        let output = self.run(&["sql", "--format", "json", sql]);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no answer to {sql}: {}", String::from_utf8_lossy(&output.stderr)));
        answer["rows"].as_array().expect("rows").clone()
    }

    /// The only value of an answer, as text; none while the table does not exist.
    pub(crate) fn value(&self, sql: &str) -> Option<String> {
        let answer = self.try_sql(sql)?;
        let value = answer["rows"][0].as_object()?.values().next()?.clone();
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// The sites that an answer is missing, each with its cause.
    pub(crate) fn missing(&self, sql: &str) -> Vec<String> {
        let answer = self.try_sql(sql).unwrap_or_default();
        let missing = answer["coverage"]["missing"].as_array().cloned().unwrap_or_default();
        let text = |site: &Value| {
            format!("{} {}", site["site"].as_str().unwrap_or("-"), site["cause"].as_str().unwrap_or("-"))
        };
        missing.iter().map(text).collect()
    }

    /// The evidence of the newest open incident of a kind.
    pub(crate) fn open_incident(&self, kind: &str) -> Option<String> {
        let sql = format!(
            "SELECT evidence FROM rollcall.incidents WHERE kind = '{kind}' AND closed_at IS NULL ORDER BY id DESC LIMIT 1"
        );
        self.value(&sql)
    }

    /// The evidence of the newest incident of a kind that is over.
    pub(crate) fn ended_incident(&self, kind: &str) -> Option<String> {
        let sql = format!(
            "SELECT evidence FROM rollcall.incidents WHERE kind = '{kind}' AND closed_at IS NOT NULL ORDER BY id DESC LIMIT 1"
        );
        self.value(&sql)
    }

    pub(crate) fn roll(&self) -> Vec<Value> {
        let output = self.run(&["call", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    pub(crate) fn state_of(&self, site: &str) -> Value {
        self.roll().into_iter().find(|line| line["site"] == site).unwrap_or_default()
    }

    pub(crate) fn wait_state(&self, site: &str, state: &str) {
        wait_for(&format!("{site} to be {state}"), || (self.state_of(site)["state"] == state).then_some(()));
    }

    pub(crate) fn invite(&self, site: &str) -> String {
        let output = self.run(&[
            "roster",
            "invite",
            site,
            "--new",
            "--set",
            "state=WA",
            "--set",
            "tz=America/Los_Angeles",
            "--set",
            "hours=24/7",
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }
}

/// The library by which a process sees another time; none, and a word of it, where it is not
/// installed.
pub(crate) fn faketime() -> Option<PathBuf> {
    let library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
        .map(|directory| Path::new(directory).join("faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| path.exists());
    if library.is_none() {
        eprintln!("faketime is not installed: a test of a wrong clock is left out");
    }
    library
}

/// A command whose clock is off by `shift`, such as `+2y`. The wrapper of that name would be a
/// process between.
pub(crate) fn off_by(shift: &str, library: &Path, mut command: Command) -> Command {
    let environment = [("FAKETIME", shift), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    command.envs(environment).env("LD_PRELOAD", library);
    command
}

/// A store: its database, and the agent beside it.
pub(crate) struct Store {
    pub(crate) id: String,
    pub(crate) database: PathBuf,
    pub(crate) agent: Option<Process>,
    log: PathBuf,
}

impl Store {
    /// A store whose database is made by `sql`.
    pub(crate) fn new(directory: &Path, id: &str, sql: &str) -> Self {
        let store = Self {
            id: id.to_owned(),
            database: directory.join(format!("{id}.sqlite")),
            agent: None,
            log: directory.join(format!("{id}.log")),
        };
        store.sql(sql);
        store
    }

    /// Runs `sql` in the SQLite shell, as the store's own program would.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let mut shell = Command::new("sqlite3")
            .arg("-bail")
            .arg(&self.database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sqlite3 command is needed by these tests: install sqlite3");
        let text = format!(".timeout 10000\n{sql};\n");
        shell.stdin.take().expect("piped").write_all(text.as_bytes()).expect("the shell reads");
        let output = shell.wait_with_output().expect("the shell ends");
        assert!(output.status.success(), "{sql:.200}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    pub(crate) fn agent_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("rollcall-site"));
        command.args(arguments).arg("--db").arg(&self.database);
        command
    }

    pub(crate) fn try_join(&self, hq: SocketAddr, token: &str, tables: &str) -> Output {
        self.agent_command(&["join", token, "--hq", &hq.to_string(), "--tables", tables]).output().expect("runs")
    }

    pub(crate) fn join(&self, hq: SocketAddr, token: &str, tables: &str) {
        let output = self.try_join(hq, token, tables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the agent, at another address of HQ than the one it joined by if given.
    pub(crate) fn run(&mut self, hq: Option<SocketAddr>) {
        let mut command = self.agent_command(&["run"]);
        if let Some(hq) = hq {
            command.args(["--hq", &hq.to_string()]);
        }
        self.agent = Some(Process::start(command, &self.log));
    }

    /// The agent's log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts another command as the agent.
    pub(crate) fn run_as(&mut self, command: Command) {
        self.agent = Some(Process::start(command, &self.log));
    }

    /// The same with its log elsewhere.
    pub(crate) fn run_as_logging(&mut self, command: Command, log: &Path) {
        self.agent = Some(Process::start(command, log));
    }

    /// Starts the agent with more arguments.
    pub(crate) fn run_with(&mut self, arguments: &[&str]) {
        let mut command = self.agent_command(&["run"]);
        command.args(arguments);
        self.agent = Some(Process::start(command, &self.log));
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill();
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.stop();
        }
    }

    /// Exit code and report of `rollcall-site status`.
    pub(crate) fn status(&self) -> (Option<i32>, Value) {
        let output = self.agent_command(&["status", "--json"]).output().expect("runs");
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    /// Waits until HQ confirmed everything in the journal.
    pub(crate) fn wait_confirmed(&self) {
        wait_for(&format!("everything of {} to be confirmed", self.id), || {
            let (_, report) = self.status();
            (report["unconfirmed_rows"] == 0 && report["agent"]["connected_to"].is_string()).then_some(())
        });
    }
}

/// A store, joined, with its agent running.
pub(crate) fn running_store(hq: &Hq, directory: &Path, id: &str, sql: &str, tables: &str) -> Store {
    let mut store = Store::new(directory, id, sql);
    store.join(hq.sites, &hq.invite(id), tables);
    store.run(None);
    store
}
