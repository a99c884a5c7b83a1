//! Statements in PostgreSQL's dialect: read, bounded, and brought into a form that the planner
//! takes and that means the same.
//!
//! No rule here may change what a question means: each writes the same thing in other words. Rules
//! that only come close, as drivers' questions about the server need them, see no question of a
//! user's: they are in `catalogue`.

mod arrays;
mod bounds;
mod moves;
mod names;
mod parameters;
mod rewrite;
mod type_calls;

use datafusion::sql::sqlparser::{
    ast::Statement,
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Token, Tokenizer},
};

pub(crate) use self::names::name_columns;
pub(crate) use self::parameters::{Placeholders, placeholders};
pub(crate) use self::rewrite::{REGCLASS, TO_REGCLASS};
pub use self::{
    moves::only_moves,
    names::shown_name,
    parameters::{Literal, bind, execute},
};
use crate::error::QueryError;

/// Letters of one text; PostgreSQL's own clients send some kilobytes.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// Levels of parentheses and subqueries.
const NESTED_MAX: usize = 200;

/// The statements of a text. It needs a deep stack: call it on the threads of questions.
pub(crate) fn parse(sql: &str) -> Result<Vec<Statement>, QueryError> {
    if sql.len() > TEXT_BYTES_MAX {
        let text = format!("the statement has {} bytes; at most {TEXT_BYTES_MAX} are read", sql.len());
        return Err(QueryError::TooComplex(text));
    }
    let tokens =
        Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().map_err(|error| QueryError::Syntax(error.to_string()))?;
    bounds::check_tokens(&tokens)?;
    let tokens = moves::as_fetch(with_is_null(without_deferrable(tokens)));
    let parsed =
        Parser::new(&PostgreSqlDialect {}).with_recursion_limit(NESTED_MAX).with_tokens(tokens).parse_statements();
    let mut statements = parsed.map_err(|error| match error {
        ParserError::RecursionLimitExceeded => {
            QueryError::TooComplex(format!("the statement is nested more than {NESTED_MAX} levels deep"))
        }
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => QueryError::Syntax(text),
    })?;
    for statement in &mut statements {
        bounds::flatten(statement)?;
    }
    Ok(statements)
}

/// `BEGIN … DEFERRABLE` without its last word, which the parser does not know and which changes
/// nothing here.
fn without_deferrable(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut begins = true;
    let mut is_transaction = false;
    for token in tokens {
        let word = match &token {
            Token::Word(word) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        };
        match &token {
            Token::SemiColon => (begins, is_transaction) = (true, false),
            Token::Whitespace(_) => {}
            _ if begins => {
                is_transaction = matches!(word, Keyword::BEGIN | Keyword::START | Keyword::SET);
                begins = false;
            }
            _ => {}
        }
        if is_transaction && word == Keyword::DEFERRABLE {
            // What came before it may be NOT, or a comma.
            while matches!(kept.last(), Some(Token::Whitespace(_) | Token::Comma))
                || matches!(kept.last(), Some(Token::Word(word)) if word.keyword == Keyword::NOT)
            {
                kept.pop();
            }
            continue;
        }
        kept.push(token);
    }
    kept
}

/// `x ISNULL` and `x NOTNULL` as the parser knows them; it would take the words for names.
fn with_is_null(tokens: Vec<Token>) -> Vec<Token> {
    let mut made: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut before = Token::SemiColon;
    for token in tokens {
        let words = match &token {
            Token::Word(word) if word.quote_style.is_none() => match word.value.to_ascii_uppercase().as_str() {
                "ISNULL" => Some("IS NULL"),
                "NOTNULL" => Some("IS NOT NULL"),
                _ => None,
            },
            _ => None,
        };
        let is_name =
            matches!(before, Token::Period) || matches!(&before, Token::Word(word) if word.keyword == Keyword::AS);
        let is_spaced = matches!(token, Token::Whitespace(_));
        if !is_spaced {
            before = token.clone();
        }
        match words.filter(|_| !is_name) {
            Some(words) => {
                let words = Tokenizer::new(&PostgreSqlDialect {}, words).tokenize().unwrap_or_default();
                made.extend(words);
            }
            None => made.push(token),
        }
    }
    made
}

/// The statement of a text that must hold exactly one.
pub(crate) fn parse_one(sql: &str) -> Result<Statement, QueryError> {
    let mut statements = parse(sql)?;
    match (statements.pop(), statements.len()) {
        (Some(statement), 0) => Ok(statement),
        (None, _) => Err(QueryError::Syntax("there is no statement".to_owned())),
        (Some(_), more) => {
            Err(QueryError::Syntax(format!("there are {} statements where one is answered; send them apart", more + 1)))
        }
    }
}

/// The statement as the planner takes it.
pub(crate) fn for_planner(statement: &Statement) -> Result<Statement, QueryError> {
    let mut statement = statement.clone();
    // PostgreSQL names a column by what is written, not by what it is rewritten to.
    name_columns(&mut statement);
    rewrite::rewrite(&mut statement)?;
    Ok(statement)
}

#[cfg(test)]
mod tests;
