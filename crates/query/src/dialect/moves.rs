//! `MOVE`, which the parser does not know, as a `FETCH` whose rows nobody wants. And the words that
//! may be left out of both.

use datafusion::sql::sqlparser::{
    ast::{Ident, ObjectName, Statement},
    keywords::Keyword,
    tokenizer::{Token, Whitespace, Word},
};

/// The target that stands for no target: no keyboard has it.
const NOWHERE: &str = "\u{1f}nowhere";

/// Whether a `FETCH` was written as `MOVE`.
pub fn only_moves(statement: &Statement) -> bool {
    matches!(statement, Statement::Fetch { into: Some(into), .. } if *into == nowhere())
}

fn nowhere() -> ObjectName {
    ObjectName::from(vec![Ident::with_quote('"', NOWHERE)])
}

fn word(keyword: Keyword) -> Token {
    Token::make_word(&format!("{keyword:?}"), None)
}

/// The tokens with each `MOVE` as a `FETCH`, and each of these with its direction and `FROM`.
pub(super) fn as_fetch(tokens: Vec<Token>) -> Vec<Token> {
    if !tokens.iter().any(|token| keyword(token) == Keyword::FETCH || is_move(token)) {
        return tokens;
    }
    let mut made = Vec::with_capacity(tokens.len() + 8);
    for mut statement in tokens.split_inclusive(|token| *token == Token::SemiColon) {
        let end = match statement.split_last() {
            Some((Token::SemiColon, rest)) => {
                statement = rest;
                Some(Token::SemiColon)
            }
            _ => None,
        };
        match whole(statement) {
            Some(fetch) => made.extend(fetch),
            None => made.extend_from_slice(statement),
        }
        made.extend(end);
    }
    made
}

fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(Word { quote_style: None, keyword, .. }) => *keyword,
        _ => Keyword::NoKeyword,
    }
}

fn is_move(token: &Token) -> bool {
    matches!(token, Token::Word(Word { quote_style: None, value, .. }) if value.eq_ignore_ascii_case("move"))
}

/// A `FETCH` or `MOVE` with every word that the parser wants; none if it is another statement.
fn whole(statement: &[Token]) -> Option<Vec<Token>> {
    let mut words = statement.iter().filter(|token| !matches!(token, Token::Whitespace(_))).cloned().peekable();
    let first = words.next()?;
    if keyword(&first) != Keyword::FETCH && !is_move(&first) {
        return None;
    }
    let mut fetch = vec![word(Keyword::FETCH)];
    let is_number = |token: Option<&Token>| matches!(token, Some(Token::Number(..) | Token::Minus | Token::Plus));
    match words.peek().map(keyword) {
        Some(Keyword::ABSOLUTE | Keyword::RELATIVE) => {
            fetch.extend(words.next());
        }
        Some(direction @ (Keyword::FORWARD | Keyword::BACKWARD)) => {
            fetch.extend(words.next());
            if words.peek().map(keyword) == Some(Keyword::ALL) {
                fetch.extend(words.next());
            } else if !is_number(words.peek()) {
                // One row.
                fetch.pop();
                fetch.push(word(if direction == Keyword::FORWARD { Keyword::NEXT } else { Keyword::PRIOR }));
            }
        }
        Some(Keyword::NEXT | Keyword::PRIOR | Keyword::FIRST | Keyword::LAST | Keyword::ALL) => {
            fetch.extend(words.next());
        }
        _ if is_number(words.peek()) => {}
        _ => fetch.push(word(Keyword::NEXT)),
    }
    let mut sign = "";
    while is_number(words.peek()) {
        match words.next() {
            Some(Token::Minus) => sign = "-",
            Some(Token::Number(digits, long)) => fetch.push(Token::Number(format!("{sign}{digits}"), long)),
            _ => {}
        }
    }
    match words.peek().map(keyword) {
        Some(Keyword::FROM | Keyword::IN) => fetch.extend(words.next()),
        _ => fetch.push(word(Keyword::FROM)),
    }
    fetch.extend(words);
    if is_move(&first) {
        fetch.push(word(Keyword::INTO));
        fetch.push(Token::make_word(NOWHERE, Some('"')));
    }
    // Words stand apart.
    Some(fetch.into_iter().flat_map(|token| [token, Token::Whitespace(Whitespace::Space)]).collect())
}
