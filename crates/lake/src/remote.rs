//! Object stores beyond this machine: finding one by its address, and making sure that it can hold
//! a lake.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, parse_url_opts, path::Path, prefix::PrefixStore};
use url::Url;

use crate::error::{Doing, LakeError};

/// Writers that race for one name when a store is tried.
const RACERS: u8 = 4;

/// The store at `s3://bucket/prefix` (or `gs://`, `az://`), with what it needs beside the address
/// from the environment: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP` and the like, by
/// the names the store's own tools use.
pub fn store_at(address: &str) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let url = Url::parse(address).map_err(|error| {
        LakeError::NoStore(format!("{address:?} is not an address such as s3://bucket/prefix: {error}"))
    })?;
    if matches!(url.scheme(), "file" | "memory") {
        return Err(LakeError::NoStore(format!("{address}: a lake in a directory is opened with --data DIR alone")));
    }
    let options = std::env::vars().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let (store, prefix) = parse_url_opts(&url, options).doing("opening the object store")?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

/// Tries whether the store refuses a put of what exists, also when several try at once: every
/// commit relies on it. Leaves nothing behind.
pub(crate) async fn probe(store: &dyn ObjectStore) -> Result<(), LakeError> {
    let path = Path::from("rollcall/probe").join(rollcall_runtime::new_id().to_string());
    let put = |racer: u8| {
        let payload = Bytes::from(vec![racer]);
        store.put_opts(&path, payload.into(), PutMode::Create.into())
    };
    let outcomes = join_all((0..RACERS).map(put)).await;
    let mut winners = 0;
    for outcome in outcomes {
        match outcome {
            Ok(_) => winners += 1,
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            Err(Error::NotImplemented { .. }) => return Err(LakeError::NoConditionalPut),
            Err(source) => return Err(LakeError::Store { doing: "trying the object store".to_owned(), source }),
        }
    }
    let removed = store.delete(&path).await;
    match winners {
        1 => removed.doing("deleting from the object store"),
        _ => Err(LakeError::NoConditionalPut),
    }
}
