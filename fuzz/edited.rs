//! What is common to the targets: bytes that are nearly right, and rows as the agent sends them.
//!
//! A fuzzer that begins with nothing takes long to come past the first check. So the input says how
//! something sound is changed: it is a list of edits, of four bytes each.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt8Array,
};

/// `sound` with the edits that `input` says; without a change if there are none.
pub fn edited(sound: &[u8], input: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for edit in input.chunks_exact(4) {
        let place = usize::from(u16::from_le_bytes([edit[1], edit[2]]));
        if bytes.is_empty() {
            return bytes;
        }
        let place = place % bytes.len();
        match edit[0] % 6 {
            0 => bytes[place] = edit[3],
            1 => bytes[place] ^= 1 << (edit[3] % 8),
            2 => bytes.truncate(place),
            3 => bytes.insert(place, edit[3]),
            4 => {
                bytes.remove(place);
            }
            // A length or an offset that is far off.
            _ => {
                let end = (place + 8).min(bytes.len());
                let value = (i64::from(edit[3]) << 56 >> (edit[3] % 57)).to_le_bytes();
                bytes[place..end].copy_from_slice(&value[..end - place]);
            }
        }
    }
    bytes
}

/// Either what the input says itself, or `sound` as it says to edit it.
pub fn near(sound: &[u8], input: &[u8]) -> Vec<u8> {
    match input.split_first() {
        Some((0, raw)) => raw.to_vec(),
        Some((_, edits)) => edited(sound, edits),
        None => sound.to_vec(),
    }
}

/// Rows of every kind that the agent sends.
pub fn rows() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("_seq", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("_op", Arc::new(UInt8Array::from(vec![b'I', b'U', b'D']))),
        ("id", Arc::new(Int64Array::from(vec![Some(7), None, Some(9)]))),
        ("price", Arc::new(Float64Array::from(vec![Some(1.5), Some(-0.0), None]))),
        ("name", Arc::new(StringArray::from(vec![Some("one"), Some(""), None]))),
        ("raw", Arc::new(BinaryArray::from_opt_vec(vec![Some(&b"\0\xff"[..]), None, Some(&b""[..])]))),
        ("is_open", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
    ];
    RecordBatch::try_from_iter(columns).expect("rows")
}
