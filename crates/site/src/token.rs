//! An invitation, as `rollcall roster invite` prints it: `rc1.` and, in base64, the site, a secret
//! and HQ's fingerprint.

use std::{io::Read, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::error::SiteError;

/// Characters of a SHA-256 fingerprint in hexadecimal.
const FINGERPRINT_CHARS: usize = 64;
/// A token is much shorter than this; what is longer is another file.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// An invitation's parts.
pub(crate) struct Token {
    pub(crate) site: String,
    pub(crate) secret: String,
    /// Of HQ's authority.
    pub(crate) fingerprint: String,
}

impl Token {
    /// Reads an invitation. A mail may have broken it into lines.
    pub(crate) fn parse(text: &str) -> Result<Self, SiteError> {
        let text: String = text.chars().filter(|character| !character.is_whitespace()).collect();
        let inner = text.strip_prefix("rc1.").ok_or_else(|| {
            SiteError::Usage(
                "this is no invitation; it begins with rc1. and `rollcall roster invite` at HQ prints it".to_owned(),
            )
        })?;
        let damaged = || {
            let count = text.chars().count();
            SiteError::Usage(format!(
                "the invitation is damaged: of {count} characters not all are as HQ printed them. Copy it whole, or give it as a file"
            ))
        };
        let plain =
            URL_SAFE_NO_PAD.decode(inner).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(damaged)?;
        match plain.split(' ').collect::<Vec<_>>()[..] {
            [site, secret, fingerprint] if fingerprint.len() == FINGERPRINT_CHARS && !secret.is_empty() => {
                Ok(Self { site: site.to_owned(), secret: secret.to_owned(), fingerprint: fingerprint.to_owned() })
            }
            _ => Err(damaged()),
        }
    }
}

/// The invitation from where a person says it is: itself, a file, or standard input (`-`).
pub fn read_token(said: Option<&str>, file: Option<&Path>) -> Result<String, SiteError> {
    let mut text = String::new();
    match (said, file) {
        (Some("-"), _) => {
            let read = std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text);
            read.map_err(|error| SiteError::state("reading the invitation from standard input", error))?;
        }
        (Some(token), _) => token.clone_into(&mut text),
        (None, Some(file)) => {
            let read = std::fs::File::open(file).and_then(|open| open.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
            read.map_err(|error| SiteError::state(format!("reading the invitation from {}", file.display()), error))?;
        }
        (None, None) => {
            return Err(SiteError::Usage("give the invitation, or --token-file FILE, or - to read it".to_owned()));
        }
    }
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> String {
        format!("rc1.{}", URL_SAFE_NO_PAD.encode(format!("store-1 secret {}", "a".repeat(64))))
    }

    #[test]
    fn a_token_broken_into_lines_is_read_and_a_cut_one_is_called_damaged() {
        let whole = token();
        let broken = format!("  {}\r\n   {}\n", &whole[..40], &whole[40..]);
        assert_eq!(Token::parse(&broken).expect("whole").site, "store-1");
        for end in 4..whole.len() {
            let said = Token::parse(&whole[..end]).err().expect("cut").to_string();
            assert!(said.contains("damaged"), "{said}");
        }
        assert!(Token::parse("eyJhbGciOi").err().expect("none").to_string().contains("no invitation"));
    }
}
