//! Random bytes, and digests of secrets.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA256, digest};

use crate::error::HqError;

/// Bytes that nobody can guess.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], HqError> {
    rollcall_runtime::random().map_err(|error| HqError::Certificate(error.to_string()))
}

/// What is kept of a token. Tokens are long and random, so a plain hash is enough.
pub fn token_hash(token: &str) -> String {
    STANDARD.encode(digest(&SHA256, token.as_bytes()))
}
