//! Who is not let in asks nothing, and keeps nobody out.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    hq::Hq,
    wire::{Client, Prepared},
};

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

#[test]
fn a_change_that_could_not_be_rolled_back_with_what_is_beside_it_is_refused() {
    let hq = Hq::start(HashMap::new(), async |lake: &rollcall_lake::Lake| {
        let table = rollcall_types::TableName::new("prices").expect("a name");
        lake.table_or_create(&table, &["id".to_owned()]).await.expect("creates");
    });
    let delete = "DELETE FROM prices";
    let mut client = hq.connect();
    for text in [
        format!("BEGIN; {delete}; ROLLBACK"),
        format!("BEGIN; {delete}; COMMIT"),
        format!("{delete}; SELECT 1 / 0"),
        format!("SELECT 1; {delete}"),
        format!("{delete}; {delete}"),
    ] {
        assert!(client.simple(&text).is_error(), "{text}");
        client.simple("ROLLBACK");
        assert_eq!(hq.changes(), 0, "{text}");
    }
    client.simple("BEGIN").expect_done();
    assert!(client.prepared(Prepared { sql: delete, types: &[], values: &[], form: 0, answer: 0 }).is_error());
    client.simple("ROLLBACK").expect_done();
    assert_eq!(hq.changes(), 0, "prepared, in a transaction");
    let pipeline = |statements: [&str; 2]| {
        written(|out| {
            for sql in statements {
                frontend::parse("", sql, [], out)?;
                frontend::bind("", "", [], Vec::<()>::new(), |(), _| Ok(postgres_protocol::IsNull::Yes), [], out)
                    .map_err(|_| std::io::Error::other("binds"))?;
                frontend::execute("", 0, out)?;
            }
            frontend::sync(out);
            frontend::terminate(out);
            Ok(())
        })
    };
    let behind_begin = hq.connect().say(&pipeline(["BEGIN", delete]));
    assert!(has(&behind_begin, "outside a transaction"), "{}", String::from_utf8_lossy(&behind_begin));
    assert_eq!(hq.changes(), 0, "behind BEGIN in one pipeline");
    client.simple(delete);
    assert_eq!(hq.changes(), 1, "alone it takes effect");
}

/// Messages of a session, each sound by itself.
fn messages() -> Vec<Vec<u8>> {
    let sql = [
        "SELECT 1",
        "SELECT name, sum(price) FROM items WHERE id > 3 GROUP BY 1 ORDER BY 2 DESC LIMIT 5",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT * FROM n",
        "SELECT $1::int + 1, '\u{e9}' || $2::text, DATE '2024-02-29' - INTERVAL '1 year'",
        "BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH 5 FROM c; COMMIT",
        "SET statement_timeout = '5s'; SHOW ALL",
        "SELECT * FROM pg_catalog.pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace",
    ];
    let mut all: Vec<Vec<u8>> = sql.iter().map(|sql| written(|out| frontend::query(sql, out))).collect();
    for sql in sql {
        all.push(written(|out| frontend::parse("s", sql, [23, 25], out)));
    }
    all.push(written(|out| frontend::describe(b'S', "s", out)));
    all.push(written(|out| {
        let values = [Some(&b"\0\0\0\x07"[..]), None];
        let bound = frontend::bind(
            "p",
            "s",
            [1, 0],
            values,
            |value, out| match value {
                Some(value) => {
                    out.extend_from_slice(value);
                    Ok(postgres_protocol::IsNull::No)
                }
                None => Ok(postgres_protocol::IsNull::Yes),
            },
            [1],
            out,
        );
        bound.map_err(|_| std::io::Error::other("binds"))
    }));
    all.push(written(|out| frontend::execute("p", 2, out)));
    all.push(written(|out| frontend::close(b'P', "p", out)));
    for message in [frontend::sync, frontend::flush, frontend::copy_done] {
        all.push(written(|out| {
            message(out);
            Ok(())
        }));
    }
    all
}

#[test]
fn whatever_is_said_behind_a_login_harms_nobody_else() {
    let hq = Hq::start(HashMap::new(), async |_| {});
    // Others each time, and as many as are asked for: `ROLLCALL_RUNS=5000`.
    let asked: Option<u64> = std::env::var("ROLLCALL_RUNS").ok().and_then(|runs| runs.parse().ok());
    let seed = asked.map_or(23, |_| rand::rng().random());
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let messages = messages();
    let (mut errors, mut rows, mut malformed) = (0, 0, 0);
    for round in 0..asked.unwrap_or(150).max(150) {
        let mut said: Vec<u8> = Vec::new();
        for _ in 0..random.random_range(1..6) {
            said.extend(messages.choose(&mut random).expect("some"));
        }
        for _ in 0..random.random_range(0..6) {
            let at = random.random_range(0..said.len());
            match random.random_range(0..4) {
                0 => said[at] = random.random(),
                1 => said[at] ^= 1 << random.random_range(0..8),
                2 => drop(said.remove(at)),
                _ => said.insert(at, random.random()),
            }
            if said.is_empty() {
                said.push(b'Q');
            }
        }
        said.extend(written(|out| {
            frontend::sync(out);
            frontend::terminate(out);
            Ok(())
        }));
        let client = hq.connect();
        client.bound_by(Duration::from_millis(250));
        let answer = client.say(&said);
        assert!(!has(&answer, "panic"), "round {round}: {}", String::from_utf8_lossy(&answer));
        malformed += usize::from(has(&answer, "08P01"));
        errors += usize::from(has(&answer, "ERROR"));
        rows += usize::from(has(&answer, "SELECT "));
        if round % 20 == 0 {
            assert!(!hq.connect().simple("SELECT 1").is_error(), "round {round}: somebody else is answered");
        }
    }
    assert!(errors > 50 && rows > 10, "{errors} errors and {rows} answers: most are taken apart");
    assert!(malformed > 5, "{malformed} messages that are none");
    assert_eq!(hq.changes(), 0);
}
