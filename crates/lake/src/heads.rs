//! How far each table, and each secret, had come: what is there later must not be older.
//!
//! The chain of digests in a log tells when an entry is missing from its middle. That the last ones
//! are missing, or a whole table, is told by this object, which is written anew from time to time,
//! with the digest of its own text. What came after it was written last and is gone is not told.

use std::collections::BTreeMap;

use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    error::{Doing, LakeError},
    objects::get_optional,
};

/// How far the lake had come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heads {
    /// The lake's id.
    pub(crate) lake: String,
    /// The newest version of each table, by where it is.
    pub(crate) tables: BTreeMap<String, u64>,
    /// The newest version of each secret.
    pub(crate) secrets: BTreeMap<String, u64>,
}

fn path() -> Path {
    Path::from("rollcall/heads")
}

impl Heads {
    /// What was noted last; none if nothing was, and an error in words if it is damaged.
    pub(crate) async fn read(store: &dyn ObjectStore) -> Result<Result<Option<Self>, String>, LakeError> {
        let Some(bytes) = get_optional(store, &path()).await? else { return Ok(Ok(None)) };
        Ok(Self::parse(&bytes).map(Some).ok_or_else(|| format!("{} is damaged", path())))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (body, digest) = text.trim_end().split_once('\n')?;
        (Digest::of(body.as_bytes()).to_string() == digest).then(|| serde_json::from_str(body).ok()).flatten()
    }

    /// Notes it.
    pub(crate) async fn write(&self, store: &dyn ObjectStore) -> Result<(), LakeError> {
        let body = serde_json::to_string(self).map_err(LakeError::damaged)?;
        let text = format!("{body}\n{}\n", Digest::of(body.as_bytes()));
        store.put(&path(), text.into_bytes().into()).await.doing("noting how far the lake has come")?;
        Ok(())
    }

    /// What is older now than it was, in words.
    pub(crate) fn older(&self, name: &str, noted: Option<u64>, found: u64) -> Option<String> {
        let noted = noted.filter(|noted| *noted > found)?;
        Some(format!("{name} had come to version {noted}, and what is there ends with {found}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_is_changed_in_it_is_noticed() {
        let store = object_store::memory::InMemory::new();
        assert_eq!(Heads::read(&store).await.expect("reads"), Ok(None));
        let tables = BTreeMap::from([("tables/sales".to_owned(), 7)]);
        let heads = Heads { lake: "a".to_owned(), tables, secrets: BTreeMap::new() };
        heads.write(&store).await.expect("writes");
        assert_eq!(Heads::read(&store).await.expect("reads"), Ok(Some(heads)));
        let whole = get_optional(&store, &path()).await.expect("reads").expect("there");
        for at in 0..whole.len() - 1 {
            let mut changed = whole.to_vec();
            changed[at] ^= 4;
            assert_eq!(Heads::parse(&changed), None, "byte {at}");
            assert_eq!(Heads::parse(&whole[..at]), None, "cut at {at}");
        }
    }
}
