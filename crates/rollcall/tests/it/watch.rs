//! People are told, by real receivers; incidents can be taken, explained, corrected afterwards.

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Hq, Process, Store, binary, faketime, free_address, off_by, running_store, wait_for};

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')";

/// A receiver of webhooks and mail in a process of its own: a line of JSON for everything it gets.
const RECEIVER: &str = r#"
import hashlib, hmac, http.server, json, sys, threading
out, http_port, smtp_port, secret = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
lock = threading.Lock()
def note(what):
    with lock, open(out, "a") as file:
        file.write(json.dumps(what) + "\n")
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        signed = self.headers.get("x-rollcall-timestamp", "").encode() + b"." + body
        right = "sha256=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()
        note({"path": self.path, "body": json.loads(body), "signed": self.headers.get("x-rollcall-signature") == right})
        self.send_response(202 if self.path == "/pagerduty" else 200)
        self.end_headers()
    def log_message(self, *rest):
        pass
try:
    from aiosmtpd.controller import Controller
    class Mail:
        async def handle_DATA(self, server, session, envelope):
            note({"path": "mail", "to": envelope.rcpt_tos, "body": envelope.content.decode()})
            return "250 taken"
    Controller(Mail(), hostname="127.0.0.1", port=smtp_port).start()
except ImportError:
    note({"path": "no mail"})
note({"path": "ready"})
http.server.ThreadingHTTPServer(("127.0.0.1", http_port), Hook).serve_forever()
"#;

pub(crate) struct Receiver {
    _process: Process,
    log: std::path::PathBuf,
    pub(crate) http: String,
    pub(crate) smtp_port: u16,
}

impl Receiver {
    pub(crate) fn start(directory: &Path) -> Self {
        let script = directory.join("receiver.py");
        std::fs::write(&script, RECEIVER).expect("writes");
        let (http, smtp) = (free_address(), free_address());
        let log = directory.join("received.jsonl");
        let mut command = Command::new("python3");
        command.arg(&script).arg(&log).args([http.port().to_string(), smtp.port().to_string(), "s3cret".to_owned()]);
        let process = Process::start(command, &directory.join("receiver.log"));
        let receiver = Self { _process: process, log, http: format!("http://{http}"), smtp_port: smtp.port() };
        wait_for("the receiver", || receiver.got("ready").first().map(|_| ()));
        receiver
    }

    pub(crate) fn got(&self, path: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["path"] == path).collect()
    }

    pub(crate) fn takes_mail(&self) -> bool {
        self.got("no mail").is_empty()
    }
}

