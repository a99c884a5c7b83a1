//! Messages: what people read when something is wrong, whom it reaches, and how that can be tried
//! before it is needed.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    support::{Hq, binary, running_store, wait_for},
    watch::{Receiver, incidents, said, set_channel},
};

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')";

/// Reads a mail as a mail program does: subject, id, thread, text, HTML.
const READ_MAIL: &str = r#"
import email, email.policy, json, sys
mail = email.message_from_string(sys.stdin.read(), policy=email.policy.default)
part = lambda kind: mail.get_body((kind,)).get_content()
print(json.dumps({"subject": mail["subject"], "id": mail["message-id"], "answers": mail["in-reply-to"], "date": mail["date"],
                  "kind": mail.get_content_type(), "text": part("plain"), "html": part("html")}))
"#;

fn read(mail: &Value) -> Value {
    use std::io::Write;
    let mut child = Command::new("python3")
        .args(["-c", READ_MAIL])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("runs");
    let body = mail["body"].as_str().expect("text");
    child.stdin.take().expect("a pipe").write_all(body.as_bytes()).expect("writes");
    let output = child.wait_with_output().expect("ends");
    serde_json::from_slice(&output.stdout).expect("a mail")
}

#[test]
fn a_message_says_who_what_since_when_what_to_check_and_who_is_next() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start_named(directory.path(), "Contoso HQ", "https://hq.contoso.example");
    let receiver = Receiver::start(directory.path());
    let mut store = running_store(&hq, directory.path(), "tacoma-01", SCHEMA, "t");
    let _other = running_store(&hq, directory.path(), "spokane-01", SCHEMA, "t");
    let roster = directory.path().join("roster.csv");
    let rows = "id,name,city,contact,phone,hours,tz,region,district_mail\n\
        tacoma-01,Tacoma Mäll,Tacoma,Ada,+1 206 555 0100,24/7,America/Los_Angeles,West,\"dm@contoso.example; Bo <bo@contoso.example>\"\n\
        spokane-01,Spokane <b>,Spokane,,,24/7,America/Los_Angeles,West,\n";
    std::fs::write(&roster, rows).expect("writes");
    assert!(hq.run(&["roster", "import", roster.to_str().expect("text")]).status.success());
    let set = |name: &str, channel: Value| set_channel(&hq, directory.path(), name, &channel);
    let mail = |to: &str, more: Value| {
        let mut mail = json!({"kind": "smtp", "host": "127.0.0.1", "port": receiver.smtp_port, "tls": "none",
                              "from": "Rollcall <hq@contoso.example>", "to": [to], "tz": "Europe/Berlin"});
        more.as_object().into_iter().flatten().for_each(|(key, value)| mail[key] = value.clone());
        mail
    };
    // A misspelt key, a misspelt name in a template: refused when it is set, with what is right.
    for (wrong, right) in [
        (json!({"kind": "slack", "url": "https://x.example", "min_levle": 3}), "min_level"),
        (mail("a@b.example", json!({"template": {"text": "{{ sites[0].nmae }}"}})), "template of the text"),
    ] {
        let file = directory.path().join("wrong.json");
        std::fs::write(&file, wrong.to_string()).expect("writes");
        let refused = hq.run(&["channels", "set", "wrong", "--from", file.to_str().expect("text")]);
        assert!(!refused.status.success() && said(&refused).contains(right), "{}", said(&refused));
    }
    set("top", json!({"kind": "webhook", "url": format!("{}/top", receiver.http), "min_level": 2}));
    set("pager", json!({"kind": "pagerduty", "routing_key": "k", "url": format!("{}/pagerduty", receiver.http)}));
    let words = json!({"template": {"subject": "{{ hq.name }}: {{ about }}", "text": "{{ what }} {{ since|local }}"}});
    if receiver.takes_mail() {
        set("desk", mail("desk@contoso.example", json!({})));
        set("district", mail("{district_mail}", words));
        let who = hq.run(&["channels", "who", "tacoma-01"]);
        let who = String::from_utf8_lossy(&who.stdout).into_owned();
        assert!(who.contains("level 1: district (smtp to Bo <bo@contoso.example>, dm@contoso.example)"), "{who}");
        assert!(who.contains("level 2: top (webhook)"), "{who}");
        let nobody = hq.run(&["channels", "who", "spokane-01"]);
        assert!(String::from_utf8_lossy(&nobody.stdout).contains("the roster has nothing in district_mail"));
    }
    // A test says so, and ends what it opened.
    assert!(hq.run(&["channels", "test", "pager"]).status.success());
    let tests = receiver.got("/pagerduty");
    let actions: Vec<&Value> = tests.iter().map(|got| &got["body"]["event_action"]).collect();
    assert_eq!(actions, [&json!("trigger"), &json!("resolve")]);
    assert_eq!(tests[0]["body"]["dedup_key"], tests[1]["body"]["dedup_key"]);
    assert!(tests[0]["body"]["payload"]["summary"].as_str().is_some_and(|text| text.starts_with("TEST")));
    if receiver.takes_mail() {
        assert!(hq.run(&["channels", "test", "desk"]).status.success());
        let tried = wait_for("the test", || receiver.got("mail").first().map(read));
        assert!(tried["subject"].as_str().is_some_and(|text| text.starts_with("TEST")), "{tried}");
        assert!(tried["text"].as_str().is_some_and(|text| text.starts_with("TEST")), "{tried}");
    }
    hq.wait_state("tacoma-01", "ok");
    hq.wait_state("spokane-01", "ok");
    store.kill();
    let incident = wait_for("the incident", || {
        incidents(&hq, &[]).into_iter().find(|incident| incident["level"].as_u64().is_some_and(|level| level > 0))
    });
    let id = incident["id"].to_string();
    let page = wait_for("the pager", || receiver.got("/pagerduty").get(2).cloned());
    assert_eq!(page["body"]["links"][0]["href"], format!("https://hq.contoso.example/incidents/{id}"));
    assert_eq!(page["body"]["payload"]["source"], "Contoso HQ");
    if receiver.takes_mail() {
        let of_incident = |to: &str| {
            let all = receiver.got("mail");
            let mine = all.iter().filter(|got| got["to"].as_array().is_some_and(|all| all.contains(&json!(to))));
            mine.map(read).find(|mail| !mail["subject"].as_str().unwrap_or_default().starts_with("TEST"))
        };
        let first = wait_for("the desk's mail", || of_incident("desk@contoso.example"));
        let (text, subject) = (first["text"].as_str().expect("text"), first["subject"].as_str().expect("text"));
        assert!(subject.starts_with("Tacoma Mäll: not heard since ") && subject.ends_with("(level 1)"), "{subject}");
        assert_eq!(first["kind"], "multipart/alternative");
        for part in [
            "Tacoma Mäll in Tacoma is not heard.",
            "PST, that is ",
            "CET for you",
            "Tacoma Mäll (tacoma-01), Tacoma; open today 00:00-24:00; call Ada, +1 206 555 0100",
            "should have come",
            "power or link",
            "Call the store: have they power",
            "Told     desk, district, pager",
            "it is level 2, and top hears of it",
            &format!("rollcall incidents ack {id}"),
            &format!("https://hq.contoso.example/incidents/{id}"),
            "Contoso HQ, lake ",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(first["html"].as_str().is_some_and(|html| html.contains("Tacoma Mäll") && html.contains("<a href=")));
        // People whom the roster names, in the words of their channel.
        let of_district = wait_for("the district's mail", || of_incident("dm@contoso.example"));
        assert_eq!(of_district["subject"], "Contoso HQ: Tacoma Mäll");
        assert!(
            of_district["text"].as_str().is_some_and(|text| text.starts_with("Tacoma Mäll in Tacoma is not heard. "))
        );
        // What follows is of the same thread.
        store.run(None);
        let over = wait_for("its end", || {
            let all = receiver.got("mail").iter().map(read).collect::<Vec<Value>>();
            all.into_iter()
                .find(|mail| mail["subject"].as_str().is_some_and(|subject| subject.starts_with("Over: Tacoma")))
        });
        assert_eq!(over["answers"], first["id"]);
        // And what is about one site alone is no channel's secret: it can be read again.
        let shown = hq.run(&["channels", "preview", "desk", "--incident", &id]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("To: desk@contoso.example\nSubject: Over: Tacoma Mäll"), "{shown}");
        let daily = hq.run(&["channels", "preview", "desk"]);
        let daily = String::from_utf8_lossy(&daily.stdout).into_owned();
        for part in ["Subject: Roll call: 2 sites", "Since yesterday, the newest first", "Contoso HQ, "] {
            assert!(daily.contains(part), "{part:?} is not in {daily}");
        }
    }
    let page = String::from_utf8(hq.get(&format!("/incidents/{id}"))).expect("text");
    assert!(page.contains(&format!("Incident {id}: silence")) && page.contains("should have come"), "{page}");
}

