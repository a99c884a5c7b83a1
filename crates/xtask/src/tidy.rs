//! What a compiler does not see: long functions, long files, wide comments, and names in the
//! documentation that lead nowhere.
//!
//! `tidy.allow` lists what is too long today, with its length. An entry that is longer than that
//! fails, and so does one that is not needed any more: the list can only shrink.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Columns of a line that is a comment.
const COMMENT_COLUMNS_MAX: usize = 100;

/// What is longer than it should be: its name, with its length.
type Lengths = BTreeMap<String, usize>;

/// Everything that is not as it should be, a line for each.
pub(crate) fn check(root: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let mut found = Lengths::new();
    let sources = sources(&root.join("crates"));
    if sources.is_empty() {
        faults.push(format!("{}: there are no sources", root.display()));
    }
    for path in sources {
        let Ok(text) = fs::read_to_string(&path) else {
            faults.push(format!("{}: cannot be read", path.display()));
            continue;
        };
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        found.extend(long_parts(&name, &text));
        faults.extend(wide_comments(&name, &text));
    }
    let list = root.join("crates/xtask/tidy.allow");
    if std::env::var_os("ROLLCALL_WRITE").is_some() {
        let text: String = found.iter().map(|(name, lines)| format!("{lines} {name}\n")).collect();
        if let Err(error) = fs::write(&list, text) {
            faults.push(format!("{}: {error}", list.display()));
        }
    }
    faults.extend(beyond(&found, &allowed(&fs::read_to_string(&list).unwrap_or_default())));
    faults.extend(lost_names(root));
    faults
}

/// The product's own sources; tests may be long.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !matches!(name.as_str(), "tests" | "target") {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                all.push(path);
            }
        }
    }
    all.sort();
    all
}

/// The part of a file that is no test.
fn without_tests(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod tests {").map_or(text, |(product, _)| product)
}

fn long_parts(name: &str, text: &str) -> Lengths {
    let product = without_tests(text);
    let mut found = Lengths::new();
    let lines = product.lines().count();
    if lines > FILE_LINES_MAX {
        found.insert(name.to_owned(), lines);
    }
    let all: Vec<&str> = product.lines().collect();
    for (start, line) in all.iter().enumerate() {
        let Some(function) = function_name(line) else { continue };
        // Formatted code closes a body at the indentation at which it began.
        let indentation = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indentation));
        let length = all.iter().skip(start).position(|line| *line == close).map_or(1, |last| last + 1);
        if length > FUNCTION_LINES_MAX {
            found.insert(format!("{name} fn {function}"), length);
        }
    }
    found
}

/// The name of the function that a line begins; none if it begins none with a body below.
fn function_name(line: &str) -> Option<&str> {
    let before_name = line.split_once("fn ").map(|(before, _)| before)?;
    let is_definition = before_name
        .split_whitespace()
        .all(|word| matches!(word, "pub" | "async" | "const" | "unsafe" | "extern") || word.starts_with("pub("));
    let name = line.split_once("fn ")?.1.split(['(', '<']).next()?;
    (is_definition && !line.trim_end().ends_with([';', '}'])).then_some(name)
}

fn wide_comments(name: &str, text: &str) -> Vec<String> {
    let is_wide = |line: &&str| line.trim_start().starts_with("//") && line.chars().count() > COMMENT_COLUMNS_MAX;
    let wide = text.lines().enumerate().filter(|(_, line)| is_wide(line));
    wide.map(|(number, _)| format!("{name}:{}: a comment of more than {COMMENT_COLUMNS_MAX} columns", number + 1))
        .collect()
}

/// The list of what may be too long, by name.
fn allowed(list: &str) -> Lengths {
    let entry = |line: &str| {
        let (lines, name) = line.split_once(' ')?;
        Some((name.to_owned(), lines.parse().ok()?))
    };
    list.lines().filter_map(entry).collect()
}

fn beyond(found: &Lengths, allowed: &Lengths) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, lines) in found {
        match allowed.get(name) {
            None => faults.push(format!("{name} has {lines} lines: take it apart")),
            Some(most) if lines > most => {
                faults.push(format!("{name} grew from {most} to {lines} lines: take it apart"))
            }
            Some(most) if lines < most => {
                faults.push(format!("{name} has {lines} lines now: say so in crates/xtask/tidy.allow (it was {most})"));
            }
            Some(_) => {}
        }
    }
    let gone = allowed.keys().filter(|name| !found.contains_key(*name));
    faults.extend(gone.map(|name| format!("{name} is short enough: take it out of crates/xtask/tidy.allow")));
    faults
}

/// Files that ARCHITECTURE.md, CONTRIBUTING.md and decisions name, and that are not there.
fn lost_names(root: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap_or_default();
        let paths = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| code.starts_with("crates/") && !code.contains(['{', '*', ' ']));
        let lost = paths.filter(|path| !root.join(path.trim_end_matches('/')).exists());
        faults.extend(lost.map(|path| format!("{page} names {path}, which is not there")));
    }
    let decisions = fs::read_dir(root.join("docs/decisions")).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in decisions {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let number: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(4).collect();
        let title = text.lines().next().unwrap_or_default();
        let is_whole = title.starts_with("# ") && title.contains(number.trim_start_matches('0'));
        if !is_whole {
            faults.push(format!("{}: a decision begins with a title that has its number", path.display()));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_function_is_found_by_its_name_and_length() {
        let body = "        work();\n".repeat(FUNCTION_LINES_MAX);
        let text = format!(
            "impl Thing {{\n    pub(crate) async fn long<T>(&self) {{\n{body}    }}\n\n    fn short() {{}}\n}}\n"
        );
        let found = long_parts("a.rs", &text);
        assert_eq!(found, Lengths::from([("a.rs fn long".to_owned(), FUNCTION_LINES_MAX + 2)]));
        assert!(
            long_parts("a.rs", &format!("fn f() {{}}\n\n#[cfg(test)]\nmod tests {{\n{text}}}\n")).is_empty(),
            "tests may be long"
        );
    }

    #[test]
    fn the_list_can_only_shrink() {
        let list = allowed("80 a.rs fn f\n600 b.rs\n");
        let faults = |found: &[(&str, usize)]| {
            beyond(&found.iter().map(|(name, lines)| ((*name).to_owned(), *lines)).collect(), &list).len()
        };
        assert_eq!(faults(&[("a.rs fn f", 80), ("b.rs", 600)]), 0);
        assert_eq!(faults(&[("a.rs fn f", 81), ("b.rs", 600)]), 1, "it grew");
        assert_eq!(faults(&[("a.rs fn f", 80)]), 1, "an entry that is not needed");
        assert_eq!(faults(&[("a.rs fn f", 80), ("b.rs", 600), ("c.rs", 501)]), 1, "a new one");
    }
}
