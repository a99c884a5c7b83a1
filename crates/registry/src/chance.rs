//! Random bytes, and digests of secrets.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};

use crate::error::HqError;

/// Bytes that nobody can guess, from the system.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], HqError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| HqError::Certificate("no randomness from the system".to_owned()))?;
    Ok(bytes)
}

/// What is kept of a token. Tokens are long and random, so a plain hash is enough.
pub fn token_hash(token: &str) -> String {
    STANDARD.encode(digest(&SHA256, token.as_bytes()))
}
