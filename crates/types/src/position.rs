//! Positions in a journal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Position of a change in a site's journal: 1, 2, 3… without gaps within an epoch. 0 means "before
/// the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// One life of a journal, allotted by HQ: a greater one is a later life. 0 means "none yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

/// Running hash over a journal's batches: 63 bits, so that it fits a Delta `txn` version.
///
/// It tells two journals with equal positions apart (a clone, a restored image). It is no defence
/// against a forger who holds the site's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainHash(u64);

impl ChainHash {
    /// Keeps the low 63 bits of `value`.
    pub fn new(value: u64) -> Self {
        Self(value & (u64::MAX >> 1))
    }

    /// The 63 bits.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
