//! What came of all questions: counted, listed, and written to the docs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use super::{asking::Compared, tables::directory, verdict::Verdict};
use crate::wire::Answer;

/// Set to write the lists anew instead of checking them.
const WRITE: &str = "ROLLCALL_WRITE_DIFFERENCES";
/// How much of an answer is shown, in letters.
const SHOWN: usize = 400;

/// All questions with their answers.
#[derive(Debug)]
pub(crate) struct Report {
    compared: Vec<Compared>,
}

impl Report {
    pub(crate) fn new(compared: Vec<Compared>) -> Self {
        Self { compared }
    }

    fn count(&self, area: Option<&str>, verdict: Option<Verdict>) -> usize {
        let counts = |one: &&Compared| {
            area.is_none_or(|area| one.area == area) && verdict.is_none_or(|verdict| one.verdict == verdict)
        };
        self.compared.iter().filter(counts).count()
    }

    /// How many there are, by area.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::from("| questions on | asked |");
        let verdicts: Vec<Verdict> =
            Verdict::ALL.into_iter().filter(|verdict| self.count(None, Some(*verdict)) > 0).collect();
        for verdict in &verdicts {
            let _ = write!(text, " {} |", verdict.name());
        }
        text.push_str(&format!("\n|---|{}\n", "---:|".repeat(verdicts.len() + 1)));
        let areas: BTreeSet<&str> = self.compared.iter().map(|one| one.area.as_str()).collect();
        let lines = areas.into_iter().map(Some).chain([None]);
        for area in lines {
            let _ = write!(text, "| {} | {} |", area.unwrap_or("**all**"), self.count(area, None));
            for verdict in &verdicts {
                let _ = write!(text, " {} |", self.count(area, Some(*verdict)));
            }
            text.push('\n');
        }
        text
    }

    /// Writes a list for each verdict, for who mends what is not equal.
    pub(crate) fn write_lists(&self, directory: &Path) {
        for verdict in Verdict::ALL.into_iter().filter(|verdict| *verdict != Verdict::Equal) {
            let path = directory.join(verdict.name().replace([' ', ','], "-")).with_extension("txt");
            fs::write(path, self.listed(verdict)).expect("written");
        }
    }

    fn listed(&self, verdict: Verdict) -> String {
        let mut text = String::new();
        for one in self.compared.iter().filter(|one| one.verdict == verdict) {
            let (right, ours) = (shown(&one.right), shown(&one.ours));
            let _ = write!(text, "[{}] {}\n    PG: {right}\n    HQ: {ours}\n", one.area, one.question);
        }
        text
    }

    /// Questions that are neither equal nor refused: `verdict [area] question`, in order.
    fn open(&self) -> String {
        let is_open = |one: &&Compared| !matches!(one.verdict, Verdict::Equal | Verdict::Refused);
        let line = |one: &Compared| format!("{} [{}] {}\n", one.verdict.name(), one.area, one.question);
        self.compared.iter().filter(is_open).map(line).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The page of the docs on what is an error at HQ.
    fn page(&self) -> String {
        let mut kinds: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
        for one in self.compared.iter().filter(|one| one.verdict == Verdict::Refused) {
            let Answer::Error { message, .. } = &one.ours else { continue };
            kinds.entry((&one.area, general(message))).or_default().push(&one.question);
        }
        let mut text = String::from(INTRODUCTION);
        text.push_str(&self.summary());
        text.push_str("\n## What is an error\n\n| on | for example | says | such questions |\n|---|---|---|---:|\n");
        for ((area, message), questions) in kinds {
            let shortest = questions.iter().min_by_key(|question| (question.len(), **question)).expect("one at least");
            let (example, message) = (cell(shortest), cell(&message));
            let _ = writeln!(text, "| {area} | `{example}` | {message} | {} |", questions.len());
        }
        text
    }

    /// Checks that nothing differs but what is known to, and that the docs say what is.
    pub(crate) fn check(&self) {
        let docs = PathBuf::from("../../docs/sql-differences.md");
        let files = [(directory().join("open.txt"), self.open()), (docs, self.page())];
        let write = std::env::var_os(WRITE).is_some();
        let mut stale = Vec::new();
        for (path, text) in files {
            if write {
                fs::write(&path, &text).expect("written");
            } else if fs::read_to_string(&path).unwrap_or_default() != text {
                stale.push((path, text));
            }
        }
        for (path, text) in &stale {
            let old = fs::read_to_string(path).unwrap_or_default();
            let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (old.lines().collect(), text.lines().collect());
            for line in new.difference(&old) {
                println!("{}: + {line}", path.display());
            }
            for line in old.difference(&new) {
                println!("{}: - {line}", path.display());
            }
        }
        let names: Vec<_> = stale.iter().map(|(path, _)| path.display().to_string()).collect();
        assert!(stale.is_empty(), "{names:?} are not what is now so; {WRITE}=1 writes them anew");
    }
}

const INTRODUCTION: &str = "# Where SQL at HQ is not PostgreSQL's

HQ speaks PostgreSQL's protocol and means what PostgreSQL means, or refuses. A test asks a real PostgreSQL and HQ the same questions
over the same rows and compares names, types and values (`crates/pg/tests/it/differential.rs`); this page is written by it.

";

/// A message without what is only of its question: quoted names and numbers.
fn general(message: &str) -> String {
    let (mut text, mut quote) = (String::new(), None);
    for letter in message.lines().next().unwrap_or_default().chars() {
        match quote {
            Some(open) if letter == open => {
                quote = None;
                text.push(letter);
            }
            Some(_) => {}
            None if matches!(letter, '"' | '\'' | '`') => {
                quote = Some(letter);
                text.push(letter);
                text.push('…');
            }
            None if letter.is_ascii_digit() && text.ends_with('#') => {}
            None if letter.is_ascii_digit() => text.push('#'),
            None => text.push(letter),
        }
    }
    cut(&text, 120)
}

fn cut(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        text.to_owned()
    } else {
        text.chars().take(letters).collect::<String>() + "…"
    }
}

/// Text that can stand in a table.
fn cell(text: &str) -> String {
    cut(&text.replace('|', "\\|").replace(['\n', '`'], " "), 160)
}

/// An answer for a list.
fn shown(answer: &Answer) -> String {
    let text = match answer {
        Answer::Done => "done".to_owned(),
        Answer::Error { code, message } => format!("error {code} {message}"),
        Answer::Rows { columns, rows } => {
            let columns: Vec<String> = columns.iter().map(|column| format!("{}:{}", column.name, column.oid)).collect();
            let value = |value: &Option<Vec<u8>>| value.as_ref().map_or("NULL".to_owned(), |bytes| readable(bytes));
            let rows: Vec<String> =
                rows.iter().map(|row| row.iter().map(value).collect::<Vec<_>>().join(",")).collect();
            format!("{} => {}", columns.join(" | "), rows.join(" ; "))
        }
    };
    cut(&text.replace('\n', "\\n"), SHOWN)
}

fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
