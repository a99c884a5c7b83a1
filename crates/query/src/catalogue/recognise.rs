//! Which questions are about the server itself: only those may be rewritten, since a rewriting rule
//! that guesses would change what a user's question means.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ObjectName, ObjectNamePart, Query, Select, SetExpr, Statement, TableFactor, Visit, Visitor,
};
use datafusion_pg_catalog::pg_catalog::PG_CATALOG_TABLES;

use super::relations::OWN_RELATIONS;
use crate::syntax;

/// Whether this is a query that reads at least one relation, and whose every relation, in
/// subqueries and in the bodies of its CTEs too, is one of `pg_catalog` or `information_schema`.
///
/// Set-returning functions such as `generate_series` and `unnest` may be among what it reads.
/// Whatever is not known for certain makes it a user's question.
pub fn is_catalogue_question(statement: &Statement) -> bool {
    let Statement::Query(query) = statement else { return false };
    let mut reading = Reading::default();
    query.visit(&mut reading).is_continue() && reading.relations > 0
}

/// The functions that make rows and read no relation of a user.
const ROW_FUNCTIONS: [&str; 10] = [
    "generate_series",
    "generate_subscripts",
    "unnest",
    "string_to_array",
    "string_to_table",
    "regexp_split_to_table",
    "aclexplode",
    "current_schemas",
    "_pg_expandarray",
    "array_positions",
];

/// The CTEs of one query: those not visited yet, by their place in memory, and the names that can
/// be read by now.
#[derive(Default)]
struct Names {
    bodies: Vec<(*const Query, String)>,
    readable: Vec<String>,
}

/// Counts catalogue relations and breaks off at the first other one.
#[derive(Default)]
struct Reading {
    relations: usize,
    scopes: Vec<Names>,
}

