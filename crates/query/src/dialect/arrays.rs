//! Array literals as PostgreSQL writes them, `{a,"b c",NULL,{…}}`.

use std::{iter::Peekable, str::Chars};

/// An element of an array literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    Null,
    Value(String),
    Array(Vec<Element>),
}

/// Arrays within arrays.
const NESTED_MAX: usize = 6;

/// The elements of an array literal; an error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<Element>, String> {
    let wrong = |why: &str| format!("malformed array literal: \"{text}\": {why}");
    let mut letters = text.trim().chars().peekable();
    if letters.peek() == Some(&'[') {
        return Err(wrong("explicit bounds are not supported"));
    }
    if letters.next() != Some('{') {
        return Err(wrong("it must start with \"{\""));
    }
    let elements = elements(&mut letters, 1).map_err(|why| wrong(&why))?;
    match letters.next() {
        None => Ok(elements),
        Some(_) => Err(wrong("there is more after the closing brace")),
    }
}

fn elements(letters: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Vec<Element>, String> {
    if depth > NESTED_MAX {
        return Err(format!("more than {NESTED_MAX} dimensions"));
    }
    let mut all = Vec::new();
    skip_spaces(letters);
    if letters.next_if_eq(&'}').is_some() {
        return Ok(all);
    }
    loop {
        skip_spaces(letters);
        all.push(match letters.peek() {
            Some('{') => {
                letters.next();
                Element::Array(elements(letters, depth + 1)?)
            }
            Some('"') => Element::Value(quoted(letters)?),
            Some(_) => unquoted(letters)?,
            None => return Err("it ends within an array".to_owned()),
        });
        skip_spaces(letters);
        match letters.next() {
            Some(',') => {}
            Some('}') => return Ok(all),
            Some(other) => return Err(format!("unexpected {other:?}")),
            None => return Err("it ends within an array".to_owned()),
        }
    }
}

fn skip_spaces(letters: &mut Peekable<Chars<'_>>) {
    while letters.next_if(|letter| letter.is_ascii_whitespace()).is_some() {}
}

fn quoted(letters: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    letters.next();
    let mut text = String::new();
    loop {
        match letters.next() {
            Some('"') => return Ok(text),
            Some('\\') => text.push(letters.next().ok_or("it ends after a backslash")?),
            Some(letter) => text.push(letter),
            None => return Err("a quote is not closed".to_owned()),
        }
    }
}

fn unquoted(letters: &mut Peekable<Chars<'_>>) -> Result<Element, String> {
    let (mut text, mut escaped) = (String::new(), false);
    while let Some(letter) = letters.next_if(|letter| !matches!(letter, ',' | '}' | '{' | '"')) {
        if letter == '\\' {
            escaped = true;
            text.push(letters.next().ok_or("it ends after a backslash")?);
        } else {
            text.push(letter);
        }
    }
    let text = text.trim_end_matches(|letter: char| letter.is_ascii_whitespace());
    match text {
        "" => Err("an element is missing".to_owned()),
        null if !escaped && null.eq_ignore_ascii_case("null") => Ok(Element::Null),
        text => Ok(Element::Value(text.to_owned())),
    }
}
