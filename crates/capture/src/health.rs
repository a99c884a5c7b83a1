//! Whether capture works.

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// What is wrong now and was not mended.
    pub problems: Vec<Problem>,
    /// What was found and mended, for the log.
    pub mended: Vec<String>,
}

/// Something that is wrong with capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The table it is about; none if nothing is captured at all.
    pub table: Option<String>,
    /// What it is, and what to do, for people.
    pub text: String,
}

impl Health {
    /// Whether every change is being captured.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether the file itself is the trouble, and not some of its tables.
    pub fn is_blind(&self) -> bool {
        self.problems.iter().any(|problem| problem.table.is_none())
    }

    /// What is wrong, in one line; none if nothing is.
    pub fn summary(&self) -> Option<String> {
        let texts: Vec<&str> = self.problems.iter().map(|problem| problem.text.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// The database itself is the trouble.
    pub fn of_file(text: impl Into<String>) -> Self {
        Self { problems: vec![Problem { table: None, text: text.into() }], mended: Vec::new() }
    }

    /// Something is wrong with one table.
    pub fn note(&mut self, table: &str, text: String) {
        self.problems.push(Problem { table: Some(table.to_owned()), text });
    }
}
