//! A batch of changes and its encoded form.
//!
//! Rows of one table are one Arrow record batch whose first columns are [`columns::SEQ`],
//! [`columns::OP`] and [`columns::CHANGED_AT`], then the table's own, and at the end, when some
//! value did not fit its column, [`columns::MISFIT`]. The payload is all parts' IPC streams back to
//! back, compressed as one zstd frame: one compression context per batch rather than one per
//! buffer, and repeated schemas cost next to nothing.

use arrow_array::RecordBatch;
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use bytes::Bytes;
use ring::digest;
#[cfg(doc)]
use rollcall_types::columns;
use rollcall_types::{ChainHash, Epoch, Seq};

use crate::{
    BATCH_BYTES_MAX, BATCH_PARTS_MAX, BATCH_ROWS_MAX, ipc,
    proto::{BatchHeader, Mark, PartHeader},
};

const COMPRESSION_LEVEL: i32 = 1;
/// A table's load begins or ends so often in one batch at most.
const PART_MARKS_MAX: usize = 1000;
/// No table's name is longer.
const TABLE_BYTES_MAX: usize = 1024;

/// Consecutive changes of one journal, split by table.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The life of the journal these belong to.
    pub epoch: Epoch,
    /// First position covered.
    pub first: Seq,
    /// Last position covered.
    pub last: Seq,
    /// The chain before this batch.
    pub previous_hash: ChainHash,
    /// The tables touched.
    pub parts: Vec<Part>,
}

/// One table's changes within a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Name at the site.
    pub table: String,
    /// End of the batch before this one that touched the table; 0 for none.
    pub previous: Seq,
    /// Rows in journal order; may be empty when there are only marks.
    pub rows: RecordBatch,
    /// Loads begun or completed here.
    pub marks: Vec<Mark>,
}

/// A batch ready to travel: its header, and its compressed payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// Describes the payload.
    pub header: BatchHeader,
    /// One zstd frame.
    pub payload: Bytes,
}

/// Why a batch cannot be encoded or decoded. Encoding errors are bugs; decoding errors put the
/// batch into quarantine.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Arrow could not write or read the rows.
    #[error("rows of table {table:?} cannot be read or written as arrow")]
    Arrow {
        /// Which table.
        table: String,
        /// Arrow's reason.
        source: arrow_schema::ArrowError,
    },
    /// The payload is not what zstd wrote.
    #[error("payload cannot be compressed or decompressed")]
    Compression(#[source] std::io::Error),
    /// Larger than the protocol allows.
    #[error("batch of {0} bytes or rows exceeds the limit")]
    TooLarge(usize),
    /// The bytes are not the ones the sender hashed.
    #[error("payload does not match its hash")]
    Hash,
    /// The rows are written in a way that no agent writes them; Arrow is not let near.
    #[error("rows of table {table:?} are refused: {what}")]
    Refused {
        /// Which table.
        table: String,
        /// What is wrong with them.
        what: &'static str,
    },
    /// Header and payload contradict each other.
    #[error("batch contradicts its header: {0}")]
    Header(&'static str),
}

/// Encodes batches, keeping one compression context.
pub struct Encoder {
    compressor: zstd::bulk::Compressor<'static>,
    scratch: Vec<u8>,
}

impl Encoder {
    /// A new encoder.
    pub fn new() -> Result<Self, BatchError> {
        let compressor = zstd::bulk::Compressor::new(COMPRESSION_LEVEL).map_err(BatchError::Compression)?;
        Ok(Self { compressor, scratch: Vec::new() })
    }

    /// Encodes `batch` and extends the chain by it.
    pub fn encode(&mut self, batch: &Batch) -> Result<Encoded, BatchError> {
        self.scratch.clear();
        let mut parts = Vec::with_capacity(batch.parts.len());
        for part in &batch.parts {
            let start = self.scratch.len();
            if part.rows.num_columns() > 0 {
                self.scratch = write_rows(std::mem::take(&mut self.scratch), &part.rows)
                    .map_err(|source| BatchError::Arrow { table: part.table.clone(), source })?;
            }
            parts.push(PartHeader {
                table: part.table.clone(),
                previous: part.previous.0,
                rows: u32::try_from(part.rows.num_rows()).map_err(|_| BatchError::TooLarge(part.rows.num_rows()))?,
                bytes: (self.scratch.len() - start) as u64,
                marks: part.marks.clone(),
            });
        }
        let payload = self.compressor.compress(&self.scratch).map_err(BatchError::Compression)?;
        if self.scratch.len() > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge(self.scratch.len()));
        }
        let mut header = BatchHeader {
            epoch: batch.epoch.0,
            first: batch.first.0,
            last: batch.last.0,
            previous_hash: batch.previous_hash.get(),
            hash: 0,
            parts,
            payload_bytes: self.scratch.len() as u64,
        };
        header.hash = chain(&header, &payload).get();
        Ok(Encoded { header, payload: payload.into() })
    }
}

