//! A store's database in a temporary directory, and foreign programs that write into it.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use rollcall_capture::{LoadProgress, Source, TableSpec};
use rollcall_capture_sqlite::SqliteSource;

pub(crate) struct Store {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Store {
    /// A new database made by the SQLite shell running `sql`.
    pub(crate) fn new(sql: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("pos.sqlite");
        let store = Self { directory, path };
        store.sql(sql);
        store
    }

    /// Runs `sql` in the SQLite shell, as the store's own program would; an error is a failure.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let (ok, out, err) = self.try_sql(sql);
        assert!(ok, "sqlite3 refused {sql:?}: {err}");
        out
    }

    /// Runs `sql` and says whether it went well, and what it printed.
    pub(crate) fn try_sql(&self, sql: &str) -> (bool, String, String) {
        let mut shell = Command::new("sqlite3")
            .arg("-bail")
            .arg(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sqlite3 command is needed by these tests: install sqlite3");
        let text = format!(".timeout 5000\n{sql};\n");
        shell.stdin.take().expect("piped").write_all(text.as_bytes()).expect("the shell reads");
        let output = shell.wait_with_output().expect("the shell ends");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// Installs capture of the tables, `name` or `name:excluded,excluded`.
    pub(crate) fn capture(&self, tables: &[&str]) -> SqliteSource {
        let mut source = SqliteSource::open(&self.path).expect("opens");
        let specs: Vec<TableSpec> = tables
            .iter()
            .map(|spec| {
                let (table, excluded) = spec.split_once(':').unwrap_or((spec, ""));
                let excluded = excluded.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                TableSpec { table: table.to_owned(), excluded }
            })
            .collect();
        source.install(&specs, "journal-1").expect("installs");
        source
    }
}

/// Runs loads to their end.
pub(crate) fn load_all(source: &mut SqliteSource) {
    while source.load_step().expect("loads") != LoadProgress::Idle {}
}
