//! Secrets in the lake: sealed with a key each node is given, apart from the tables other engines may read.

use std::sync::Arc;

use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use crate::{
    error::{Doing, LakeError},
    objects::{get_optional, put_if_absent},
};

/// The key that opens the vault: 32 random bytes.
#[derive(Clone)]
pub struct VaultKey([u8; 32]);

impl VaultKey {
    /// A new random key.
    pub fn generate() -> Result<Self, LakeError> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).map_err(|_| LakeError::Task("no randomness from the system".to_owned()))?;
        Ok(Self(key))
    }

    /// From 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes, to be stored where only this node can read them.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VaultKey(secret)")
    }
}

/// Sealed objects under `private/`.
#[derive(Debug, Clone)]
pub struct Vault {
    store: Arc<dyn ObjectStore>,
    key: VaultKey,
}

impl Vault {
    /// A vault in this store.
    pub fn new(store: Arc<dyn ObjectStore>, key: VaultKey) -> Self {
        Self { store, key }
    }

    fn cipher(&self, name: &str) -> Result<LessSafeKey, LakeError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.key.0).map_err(|_| LakeError::Sealed(name.to_owned()))?;
        Ok(LessSafeKey::new(key))
    }

    fn path(name: &str) -> Path {
        Path::from("private").join(name)
    }

    /// The secret called `name`; none when there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, LakeError> {
        let Some(sealed) = get_optional(self.store.as_ref(), &Self::path(name)).await? else { return Ok(None) };
        let failed = || LakeError::Sealed(name.to_owned());
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut opened = sealed.to_vec();
        // The name is authenticated, so that one secret cannot be passed off as another.
        let plain = self.cipher(name)?.open_in_place(nonce, Aad::from(name.as_bytes()), &mut opened);
        Ok(Some(plain.map_err(|_| failed())?.to_vec()))
    }

    /// Stores a secret, replacing an older one.
    pub async fn put(&self, name: &str, secret: &[u8]) -> Result<(), LakeError> {
        let sealed = self.seal(name, secret)?;
        self.store.put(&Self::path(name), sealed.into()).await.doing("storing a secret")?;
        Ok(())
    }

    /// Stores a secret unless there is one, and returns the one that is there then.
    pub async fn put_if_absent(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, LakeError> {
        let sealed = self.seal(name, secret)?;
        put_if_absent(self.store.as_ref(), &Self::path(name), sealed.into()).await?;
        self.get(name).await?.ok_or_else(|| LakeError::damaged(format!("secret {name:?} vanished")))
    }

    fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, LakeError> {
        let failed = || LakeError::Sealed(name.to_owned());
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| failed())?;
        let mut sealed = secret.to_vec();
        self.cipher(name)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name.as_bytes()), &mut sealed)
            .map_err(|_| failed())?;
        Ok([nonce.as_slice(), &sealed].concat())
    }
}
