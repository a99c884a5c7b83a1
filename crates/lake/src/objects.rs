//! Single objects of the store: reading one that may be absent, creating one that may be there.

use std::time::Duration;

use bytes::Bytes;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, path::Path};

use crate::error::{Doing, LakeError};

/// Attempts to learn how a put ended, with growing pauses: about a minute in all.
const PUT_ATTEMPTS: u32 = 10;

/// The pauses between the attempts to learn how a put ended, the first being none.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    (0..PUT_ATTEMPTS).map(|attempt| match attempt {
        0 => Duration::ZERO,
        _ => Duration::from_millis(50 << attempt.min(8)),
    })
}

/// Reads an object whole; none when it does not exist.
pub(crate) async fn get_optional(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>, LakeError> {
    match store.get(path).await {
        Ok(found) => Ok(Some(found.bytes().await.doing("reading from the lake")?)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(source) => Err(LakeError::Store { doing: format!("reading {path}"), source }),
    }
}

/// Sees to it that an object is there, durable: `body`, unless someone (an attempt of our own whose
/// reply was lost, for one) created it before. The caller reads it when it matters whose it is.
pub(crate) async fn put_if_absent(store: &dyn ObjectStore, path: &Path, body: Bytes) -> Result<(), LakeError> {
    let mut unknown = None;
    for pause in pauses() {
        tokio::time::sleep(pause).await;
        match store.put_opts(path, body.clone().into(), PutMode::Create.into()).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => return Ok(()),
            Err(
                error @ (Error::NotImplemented { .. } | Error::PermissionDenied { .. } | Error::Unauthenticated { .. }),
            ) => {
                unknown = Some(error);
                break;
            }
            Err(error) => {
                tracing::warn!(%path, %error, "outcome of creating an object is unknown, trying again");
                unknown = Some(error);
            }
        }
    }
    let source =
        unknown.unwrap_or(Error::NotImplemented { operation: "put".to_owned(), implementer: "lake".to_owned() });
    Err(LakeError::Store { doing: format!("creating {path}"), source })
}
