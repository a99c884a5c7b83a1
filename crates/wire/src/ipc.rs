//! Walks an Arrow IPC stream before Arrow reads it.
//!
//! Arrow believes what a message says of itself: it takes memory for a body of any length, unpacks
//! buffers and dictionaries to any size, and lets columns share their bytes. What comes from
//! outside is therefore walked first, without taking memory: one schema, at most one batch of rows,
//! plain columns of the kinds that are sent here, and buffers that together are no longer than the
//! bytes there are. The format: "Arrow Columnar Format", section "Serialization and Interprocess
//! Communication".

use arrow_ipc::{
    DateUnit, Endianness, Field, Message, MessageHeader, MetadataVersion, Precision, RecordBatch, Schema, TimeUnit,
    Type,
};
use flatbuffers::VerifierOptions;

use crate::BATCH_ROWS_MAX;

/// The marker before each message's length.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// No message says more about its body than this.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// No table has more columns; SQLite's bound is 2,000, and some are ours.
const COLUMNS_MAX: usize = 2010;
/// Columns times rows: what a batch of nulls and truth values, which take few bytes, can become.
const CELLS_MAX: usize = 16_000_000;
/// No column's name is longer.
const NAME_BYTES_MAX: usize = 1024;
/// Names of columns times rows: values that do not fit their column are kept with its name, row by
/// row.
const NAMED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// No text about a table or a column is longer.
const ABOUT_BYTES_MAX: usize = 1024 * 1024;
/// Buffers begin at multiples of this, as the format has it.
const ALIGNMENT: usize = 8;
/// Where a text ends takes so many bytes.
const OFFSET_BYTES: usize = 4;
/// Digits of an exact number.
const DIGITS_MAX: i32 = 38;

/// What is wrong with a stream.
type Refused = &'static str;

/// Checks that Arrow can read `bytes` in about as much memory as they are long. `rows` is how many
/// there must be, if that is known.
pub(crate) fn check(bytes: &[u8], rows: Option<u32>) -> Result<(), Refused> {
    let mut rest = bytes;
    let first = message(&mut rest)?.ok_or("no schema")?;
    let schema = first.head.header_as_schema().ok_or("no schema")?;
    if !first.body.is_empty() {
        return Err("a schema with a body");
    }
    let kinds = check_schema(&schema)?;
    let found = match message(&mut rest)? {
        None => 0,
        Some(second) => {
            let batch = second.head.header_as_record_batch().ok_or("a message that is no batch of rows")?;
            let found = check_rows(&batch, &kinds, second.body.len())?;
            let names: usize =
                schema.fields().into_iter().flatten().map(|field| field.name().map_or(0, str::len)).sum();
            if found.saturating_mul(names) > NAMED_BYTES_MAX {
                return Err("too many rows for such long names");
            }
            if message(&mut rest)?.is_some() {
                return Err("several batches of rows");
            }
            found
        }
    };
    if !rest.is_empty() {
        return Err("bytes after the end");
    }
    if rows.is_some_and(|rows| found != rows as usize) {
        return Err("another number of rows than told");
    }
    Ok(())
}

/// One message, and the bytes that belong to it.
struct Read<'a> {
    head: Message<'a>,
    body: &'a [u8],
}

/// The next message; none at the end of the stream.
fn message<'a>(rest: &mut &'a [u8]) -> Result<Option<Read<'a>>, Refused> {
    let short = "the stream is cut short";
    if rest.is_empty() {
        return Ok(None);
    }
    let (marker, after) = rest.split_at_checked(4).ok_or(short)?;
    let (length, after) = after.split_at_checked(4).ok_or(short)?;
    if marker != CONTINUATION {
        return Err("a message without its marker");
    }
    let length = <[u8; 4]>::try_from(length).map_or(0, u32::from_le_bytes) as usize;
    if length == 0 {
        *rest = after;
        return Ok(None);
    }
    if length > MESSAGE_BYTES_MAX {
        return Err("a message that is too long");
    }
    let (head, after) = after.split_at_checked(length).ok_or(short)?;
    // Tables may be shared in this encoding: their sizes, were each written out, are bounded too.
    let options = VerifierOptions {
        max_depth: 16,
        max_tables: 4 * COLUMNS_MAX,
        max_apparent_size: 4 * MESSAGE_BYTES_MAX,
        ..VerifierOptions::default()
    };
    let head = arrow_ipc::root_as_message_with_opts(&options, head).map_err(|_| "a message that cannot be read")?;
    if head.version() != MetadataVersion::V5 {
        return Err("another version of the format");
    }
    if !matches!(head.header_type(), MessageHeader::Schema | MessageHeader::RecordBatch) {
        return Err("a message that is neither a schema nor rows");
    }
    let length = usize::try_from(head.bodyLength()).map_err(|_| "a body of no length")?;
    let (body, after) = after.split_at_checked(length).ok_or("a body longer than the bytes there are")?;
    *rest = after;
    Ok(Some(Read { head, body }))
}

/// How a column's values are kept, beside a buffer that says which are there.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// So many bits each.
    Fixed(usize),
    /// Bytes, and where each value ends.
    Text,
}

impl Kind {
    fn buffers(self) -> usize {
        match self {
            Self::Fixed(_) => 2,
            Self::Text => 3,
        }
    }
}

