//! A batch that its sender hashed rightly, whatever is in it: HQ takes it apart, or says why not.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use rollcall_fuzz::{near, rows};
use rollcall_types::{ChainHash, Epoch, Seq};
use rollcall_wire::{
    batch::{self, Batch, Encoded, Encoder, Part},
    proto::BatchHeader,
};

/// A header, and the payload before it is packed.
fn sound() -> &'static (Vec<u8>, Vec<u8>) {
    static SOUND: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let part = |table: &str| Part { table: table.to_owned(), previous: Seq(0), rows: rows(), marks: Vec::new() };
        let batch = Batch {
            epoch: Epoch(1),
            first: Seq(1),
            last: Seq(3),
            previous_hash: ChainHash::new(0),
            parts: vec![part("sale"), part("item")],
        };
        let encoded = Encoder::new().expect("an encoder").encode(&batch).expect("encodes");
        let payload = zstd::bulk::decompress(&encoded.payload, 1 << 20).expect("unpacks");
        (encoded.header.encode_to_vec(), payload)
    })
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>, bool)| {
    let (of_header, of_payload, is_packed) = input;
    let (header, payload) = sound();
    let Ok(mut header) = BatchHeader::decode(near(header, &of_header).as_slice()) else { return };
    let payload = near(payload, &of_payload);
    // What is packed is taken apart further; what is not tries the unpacking.
    let payload = match is_packed {
        true => {
            header.payload_bytes = payload.len() as u64;
            zstd::bulk::compress(&payload, 1).expect("packs")
        }
        false => payload,
    };
    header.hash = rollcall_wire::fuzzing::chain(&header, &payload);
    let encoded = Encoded { header, payload: payload.into() };
    if batch::verify(&encoded).is_err() {
        return;
    }
    let Ok(decoded) = batch::decode(&encoded) else { return };
    for part in &decoded.parts {
        // Whoever reads a value later must not find another length than was checked.
        for column in part.rows.columns() {
            column.to_data().validate_full().expect("sound");
        }
    }
});
