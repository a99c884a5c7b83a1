//! Bounds on a statement: whatever is deep ends in recursion somewhere, and a stack that overflows
//! ends the process.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{BinaryOperator, Expr, Statement, VisitMut, VisitorMut},
    keywords::Keyword,
    tokenizer::Token,
};

use crate::error::QueryError;

/// Operators in a row without a comma or parenthesis between: the parser makes a tree of this depth
/// of them.
const CHAIN_MAX: usize = 10_000;
/// Set operations and joins in a statement: each makes the plan deeper.
const RELATIONS_MAX: usize = 500;
/// Levels of an expression once chains of AND and OR are balanced.
const DEPTH_MAX: usize = 400;

/// Refuses a text whose tree would be too deep to be read, or only dropped, on the stack of a
/// question.
pub(super) fn check_tokens(tokens: &[Token]) -> Result<(), QueryError> {
    // The count at this parenthesis, and those of the ones around it.
    let (mut chain, mut around) = (0_usize, Vec::new());
    let mut relations = 0;
    for token in tokens {
        match token {
            Token::Word(word) if is_relational(word.keyword) => relations += 1,
            Token::LParen | Token::LBracket | Token::LBrace => around.push(std::mem::take(&mut chain)),
            Token::RParen | Token::RBracket | Token::RBrace => chain = around.pop().unwrap_or(chain + 1),
            Token::Comma | Token::SemiColon => chain = 0,
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            Token::Word(word) if !is_operator(word.keyword) => {}
            _ => chain += 1,
        }
        if relations > RELATIONS_MAX {
            return Err(QueryError::TooComplex(format!(
                "the statement has more than {RELATIONS_MAX} joins and set operations"
            )));
        }
        if chain > CHAIN_MAX {
            return Err(QueryError::TooComplex(format!(
                "the statement has an expression of more than {CHAIN_MAX} operators; a list (IN, ANY, VALUES) or a join does the same"
            )));
        }
    }
    Ok(())
}

fn is_relational(keyword: Keyword) -> bool {
    use Keyword::{EXCEPT, INTERSECT, JOIN, UNION};
    matches!(keyword, EXCEPT | INTERSECT | JOIN | UNION)
}

fn is_operator(keyword: Keyword) -> bool {
    use Keyword::{AND, AT, BETWEEN, COLLATE, ILIKE, IN, IS, LIKE, NOT, NOTNULL, OPERATOR, OR, SIMILAR};
    matches!(keyword, AND | AT | BETWEEN | COLLATE | ILIKE | IN | IS | LIKE | NOT | NOTNULL | OPERATOR | OR | SIMILAR)
}

/// Balances chains of AND and of OR, and refuses what is still too deep.
pub(super) fn flatten(statement: &mut Statement) -> Result<(), QueryError> {
    let _: ControlFlow<()> = statement.visit(&mut Balance);
    let mut depth = Depth { now: 0, deepest: 0 };
    let _: ControlFlow<()> = statement.visit(&mut depth);
    if depth.deepest > DEPTH_MAX {
        return Err(QueryError::TooComplex(format!(
            "the statement has an expression {} levels deep; at most {DEPTH_MAX} are answered",
            depth.deepest
        )));
    }
    Ok(())
}

/// How deep expressions are nested.
struct Depth {
    now: usize,
    deepest: usize,
}

impl VisitorMut for Depth {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.now += 1;
        self.deepest = self.deepest.max(self.now);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.now -= 1;
        ControlFlow::Continue(())
    }
}

/// Makes of `((a OR b) OR c) OR d` the tree `(a OR b) OR (c OR d)`: both operators are associative,
/// for NULL too.
struct Balance;

impl VisitorMut for Balance {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), left, .. } = expr else {
            return ControlFlow::Continue(());
        };
        if !matches!(left.as_ref(), Expr::BinaryOp { op: inner, .. } if inner == op) {
            return ControlFlow::Continue(());
        }
        let op = op.clone();
        let mut terms = Vec::new();
        let mut rest = take(expr);
        // Downwards on the left, where the parser puts a chain.
        loop {
            match rest {
                Expr::BinaryOp { left, op: inner, right } if inner == op => {
                    terms.push(*right);
                    rest = *left;
                }
                first => {
                    terms.push(first);
                    break;
                }
            }
        }
        terms.reverse();
        *expr = balanced(terms, &op);
        ControlFlow::Continue(())
    }
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Identifier("taken".into()))
}

pub(super) fn balanced(mut terms: Vec<Expr>, op: &BinaryOperator) -> Expr {
    while terms.len() > 1 {
        let mut joined = Vec::with_capacity(terms.len().div_ceil(2));
        let mut all = terms.into_iter();
        while let Some(left) = all.next() {
            joined.push(match all.next() {
                Some(right) => Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) },
                None => left,
            });
        }
        terms = joined;
    }
    terms.into_iter().next().unwrap_or_else(|| Expr::Identifier("taken".into()))
}
