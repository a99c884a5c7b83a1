//! Messages as earlier versions wrote them are read for ever, and this one writes what it says it
//! does.
//!
//! `golden/NAME.txt` holds one message a line, its name and its bytes, as the version of that name
//! wrote them. They are never changed. `ROLLCALL_WRITE=1` writes the file of this version.

use std::{collections::BTreeMap, path::PathBuf};

use prost::Message;

use crate::proto::{Applied, BatchHeader, Beacon, Confirmed, Cursor, Hello, PartHeader, Welcome};

/// Messages are written in this way since this version.
const NEWEST: &str = "0.2";

fn file(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/golden/{version}.txt"))
}

fn hello() -> Hello {
    Hello {
        protocol: 3,
        protocol_min: 1,
        agent_version: "0.2.0".to_owned(),
        instance: "one".to_owned(),
        journal_id: "journal".to_owned(),
        lake_id: "lake".to_owned(),
        epoch: 2,
        head: 300,
        confirmed: 299,
        oldest: 7,
        clock_micros: 1_800_000_000_000_000,
        states_manifests: true,
        takes_published: true,
        called: "hq.example:7400".to_owned(),
        ..Hello::default()
    }
}

fn beacon() -> Beacon {
    Beacon {
        head: 300,
        confirmed: 299,
        oldest_unconfirmed_age_ms: 1500,
        clock_micros: 1_800_000_000_000_000,
        capture_ok: true,
        journal_bytes: 4096,
        disk_free_bytes: Some(1 << 40),
        applied: vec![Applied { table: "prices".to_owned(), version: 4, ..Applied::default() }],
        ..Beacon::default()
    }
}

fn header() -> BatchHeader {
    let part = PartHeader { table: "sales".to_owned(), previous: 10, rows: 3, bytes: 512, marks: Vec::new() };
    BatchHeader { epoch: 2, first: 11, last: 13, previous_hash: 5, hash: 6, parts: vec![part], payload_bytes: 512 }
}

fn welcome() -> Welcome {
    let cursors = vec![Cursor { table: "sales".to_owned(), seq: 10, hash: 5 }];
    let (lake_id, now_micros) = ("lake".to_owned(), 1_800_000_000_000_000);
    Welcome {
        protocol: 3,
        session: 9,
        lake_id,
        epoch: 2,
        cursors,
        now_micros,
        credit_bytes: 4096,
        ..Welcome::default()
    }
}

fn confirmed() -> Confirmed {
    Confirmed { epoch: 2, through: 13, lake_id: "lake".to_owned() }
}

fn written() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("Hello", hello().encode_to_vec()),
        ("Beacon", beacon().encode_to_vec()),
        ("BatchHeader", header().encode_to_vec()),
        ("Welcome", welcome().encode_to_vec()),
        ("Confirmed", confirmed().encode_to_vec()),
    ])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte")).collect()
}

#[test]
fn this_version_writes_the_messages_that_it_says() {
    let text: String = written().iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    if std::env::var_os("ROLLCALL_WRITE").is_some() {
        std::fs::write(file(NEWEST), &text).expect("writes");
    }
    let golden = std::fs::read_to_string(file(NEWEST)).expect("is there");
    assert_eq!(text, golden, "another form of a message: agents of before do not read it");
}

#[test]
fn the_messages_of_every_version_are_read() {
    for golden in std::fs::read_dir(file(NEWEST).parent().expect("a folder")).expect("is there") {
        let text = std::fs::read_to_string(golden.expect("an entry").path()).expect("reads");
        let of: BTreeMap<&str, Vec<u8>> =
            text.lines().filter_map(|line| line.split_once(' ')).map(|(name, hex)| (name, bytes(hex))).collect();
        assert_eq!(Hello::decode(&of["Hello"][..]).expect("reads"), hello());
        assert_eq!(Beacon::decode(&of["Beacon"][..]).expect("reads"), beacon());
        assert_eq!(BatchHeader::decode(&of["BatchHeader"][..]).expect("reads"), header());
        assert_eq!(Welcome::decode(&of["Welcome"][..]).expect("reads"), welcome());
        assert_eq!(Confirmed::decode(&of["Confirmed"][..]).expect("reads"), confirmed());
    }
}
