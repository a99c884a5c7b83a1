//! The libraries and tools by which people reach a PostgreSQL, against HQ's port. Each has a script
//! in `tests/clients` that makes some dozens of checks (values and parameters of every type, notes,
//! strict, resets, transactions, cursors, copies, cancels, the catalogue). The same scripts pass on
//! a PostgreSQL with the same rows, by `AGAINST=postgresql`.
//!
//! A client that is not installed is left out, and its test says so, unless `ROLLCALL_CLIENTS=all`
//! is set: `.ci/run` installs them all and sets it.

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tempfile::TempDir;

use crate::{
    ask::{err, new_user, out},
    support::{Hq, Process, Store, running_store, wait_for},
};

/// Rows of every type that a store with SQLite has, alike at each site; the scripts know them.
const SALES: &str =
    "CREATE TABLE sales (id INTEGER PRIMARY KEY, item TEXT, qty INTEGER, price DECIMAL(10,2), rebate REAL,
        paid BOOLEAN, day DATE, sold_at DATETIME, receipt BLOB);
    INSERT INTO sales VALUES (1, 'tea', 5, 2.50, 0.25, 1, '2026-01-10', '2026-01-10 10:00:00', x'00ff41'),
        (2, 'o''pie, \"warm\"', 7, 12.99, NULL, 0, '2026-02-10', '2026-02-10 10:00:00', NULL),
        (3, 'Grüße ☕', 2, 1000.01, -1.5, NULL, NULL, '2026-02-11 23:30:00', x''),
        (4, NULL, NULL, NULL, 0, 1, '2026-02-12', '2026-02-12 08:15:30.123456', x'ab')";

/// Two sites with rows, and one on the roster that was never heard, so that no answer about all is
/// complete. Fields are dropped in their order: processes before the directory that they write to.
struct Scene {
    _stores: Vec<Store>,
    hq: Hq,
    _directory: TempDir,
}

impl Scene {
    /// The scene of the tests that run now: the first makes it, the last takes it down.
    fn shared() -> Arc<Self> {
        static SCENE: Mutex<Weak<Scene>> = Mutex::new(Weak::new());
        let mut shared = SCENE.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let scene = Arc::new(Self::new());
            *shared = Arc::downgrade(&scene);
            scene
        })
    }

    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let hq = Hq::start(directory.path());
        let stores = ["seattle-01", "salem-01"].map(|site| running_store(&hq, directory.path(), site, SALES, "sales"));
        let file = directory.path().join("sites.csv");
        let (head, hours) = ("id,state,tz,hours", "America/Los_Angeles,24/7");
        let roster = format!("{head}\nseattle-01,WA,{hours}\nsalem-01,OR,{hours}\ntacoma-01,WA,{hours}\n");
        std::fs::write(&file, roster).expect("writes");
        let imported = hq.run(&["roster", "import", file.to_str().expect("text")]);
        assert!(imported.status.code() != Some(3), "{}", err(&imported));
        for store in &stores {
            store.wait_confirmed();
            hq.wait_state(&store.id, "ok");
        }
        wait_for("the rows of both sites", || {
            (hq.value("SELECT count(*) FROM sales").as_deref() == Some("8")).then_some(())
        });
        Self { _stores: stores.into(), hq, _directory: directory }
    }

    /// Runs a client's script as a user of its own, if it is installed; `hint` is how that is done.
    fn serves(client: &str, script: &[&str], hint: &str, environment: &[(&str, &str)]) {
        Self::shared().runs(client, script, hint, environment);
    }

    fn runs(&self, client: &str, script: &[&str], hint: &str, environment: &[(&str, &str)]) {
        let password = new_user(&self.hq, &[client]);
        let mut command = Command::new("timeout");
        command.arg("900").args(script).current_dir("tests/clients");
        command.envs([
            ("PGHOST", self.hq.pg.ip().to_string().as_str()),
            ("PGPORT", &self.hq.pg.port().to_string()),
            ("PGUSER", client),
            ("PGPASSWORD", &password),
            ("PGDATABASE", "hq"),
            ("PGSSLMODE", "require"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ]);
        let output = command.envs(environment.iter().copied()).output().expect("coreutils' timeout");
        let said = out(&output);
        println!("{said}");
        let failed: Vec<&str> = said.lines().filter(|line| !line.starts_with("ok ")).collect();
        assert!(
            output.status.success() && said.contains("ok "),
            "{client}: {}\n{}\n{}\nIt was installed by: {hint}",
            output.status,
            failed.join("\n"),
            err(&output)
        );
    }
}