impl Reading {
    fn relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        let Some(parts) = folded(name) else { return ControlFlow::Break(()) };
        let known = match parts.as_slice() {
            [name] => {
                if self.scopes.iter().any(|scope| scope.readable.contains(name)) {
                    return ControlFlow::Continue(());
                }
                is_system_relation(name)
            }
            // The first of three is the database.
            [schema, _] | [_, schema, _] => matches!(schema.as_str(), "pg_catalog" | "information_schema"),
            _ => false,
        };
        self.relations += usize::from(known);
        if known { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// The names as PostgreSQL reads them: in small letters, unless quoted.
fn folded(name: &ObjectName) -> Option<Vec<String>> {
    let part = |part: &ObjectNamePart| Some(syntax::folded(part.as_ident()?));
    name.0.iter().map(part).collect()
}

/// Whether a name without a schema is one of `pg_catalog`, which PostgreSQL searches before any
/// other schema.
fn is_system_relation(name: &str) -> bool {
    name.starts_with("pg_") && (PG_CATALOG_TABLES.contains(&name) || OWN_RELATIONS.contains(&name))
}

fn is_row_function(name: &ObjectName) -> bool {
    let Some(parts) = folded(name) else { return false };
    match parts.as_slice() {
        [name] => name.starts_with("pg_") || ROW_FUNCTIONS.contains(&name.as_str()),
        [schema, _] => matches!(schema.as_str(), "pg_catalog" | "information_schema"),
        _ => false,
    }
}

/// Whether a body only reads, by means that are known here.
fn only_selects(body: &SetExpr) -> bool {
    match body {
        // The queries among them are visited on their own.
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => true,
        SetExpr::SetOperation { left, right, .. } => only_selects(left) && only_selects(right),
        // `TABLE name` is not told to a visitor.
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) | SetExpr::Table(_) => false,
    }
}

impl Visitor for Reading {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if !only_selects(&query.body) || !query.pipe_operators.is_empty() || !query.locks.is_empty() {
            return ControlFlow::Break(());
        }
        let mut names = Names::default();
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                let name = syntax::folded(&cte.alias.name);
                if with.recursive {
                    names.readable.push(name.clone());
                }
                names.bodies.push((&raw const *cte.query, name));
            }
        }
        self.scopes.push(names);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        // The body of a CTE ends: from here on its name stands for it.
        if let Some(scope) = self.scopes.last_mut()
            && let Some(place) = scope.bodies.iter().position(|(body, _)| std::ptr::eq(*body, query))
        {
            let (_, name) = scope.bodies.swap_remove(place);
            scope.readable.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.into.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: None, .. } => self.relation(name),
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. }
                if is_row_function(name) =>
            {
                ControlFlow::Continue(())
            }
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } | TableFactor::UNNEST { .. } => {
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    use super::*;
    use crate::catalogue::rewritten;

    fn parsed(sql: &str) -> Statement {
        let mut statements =
            Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        statements.remove(0)
    }

    #[test]
    fn users_questions_are_never_taken_for_the_catalogues_and_stay_as_they_are() {
        let questions = [
            "SELECT s.id, (SELECT count(*) FROM sales x WHERE x._site = s.id) FROM sites AS s",
            "SELECT id, (SELECT count(*) FROM sales WHERE qty > $1) FROM sites",
            "SELECT * FROM sales WHERE _site = ANY($1::TEXT[])",
            "SELECT * FROM sales WHERE _site = ANY('{20186,\"20485B\"}')",
            "SELECT * FROM sales WHERE _site <> ALL(ARRAY['a', 'b'])",
            "SELECT 'sales'::REGCLASS",
            "SELECT 'sales'::REGCLASS, qty FROM sales",
            "SELECT pg_class FROM sales",
            "SELECT pg_class.qty FROM sales AS pg_class",
            "WITH pg_class AS (SELECT * FROM sales) SELECT * FROM pg_class",
            "WITH pg_x AS (SELECT 1 AS a) SELECT * FROM pg_x",
            "WITH pg_sales AS (SELECT 1 AS a) SELECT * FROM pg_sales, sales",
            // Within its own body a name stands for what is outside, and after its query too.
            "WITH sales AS (SELECT * FROM sales) SELECT * FROM sales, pg_class",
            "SELECT * FROM pg_class WHERE oid IN (WITH a AS (SELECT 1 AS x) SELECT x FROM a) AND relname IN (SELECT x FROM a)",
            "SELECT * FROM sales JOIN pg_class ON relname = sku",
            "SELECT * FROM pg_class WHERE relname IN (SELECT sku FROM sales)",
            "SELECT relname, (SELECT count(*) FROM sales) FROM pg_class",
            "SELECT * FROM pg_class UNION ALL SELECT * FROM sales",
            "SELECT * FROM (SELECT * FROM (SELECT * FROM sales) a) b, pg_class",
            "SELECT * FROM pg_class, LATERAL (SELECT * FROM sales WHERE sku = relname) x",
            "SELECT * FROM pg_class JOIN (sales JOIN items ON true) ON true",
            "SELECT * FROM pg_sales",
            "SELECT * FROM public.pg_class",
            "SELECT * FROM hq.public.pg_class",
            "SELECT * FROM history.pg_type",
            "SELECT * FROM \"PG_CLASS\"",
            "SELECT * FROM columns",
            "SELECT * FROM pg_class, diff('sales')",
            "SELECT * FROM generate_series(1, 3)",
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "SELECT current_schema(), version()",
            "SELECT 'SELECT typname FROM pg_type, array_in' AS text FROM sales",
            "SELECT 'pg_settings', '''max_index_keys''' FROM sales",
            "SELECT _pg_expandarray FROM sales WHERE a = 'KEY_SEQ'",
            "VALUES (1, 'pg_class')",
            "INSERT INTO prices SELECT * FROM pg_class",
            "EXPLAIN SELECT * FROM sales",
        ];
        for question in questions {
            let statement = parsed(question);
            assert!(!is_catalogue_question(&statement), "{question}");
            assert_eq!(rewritten(statement.clone()), statement, "{question}");
        }
        for question in ["SELECT * FROM pg_class UNION TABLE sales", "SELECT * INTO x FROM pg_class"] {
            assert!(!is_catalogue_question(&parsed(question)), "{question}");
        }
    }

    #[test]
    fn questions_about_the_server_are_known_as_such() {
        let questions = [
            "SELECT * FROM pg_class",
            "SELECT * FROM PG_CLASS c",
            "SELECT * FROM pg_catalog.pg_class c, pg_catalog.pg_namespace n WHERE n.oid = c.relnamespace",
            "SELECT * FROM hq.pg_catalog.pg_class",
            "SELECT table_name FROM information_schema.tables WHERE table_name IN (SELECT relname FROM pg_class)",
            "WITH t AS (SELECT * FROM pg_type), u AS (SELECT * FROM t) SELECT * FROM u",
            "WITH RECURSIVE t AS (SELECT oid FROM pg_type UNION ALL SELECT t.oid FROM t, pg_type) SELECT * FROM t",
            "SELECT * FROM pg_class, generate_series(1, 3) AS i, unnest(ARRAY[1]) AS u",
            "SELECT (SELECT 1 FROM pg_attrdef d WHERE d.adrelid = a.attrelid) FROM pg_attribute a",
            "SELECT c.oid FROM pg_class c WHERE c.oid = 'sales'::regclass",
            "SELECT word FROM pg_catalog.pg_get_keywords() k, pg_class",
        ];
        for question in questions {
            assert!(is_catalogue_question(&parsed(question)), "{question}");
        }
    }
}
