//! The questions, written down in `tests/differential/*.sql`, one on a line, and those with
//! parameters in `parameters.txt`.

use std::fs;

use super::tables::directory;

/// Between the statements of one question, and between parameters.
const BETWEEN: &str = " ;; ";

/// Marks a question whose numbers have more digits with one program than with the other.
const SCALE: &str = "[scale] ";

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// The file it is from.
    pub(crate) area: String,
    /// Numbers that no two programs give the same number of digits: they agree in all digits that
    /// both give.
    pub(crate) scale: bool,
    /// Floats whose last digits depend on the order of additions.
    pub(crate) nearly: bool,
    /// The statements; the last one's answer counts.
    pub(crate) statements: Vec<String>,
    /// Types and values of parameters.
    pub(crate) parameters: Vec<(String, Option<String>)>,
}

impl Question {
    fn new(area: &str, text: &str) -> Self {
        let tagged = |tag| text.strip_prefix(tag).map(str::trim_start);
        let (scale, nearly) = (tagged(SCALE), tagged("[float] "));
        let statements = scale.or(nearly).unwrap_or(text).split(BETWEEN).map(str::to_owned).collect();
        let (scale, nearly) = (scale.is_some(), nearly.is_some());
        Self { area: area.to_owned(), scale, nearly, statements, parameters: Vec::new() }
    }

    /// A line `type value ;; type value => question`; the value `NULL` is null, `''` the empty
    /// text.
    fn with_parameters(line: &str) -> Self {
        let (tag, line) = line.split_at(if line.starts_with(SCALE) { SCALE.len() } else { 0 });
        let (parameters, sql) = line.split_once(" => ").expect("parameters and a question");
        let parameter = |text: &str| {
            let (kind, value) = text.split_once(' ').expect("a type and a value");
            let value = match value {
                "NULL" => None,
                "''" => Some(String::new()),
                other => Some(other.to_owned()),
            };
            (kind.to_owned(), value)
        };
        Self {
            parameters: parameters.split(BETWEEN).map(parameter).collect(),
            ..Self::new("parameters", &format!("{tag}{sql}"))
        }
    }

    /// As it is named in lists.
    pub(crate) fn text(&self) -> String {
        self.statements.join(BETWEEN)
    }

    /// Whether it says in which order its rows come.
    pub(crate) fn is_ordered(&self) -> bool {
        let (mut depth, mut quote, mut outside) = (0_usize, false, String::new());
        for letter in self.statements.last().expect("one at least").chars() {
            match letter {
                '\'' => quote = !quote,
                '(' if !quote => depth += 1,
                ')' if !quote => depth = depth.saturating_sub(1),
                _ if depth == 0 && !quote => outside.push(letter.to_ascii_uppercase()),
                _ => {}
            }
        }
        outside.contains(" ORDER BY ")
    }
}

/// All questions without parameters.
pub(crate) fn questions() -> Vec<Question> {
    let entries = fs::read_dir(directory()).expect("the questions").map(|entry| entry.expect("readable").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "sql")).collect();
    files.sort();
    let of_file = |path: std::path::PathBuf| {
        let area = path.file_stem().expect("a name").to_string_lossy().into_owned();
        lines(&path).into_iter().map(move |line| Question::new(&area, &line))
    };
    files.into_iter().flat_map(of_file).collect()
}

/// All questions with parameters.
pub(crate) fn questions_with_parameters() -> Vec<Question> {
    lines(&directory().join("parameters.txt")).iter().map(|line| Question::with_parameters(line)).collect()
}

fn lines(path: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("the questions");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with("-- ")).map(str::to_owned).collect()
}
