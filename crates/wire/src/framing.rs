//! Batches as frames of bounded size, and back.

use bytes::{Bytes, BytesMut};

use crate::{
    BATCH_BYTES_MAX, FRAME_BYTES_MAX,
    batch::Encoded,
    proto::{BatchHeader, DataFrame},
};

/// The frames of a batch, in order; the first carries the header.
pub fn frames(encoded: &Encoded) -> impl Iterator<Item = DataFrame> + use<> {
    let mut header = Some(encoded.header.clone());
    let mut rest = encoded.payload.clone();
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let chunk = rest.split_to(rest.len().min(FRAME_BYTES_MAX));
        done = rest.is_empty();
        Some(DataFrame { session: 0, header: header.take(), chunk, last: done })
    })
}

/// The sender broke the framing; the stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// A chunk without a header before it, or a header inside a batch.
    #[error("frames are out of order")]
    Order,
    /// A frame or a batch above the protocol's limits.
    #[error("a frame or batch exceeds the limit")]
    TooLarge,
}

/// Puts frames together. One per stream.
#[derive(Debug, Default)]
pub struct Assembler {
    header: Option<BatchHeader>,
    payload: BytesMut,
}

impl Assembler {
    /// Takes a frame; returns the batch when this was its last one.
    pub fn push(&mut self, frame: DataFrame) -> Result<Option<Encoded>, FramingError> {
        if frame.header.is_some() == self.header.is_some() {
            return Err(FramingError::Order);
        }
        if frame.chunk.len() > FRAME_BYTES_MAX || self.payload.len() + frame.chunk.len() > BATCH_BYTES_MAX {
            return Err(FramingError::TooLarge);
        }
        if frame.last && frame.header.is_some() {
            return Ok(frame.header.map(|header| Encoded { header, payload: frame.chunk }));
        }
        self.header = self.header.take().or(frame.header);
        self.payload.extend_from_slice(&frame.chunk);
        if !frame.last {
            return Ok(None);
        }
        let payload: Bytes = self.payload.split().freeze();
        Ok(self.header.take().map(|header| Encoded { header, payload }))
    }
}
