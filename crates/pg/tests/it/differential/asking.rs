//! Asks two servers the same questions in every form.

use std::collections::HashMap;

use super::{questions::Question, verdict::Verdict};
use crate::wire::{Answer, Client, Prepared, in_binary};

/// How a question with parameters is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Types are said; values and answers are binary.
    Binary,
    /// Types are said; values and answers are text.
    Text,
    /// Types are left open; values and answers are text.
    OpenText,
    /// As drivers do: the server's own types for the parameters are asked for and used; values and
    /// answers are binary.
    OpenBinary,
}

impl Form {
    pub(crate) const ALL: [Self; 4] = [Self::Binary, Self::Text, Self::OpenText, Self::OpenBinary];

    /// As it is called in lists.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Binary => "parameters, binary",
            Self::Text => "parameters, text",
            Self::OpenText => "parameters of open type, text",
            Self::OpenBinary => "parameters of open type, binary",
        }
    }
}

/// What came of one question.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) area: String,
    pub(crate) question: String,
    pub(crate) verdict: Verdict,
    pub(crate) right: Answer,
    pub(crate) ours: Answer,
}

/// A server that is asked over a connection, and over a new one whenever a question may have left a
/// trace.
pub(crate) struct Asked<'a> {
    connect: &'a dyn Fn() -> Client,
    client: Option<Client>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(connect: &'a dyn Fn() -> Client) -> Self {
        Self { connect, client: None }
    }

    fn client(&mut self) -> &mut Client {
        if self.client.as_ref().is_none_or(|client| !client.is_idle()) {
            self.client = Some((self.connect)());
        }
        self.client.as_mut().expect("connected")
    }

    /// What it says to each statement of a question.
    fn ask(&mut self, question: &Question) -> Vec<Answer> {
        let statements = &question.statements;
        let leaves_a_trace = statements.len() > 1 || statements[0].starts_with("SET");
        if leaves_a_trace {
            self.client = None;
        }
        let client = self.client();
        let answers = statements.iter().map(|statement| client.simple(statement)).collect();
        if leaves_a_trace {
            self.client = None;
        }
        answers
    }
}

/// Asks both a question without parameters.
pub(crate) fn compare(question: &Question, right: &mut Asked<'_>, ours: &mut Asked<'_>) -> Compared {
    let (mut right, mut ours) = (right.ask(question), ours.ask(question));
    // The first statement that one refuses and the other does not decides; the last one's values
    // else.
    let apart = right.iter().zip(&ours).position(|(right, ours)| right.is_error() != ours.is_error());
    let place = apart.unwrap_or(right.len() - 1);
    let (right, ours) = (right.swap_remove(place), ours.swap_remove(place));
    let verdict = Verdict::of(question, &right, &ours);
    Compared { area: question.area.clone(), question: question.text(), verdict, right, ours }
}

/// Asks both a question with parameters in one form.
pub(crate) fn compare_prepared(
    question: &Question,
    form: Form,
    right: &mut Asked<'_>,
    ours: &mut Asked<'_>,
    forms: &mut Forms,
) -> Compared {
    let right_answer = forms.ask(question, form, right, None);
    let ours_answer = forms.ask(question, form, ours, Some(right));
    let verdict = match form {
        Form::Binary | Form::OpenBinary => Verdict::of_binary(question, &right_answer, &ours_answer),
        Form::Text | Form::OpenText => Verdict::of(question, &right_answer, &ours_answer),
    };
    let value = |(kind, value): &(String, Option<String>)| format!("{kind} {}", value.as_deref().unwrap_or("NULL"));
    let parameters: Vec<String> = question.parameters.iter().map(value).collect();
    let question = format!("{} => {}", parameters.join(" ;; "), question.text());
    Compared { area: form.name().to_owned(), question, verdict, right: right_answer, ours: ours_answer }
}

/// Types' numbers and values' binary forms, as PostgreSQL gave them.
#[derive(Debug, Default)]
pub(crate) struct Forms {
    oids: HashMap<String, u32>,
    binary: HashMap<(u32, String), Option<Vec<u8>>>,
}

impl Forms {
    /// Asks one server; `postgres` tells the binary forms, and is the server itself if none.
    fn ask(
        &mut self,
        question: &Question,
        form: Form,
        server: &mut Asked<'_>,
        mut postgres: Option<&mut Asked<'_>>,
    ) -> Answer {
        let sql = &question.statements[0];
        let said: Vec<u32> = match form {
            Form::OpenText => Vec::new(),
            Form::OpenBinary => match server.client().parameter_types(sql) {
                Ok(types) => types,
                Err(answer) => return answer,
            },
            Form::Binary | Form::Text => {
                let client = postgres.as_deref_mut().map_or_else(|| server.client(), |other| other.client());
                question.parameters.iter().map(|(kind, _)| self.oid(client, kind)).collect()
            }
        };
        if form == Form::OpenBinary && said.len() != question.parameters.len() {
            return failed("the server knows of another number of parameters");
        }
        let mut values = Vec::new();
        for (place, (_, value)) in question.parameters.iter().enumerate() {
            values.push(match (form, value) {
                (_, None) => None,
                (Form::Text | Form::OpenText, Some(value)) => Some(value.clone().into_bytes()),
                (Form::Binary | Form::OpenBinary, Some(value)) => {
                    let client = postgres.as_deref_mut().map_or_else(|| server.client(), |other| other.client());
                    match self.binary(client, value, said[place]) {
                        Some(bytes) => Some(bytes),
                        None => return failed("the value is none of the parameter's type"),
                    }
                }
            });
        }
        let code = i16::from(matches!(form, Form::Binary | Form::OpenBinary));
        let types: &[u32] = if form == Form::OpenBinary { &[] } else { &said };
        server.client().prepared(Prepared { sql, types, values: &values, form: code, answer: code })
    }

    fn oid(&mut self, client: &mut Client, kind: &str) -> u32 {
        *self.oids.entry(kind.to_owned()).or_insert_with(|| {
            let answer = client.simple(&format!("SELECT '{kind}'::regtype::oid"));
            let Answer::Rows { rows, .. } = answer else { panic!("no type is called {kind}") };
            let digits = rows[0][0].clone().expect("a number");
            String::from_utf8(digits).expect("digits").parse().expect("a number")
        })
    }

    fn binary(&mut self, client: &mut Client, value: &str, oid: u32) -> Option<Vec<u8>> {
        self.binary.entry((oid, value.to_owned())).or_insert_with(|| in_binary(client, value, oid)).clone()
    }
}

/// What a driver would say that cannot send its values.
fn failed(message: &str) -> Answer {
    Answer::Error { code: "DRIVER".into(), message: message.into() }
}
