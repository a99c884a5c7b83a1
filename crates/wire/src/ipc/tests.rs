use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, NullArray,
    RecordBatch as Rows, StringArray, StringViewArray, TimestampMicrosecondArray, UInt8Array,
};
use arrow_ipc::{BodyCompressionBuilder, CompressionType, MessageBuilder, RecordBatchBuilder, reader::StreamReader};
use flatbuffers::FlatBufferBuilder;

use super::check;
use crate::batch::write_rows;

fn rows() -> Rows {
    let decimals = Decimal128Array::from(vec![Some(1250), None]).with_precision_and_scale(10, 2).expect("fits");
    let columns: [(&str, ArrayRef); 9] = [
        ("_seq", Arc::new(Int64Array::from(vec![1, 2]))),
        ("_op", Arc::new(UInt8Array::from(vec![b'I', b'U']))),
        ("small", Arc::new(Int32Array::from(vec![Some(1), None]))),
        ("text", Arc::new(StringArray::from(vec![Some("a"), None]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(b"x".as_slice()), None]))),
        ("is", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("float", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        ("exact", Arc::new(decimals)),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(5), None]).with_timezone("UTC"))),
    ];
    Rows::try_from_iter(columns).expect("rows")
}

fn written(rows: &Rows) -> Vec<u8> {
    write_rows(Vec::new(), rows).expect("writes")
}

/// A stream of `rows` columns whose batch of rows is made by `make`, with so many bytes of body
/// told and given.
fn with_batch(
    rows: &Rows,
    told: i64,
    given: usize,
    make: impl Fn(&mut FlatBufferBuilder<'_>) -> arrow_ipc_batch::Made,
) -> Vec<u8> {
    let mut bytes = written(&Rows::new_empty(rows.schema()));
    // What is written for no rows ends with the batch and the end: only the schema is kept.
    let length = u32::from_le_bytes(bytes[4..8].try_into().expect("four")) as usize;
    bytes.truncate(8 + length);
    let mut builder = FlatBufferBuilder::new();
    let made = make(&mut builder);
    let mut message = MessageBuilder::new(&mut builder);
    message.add_version(arrow_ipc::MetadataVersion::V5);
    message.add_header_type(arrow_ipc::MessageHeader::RecordBatch);
    message.add_header(made.as_union_value());
    message.add_bodyLength(told);
    let root = message.finish();
    builder.finish(root, None);
    let head = builder.finished_data();
    let padded = head.len().div_ceil(8) * 8;
    bytes.extend([0xff; 4]);
    bytes.extend((padded as u32).to_le_bytes());
    bytes.extend(head);
    bytes.extend(vec![0; padded - head.len() + given]);
    bytes
}

mod arrow_ipc_batch {
    use flatbuffers::WIPOffset;

    pub(super) type Made = WIPOffset<arrow_ipc::RecordBatch<'static>>;
}

fn one_column() -> Rows {
    Rows::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).expect("rows")
}

/// A batch of one column of numbers with these buffers.
fn batch(
    builder: &mut FlatBufferBuilder<'_>,
    rows: i64,
    buffers: &[(i64, i64)],
    is_packed: bool,
) -> arrow_ipc_batch::Made {
    let buffers: Vec<_> = buffers.iter().map(|(start, length)| arrow_ipc::Buffer::new(*start, *length)).collect();
    let buffers = builder.create_vector(&buffers);
    let nodes = builder.create_vector(&[arrow_ipc::FieldNode::new(rows, 0)]);
    let packed = is_packed.then(|| {
        let mut packed = BodyCompressionBuilder::new(builder);
        packed.add_codec(CompressionType::ZSTD);
        packed.finish()
    });
    let mut batch = RecordBatchBuilder::new(builder);
    batch.add_length(rows);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    if let Some(packed) = packed {
        batch.add_compression(packed);
    }
    let made = batch.finish();
    flatbuffers::WIPOffset::new(made.value())
}

#[test]
fn what_is_sent_is_taken() {
    let rows = rows();
    assert_eq!(check(&written(&rows), Some(2)), Ok(()));
    assert_eq!(check(&written(&Rows::new_empty(rows.schema())), Some(0)), Ok(()));
    assert_eq!(check(&written(&rows), None), Ok(()));
    let days = Rows::try_from_iter([("day", Arc::new(Date32Array::from(vec![1])) as ArrayRef)]).expect("rows");
    assert_eq!(check(&written(&days), Some(1)), Ok(()));
    // The same builder as the bad ones below.
    let good = with_batch(&one_column(), 64, 64, |builder| batch(builder, 1, &[(0, 0), (0, 8)], false));
    assert_eq!(check(&good, Some(1)), Ok(()));
}

