//! An answer in pieces, written while its rows are found and no faster than they are taken.
//!
//! A task takes rows, has them written on a thread where that disturbs nobody, and waits until each
//! piece is taken. What is under way at any time is one batch of rows, what the encoder holds, and
//! two pieces.

use std::{io::Read, time::Duration};

use arrow::array::RecordBatch;
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt};
use tokio::{
    sync::mpsc::{self, Sender},
    time::timeout,
};

use super::{Encoder, ExportError};
use crate::error::QueryError;

/// Rows that are written at a time.
const ROWS_MAX: usize = 8192;
/// A piece is not longer.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// What the task says. Without `End` the answer is not whole, whatever became of the task.
enum Said {
    Piece(Bytes),
    End,
    Failed(ExportError),
}

/// The answer as `encoder` writes it. It ends with an error when the question fails, when no row is
/// found for `longest`, or when nothing of it is taken for as long; nothing goes on when it is
/// dropped.
pub fn pieces(
    rows: SendableRecordBatchStream,
    encoder: Encoder,
    longest: Duration,
) -> impl Stream<Item = Result<Bytes, ExportError>> + Send + 'static {
    let (pieces, taken) = mpsc::channel(1);
    tokio::spawn(async move {
        let said = tokio::select! {
            written = write(rows, encoder, &pieces, longest) => written.map_or_else(Said::Failed, |()| Said::End),
            () = pieces.closed() => return,
        };
        // Who no longer listens need not know.
        let _ = timeout(longest, pieces.send(said)).await;
    });
    futures::stream::unfold(Some(taken), |taken| async {
        let mut taken = taken?;
        match taken.recv().await {
            Some(Said::Piece(piece)) => Some((Ok(piece), Some(taken))),
            Some(Said::End) => None,
            Some(Said::Failed(error)) => Some((Err(error), None)),
            None => Some((Err(ExportError::Failed("writing was broken off".into())), None)),
        }
    })
}

async fn write(
    mut rows: SendableRecordBatchStream,
    mut encoder: Encoder,
    pieces: &Sender<Said>,
    longest: Duration,
) -> Result<(), ExportError> {
    loop {
        let found = timeout(longest, rows.next()).await.map_err(|_| {
            QueryError::Limit(format!("the query found no row for {} s and was cut", longest.as_secs()))
        })?;
        let Some(batch) = found else { break };
        let batch = batch.map_err(QueryError::from)?;
        for first in (0..batch.num_rows()).step_by(ROWS_MAX) {
            let few = batch.slice(first, ROWS_MAX.min(batch.num_rows() - first));
            let written;
            (encoder, written) = encoded(encoder, few).await?;
            send(written.into(), pieces, longest).await?;
        }
    }
    // The place of the question is another's from here on.
    drop(rows);
    let mut rest = aside(move || encoder.finish()).await?;
    loop {
        let piece;
        (rest, piece) = aside(move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES_MAX);
            rest.by_ref().take(PIECE_BYTES_MAX as u64).read_to_end(&mut piece)?;
            Ok((rest, piece))
        })
        .await?;
        if piece.is_empty() {
            return Ok(());
        }
        send(piece.into(), pieces, longest).await?;
    }
}

async fn encoded(mut encoder: Encoder, rows: RecordBatch) -> Result<(Encoder, Vec<u8>), ExportError> {
    aside(move || {
        let written = encoder.rows(&rows)?;
        Ok((encoder, written))
    })
    .await
}

/// Does what takes a while on a thread for that; a panic there is an error here.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ExportError::Failed(Box::new(error)))?
}

async fn send(mut written: Bytes, pieces: &Sender<Said>, longest: Duration) -> Result<(), ExportError> {
    while !written.is_empty() {
        let piece = written.split_to(PIECE_BYTES_MAX.min(written.len()));
        match timeout(longest, pieces.send(Said::Piece(piece))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(ExportError::Failed("nobody takes the answer any more".into())),
            Err(_) => {
                let text = format!("nothing of the answer was taken for {} s, and it was cut", longest.as_secs());
                return Err(QueryError::Limit(text).into());
            }
        }
    }
    Ok(())
}
