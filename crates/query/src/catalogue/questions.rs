//! Drivers' questions that cannot be planned as they are written, and what is answered instead.

use datafusion::sql::sqlparser::{ast::Statement, dialect::PostgreSqlDialect, parser::Parser};

use super::rewritten;
use crate::dialect::name_columns;

/// Catalogue questions that cannot be planned, by parts of their text, and what is answered
/// instead. Nothing here refers to another table, has a policy, or is a type of its own: what asks
/// for these is told of none.
const INSTEAD: [(&[&str], &str); 9] = [
    (&["pg_settings", "'max_index_keys'"], "SELECT '32' AS setting"),
    (
        &["pg_constraint", "FKTABLE_NAME"],
        "SELECT NULL::text AS \"PKTABLE_CAT\", NULL::text AS \"PKTABLE_SCHEM\", NULL::text AS \"PKTABLE_NAME\", \
         NULL::text AS \"PKCOLUMN_NAME\", NULL::text AS \"FKTABLE_CAT\", NULL::text AS \"FKTABLE_SCHEM\", \
         NULL::text AS \"FKTABLE_NAME\", NULL::text AS \"FKCOLUMN_NAME\", NULL::int AS \"KEY_SEQ\", \
         NULL::int AS \"UPDATE_RULE\", NULL::int AS \"DELETE_RULE\", NULL::text AS \"FK_NAME\", \
         NULL::text AS \"PK_NAME\", NULL::int AS \"DEFERRABILITY\" WHERE false",
    ),
    (
        // pgjdbc: one type, and all types.
        &["array_in'", "typname = $1"],
        "SELECT typinput = 'array_in' AS is_array, typtype, typname, oid FROM pg_catalog.pg_type \
         WHERE typname = $1 ORDER BY oid DESC LIMIT 1",
    ),
    (
        &["array_in'", "typname, pg_type.oid"],
        "SELECT typinput = 'array_in' AS is_array, typtype, typname, oid FROM pg_catalog.pg_type ORDER BY oid DESC",
    ),
    (
        // asyncpg: types that it does not know, with what they are made of.
        &["typeinfo_tree", "attrtypoids"],
        "SELECT t.oid, n.nspname AS ns, t.typname AS name, t.typtype AS kind, NULL::oid AS basetype, \
         t.typelem AS elemtype, e.typdelim AS elemdelim, r.rngsubtype AS range_subtype, rollcall_no_oids() AS attrtypoids, \
         NULL::text[] AS attrnames, 0 AS depth, NULL::text AS basetype_name, \
         format_type(e.oid, NULL::int) AS elemtype_name, format_type(r.rngsubtype, NULL::int) AS range_subtype_name \
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         LEFT JOIN pg_catalog.pg_type e ON t.typlen = -1 AND t.typelem <> 0 AND e.oid = t.typelem \
         LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid WHERE t.oid = ANY ($1::oid[])",
    ),
    (
        // ADBC: the keys of a table.
        &["fk_unnest", "other_constraints"],
        "SELECT con.conname, CASE con.contype WHEN 'c' THEN 'CHECK' WHEN 'u' THEN 'UNIQUE' ELSE 'PRIMARY KEY' END \
         AS contype, array_agg(attr.attname) AS colnames, NULL::text AS fschema, NULL::text AS ftable, \
         NULL::text[] AS fcolnames FROM (SELECT conname, contype, conrelid, unnest(conkey) AS place \
         FROM pg_catalog.pg_constraint WHERE contype IN ('c', 'u', 'p')) con \
         JOIN pg_catalog.pg_class cls ON cls.oid = con.conrelid \
         JOIN pg_catalog.pg_namespace nsp ON nsp.oid = cls.relnamespace \
         JOIN pg_catalog.pg_attribute attr ON attr.attnum = con.place AND attr.attrelid = cls.oid \
         WHERE nsp.nspname = $1 AND cls.relname = $2 GROUP BY con.conname, con.contype",
    ),
    (
        // pgcli: foreign keys.
        &["parentcolumn", "confkey"],
        "SELECT NULL::text AS parentschema, NULL::text AS parenttable, NULL::text AS parentcolumn, \
         NULL::text AS childschema, NULL::text AS childtable, NULL::text AS childcolumn WHERE false",
    ),
    (
        // Grafana: tables; who names no schema means `public`.
        &["quote_ident(table_schema)", "current_setting('search_path')"],
        "SELECT CASE WHEN table_schema = 'public' THEN quote_ident(table_name) \
         ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \"table\" \
         FROM information_schema.tables WHERE table_schema NOT IN ('information_schema', 'pg_catalog') \
         ORDER BY CASE WHEN table_schema = 'public' THEN 0 ELSE 1 END, 1",
    ),
    (
        // psql \d TABLE: publications.
        &["pg_catalog.pg_publication", "prattrs", "UNION"],
        "SELECT NULL::text AS pubname, NULL::text AS a, NULL::text AS b WHERE false",
    ),
];

/// A catalogue question as it can be planned, or what is answered in its place.
pub(crate) fn plannable(question: &Statement) -> Statement {
    match instead_of(question) {
        Some(instead) => rewritten(instead),
        None => {
            let mut question = question.clone();
            name_columns(&mut question);
            rewritten(question)
        }
    }
}

fn instead_of(question: &Statement) -> Option<Statement> {
    let text = question.to_string();
    let instead = INSTEAD.iter().find(|(parts, _)| parts.iter().all(|part| text.contains(part)));
    let instead = instead.map(|(_, instead)| (*instead).to_owned()).or_else(|| without_comments(&text))?;
    Parser::parse_sql(&PostgreSqlDialect {}, &instead).ok()?.into_iter().next()
}

/// The question without asking for the comment on a column, of a table that is named by a value:
/// nothing has one.
fn without_comments(question: &str) -> Option<String> {
    const CALL: &str = "COL_DESCRIPTION(CAST(";
    let start = question.find(CALL)?;
    let mut depth = 0;
    let length = question[start..].find(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ')' && depth == 0
    })?;
    Some(format!("{}NULL::text{}", &question[..start], &question[start + length + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_on_a_column_is_not_asked_for() {
        let question = "SELECT a, COL_DESCRIPTION(CAST(f('(x', b) AS OID), 1) AS c FROM t";
        // A parenthesis within a text is counted as one: then the question stays as it is.
        assert_eq!(without_comments(question), None);
        let question = question.replace("'(x'", "'x'");
        assert_eq!(without_comments(&question).as_deref(), Some("SELECT a, NULL::text AS c FROM t"));
    }
}
