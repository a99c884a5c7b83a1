//! Puts of log entries that fail, before or after their effect, as told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use object_store::{Error, ObjectStore, PutOptions, PutPayload, PutResult, Result, path::Path};
use rollcall_lake::{Layered, PutLayer, is_commit};

/// What happens to a put of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It fails and has no effect.
    Before,
    /// It takes effect; the reply says it failed.
    After,
    /// It takes effect; the client's own retry then finds the entry there.
    AfterAsExists,
}

#[derive(Debug)]
struct Faults(Mutex<VecDeque<Fault>>);

/// `inner`, whose next puts of log entries meet these faults.
pub(crate) fn faulty(inner: Arc<dyn ObjectStore>, faults: impl IntoIterator<Item = Fault>) -> Arc<Layered> {
    Arc::new(Layered::new(inner, Arc::new(Faults(Mutex::new(faults.into_iter().collect())))))
}

#[async_trait]
impl PutLayer for Faults {
    async fn put(
        &self,
        store: &dyn ObjectStore,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fault = if is_commit(location) { self.0.lock().expect("not poisoned").pop_front() } else { None }
            .unwrap_or(Fault::None);
        let failed = || Error::Generic { store: "faulty", source: "the reply was lost".into() };
        if fault == Fault::Before {
            return Err(failed());
        }
        let done = store.put_opts(location, payload, options).await?;
        match fault {
            Fault::None | Fault::Before => Ok(done),
            Fault::After => Err(failed()),
            Fault::AfterAsExists => Err(Error::AlreadyExists { path: location.to_string(), source: "retried".into() }),
        }
    }
}
