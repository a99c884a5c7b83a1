//! Who is not let in asks nothing, and keeps nobody out.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::{hq::Hq, wire::Client};

const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

fn written(write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out).expect("writes");
    out.to_vec()
}

fn greeting() -> Vec<u8> {
    written(|out| frontend::startup_message([("user", "ada"), ("database", "hq")], out))
}

/// Sends all of it at once, and gives what comes until the server closes the connection.
fn answer(mut stream: TcpStream, sent: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).expect("sets");
    stream.write_all(sent).expect("sends");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("the server closes the connection");
    said
}

fn has(said: &[u8], text: &str) -> bool {
    said.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn nothing_is_asked_behind_a_refused_login() {
    let hq = Hq::start(HashMap::new(), async |_| {});
    let change = "DELETE FROM prices WHERE id = 1";
    let questions = [
        written(|out| frontend::query(change, out)),
        written(|out| frontend::query("SELECT 'let in'", out)),
        written(|out| {
            frontend::parse("", change, [], out)?;
            frontend::bind("", "", [], Vec::<()>::new(), |(), _| Ok(postgres_protocol::IsNull::Yes), [], out)
                .map_err(|_| std::io::Error::other("binds"))?;
            frontend::execute("", 0, out)?;
            frontend::sync(out);
            Ok(())
        }),
    ];
    let refused = [
        // A way of login that there is not.
        written(|out| frontend::sasl_initial_response("NOSUCH", b"n,,n=,r=abc", out)),
        // Something else than a login.
        written(|out| frontend::password_message(b"open sesame", out)),
        written(|out| frontend::sasl_initial_response("SCRAM-SHA-256", b"nonsense", out)),
        // No login at all.
        Vec::new(),
    ];
    for refused in &refused {
        for question in &questions {
            let said = answer(hq.dial(), &[greeting(), refused.clone(), question.clone()].concat());
            assert!(!has(&said, "let in"), "{}", String::from_utf8_lossy(&said));
            assert!(!said.windows(6).any(|part| part == [b'Z', 0, 0, 0, 5, b'I']), "it is not ready for questions");
        }
    }
    // A wrong password, then a question.
    let mut stream = hq.dial();
    assert!(Client::start(Box::new(stream.try_clone().expect("clones")), "ada", Some("wrong"), "hq").is_err());
    let _ = stream.write_all(&questions[0]);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(hq.changes(), 0, "nobody was let in");
    hq.connect().simple(change);
    assert_eq!(hq.changes(), 1, "but who knows the password is");
}

#[test]
fn silent_callers_keep_nobody_out_for_long() {
    let hq = Hq::start(HashMap::new(), async |_| {});
    // Some say nothing, some half a word, some wait in the middle of a login.
    let callers: Vec<TcpStream> = (0..300)
        .map(|number| {
            let mut stream = hq.dial();
            let word = greeting();
            let _ = match number % 3 {
                0 => Ok(()),
                1 => stream.write_all(&word[..word.len() / 2]),
                _ => stream.write_all(&word),
            };
            stream
        })
        .collect();
    let began = Instant::now();
    let mut clients = Vec::new();
    while clients.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "they are still in the way");
        match Client::start(Box::new(hq.dial()), "ada", Some("open sesame"), "hq") {
            Ok(client) => clients.push(client),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
    drop(callers);
    assert!(!clients[0].simple("SELECT 1").is_error());
}
