use std::sync::Arc;

use arrow_array::{Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema};

use super::*;
use crate::{
    framing::{Assembler, frames},
    proto::{DataFrame, mark::Kind},
};

fn batch(rows: usize) -> Batch {
    let schema = Schema::new(vec![
        Field::new(rollcall_types::columns::SEQ, DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ]);
    let seqs = Int64Array::from_iter_values(1..=rows as i64);
    let names = StringArray::from_iter_values((0..rows).map(|n| format!("name {}", n * 7919 % 1009)));
    let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(seqs), Arc::new(names)]).expect("matching columns");
    let mark = Mark { kind: Kind::LoadBegun.into(), seq: 1, begin: 1 };
    Batch {
        epoch: Epoch(3),
        first: Seq(1),
        last: Seq(rows.num_rows() as u64),
        previous_hash: ChainHash::new(9),
        parts: vec![Part { table: "sales".into(), previous: Seq(0), rows, marks: vec![mark] }],
    }
}

#[test]
fn a_batch_survives_encoding_and_framing() {
    let batch = batch(20_000);
    let encoded = Encoder::new().and_then(|mut encoder| encoder.encode(&batch)).expect("encodes");
    let mut assembler = Assembler::default();
    let frames: Vec<DataFrame> = frames(&encoded).collect();
    assert!(frames.len() > 1, "a batch this size takes several frames");
    let mut whole = None;
    for frame in frames {
        assert!(whole.is_none(), "complete only after the last frame");
        assert!(frame.chunk.len() <= crate::FRAME_BYTES_MAX);
        whole = assembler.push(frame).expect("frames are in order");
    }
    let whole = whole.expect("complete after the last frame");
    verify(&whole).expect("intact");
    assert_eq!(decode(&whole).expect("decodes"), batch);
}

#[test]
fn a_changed_byte_or_header_is_noticed() {
    let encoded = Encoder::new().and_then(|mut encoder| encoder.encode(&batch(10))).expect("encodes");
    for at in 0..encoded.payload.len() {
        let mut payload = encoded.payload.to_vec();
        payload[at] ^= 1;
        let changed = Encoded { header: encoded.header.clone(), payload: payload.into() };
        assert!(matches!(verify(&changed), Err(BatchError::Hash)));
    }
    let mut changed = encoded.clone();
    changed.header.parts[0].previous = 7;
    assert!(matches!(verify(&changed), Err(BatchError::Hash)));
}

#[test]
fn frames_out_of_order_are_refused() {
    let chunk = DataFrame { chunk: Bytes::from_static(b"x"), ..DataFrame::default() };
    assert!(Assembler::default().push(chunk).is_err(), "a chunk needs a header first");
}
