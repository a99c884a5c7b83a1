//! The kinds of databases that a store may have. Another one is a crate, and a line here.

use std::{path::Path, sync::Arc};

use rollcall_capture::Database;
use rollcall_capture_sqlite::SqliteDatabase;

/// The database at this path.
pub fn database_at(path: &Path) -> Arc<dyn Database> {
    Arc::new(SqliteDatabase::new(path))
}