/// What kind each column is of.
fn check_schema(schema: &Schema<'_>) -> Result<Vec<Kind>, Refused> {
    if schema.endianness() != Endianness::Little {
        return Err("another order of bytes");
    }
    let fields = schema.fields().ok_or("no columns")?;
    if fields.len() > COLUMNS_MAX {
        return Err("too many columns");
    }
    let about = schema.custom_metadata().into_iter().flatten();
    let mut length: usize = about.map(|pair| pair.key().map_or(0, str::len) + pair.value().map_or(0, str::len)).sum();
    let mut kinds = Vec::with_capacity(fields.len());
    for field in fields {
        let about = field.custom_metadata().into_iter().flatten();
        length += about.map(|pair| pair.key().map_or(0, str::len) + pair.value().map_or(0, str::len)).sum::<usize>();
        kinds.push(kind_of(&field)?);
    }
    if length > ABOUT_BYTES_MAX {
        return Err("too long a text about the columns");
    }
    Ok(kinds)
}

/// The kind of a column. Arrow panics at what the format does not have.
fn kind_of(field: &Field<'_>) -> Result<Kind, Refused> {
    const OTHER: Refused = "a column of another kind than is sent";
    if field.name().is_none_or(|name| name.len() > NAME_BYTES_MAX) {
        return Err("a column without a name, or with too long a one");
    }
    if field.dictionary().is_some() || field.children().is_some_and(|children| !children.is_empty()) {
        return Err(OTHER);
    }
    let bits = match field.type_type() {
        Type::Bool => Some(1),
        Type::Int => match field.type_as_int().map(|int| int.bitWidth()) {
            Some(8) => Some(8),
            Some(16) => Some(16),
            Some(32) => Some(32),
            Some(64) => Some(64),
            _ => None,
        },
        Type::FloatingPoint => match field.type_as_floating_point().map(|float| float.precision()) {
            Some(Precision::HALF) => Some(16),
            Some(Precision::SINGLE) => Some(32),
            Some(Precision::DOUBLE) => Some(64),
            _ => None,
        },
        Type::Date => match field.type_as_date().map(|date| date.unit()) {
            Some(DateUnit::DAY) => Some(32),
            Some(DateUnit::MILLISECOND) => Some(64),
            _ => None,
        },
        Type::Timestamp => {
            let unit = field.type_as_timestamp().map(|time| time.unit());
            unit.filter(|unit| TimeUnit::ENUM_VALUES.contains(unit)).map(|_| 64)
        }
        Type::Decimal => {
            let decimal = field.type_as_decimal().ok_or("a column without its kind")?;
            let is_known = decimal.bitWidth() == 128
                && (1..=DIGITS_MAX).contains(&decimal.precision())
                && (0..=decimal.precision()).contains(&decimal.scale());
            if !is_known {
                return Err("exact numbers of another kind than is sent");
            }
            Some(128)
        }
        Type::Utf8 | Type::Binary => return Ok(Kind::Text),
        _ => None,
    };
    bits.map(Kind::Fixed).ok_or(OTHER)
}

/// How many rows there are.
fn check_rows(batch: &RecordBatch<'_>, kinds: &[Kind], body: usize) -> Result<usize, Refused> {
    let rows = usize::try_from(batch.length()).map_err(|_| "rows without a number")?;
    if rows > BATCH_ROWS_MAX || rows.saturating_mul(kinds.len()) > CELLS_MAX {
        return Err("too many rows");
    }
    if batch.compression().is_some() {
        return Err("packed buffers");
    }
    if batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err("buffers of another kind than is sent");
    }
    let nodes = batch.nodes().ok_or("rows without columns")?;
    if nodes.len() != kinds.len() {
        return Err("another number of columns than told");
    }
    if nodes.iter().any(|node| node.length() != batch.length() || !(0..=node.length()).contains(&node.null_count())) {
        return Err("columns of different lengths");
    }
    let buffers = batch.buffers().ok_or("rows without buffers")?;
    if buffers.len() != kinds.iter().map(|kind| kind.buffers()).sum::<usize>() {
        return Err("another number of buffers than told");
    }
    let needed = nodes.iter().zip(kinds).flat_map(|(node, kind)| {
        let validity = if node.null_count() > 0 { rows.div_ceil(8) } else { 0 };
        let (values, text) = match kind {
            Kind::Fixed(bits) => ((rows * bits).div_ceil(8), None),
            Kind::Text if rows == 0 => (0, Some((0, false))),
            Kind::Text => ((rows + 1) * OFFSET_BYTES, Some((0, false))),
        };
        [(validity, false), (values, matches!(kind, Kind::Text))].into_iter().chain(text)
    });
    let mut length = 0_usize;
    for (buffer, (needed, is_offsets)) in buffers.iter().zip(needed) {
        let (start, own) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
        let (Ok(start), Ok(own)) = (start, own) else { return Err("a buffer before the body") };
        if start.checked_add(own).is_none_or(|end| end > body) {
            return Err("a buffer longer than the body");
        }
        if own < needed {
            return Err("a buffer too short for its rows");
        }
        if start % ALIGNMENT != 0 || own % OFFSET_BYTES != 0 && is_offsets {
            return Err("a buffer that is not aligned");
        }
        length = length.saturating_add(own);
    }
    // Buffers that overlap would be copied as often as they are named.
    if length > body { Err("buffers that overlap") } else { Ok(rows) }
}

#[cfg(test)]
mod tests;
