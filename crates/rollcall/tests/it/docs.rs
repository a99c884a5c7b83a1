//! The documentation does what it says: its commands are run or at least understood, its links lead
//! somewhere, and its reference is that of a running HQ.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use rollcall_hq::reference::{ADDED, TABLES};
use rollcall_roll::{Condition, Kind};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::support::{Hq, Store, binary, running_store, wait_for};

fn docs() -> PathBuf {
    std::env::current_dir().expect("there").join("../../docs")
}

fn page(name: &str) -> String {
    fs::read_to_string(docs().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The pages that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![docs().join("../README.md"), docs().join("tools/superset.md")];
    let all = fs::read_dir(docs()).expect("a folder").map(|entry| entry.expect("an entry").path());
    pages.extend(all.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

/// The blocks of a page of one kind, in order.
pub(crate) fn blocks(page: &str, kind: &str) -> Vec<String> {
    let opening = format!("```{kind}\n");
    let blocks = page.split(&opening).skip(1).filter_map(|block| block.split_once("\n```"));
    blocks.map(|(block, _)| format!("{block}\n")).collect()
}

/// HQ with three stores, as the how-tos assume them: Seattle reports, Tacoma fell silent, Portland
/// never joined.
struct Company {
    directory: tempfile::TempDir,
    hq: Hq,
    stores: Vec<Store>,
}

const SCHEMA: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE sales (id INTEGER PRIMARY KEY, sku TEXT, qty INTEGER, price DECIMAL(10,2), sold_at DATETIME);
    CREATE TABLE returns (id INTEGER PRIMARY KEY, sale INTEGER); CREATE TABLE stock (sku TEXT PRIMARY KEY, on_hand INTEGER);
    CREATE TABLE clients (id TEXT PRIMARY KEY, email TEXT);
    INSERT INTO sales VALUES (1, 'tea', 2, 3.5, '2025-12-30 09:00:00'), (2, 'cup', 1, 8, '2026-11-30 09:05:00')";
const ROSTER: &str = "id,city,state,region,format,line,tz,hours,phone
seattle-01,Seattle,WA,north,outlet,dsl,America/Los_Angeles,24/7,+1 206 555 0101
tacoma-01,Tacoma,WA,north,outlet,fibre,America/Los_Angeles,24/7,+1 206 555 0102
portland-01,Portland,OR,south,mall,dsl,America/Los_Angeles,24/7,+1 503 555 0103
";

impl Company {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let hq = Hq::start_unhurried(directory.path());
        let roster = directory.path().join("sites.csv");
        fs::write(&roster, ROSTER).expect("writes");
        let imported = hq.run(&["roster", "import", roster.to_str().expect("text")]);
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        let stores = ["seattle-01", "tacoma-01"].map(|id| {
            let store = running_store(&hq, directory.path(), id, SCHEMA, "sales");
            store.wait_confirmed();
            store
        });
        let mut stores = Vec::from(stores);
        std::os::unix::fs::symlink(&stores[0].database, directory.path().join("pos.sqlite")).expect("links");
        stores[1].kill();
        hq.wait_state("tacoma-01", "silent");
        Self { directory, hq, stores }
    }

    /// Runs the commands of a page, block by block; what they said. HQ is started again where a
    /// block has stopped it.
    fn follow(&mut self, name: &str) -> String {
        let mut said = String::new();
        for block in blocks(&page(name), "sh") {
            if self.hq.is_over() {
                self.hq.restart();
            }
            // Others have the usual ports while tests run.
            let block = block
                .replace("127.0.0.1:7480", &self.hq.http().to_string())
                // This HQ hears its sites more often than one in earnest.
                .replace("--beacon 60", "--beacon 6")
                .replace("-p 7432", &format!("-p {}", self.hq.pg.port()));
            // 1 is a finding; anything else but 0 is a fault of the page or of the program.
            let script = format!(
                "trap 'code=$?; case \"$code $BASH_COMMAND\" in 1\\ rollcall*) ;; *) echo \"exit code $code: $BASH_COMMAND\" >&2; \
                 exit 99;; esac' ERR\n{block}"
            );
            let programs = binary("rollcall").parent().expect("a folder").to_owned();
            let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
            let ran = Command::new("timeout")
                .args(["120", "bash", "-c", &script])
                .current_dir(self.directory.path())
                .env("PATH", path)
                .env("ROLLCALL_DATA", &self.hq.data)
                .stdin(Stdio::null())
                .output()
                .expect("bash");
            let heard = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
            assert!(ran.status.success() || ran.status.code() == Some(1), "{name}: {block}\n{heard}");
            said.push_str(&heard);
        }
        assert!(!said.is_empty(), "{name} has commands");
        said
    }
}

fn follows(name: &str, parts: &[&str]) {
    let said = Company::new().follow(name);
    for part in parts {
        assert!(said.contains(part), "{name}, {part}: {said}");
    }
}

#[test]
fn running_hq_works_as_described() {
    let parts = ["it was read and counted", "stopped", "New password of user admin", "seattle-01", "sales", "files"];
    follows("operations.md", &parts);
}

#[test]
fn incidents_are_taken_as_described() {
    follows("watch.md", &["tacoma-01", "America/Los_Angeles", "isp", "Ada", "desk", "is closed until 2026-12-27"]);
}

#[test]
fn questions_are_asked_as_described() {
    let parts = ["coverage: 3 sites in scope", "tacoma-01", "nightly-report", "sold_at", "\"sales\":4"];
    follows("asking.md", &parts);
}

#[test]
fn answers_are_exported_as_described() {
    let mut company = Company::new();
    company.follow("exports.md");
    let csv = fs::read_to_string(company.directory.path().join("sales.csv")).expect("a file");
    assert!(csv.trim_end().lines().last().expect("a line").starts_with("# rollcall.coverage"), "{csv}");
    for file in ["sales.parquet", "sales.xlsx"] {
        assert!(company.directory.path().join(file).metadata().expect("a file").len() > 1000, "{file}");
    }
}

#[test]
fn tables_are_published_as_described() {
    let mut company = Company::new();
    company.follow("publishing.md");
    let prices = "SELECT string_agg(sku || ' ' || region || ' ' || price, ', ' ORDER BY sku, region) FROM prices";
    wait_for("the prices of the last block", || {
        (company.hq.value(prices)? == "a100 north 10.49, a100 south 8.99, a200 north 4.73").then_some(())
    });
    // What HQ fills is not captured when the store joins again with all its tables.
    let listed = company.stores[0].agent_command(&["tables", "--json"]).output().expect("runs");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("json");
    let problems: Vec<&str> =
        listed.as_array().into_iter().flatten().filter_map(|table| table["problem"].as_str()).collect();
    assert!(problems.iter().filter(|problem| problem.contains("HQ fills it")).count() >= 2, "{listed}");
}

#[test]
fn settings_are_said_as_described() {
    follows("settings.md", &["outlets", "64 KB/s from 8 to 20", "hq2.example:7400"]);
}

#[test]
fn secrets_and_quotas_are_shown_as_described() {
    follows("security.md", &["operator.token", "certificate authority", "new_columns_a_day", "50"]);
}

/// What stands for something of the reader's own, as something that a program takes.
const PLACEHOLDERS: [(&str, &str); 14] = [
    ("VERSION", "3"),
    ("HOURS=KB", "8-20=64"),
    ("SECONDS", "30"),
    ("DAYS", "30"),
    ("LEVEL", "info"),
    ("TABLE.COLUMN", "sales.qty"),
    ("HOST:PORT", "hq:7400"),
    ("BATCH", "3"),
    ("TYPE", "bigint"),
    (" N", " 4"),
    (" ID", " 7"),
    ("WHY", "because"),
    (" …", ""),
    (" [", " "),
];

/// The commands of a page: of its blocks for a shell, and in its text.
fn commands(page: &str) -> BTreeSet<String> {
    let mut commands = BTreeSet::new();
    let mut add = |line: &str| {
        let line = line.split("  #").next().unwrap_or_default().trim();
        let line = line.strip_prefix("sudo ").unwrap_or(line);
        let line = line.strip_prefix("-u rollcall ").unwrap_or(line);
        let begins = ["rollcall ", "rollcall-site "].iter().any(|program| line.starts_with(program));
        if begins && !line.contains("COMMAND") {
            commands.insert(line.to_owned());
        }
    };
    for kind in ["sh", "console"] {
        for block in blocks(page, kind) {
            block.replace("\\\n", " ").lines().for_each(&mut add);
        }
    }
    // A block's fence is three backquotes; what is between single ones is text.
    let text: String = page.split("```").step_by(2).collect();
    text.split('`').skip(1).step_by(2).for_each(|code| add(&code.replace('\n', " ")));
    commands
}

#[test]
fn every_command_of_the_documentation_is_understood() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in pages() {
        for command in commands(&fs::read_to_string(&path).expect("a page")) {
            let plain = PLACEHOLDERS.iter().fold(command.clone(), |line, (from, to)| line.replace(from, to));
            // A program that is asked for help looks at all it is given, and does nothing.
            let program = binary(plain.split(' ').next().expect("a word"));
            let rest = plain.split_once(' ').map_or("", |(_, rest)| rest);
            let end = [" > ", " | ", " || ", " && ", " 2>", " &"].iter().filter_map(|sign| rest.find(sign)).min();
            let rest = &rest[..end.unwrap_or(rest.len())];
            let ran = Command::new("bash")
                .args(["-c", &format!("exec \"$0\" {rest} --help"), program.to_str().expect("text")])
                .stdin(Stdio::null())
                .output()
                .expect("runs");
            seen += 1;
            if !ran.status.success() {
                wrong.push(format!("{}: {command}\n{}", path.display(), String::from_utf8_lossy(&ran.stderr)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 150, "{seen}");
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut all = pages();
    all.extend(["ARCHITECTURE.md", "CHANGELOG.md"].map(|name| docs().join("..").join(name)));
    for path in all {
        let text = fs::read_to_string(&path).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.starts_with("http") {
                continue;
            }
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            let is_there = target.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&target).expect("a page")).contains(anchor));
            if !is_there {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names under which a page's headings are reached.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let name = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
    };
    headings.map(name).collect()
}

/// The names of an enum's variants, as serde tells them to one that asks for another.
fn variants<T: DeserializeOwned>() -> Vec<String> {
    let Err(error) = serde_json::from_str::<T>("\"none-of-them\"") else { panic!("it has a variant of this name") };
    let names: Vec<String> = error.to_string().split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(names.len() > 5, "{error}");
    names
}

#[test]
fn every_kind_of_incident_and_every_refusal_is_explained() {
    let page = page("errors.md");
    let kinds = variants::<Kind>().into_iter().filter(|kind| kind != "condition").chain(variants::<Condition>());
    let refusals = rollcall_wire::Refusal::ALL.iter().map(|refusal| refusal.code().to_owned());
    for name in kinds.chain(refusals) {
        assert!(page.contains(&format!("\n| `{name}` | ")), "docs/errors.md has no row for `{name}`");
    }
}

/// `docs/tables.md`, from what HQ says its tables are and from what each column means.
fn reference(hq: &Hq) -> String {
    let columns = hq.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'rollcall' \
         ORDER BY table_name, ordinal_position",
    );
    let tables: BTreeSet<&str> = columns.iter().filter_map(|row| row["table_name"].as_str()).collect();
    let described: BTreeSet<&str> = TABLES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(tables, described, "the tables of HQ, and those of crates/answer/src/reference.rs");
    let mut text = String::from(
        "# Tables and columns\n\nThis page is written by a test from a running HQ (`crates/answer/src/reference.rs` has the meanings). Times are \
         UTC.\n\n## Columns of every store's table\n\nHQ adds these to the columns of the store.\n\n| column | meaning |\n|---|---|\n",
    );
    for (column, meaning) in ADDED {
        text.push_str(&format!("| `{column}` | {meaning} |\n"));
    }
    for (name, about, meanings) in TABLES {
        text.push_str(&format!("\n## rollcall.{name}\n\n{about}\n\n| column | type | meaning |\n|---|---|---|\n"));
        // The roster's other columns are what people made them.
        let is_described =
            |row: &&Value| *name != "sites" || meanings.iter().any(|(column, _)| row["column_name"] == **column);
        let of_table: Vec<_> = columns.iter().filter(|row| row["table_name"] == *name).filter(is_described).collect();
        let names: Vec<&str> = of_table.iter().filter_map(|row| row["column_name"].as_str()).collect();
        let expected: Vec<&str> = meanings.iter().map(|(column, _)| *column).collect();
        assert_eq!(names, expected, "the columns of rollcall.{name}, and those of crates/answer/src/reference.rs");
        for (row, (column, meaning)) in of_table.iter().zip(*meanings) {
            let kind = row["data_type"].as_str().unwrap_or_default();
            text.push_str(&format!("| `{column}` | {kind} | {meaning} |\n"));
        }
    }
    text
}

#[test]
fn the_reference_of_tables_is_that_of_a_running_hq() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    hq.invite("seattle-01");
    let (found, path) = (reference(&hq), docs().join("tables.md"));
    if std::env::var_os("ROLLCALL_WRITE").is_some() {
        fs::write(&path, &found).expect("written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == written, "docs/tables.md is not of this version: run this test with ROLLCALL_WRITE=1");
}
