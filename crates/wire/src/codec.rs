//! How messages are encoded: as tonic does by itself, in buffers that are there when they are
//! needed.
//!
//! HQ holds two streams for each of tens of thousands of sites, and nearly all are silent nearly
//! always. The usual buffers of 8 KiB for each direction of each stream were a third of a
//! connection's memory.

use std::marker::PhantomData;

use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// A buffer is made, and grows, with what comes. (Compression could not do with none: tonic makes
/// buffers longer by this much.)
const BUFFER_BYTES: usize = 0;
/// From this on, what is encoded is handed to the connection.
const YIELD_BYTES: usize = 32 * 1024;

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// Protobuf in small buffers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SmallBuffers<T, U>(PhantomData<fn() -> (T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(settings())
    }
}
