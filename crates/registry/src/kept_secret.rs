//! A secret that changes now and then, kept in the vault and in memory: each node works with the
//! newest version it knows.

use std::sync::{Arc, PoisonError, RwLock};

use rollcall_lake::{LakeError, Vault};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::HqError;

/// A value in the vault, and the newest version of it that this node knows.
#[derive(Debug)]
pub struct KeptSecret<T> {
    vault: Vault,
    name: &'static str,
    known: RwLock<(Option<u64>, Arc<T>)>,
}

impl<T: Default + Serialize + DeserializeOwned> KeptSecret<T> {
    /// The value called `name` in the vault; the type's default if there is none.
    pub async fn open(vault: Vault, name: &'static str) -> Result<Self, HqError> {
        let opened = Self { vault, name, known: RwLock::default() };
        opened.reload().await?;
        Ok(opened)
    }

    /// The value as this node knows it.
    pub fn get(&self) -> Arc<T> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Takes over what other nodes changed.
    pub async fn reload(&self) -> Result<(), HqError> {
        let version = self.known.read().unwrap_or_else(PoisonError::into_inner).0;
        if let Some((version, text)) = self.vault.newer_than(self.name, version).await? {
            self.take(version, self.parse(Some(&text))?);
        }
        Ok(())
    }

    /// Changes the value as it is in the vault now; durable on return. `change` may be called
    /// again.
    pub async fn change<R>(&self, mut change: impl FnMut(&mut T) -> Result<R, HqError>) -> Result<R, HqError> {
        let work = |known: Option<&[u8]>| {
            let mut value = self.parse(known)?;
            let result = change(&mut value)?;
            let text = serde_json::to_vec(&value).map_err(|error| self.damaged(&error))?;
            Ok::<_, HqError>((text, (value, result)))
        };
        let (version, (value, result)) = self.vault.update(self.name, work).await?;
        self.take(version, value);
        Ok(result)
    }

    /// The newer of what is known and what was read.
    fn take(&self, version: u64, value: T) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.0 <= Some(version) {
            *known = (Some(version), Arc::new(value));
        }
    }

    fn parse(&self, text: Option<&[u8]>) -> Result<T, HqError> {
        let parsed = text.map(serde_json::from_slice).transpose();
        Ok(parsed.map_err(|error| self.damaged(&error))?.unwrap_or_default())
    }

    fn damaged(&self, error: &serde_json::Error) -> HqError {
        LakeError::Damaged(format!("the {} in the vault cannot be read: {error}", self.name)).into()
    }
}
