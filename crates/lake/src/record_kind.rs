//! Kinds of records of the state log.

use std::{fmt, marker::PhantomData};

/// A kind of record, and the type of its values: what is written under it is of no other type.
pub struct RecordKind<T> {
    name: &'static str,
    values: PhantomData<fn() -> T>,
}

impl<T> RecordKind<T> {
    /// The kind that is written with this name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, values: PhantomData }
    }

    /// As it is written.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

// Derived, these would ask the same of the values.
impl<T> Clone for RecordKind<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RecordKind<T> {}

impl<T> fmt::Debug for RecordKind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