/// Whether a client can be tried: `probe` is a command of a shell that says so by its status.
fn is_installed(client: &str, probe: &str, hint: &str) -> bool {
    let found = Command::new("bash").args(["-c", probe]).output().is_ok_and(|output| output.status.success());
    assert!(
        found || std::env::var("ROLLCALL_CLIENTS").as_deref() != Ok("all"),
        "{client} is not installed, and all clients are wanted: {hint}"
    );
    if !found {
        eprintln!("left out: {client} is not installed ({hint})");
    }
    found
}

fn python(client: &str, modules: &str, packages: &str) {
    let hint = format!("pip install {packages}");
    if !is_installed(client, &format!("python3 -c 'import {modules}'"), &hint) {
        return;
    }
    let script = format!("python/{client}_client.py");
    Scene::serves(client, &["python3", &script], &hint, &[]);
}

/// node's libraries lie outside the checkout, where `require` finds them by `NODE_PATH`.
fn node(client: &str, packages: &str) {
    let home = std::env::var("HOME").unwrap_or_default();
    let folder = std::env::var("NODE_PATH").unwrap_or(format!("{home}/.cache/rollcall-npm/node_modules"));
    let script = format!("node/{client}_client.mjs");
    let hint = format!("npm install --prefix ~/.cache/rollcall-npm {packages}");
    let list = packages.split(' ').map(|package| format!("\"{package}\"")).collect::<Vec<_>>().join(", ");
    let probe = format!("NODE_PATH='{folder}' node -e 'for (const name of [{list}]) require.resolve(name)'");
    if !is_installed(client, &probe, &hint) {
        return;
    }
    Scene::serves(client, &["node", &script], &hint, &[("NODE_PATH", &folder)]);
}

/// Debian's Go libraries lie in one folder, as in the days before modules.
fn go(client: &str, packages: &str) {
    let script = format!("go/{client}_client.go");
    let environment = [("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", ""), ("CGO_ENABLED", "0")];
    let hint = format!("apt-get install golang-go {packages}");
    let probe = format!("command -v go && dpkg-query -W {packages}");
    if !is_installed(client, &probe, &hint) {
        return;
    }
    Scene::serves(client, &["go", "run", "go/checks.go", &script], &hint, &environment);
}

#[test]
fn psycopg2_is_served() {
    python("psycopg2", "psycopg2", "psycopg2-binary");
}

#[test]
fn psycopg3_is_served() {
    python("psycopg3", "psycopg, psycopg_pool", "'psycopg[binary,pool]'");
}

#[test]
fn sqlalchemy_is_served() {
    python("sqlalchemy", "sqlalchemy, psycopg, psycopg2", "SQLAlchemy 'psycopg[binary]' psycopg2-binary");
}

#[test]
fn asyncpg_is_served() {
    python("asyncpg", "asyncpg", "asyncpg");
}

#[test]
fn pg8000_is_served() {
    python("pg8000", "pg8000", "pg8000");
}

#[test]
fn connectorx_is_served() {
    python("connectorx", "connectorx, pyarrow", "connectorx pyarrow");
}

#[test]
fn polars_is_served() {
    python(
        "polars",
        "polars, connectorx, adbc_driver_postgresql, pyarrow, sqlalchemy, psycopg",
        "polars connectorx adbc-driver-postgresql pyarrow SQLAlchemy 'psycopg[binary]'",
    );
}

#[test]
fn adbc_is_served() {
    python("adbc", "adbc_driver_postgresql, pyarrow", "adbc-driver-postgresql pyarrow");
}

#[test]
fn duckdb_is_served() {
    python(
        "duckdb",
        "duckdb, duckdb_extension_postgres_scanner, pytz",
        "duckdb==1.5.5 duckdb-extension-postgres-scanner==1.5.5 pytz",
    );
}

#[test]
fn odbc_is_served() {
    python("odbc", "pyodbc", "pyodbc, and apt-get install unixodbc odbc-postgresql");
}