/// The Rust files below a folder.
fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("reads").map(|entry| entry.expect("reads").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|end| end == "rs") {
            found.push(entry);
        }
    }
}

#[test]
fn every_command_that_a_message_names_exists() {
    // Whoever reads it has no time to find out that it does not. Messages are anywhere in the
    // sources.
    let mut files = Vec::new();
    for package in std::fs::read_dir("..").expect("reads").map(|entry| entry.expect("reads").path().join("src")) {
        if package.is_dir() {
            sources(&package, &mut files);
        }
    }
    let mut commands: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        // Texts and comments go on in the next line.
        let lines = text
            .lines()
            .map(|line| line.trim().trim_start_matches("///").trim_start_matches("//!").trim_start_matches("//"));
        let text = lines.map(|line| line.trim_end_matches('\\').trim()).collect::<Vec<_>>().join(" ");
        let quoted = text.split('`').filter(|part| part.starts_with("rollcall ") || part.starts_with("rollcall-site "));
        commands.extend(quoted.filter(|part| part.len() < 200).map(|part| part.replace("\\\"", "\"")));
    }
    assert!(commands.len() > 60, "{commands:?}");
    let mut wrong = Vec::new();
    for command in &commands {
        let mut words = command.split_whitespace();
        let name = words.next().expect("a program");
        let is_word =
            |word: &&str| word.chars().all(|char| char.is_ascii_lowercase() || char == '-') && !word.starts_with('-');
        let path: Vec<&str> = words.take_while(is_word).collect();
        let known = Command::new(binary(name)).args(&path).arg("--help").output().expect("runs");
        let help = String::from_utf8_lossy(&known.stdout).into_owned();
        let usage = format!("Usage: {name} {}", path.join(" "));
        if !known.status.success() || !help.contains(usage.trim_end()) {
            wrong.push(format!("{command}: there is no {usage}"));
        }
        // Behind a name that is filled in there may be another command of its own.
        let options = command.split_whitespace().filter(|word| word.starts_with("--") && !command.contains('{'));
        for option in options {
            let option = option.trim_end_matches([',', '.', ')', ';']).split('=').next().unwrap_or_default();
            if !help.contains(option) {
                wrong.push(format!("{command}: no {option}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
