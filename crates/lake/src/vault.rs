//! Secrets in the lake: sealed with a key each node is given, apart from the tables other engines
//! may read.

use std::{collections::BTreeMap, sync::Arc};

use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use crate::{
    error::{Doing, LakeError},
    objects::{get_optional, put_if_absent},
};

/// Where secrets are.
const PRIVATE: &str = "private";
/// Attempts at a change while other nodes change the same secret.
const CHANGE_ATTEMPTS: usize = 20;
/// Versions of a secret that stay: whoever lost a race must see that.
const VERSIONS_KEPT: u64 = 3;

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

/// The newest version of every secret, by name.
pub(crate) async fn versions(store: &dyn ObjectStore) -> Result<BTreeMap<String, u64>, LakeError> {
    let listed = store.list_with_delimiter(Some(&Path::from(PRIVATE))).await.doing("listing secrets")?;
    let mut versions = BTreeMap::new();
    for file in listed.objects.iter().filter_map(|object| object.location.filename()) {
        let (name, version) = match file.rsplit_once('.') {
            Some((name, version)) => (name, version.parse().unwrap_or(0)),
            None => (file, 0),
        };
        let newest = versions.entry(name.to_owned()).or_insert(version);
        *newest = version.max(*newest);
    }
    Ok(versions)
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

    /// Whether anything was sealed in this store, with whatever key.
    pub(crate) async fn is_used(store: &dyn ObjectStore) -> Result<bool, LakeError> {
        Ok(!versions(store).await?.is_empty())
    }

    fn cipher(&self, file: &str) -> Result<LessSafeKey, LakeError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.key.0).map_err(|_| LakeError::Sealed(file.to_owned()))?;
        Ok(LessSafeKey::new(key))
    }

    /// Where a version of a secret is; version 0 is one that never changes.
    fn file(name: &str, version: u64) -> String {
        if version == 0 { name.to_owned() } else { format!("{name}.{version:010}") }
    }

    fn path(file: &str) -> Path {
        Path::from(PRIVATE).join(file)
    }

    /// The secret called `name`; none when there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, LakeError> {
        Ok(self.newer_than(name, None).await?.map(|(_, secret)| secret))
    }

    /// The secret called `name` and its version, if that is newer than `known`.
    pub async fn newer_than(&self, name: &str, known: Option<u64>) -> Result<Option<(u64, Vec<u8>)>, LakeError> {
        for _ in 0..CHANGE_ATTEMPTS {
            let newest = versions(self.store.as_ref()).await?.get(name).copied();
            let Some(version) = newest.filter(|version| known < Some(*version)) else { return Ok(None) };
            // Replaced and deleted since it was listed: list again.
            if let Some(secret) = self.open(&Self::file(name, version)).await? {
                return Ok(Some((version, secret)));
            }
        }
        Err(LakeError::Contention(CHANGE_ATTEMPTS))
    }

    async fn open(&self, file: &str) -> Result<Option<Vec<u8>>, LakeError> {
        let Some(sealed) = get_optional(self.store.as_ref(), &Self::path(file)).await? else { return Ok(None) };
        let failed = || LakeError::Sealed(file.to_owned());
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut opened = sealed.to_vec();
        // The name is authenticated, so that one secret, or an old version, cannot be passed off as
        // another.
        let plain = self.cipher(file)?.open_in_place(nonce, Aad::from(file.as_bytes()), &mut opened);
        Ok(Some(plain.map_err(|_| failed())?.to_vec()))
    }

    /// Changes a secret: `change` gets the newest one and may be called again if another node
    /// changed it meanwhile. What it returns beside the new secret is passed on, with the secret's
    /// new version.
    pub async fn update<T, E: From<LakeError>>(
        &self,
        name: &str,
        mut change: impl FnMut(Option<&[u8]>) -> Result<(Vec<u8>, T), E>,
    ) -> Result<(u64, T), E> {
        for _ in 0..CHANGE_ATTEMPTS {
            let newest = self.newer_than(name, None).await?;
            let (secret, result) = change(newest.as_ref().map(|(_, secret)| secret.as_slice()))?;
            let version = newest.map_or(0, |(version, _)| version) + 1;
            let file = Self::file(name, version);
            let sealed = self.seal(&file, &secret)?;
            put_if_absent(self.store.as_ref(), &Self::path(&file), sealed.clone().into()).await?;
            // No two writers seal alike: what is there is ours, or another's.
            let there = get_optional(self.store.as_ref(), &Self::path(&file)).await?;
            if there.is_some_and(|there| there == sealed) {
                self.forget(name, version).await;
                return Ok((version, result));
            }
        }
        Err(LakeError::Contention(CHANGE_ATTEMPTS).into())
    }

    /// Deletes a version that nobody can be about to replace any more.
    async fn forget(&self, name: &str, newest: u64) {
        if let Some(old) = newest.checked_sub(VERSIONS_KEPT) {
            // One that stays is older than the newest, and ignored.
            let _ = self.store.delete(&Self::path(&Self::file(name, old))).await;
        }
    }

    /// Seals every secret with `new` and takes away what was sealed with this vault's key; no node
    /// may run. Begun again after it broke off, it goes on. Gives how many secrets were sealed
    /// anew.
    pub async fn reseal(&self, new: &VaultKey) -> Result<usize, LakeError> {
        let resealed = Self::new(self.store.clone(), new.clone());
        let mut count = 0;
        for (name, version) in versions(self.store.as_ref()).await? {
            let file = Self::file(&name, version);
            let newest = match resealed.open(&file).await {
                Ok(_) => version,
                Err(LakeError::Sealed(_)) => {
                    let Some(secret) = self.open(&file).await? else { continue };
                    let file = Self::file(&name, version + 1);
                    let sealed = resealed.seal(&file, &secret)?;
                    put_if_absent(self.store.as_ref(), &Self::path(&file), sealed.into()).await?;
                    resealed.open(&file).await?;
                    count += 1;
                    version + 1
                }
                Err(error) => return Err(error),
            };
            for old in newest.saturating_sub(VERSIONS_KEPT + 1)..newest {
                match self.store.delete(&Self::path(&Self::file(&name, old))).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(source) => return Err(source).doing("deleting an old version of a secret"),
                }
            }
        }
        Ok(count)
    }

    fn seal(&self, file: &str, secret: &[u8]) -> Result<Vec<u8>, LakeError> {
        let failed = || LakeError::Sealed(file.to_owned());
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| failed())?;
        let mut sealed = secret.to_vec();
        self.cipher(file)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(file.as_bytes()), &mut sealed)
            .map_err(|_| failed())?;
        Ok([nonce.as_slice(), &sealed].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_of_several_nodes_are_all_kept_and_old_ones_go() {
        let store = Arc::new(object_store::memory::InMemory::new());
        let key = VaultKey::generate().expect("random");
        let nodes: Vec<Vault> = (0..3).map(|_| Vault::new(store.clone(), key.clone())).collect();
        let add = async |vault: &Vault, line: String| {
            let change =
                |old: Option<&[u8]>| Ok::<_, LakeError>(([old.unwrap_or_default(), line.as_bytes()].concat(), ()));
            vault.update("users", change).await.expect("changes")
        };
        for round in 0..5 {
            futures::future::join_all(nodes.iter().zip(0..).map(|(vault, node)| add(vault, format!("{round}{node} "))))
                .await;
        }
        let kept = String::from_utf8(nodes[0].get("users").await.expect("reads").expect("there")).expect("text");
        let mut lines: Vec<&str> = kept.split_whitespace().collect();
        lines.sort_unstable();
        let all: Vec<String> = (0..5).flat_map(|round| (0..3).map(move |node| format!("{round}{node}"))).collect();
        assert_eq!(lines, all);
        assert_eq!(versions(store.as_ref()).await.expect("lists")["users"], 15);
        let files = store.list_with_delimiter(Some(&Path::from(PRIVATE))).await.expect("lists").objects.len();
        assert!(files <= 4, "{files} versions are left");
        let stranger = Vault::new(store.clone(), VaultKey::generate().expect("random"));
        assert!(matches!(stranger.get("users").await, Err(LakeError::Sealed(_))));
    }

    #[tokio::test]
    async fn a_new_key_opens_everything_and_the_old_one_nothing() {
        let store = Arc::new(object_store::memory::InMemory::new());
        let (old, new) = (VaultKey::generate().expect("random"), VaultKey::generate().expect("random"));
        let vault = Vault::new(store.clone(), old);
        for (name, changes) in [("users", 5), ("ca", 1)] {
            for change in 0..changes {
                let text = format!("{name} {change}");
                let set = |_: Option<&[u8]>| Ok::<_, LakeError>((text.clone().into_bytes(), ()));
                vault.update(name, set).await.expect("changes");
            }
        }
        let never_changed = vault.seal("first", b"first").expect("seals");
        store.put(&Vault::path("first"), never_changed.into()).await.expect("writes");
        assert_eq!(vault.reseal(&new).await.expect("reseals"), 3);
        assert_eq!(vault.reseal(&new).await.expect("goes on"), 0, "nothing is left to do");
        let resealed = Vault::new(store.clone(), new);
        for (name, text) in [("users", "users 4"), ("ca", "ca 0"), ("first", "first")] {
            let secret = resealed.get(name).await.expect("opens").expect("is there");
            assert_eq!(String::from_utf8(secret).expect("text"), text);
        }
        let files = store.list_with_delimiter(Some(&Path::from(PRIVATE))).await.expect("lists").objects;
        assert_eq!(files.len(), 3, "nothing is left that the old key opens");
        assert!(matches!(vault.get("users").await, Err(LakeError::Sealed(_))));
    }

    #[tokio::test]
    async fn a_store_that_refuses_to_overwrite_is_told_from_one_that_does_not() {
        #[derive(Debug)]
        struct Overwrites;
        #[async_trait::async_trait]
        impl crate::layer::PutLayer for Overwrites {
            async fn put(
                &self,
                store: &dyn ObjectStore,
                location: &Path,
                payload: object_store::PutPayload,
                _: object_store::PutOptions,
            ) -> object_store::Result<object_store::PutResult> {
                store.put(location, payload).await
            }
        }
        let store = Arc::new(object_store::memory::InMemory::new());
        crate::remote::probe(store.as_ref()).await.expect("fit");
        let unfit = crate::layer::Layered::new(store, Arc::new(Overwrites));
        assert!(matches!(crate::remote::probe(&unfit).await, Err(LakeError::NoConditionalPut)));
    }
}
