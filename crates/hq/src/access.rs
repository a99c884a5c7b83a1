//! Who may use the API: people by password, the operator's commands by a token in the data directory.

use std::{fs, io::Write, path::Path};

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier, password_hash::SaltString};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    digest::{SHA256, digest},
    hmac,
};
use rollcall_lake::{Vault, VaultKey};
use serde::{Deserialize, Serialize};

use crate::{authority::random_bytes, error::HqError};

/// The file in the data directory that lets this machine's operator use the API.
pub const OPERATOR_TOKEN_FILE: &str = "operator.token";
const NODE_KEY_FILE: &str = "node.key";
const VAULT_NAME: &str = "users";

/// Password hashes, and the hash of the operator's token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credentials {
    admin: String,
    operator: String,
}

impl Credentials {
    /// Reads the credentials of this lake, or makes them; then the admin's password is returned, once.
    pub(crate) async fn open(vault: &Vault, directory: &Path) -> Result<(Self, Option<String>), HqError> {
        if let Some(stored) = vault.get(VAULT_NAME).await? {
            let stored = serde_json::from_slice(&stored).map_err(|error| HqError::Certificate(error.to_string()))?;
            return Ok((stored, None));
        }
        let password = URL_SAFE_NO_PAD.encode(random_bytes::<15>()?);
        let token = URL_SAFE_NO_PAD.encode(random_bytes::<32>()?);
        let salt = SaltString::encode_b64(&random_bytes::<16>()?);
        let hashed = salt.and_then(|salt| Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.to_string()));
        let admin = hashed.map_err(|error| HqError::Certificate(error.to_string()))?;
        let new = Self { admin, operator: token_hash(&token) };
        write_private(&directory.join(OPERATOR_TOKEN_FILE), token.as_bytes())?;
        let text = serde_json::to_vec(&new).map_err(|error| HqError::Certificate(error.to_string()))?;
        vault.put(VAULT_NAME, &text).await?;
        Ok((new, Some(password)))
    }

    /// Who sends this `Authorization` header; none when it is not valid. Slow for passwords, on purpose.
    pub(crate) fn check(&self, header: &str) -> Option<&'static str> {
        if let Some(token) = header.strip_prefix("Bearer ") {
            return same(&token_hash(token.trim()), &self.operator).then_some("operator");
        }
        let pair = STANDARD.decode(header.strip_prefix("Basic ")?.trim()).ok()?;
        let pair = String::from_utf8(pair).ok()?;
        let (user, password) = pair.split_once(':')?;
        if user != "admin" {
            return None;
        }
        let hash = PasswordHash::new(&self.admin).ok()?;
        let right = Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
        right.then_some("admin")
    }
}

/// Tokens are long and random, so a plain hash is enough.
pub(crate) fn token_hash(token: &str) -> String {
    STANDARD.encode(digest(&SHA256, token.as_bytes()))
}

/// Compares without telling by time where two texts differ.
fn same(left: &str, right: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    hmac::verify(&key, left.as_bytes(), hmac::sign(&key, right.as_bytes()).as_ref()).is_ok()
}

/// The key this node opens secrets with: in the data directory, readable by its owner alone.
pub(crate) fn node_key(directory: &Path) -> Result<VaultKey, HqError> {
    let path = directory.join(NODE_KEY_FILE);
    match fs::read(&path) {
        Ok(bytes) => VaultKey::from_bytes(&bytes)
            .ok_or_else(|| HqError::Invalid(format!("{} is damaged: it must hold 32 bytes", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = VaultKey::generate()?;
            write_private(&path, key.as_bytes())?;
            Ok(key)
        }
        Err(source) => Err(HqError::Io { doing: format!("reading {}", path.display()), source }),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), HqError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| HqError::Io { doing: format!("writing {}", path.display()), source })
}