pub(crate) fn set_channel(hq: &Hq, directory: &Path, name: &str, channel: &Value) {
    let file = directory.join(format!("{name}.json"));
    std::fs::write(&file, channel.to_string()).expect("writes");
    let output = hq.run(&["channels", "set", name, "--from", file.to_str().expect("text")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn incidents(hq: &Hq, arguments: &[&str]) -> Vec<Value> {
    let output = hq.run(&[&["incidents", "--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Debian's Alertmanager, if it is installed.
fn alertmanager(directory: &Path) -> Option<(Process, String)> {
    let binary = Path::new("/usr/bin/prometheus-alertmanager");
    if !binary.exists() {
        println!("without Alertmanager: install prometheus-alertmanager to try it too");
        return None;
    }
    let config = directory.join("alertmanager.yml");
    std::fs::write(&config, "route: {receiver: none}\nreceivers: [{name: none}]\n").expect("writes");
    let address = free_address();
    let mut command = Command::new(binary);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", directory.join("alertmanager").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--cluster.listen-address=");
    Some((Process::start(command, &directory.join("alertmanager.log")), format!("http://{address}")))
}

fn alerts(url: &str) -> Vec<Value> {
    let script =
        "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1] + '/api/v2/alerts').read().decode())";
    let output = Command::new("python3").args(["-c", script, url]).output().expect("runs");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[test]
fn what_nobody_could_be_told_before_a_stop_is_told_after_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut hq = Hq::start(directory.path());
    let receiver = Receiver::start(directory.path());
    let target = receiver.http.trim_start_matches("http://").parse().expect("an address");
    let relay = runtime.block_on(rollcall_sim::Relay::start(target)).expect("relays");
    let hook = json!({"kind": "webhook", "url": format!("http://{}/hook", relay.address())});
    set_channel(&hq, directory.path(), "hook", &hook);
    let mut store = running_store(&hq, directory.path(), "tacoma-01", SCHEMA, "t");
    let _other = running_store(&hq, directory.path(), "spokane-01", SCHEMA, "t");
    hq.wait_state("tacoma-01", "ok");
    hq.wait_state("spokane-01", "ok");
    relay.cut();
    store.kill();
    let level = |hq: &Hq| incidents(hq, &[]).iter().find(|known| known["kind"] == "silence")?["level"].as_u64();
    wait_for("an incident that calls", || level(&hq).filter(|level| *level > 0));
    // What is told was stored before; what was not stored yet would have to be noticed anew.
    wait_for("a call that reaches nobody", || hq.log().contains("people could not be told").then_some(()));
    hq.kill();
    assert!(receiver.got("/hook").is_empty(), "the line was cut");
    relay.mend();
    hq.restart();
    let told = wait_for("the page", || receiver.got("/hook").into_iter().next());
    assert_eq!((&told["body"]["notice"], &told["body"]["sites"]), (&json!("opened"), &json!(["tacoma-01"])));
    // What was told, and is known to have been, is not told again.
    std::thread::sleep(std::time::Duration::from_secs(3));
    hq.kill();
    hq.restart();
    hq.wait_state("spokane-01", "ok");
    std::thread::sleep(std::time::Duration::from_secs(3));
    let opened = receiver.got("/hook").iter().filter(|got| got["body"]["notice"] == "opened").count();
    assert_eq!(opened, 1);
}

#[test]
fn people_are_told_and_an_incident_can_be_taken() {
    // Method: a store's agent is killed; real receivers get the page; someone takes it; HQ
    // restarts; the store comes back.
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let receiver = Receiver::start(directory.path());
    let alertmanager = alertmanager(directory.path());
    let url = |path: &str| format!("{}/{path}", receiver.http);
    let set = |name: &str, channel: Value| set_channel(&hq, directory.path(), name, &channel);
    set("hook", json!({"kind": "webhook", "url": url("hook"), "secret": "s3cret"}));
    set("west", json!({"kind": "slack", "url": url("west"), "match": {"state": "WA"}}));
    set("east", json!({"kind": "slack", "url": url("east"), "match": {"state": "MA"}}));
    set("top", json!({"kind": "teams", "url": url("top"), "min_level": 4}));
    set("pager", json!({"kind": "pagerduty", "routing_key": "key-1", "url": url("pagerduty")}));
    set("alive", json!({"kind": "dead-man", "url": url("alive")}));
    if receiver.takes_mail() {
        let mail = json!({"kind": "smtp", "host": "127.0.0.1", "port": receiver.smtp_port, "tls": "none",
                          "from": "Rollcall <hq@example.com>", "to": ["desk@example.com"]});
        set("desk", mail);
    }
    if let Some((_, url)) = &alertmanager {
        set("am", json!({"kind": "alertmanager", "url": url}));
    }
    let shown = hq.run(&["channels", "--json"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(!shown.contains("s3cret") && !shown.contains("key-1"), "{shown}");
    let mut store = running_store(&hq, directory.path(), "tacoma-01", SCHEMA, "t");
    let other = running_store(&hq, directory.path(), "spokane-01", SCHEMA, "t");
    hq.wait_state("tacoma-01", "ok");
    hq.wait_state("spokane-01", "ok");
    store.kill();
    let told =
        wait_for("the webhook", || receiver.got("/hook").into_iter().find(|got| got["body"]["notice"] == "opened"));
    assert_eq!(told["signed"], true);
    assert_eq!((&told["body"]["sites"], &told["body"]["cause"]), (&json!(["tacoma-01"]), &json!("power-or-link")));
    let number = told["body"]["incident"].clone();
    let id = number.to_string();
    wait_for("the district's Slack", || receiver.got("/west").first().map(|_| ()));
    let pager = wait_for("the pager", || receiver.got("/pagerduty").first().cloned());
    assert_eq!((&pager["body"]["event_action"], &pager["body"]["routing_key"]), (&json!("trigger"), &json!("key-1")));
    if receiver.takes_mail() {
        let mail = wait_for("the mail", || receiver.got("mail").first().cloned());
        assert!(mail["body"].as_str().is_some_and(|text| text.contains("tacoma-01")), "{mail}");
    }
    if let Some((_, url)) = &alertmanager {
        wait_for("Alertmanager", || {
            alerts(url).iter().find(|alert| alert["labels"]["site"] == "tacoma-01").map(|_| ())
        });
    }
    assert!(receiver.got("/east").is_empty() && receiver.got("/top").is_empty(), "not for them");
    wait_for("the watch to say that it is alive", || receiver.got("/alive").first().map(|_| ()));

    // A channel that does not work is an incident of its own, told by the others.
    set("broken", json!({"kind": "webhook", "url": "http://127.0.0.1:9/"}));
    let tried = hq.run(&["channels", "test", "broken"]);
    assert!(!tried.status.success() && said(&tried).contains("cannot be reached"), "{}", said(&tried));
    wait_for("the other channels to tell of it", || {
        receiver.got("/hook").into_iter().find(|got| got["body"]["kind"] == "channel")
    });
    assert!(hq.run(&["channels", "remove", "broken"]).status.success());

    // Someone takes it; that needs a name and a reason, and outlasts a restart of HQ.
    assert!(!hq.run(&["incidents", "ack", &id, "--by", "Ada", "--reason", " "]).status.success());
    let taken = hq.run(&["incidents", "ack", &id, "--by", "Ada", "--reason", "the router is being replaced"]);
    assert!(taken.status.success(), "{}", said(&taken));
    hq.stop();
    hq.restart();
    let known = incidents(&hq, &[]);
    let known = known.iter().find(|incident| incident["id"] == number).expect("it is open still");
    assert_eq!(known["lease"]["by"], "operator for Ada", "who called is kept, and the name given");
    store.run(None);
    wait_for("the end to be told", || {
        let over = receiver
            .got("/hook")
            .into_iter()
            .find(|got| got["body"]["notice"] == "resolved" && got["body"]["incident"] == number);
        over.map(|_| ())
    });
    let story = hq.run(&["incidents", "show", &id]);
    let story = String::from_utf8_lossy(&story.stdout).into_owned();
    for part in ["should have come from tacoma-01", "acknowledged by operator for Ada", "is heard again", "over:"] {
        assert!(story.contains(part), "{part:?} in {story}");
    }
    assert!(hq.run(&["incidents", "normal", &id, "--by", "Ada"]).status.success());
    drop(other);
}

#[test]
fn a_site_in_the_void_is_noticed_and_the_old_address_named() {
    // Goal: a site that talks to an old HQ which still answers. HQ notices its absence; what the
    // site tells when it is back names the old address and corrects the cause; nothing is lost.
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let old_directory = directory.path().join("old");
    std::fs::create_dir(&old_directory).expect("makes");
    let old = Hq::start(&old_directory);
    let mut store = running_store(&hq, directory.path(), "tacoma-01", SCHEMA, "t");
    hq.wait_state("tacoma-01", "ok");
    store.kill();
    let (hooked, page) = (directory.path().join("hooked"), free_address());
    let command = format!("echo $ROLLCALL_SITE $ROLLCALL_SUMMARY >> {}", hooked.display());
    // Somebody else has the page's port: that keeps no command from being run.
    let taken = std::net::TcpListener::bind(page).expect("free");
    store.run_with(&[
        "--hq",
        &old.sites.to_string(),
        "--max-age",
        "0",
        "--on-unconfirmed",
        &command,
        "--status-page",
        &page.to_string(),
    ]);
    store.sql("INSERT INTO t VALUES (2, 'into the void')");
    hq.wait_state("tacoma-01", "silent");
    // Status, command and page at the site itself.
    wait_for("the site's status to say so", || {
        let output = store.agent_command(&["status", "--max-age", "0", "--json"]).output().expect("runs");
        (output.status.code() != Some(0)).then_some(())
    });
    wait_for("the store's own command", || {
        std::fs::read_to_string(&hooked).ok().filter(|text| text.contains("tacoma-01"))
    });
    let script = "import sys, urllib.request, urllib.error\ntry: print(urllib.request.urlopen(sys.argv[1]).status)\nexcept urllib.error.HTTPError as e: print(e.code, e.read().decode())";
    drop(taken);
    let shown = wait_for("the page, once its port is free", || {
        let shown = Command::new("python3").args(["-c", script, &format!("http://{page}/")]).output().expect("runs");
        Some(String::from_utf8_lossy(&shown.stdout).into_owned()).filter(|shown| !shown.is_empty())
    });
    assert!(shown.starts_with("503") && shown.contains("tacoma-01"), "{shown}");
    assert_eq!(old.value("SELECT count(*) FROM sites").as_deref(), Some("0"), "the old HQ got nothing");
    let id = wait_for("the incident", || {
        let open = incidents(&hq, &[]);
        open.iter().find(|incident| incident["members"]["tacoma-01"].is_object()).map(|known| known["id"].to_string())
    });
    store.kill();
    store.run(None);
    store.wait_confirmed();
    assert_eq!(hq.value("SELECT count(*) FROM t").as_deref(), Some("2"));
    let old_address = old.sites.to_string();
    wait_for("the old address in the incident's story", || {
        let output = hq.run(&["incidents", "show", &id, "--json"]);
        let incident: Value = serde_json::from_slice(&output.stdout).ok()?;
        let named = incident["timeline"]
            .as_array()?
            .iter()
            .any(|entry| entry["text"].as_str().is_some_and(|text| text.contains(&old_address)));
        (named && incident["cause"] == "void").then_some(())
    });
}

#[test]
fn a_declared_closure_explains_silence_and_ends_its_incident() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut store: Store = running_store(&hq, directory.path(), "boston-01", SCHEMA, "t");
    hq.wait_state("boston-01", "ok");
    store.kill();
    hq.wait_state("boston-01", "silent");
    let no_end =
        hq.run(&["incidents", "close", "boston-01", "--until", "2020-01-01", "--reason", "refit", "--by", "Ada"]);
    assert!(!no_end.status.success());
    let until = (chrono::Utc::now() + chrono::TimeDelta::days(30)).format("%Y-%m-%d").to_string();
    let closed = hq.run(&["incidents", "close", "boston-01", "--until", &until, "--reason", "refit", "--by", "Ada"]);
    assert!(closed.status.success(), "{}", said(&closed));
    hq.wait_state("boston-01", "declared-closed");
    wait_for("its incident to end", || incidents(&hq, &[]).is_empty().then_some(()));
    let all = incidents(&hq, &["--all"]);
    assert!(all.iter().any(|incident| incident["members"]["boston-01"].is_object()), "it is remembered");
}

#[test]
fn what_goes_without_a_word_on_the_first_evening_is_named_and_nobody_else() {
    // Method: it is ten in the evening where HQ and 200 sites are; nobody declared hours, nothing
    // is learned. Five sites go without a goodbye.
    let Some(library) = faketime() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let now = chrono::Utc::now();
    let evening = now.date_naive().and_hms_opt(22, 0, 0).expect("a time").and_utc();
    let shift = (evening - now).num_seconds();
    let environment = [
        ("FAKETIME", format!("{shift:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("LD_PRELOAD", library.display().to_string()),
    ];
    let hq = Hq::start_in(directory.path(), environment.map(|(name, value)| (name.to_owned(), value)).into());
    let receiver = Receiver::start(directory.path());
    let hook = json!({"kind": "webhook", "url": format!("{}/hook", receiver.http), "daily_at": "22:01", "tz": "UTC"});
    set_channel(&hq, directory.path(), "desk", &hook);
    let mut fleet = Command::new(binary("rollcall"));
    fleet.arg("fleet").arg("--against").arg(&hq.data);
    fleet.args(["--sites", "200", "--fall-silent", "5", "--rate", "100", "--batch-rows", "5", "--seconds", "80"]);
    let fleet = off_by(&format!("{shift:+}s"), &library, fleet);
    let _fleet = Process::start(fleet, &directory.path().join("fleet.log"));
    let is_in = |state: &str| -> Vec<String> {
        let roll = hq.roll();
        let of_state = roll.iter().filter(|line| line["state"] == state);
        of_state.filter_map(|line| line["site"].as_str().map(str::to_owned)).collect()
    };
    wait_for("all to be there", || (is_in("ok").len() == 200).then_some(()));
    let silent = wait_for("five to be named", || Some(is_in("silent")).filter(|silent| silent.len() == 5));
    let called = hq.run(&["call"]);
    assert_eq!(called.status.code(), Some(1));
    let text = String::from_utf8_lossy(&called.stdout).into_owned();
    assert!(text.contains("5 missing: 5 silent"), "{text}");
    wait_for("answers to lack them", || {
        let mut missing = hq.missing("SELECT count(*) FROM sales");
        missing.retain(|missing| missing.contains("power-or-link"));
        (missing.len() == 5 && silent.iter().all(|site| missing.iter().any(|missing| missing.contains(site))))
            .then_some(())
    });
    let told = wait_for("people to be told", || {
        let told: Vec<Value> =
            receiver.got("/hook").into_iter().filter(|got| got["body"]["notice"] == "opened").collect();
        let sites: Vec<&str> =
            told.iter().flat_map(|told| told["body"]["sites"].as_array()).flatten().filter_map(Value::as_str).collect();
        silent.iter().all(|site| sites.contains(&site.as_str())).then_some(sites.len())
    });
    assert_eq!(told, 5, "nobody else is called about");
    let daily = hq.run(&["channels", "preview", "desk"]);
    let daily = String::from_utf8_lossy(&daily.stdout).into_owned();
    assert!(daily.starts_with("Subject: Roll call: 200 sites, 5 missing: 5 silent"), "{daily}");
    assert!(silent.iter().all(|site| daily.contains(site)), "{daily}");
    wait_for("the daily roll call to be sent", || {
        let mut all = receiver.got("/hook").into_iter();
        all.find(|got| got["body"]["title"].as_str().is_some_and(|title| title.starts_with("Roll call"))).map(|_| ())
    });
}

#[test]
fn a_stop_of_hq_is_not_the_stores_silence_however_soon_that_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let ids = ["boston-01", "salem-01", "tacoma-01"];
    let mut stores: Vec<Store> = ids.iter().map(|id| running_store(&hq, directory.path(), id, SCHEMA, "t")).collect();
    ids.iter().for_each(|id| {
        hq.wait_state(id, "ok");
    });
    // Three times as long as a silence that is told.
    hq.stop();
    std::thread::sleep(Duration::from_secs(15));
    hq.restart();
    let blind = wait_for("HQ to say that it was off", || {
        incidents(&hq, &["--all"]).into_iter().find(|incident| incident["kind"] == "hq-blind")
    });
    // One stays away now; a person may say that HQ is to judge at once, or it does so by itself.
    stores[2].kill();
    let explained = hq.run(&["incidents", "normal", &blind["id"].to_string(), "--by", "Ada"]);
    assert!(explained.status.success(), "{}", said(&explained));
    hq.wait_state("tacoma-01", "silent");
    let all = incidents(&hq, &["--all"]);
    let blamed = |id: &str| all.iter().any(|one| one["kind"] == "silence" && one["members"][id].is_object());
    assert!(!blamed("boston-01") && !blamed("salem-01"), "{all:?}");
    wait_for("HQ to hear", || (!incidents(&hq, &[]).iter().any(|one| one["kind"] == "hq-blind")).then_some(()));
}
