//! Asks a real PostgreSQL and HQ the same questions over the same rows. They must answer alike, or
//! HQ must refuse.

mod asking;
mod questions;
mod report;
pub(crate) mod tables;
mod verdict;

use asking::{Asked, Compared, Form, Forms, compare, compare_prepared};
use questions::{questions, questions_with_parameters};
use report::Report;

use crate::{hq::Hq, postgres::Postgres, wire::Client};

/// A directory into which every question that is not equal is written with both answers.
const LISTS: &str = "ROLLCALL_DIFFERENCES";

/// Asks everything.
fn ask_all(postgres: &dyn Fn() -> Client, hq: &dyn Fn() -> Client) -> Report {
    let (mut right, mut ours) = (Asked::new(postgres), Asked::new(hq));
    let mut compared: Vec<Compared> =
        questions().iter().map(|question| compare(question, &mut right, &mut ours)).collect();
    let mut forms = Forms::default();
    for question in questions_with_parameters() {
        for form in Form::ALL {
            compared.push(compare_prepared(&question, form, &mut right, &mut ours, &mut forms));
        }
    }
    Report::new(compared)
}

#[test]
fn hq_answers_as_postgresql_does_or_refuses() {
    let postgres = Postgres::start();
    tables::load(&mut postgres.connect());
    let hq = Hq::start(tables::sites(), tables::append);
    let report = ask_all(&|| postgres.connect(), &|| hq.connect());
    println!("{}", report.summary());
    if let Some(directory) = std::env::var_os(LISTS) {
        report.write_lists(directory.as_ref());
    }
    report.check();
}