pub(crate) fn write_rows(buffer: Vec<u8>, rows: &RecordBatch) -> Result<Vec<u8>, arrow_schema::ArrowError> {
    let mut writer = StreamWriter::try_new(buffer, rows.schema_ref())?;
    writer.write(rows)?;
    writer.into_inner()
}

/// The chain after the batch: SHA-256 over everything the header says and the payload, cut to 63
/// bits.
pub(crate) fn chain(header: &BatchHeader, payload: &[u8]) -> ChainHash {
    let mut context = digest::Context::new(&digest::SHA256);
    for number in [header.previous_hash, u64::from(header.epoch), header.first, header.last, header.payload_bytes] {
        context.update(&number.to_le_bytes());
    }
    for part in &header.parts {
        context.update(&(part.table.len() as u64).to_le_bytes());
        context.update(part.table.as_bytes());
        for number in [part.previous, u64::from(part.rows), part.bytes, part.marks.len() as u64] {
            context.update(&number.to_le_bytes());
        }
        for mark in &part.marks {
            context.update(&[mark.kind.to_le_bytes()[0]]);
            context.update(&mark.seq.to_le_bytes());
            context.update(&mark.begin.to_le_bytes());
        }
    }
    context.update(payload);
    let digest = context.finish();
    let mut low = [0; 8];
    low.copy_from_slice(&digest.as_ref()[..8]);
    ChainHash::new(u64::from_le_bytes(low))
}

/// Checks that the header is within bounds and that the payload is what the sender hashed.
pub fn verify(encoded: &Encoded) -> Result<(), BatchError> {
    let header = &encoded.header;
    if header.payload_bytes > BATCH_BYTES_MAX as u64 || encoded.payload.len() > BATCH_BYTES_MAX {
        return Err(BatchError::TooLarge(encoded.payload.len()));
    }
    let marks = header.parts.iter().map(|part| part.marks.len()).max();
    if header.parts.len() > BATCH_PARTS_MAX || marks.is_some_and(|most| most > PART_MARKS_MAX) {
        return Err(BatchError::Header("too many parts or marks"));
    }
    if header.parts.iter().any(|part| part.table.len() > TABLE_BYTES_MAX) {
        return Err(BatchError::Header("the name of a table is too long"));
    }
    let mut names: Vec<&str> = header.parts.iter().map(|part| part.table.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(BatchError::Header("two parts for one table"));
    }
    if header.first == 0 || header.last < header.first {
        return Err(BatchError::Header("positions are not ascending"));
    }
    let rows: u64 = header.parts.iter().map(|part| u64::from(part.rows)).sum();
    if rows > BATCH_ROWS_MAX as u64 {
        return Err(BatchError::TooLarge(rows as usize));
    }
    if chain(header, &encoded.payload).get() != header.hash {
        return Err(BatchError::Hash);
    }
    Ok(())
}

/// Decodes a batch that [`verify`] accepted.
pub fn decode(encoded: &Encoded) -> Result<Batch, BatchError> {
    let header = &encoded.header;
    let capacity = usize::try_from(header.payload_bytes).map_err(|_| BatchError::TooLarge(usize::MAX))?;
    let payload = zstd::bulk::decompress(&encoded.payload, capacity).map_err(BatchError::Compression)?;
    if payload.len() != capacity {
        return Err(BatchError::Header("payload length"));
    }
    let mut rest = Bytes::from(payload);
    let mut parts = Vec::with_capacity(header.parts.len());
    for part in &header.parts {
        let length = usize::try_from(part.bytes).unwrap_or(usize::MAX);
        if length > rest.len() {
            return Err(BatchError::Header("part lengths exceed the payload"));
        }
        let bytes = rest.split_to(length);
        let rows = if length == 0 {
            RecordBatch::new_empty(std::sync::Arc::new(arrow_schema::Schema::empty()))
        } else {
            read_rows(&bytes, Some(part.rows), &part.table)?
        };
        if rows.num_rows() != part.rows as usize {
            return Err(BatchError::Header("row count of a part"));
        }
        parts.push(Part { table: part.table.clone(), previous: Seq(part.previous), rows, marks: part.marks.clone() });
    }
    if !rest.is_empty() {
        return Err(BatchError::Header("payload is longer than its parts"));
    }
    Ok(Batch {
        epoch: Epoch(header.epoch),
        first: Seq(header.first),
        last: Seq(header.last),
        previous_hash: ChainHash::new(header.previous_hash),
        parts,
    })
}

/// Reads what [`write_rows`] wrote, or what somebody wrote who would harm the reader. `rows` is how
/// many there must be, if that is known.
pub(crate) fn read_rows(bytes: &[u8], rows: Option<u32>, table: &str) -> Result<RecordBatch, BatchError> {
    ipc::check(bytes, rows).map_err(|what| BatchError::Refused { table: table.to_owned(), what })?;
    let unreadable = |source| BatchError::Arrow { table: table.to_owned(), source };
    let mut reader = StreamReader::try_new(bytes, None).map_err(unreadable)?;
    match reader.next() {
        Some(rows) => rows.map_err(unreadable),
        None => Ok(RecordBatch::new_empty(reader.schema())),
    }
}

#[cfg(test)]
mod tests;
