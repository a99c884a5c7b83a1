//! Frames of a data stream, in any order and of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use rollcall_wire::{framing::Assembler, proto::DataFrame};

fuzz_target!(|input: Vec<Vec<u8>>| {
    let mut assembler = Assembler::default();
    for bytes in input {
        let Ok(frame) = DataFrame::decode(bytes.as_slice()) else { continue };
        if assembler.push(frame).is_err() {
            return;
        }
    }
});