#[test]
fn node_pg_is_served() {
    node("pg", "pg pg-cursor pg-query-stream");
}

#[test]
fn postgres_js_is_served() {
    node("postgres", "postgres");
}

#[test]
fn lib_pq_is_served() {
    go("pq", "golang-github-lib-pq-dev");
}

#[test]
fn pgx_is_served() {
    go("pgx", "golang-github-jackc-pgx-v4-dev");
}

#[test]
fn jdbc_is_served() {
    let script = ["java", "-cp", "/usr/share/java/postgresql.jar", "java/JdbcClient.java"];
    let hint = "apt-get install default-jdk-headless libpostgresql-jdbc-java";
    if is_installed("jdbc", "command -v javac && test -e /usr/share/java/postgresql.jar", hint) {
        Scene::serves("jdbc", &script, hint, &[]);
    }
}

#[test]
fn dbd_pg_is_served() {
    let hint = "apt-get install libdbd-pg-perl";
    if is_installed("dbd_pg", "/usr/bin/perl -MDBD::Pg -e 1", hint) {
        Scene::serves("dbd_pg", &["/usr/bin/perl", "perl/dbd_pg_client.pl"], hint, &[]);
    }
}

#[test]
fn psql_is_served() {
    let hint = "apt-get install postgresql-client xxd";
    if is_installed("psql", "command -v psql && command -v xxd", hint) {
        Scene::serves("psql", &["bash", "sql/psql.sh"], hint, &[]);
    }
}

#[test]
fn pgbouncer_is_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let environment = [("DIRECTORY", directory.path().to_str().expect("text"))];
    let hint = "apt-get install pgbouncer";
    if is_installed("pgbouncer", "command -v pgbouncer || test -x /usr/sbin/pgbouncer", hint) {
        Scene::serves("pgbouncer", &["bash", "sql/pgbouncer.sh"], hint, &environment);
    }
}

#[test]
fn postgres_fdw_is_served() {
    let hint = "apt-get install postgresql";
    if !is_installed("postgres_fdw", "ls /usr/lib/postgresql/*/bin/postgres", hint) {
        return;
    }
    let postgresql = PostgreSql::start();
    let directory = postgresql.directory.path().to_str().expect("text");
    let environment = [("LOCAL_HOST", directory), ("LOCAL_PORT", "5432"), ("LOCAL_USER", "postgres")];
    let script = ["bash", "sql/postgres_fdw.sh"];
    Scene::serves("postgres_fdw", &script, hint, &environment);
}

/// A PostgreSQL of Debian's that is reached by a socket in its own directory.
struct PostgreSql {
    _process: Process,
    directory: TempDir,
}

impl PostgreSql {
    fn start() -> Self {
        // A tempdir of its own: nobody but its owner may pass through that of another.
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        if is_root() {
            assert!(Command::new("chown").arg("nobody").arg(directory.path()).status().expect("chown").success());
        }
        let made = Self::program("initdb", directory.path())
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .output()
            .expect("initdb: apt-get install postgresql");
        assert!(made.status.success(), "initdb: {}", err(&made));
        let mut server = Self::program("postgres", directory.path());
        server.args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"]).arg(directory.path()).arg("-D").arg(&data);
        let process = Process::start(server, &directory.path().join("log"));
        let socket = directory.path().join(".s.PGSQL.5432");
        wait_for("PostgreSQL to listen", || socket.exists().then_some(()));
        Self { _process: process, directory }
    }

    /// A program of the newest PostgreSQL there is, for a user that is not root, since it refuses
    /// that one.
    fn program(name: &str, home: &Path) -> Command {
        let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL: apt-get install postgresql");
        let folder = versions.filter_map(|version| Some(version.ok()?.path())).max().expect("a version");
        let path = folder.join("bin").join(name);
        let mut command = if is_root() {
            let mut other = Command::new("setpriv");
            other.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]).arg(path);
            other
        } else {
            Command::new(path)
        };
        // It looks for certificates in its user's home.
        command.env("HOME", home).current_dir("/");
        command
    }
}

fn is_root() -> bool {
    out(&Command::new("id").arg("-u").output().expect("id")) == "0"
}
