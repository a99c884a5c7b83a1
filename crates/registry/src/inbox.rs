//! What was said and is to be looked at by another part, in the order in which it was said.

use std::sync::{Mutex, PoisonError};

use rollcall_types::{SiteId, Timestamp};

/// Notes about sites that wait until their reader takes them.
#[derive(Debug)]
pub struct Inbox<T>(Mutex<Vec<(SiteId, Timestamp, T)>>);

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Inbox<T> {
    /// Puts a note about a site in.
    pub fn push(&self, site: &SiteId, at: Timestamp, note: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((site.clone(), at, note));
    }

    /// Takes all notes, oldest first.
    pub fn take(&self) -> Vec<(SiteId, Timestamp, T)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