#[test]
fn a_body_that_is_not_there_takes_no_memory() {
    for told in [1 << 50, i64::MAX, -1, 65, i64::MIN] {
        let bad = with_batch(&one_column(), told, 64, |builder| batch(builder, 1, &[(0, 0), (0, 8)], false));
        assert!(check(&bad, None).is_err(), "{told}");
    }
}

#[test]
fn buffers_lie_within_the_body_and_do_not_share_it() {
    for buffers in [
        [(0, 0), (0, 1 << 40)],
        [(0, 0), (60, 8)],
        [(0, 0), (i64::MAX, 8)],
        [(-8, 8), (0, 8)],
        [(0, 40), (0, 40)],
        [(0, 0), (0, -1)],
    ] {
        let bad = with_batch(&one_column(), 64, 64, |builder| batch(builder, 1, &buffers, false));
        assert!(check(&bad, None).is_err(), "{buffers:?}");
    }
    let several = with_batch(&one_column(), 64, 64, |builder| batch(builder, 1, &[(0, 0), (0, 8), (8, 8)], false));
    assert_eq!(check(&several, None), Err("another number of buffers than told"));
}

#[test]
fn packed_buffers_and_too_many_rows_are_refused() {
    let packed = with_batch(&one_column(), 64, 64, |builder| batch(builder, 1, &[(0, 0), (0, 8)], true));
    assert_eq!(check(&packed, None), Err("packed buffers"));
    let many = with_batch(&one_column(), 64, 64, |builder| batch(builder, 1 << 40, &[(0, 0), (0, 8)], false));
    assert_eq!(check(&many, None), Err("too many rows"));
    let fewer = with_batch(&one_column(), 64, 64, |builder| batch(builder, 1, &[(0, 0), (0, 8)], false));
    assert_eq!(check(&fewer, Some(2)), Err("another number of rows than told"));
}

#[test]
fn columns_that_are_never_sent_are_refused() {
    let views: ArrayRef = Arc::new(StringViewArray::from(vec!["a text that is longer than twelve bytes"]));
    let nulls: ArrayRef = Arc::new(NullArray::new(1));
    let numbers = Int64Array::from(vec![1]);
    let list: ArrayRef = Arc::new(arrow_array::FixedSizeListArray::new(
        Arc::new(arrow_schema::Field::new_list_field(arrow_schema::DataType::Int64, true)),
        1,
        Arc::new(numbers),
        None,
    ));
    let words: arrow_array::DictionaryArray<arrow_array::types::Int32Type> = ["a"].into_iter().collect();
    let wide: ArrayRef = Arc::new(Decimal128Array::from(vec![1]).with_precision_and_scale(5, -3).expect("fits"));
    let long = "n".repeat(2000);
    for (name, column) in [
        ("a", views),
        ("a", nulls),
        ("a", list),
        ("a", Arc::new(words)),
        ("a", wide),
        (long.as_str(), Arc::new(Int64Array::from(vec![1]))),
    ] {
        let kind = column.data_type().clone();
        let rows = Rows::try_from_iter([(name, column)]).expect("rows");
        assert!(check(&written(&rows), None).is_err(), "{kind}");
    }
}

#[test]
fn bytes_before_between_and_after_are_refused() {
    let good = written(&rows());
    for end in [0, 3, 8, 40, good.len() - 9] {
        assert!(check(&good[..end], None).is_err(), "{end}");
    }
    let mut more = good.clone();
    more.push(0);
    assert_eq!(check(&more, None), Err("bytes after the end"));
    let twice = [good.as_slice(), &good].concat();
    assert_eq!(check(&twice, None), Err("bytes after the end"));
    let mut unmarked = good;
    unmarked[0] = 0;
    assert_eq!(check(&unmarked, None), Err("a message without its marker"));
}

/// Whatever is changed, Arrow ends: in rows of the order of the bytes, or in an error.
#[test]
fn what_is_let_through_can_be_read() {
    let good = written(&rows());
    let (mut passed, mut refused) = (0, 0);
    for at in 0..good.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = good.clone();
            changed[at] ^= flip;
            if check(&changed, None).is_err() {
                refused += 1;
                continue;
            }
            passed += 1;
            let read = StreamReader::try_new(changed.as_slice(), None)
                .map(|reader| reader.flatten().map(|rows| rows.num_rows()).sum::<usize>());
            if let Ok(count) = read {
                assert!(count <= 2, "{count} rows");
            }
        }
    }
    assert!(passed > 0 && refused > 0);
}
