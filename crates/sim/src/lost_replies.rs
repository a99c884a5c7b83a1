//! A store whose answers get lost: the commit takes effect, and the caller is told that it failed.

use async_trait::async_trait;
use object_store::{Error, ObjectStore, PutOptions, PutPayload, PutResult, Result, path::Path};
use rollcall_lake::{PutLayer, is_commit};

/// Loses the reply to this share of commits, after their effect.
#[derive(Debug, Clone, Copy)]
pub struct LostReplies {
    /// Between 0 and 1.
    pub ratio: f64,
}

#[async_trait]
impl PutLayer for LostReplies {
    async fn put(
        &self,
        store: &dyn ObjectStore,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let done = store.put_opts(location, payload, options).await?;
        if is_commit(location) && rand::random_bool(self.ratio.clamp(0.0, 1.0)) {
            return Err(Error::Generic { store: "losing", source: "the reply was lost".into() });
        }
        Ok(done)
    }
}
