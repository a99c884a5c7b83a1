use super::*;

/// A statement as the planner takes it.
fn planned(sql: &str) -> String {
    for_planner(&parse_one(sql).expect("parses")).expect("can be planned").to_string()
}

#[test]
fn columns_have_the_names_that_postgresql_gives() {
    let cases = [
        ("SELECT count(*), sum(qty) FROM t", vec!["count", "sum"]),
        ("SELECT 1, 2", vec!["?column?", "?column?"]),
        ("SELECT qty::text, 1::bigint, qty + 1 FROM t", vec!["qty", "int8", "?column?"]),
        (
            "SELECT CASE WHEN a THEN 1 END, coalesce(a, b), extract(year FROM c) FROM t",
            vec!["case", "coalesce", "extract"],
        ),
        ("SELECT (SELECT max(qty) FROM t), exists(SELECT 1), ARRAY[1]", vec!["max", "exists", "array"]),
        ("SELECT t AT TIME ZONE 'UTC', Upper(a), b AS \"B\" FROM t", vec!["timezone", "upper", "B"]),
        ("SELECT interval '1 day', date '2026-01-01', trim(a) FROM t", vec!["interval", "date", "btrim"]),
    ];
    for (sql, names) in cases {
        let statement = for_planner(&parse_one(sql).expect("parses")).expect("can be planned");
        let Statement::Query(query) = statement else { panic!("{sql} is a question") };
        let datafusion::sql::sqlparser::ast::SetExpr::Select(select) = *query.body else { panic!("{sql} selects") };
        let shown: Vec<String> = select
            .projection
            .iter()
            .map(|item| match item {
                datafusion::sql::sqlparser::ast::SelectItem::ExprWithAlias { alias, .. } => {
                    shown_name(&alias.value).to_owned()
                }
                other => other.to_string(),
            })
            .collect();
        assert_eq!(shown, names, "{sql}");
    }
}

#[test]
fn any_and_all_over_written_arrays_become_lists() {
    let cases = [
        ("SELECT a FROM t WHERE s = ANY('{x,\"y,z\",NULL}')", "s IN ('x', 'y,z', NULL)"),
        ("SELECT a FROM t WHERE s <> ALL(ARRAY[1, 2])", "s NOT IN (1, 2)"),
        ("SELECT a FROM t WHERE s = ANY('{}'::text[])", "WHERE false"),
        ("SELECT a FROM t WHERE s > ALL('{1,2}'::int[])", "(s > CAST('1' AS INT) AND s > CAST('2' AS INT))"),
        ("SELECT a FROM t WHERE s = ANY('{{1,2},{3,4}}'::int[])", "CAST('4' AS INT))"),
        ("SELECT a FROM t WHERE random() < ANY('{1}')", "random() < ANY("),
    ];
    for (sql, part) in cases {
        let text = planned(sql);
        assert!(text.contains(part), "{sql}: {text}");
    }
    for wrong in ["'{a'", "'a'", "'{a}b'", "'{,}'", "'[0:1]={1,2}'", "'{{{{{{{{1}}}}}}}}'"] {
        let sql = format!("SELECT 1 WHERE 'a' = ANY({wrong})");
        assert!(for_planner(&parse_one(&sql).expect("parses")).is_err(), "{wrong}");
    }
}

#[test]
fn a_users_question_keeps_its_meaning() {
    for sql in [
        "SELECT s.id, (SELECT count(*) AS n FROM sales AS x WHERE x._site = s.id) AS n FROM sites AS s",
        "SELECT a FROM t WHERE EXISTS (SELECT b FROM u WHERE u.b = t.b)",
        "SELECT a FROM t WHERE b = ANY(SELECT c FROM u)",
    ] {
        assert_eq!(planned(sql), sql);
    }
    assert_eq!(planned("SELECT a FROM t FETCH FIRST 3 ROWS ONLY"), "SELECT a FROM t LIMIT 3");
    for refused in ["SELECT a FROM t TABLESAMPLE SYSTEM (1)", "SELECT a FROM t FOR UPDATE", "SELECT a::char(3) FROM t"]
    {
        assert!(for_planner(&parse_one(refused).expect("parses")).is_err(), "{refused}");
    }
}

/// On a thread with the stack that questions have.
fn deep<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(crate::threads::STACK_BYTES).spawn(work);
    thread.expect("a thread starts").join().expect("it ends well")
}

#[test]
fn what_is_too_deep_is_refused_and_a_long_chain_is_not() {
    let chain = |count: usize, op: &str| (0..count).map(|n| format!("a = {n}")).collect::<Vec<_>>().join(op);
    deep(move || {
        for op in [" OR ", " AND "] {
            assert!(parse(&format!("SELECT 1 FROM t WHERE {}", chain(2_000, op))).is_ok(), "{op}");
        }
        for sql in [
            format!("SELECT 1{}", "-1".repeat(20_000)),
            format!("SELECT 1{}", "-1".repeat(3_000)),
            format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
            format!("SELECT {}1", "-".repeat(5_000).replace('-', "- ")),
            format!("SELECT a{}", "::int".repeat(20_000)),
            format!("SELECT {}a{}", "f(".repeat(3_000), ")".repeat(3_000)),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(20_000)),
            format!("SELECT * FROM a{}", " JOIN a ON true".repeat(20_000)),
            "x".repeat(TEXT_BYTES_MAX + 1),
        ] {
            let start: String = sql.chars().take(30).collect();
            let parsed = parse(&sql);
            assert!(matches!(&parsed, Err(QueryError::TooComplex(_))), "{start}: {:?}", parsed.err());
        }
        // The parser gives up on these in words of its own.
        assert!(parse(&format!("SELECT {}true", "NOT ".repeat(5_000))).is_err());
        assert!(parse(&format!("SELECT {}", "CASE WHEN ".repeat(3_000))).is_err());
        // A long list is not deep.
        let list = (0..50_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert!(parse(&format!("SELECT 1 FROM t WHERE a IN ({list})")).is_ok());
    });
}

#[test]
fn values_take_the_place_of_parameters() {
    let statement = parse_one("SELECT a FROM t WHERE s = ANY($1) AND p > $2 LIMIT $3").expect("parses");
    let text = |text: &str| Literal::Text(text.to_owned());
    let sites = Literal::Array(vec![text("20186"), text("2\"B"), Literal::Null]);
    let values = [
        (sites, Some("TEXT".to_owned())),
        (text("-1.50"), Some("NUMERIC".to_owned())),
        (text("5"), Some("BIGINT".to_owned())),
    ];
    let bound = for_planner(&bind(&statement, &values).expect("binds")).expect("can be planned").to_string();
    assert!(bound.contains("s IN (CAST('20186' AS TEXT), CAST('2\"B' AS TEXT), CAST(NULL AS TEXT))"), "{bound}");
    assert!(bound.contains("p > (-1.50) LIMIT 5"), "{bound}");
    assert!(bind(&statement, &values[..2]).is_err(), "a value is missing");
}

#[test]
fn a_cursor_is_moved_by_the_words_that_may_be_left_out_too() {
    let cases = [
        ("FETCH c", "FETCH NEXT FROM c", false),
        ("MOVE 2 FROM c", "FETCH 2 FROM c", true),
        ("MOVE FORWARD ALL IN \"both\"", "FETCH FORWARD ALL IN \"both\"", true),
        ("FETCH BACKWARD FROM c", "FETCH PRIOR FROM c", false),
        ("fetch forward 10 c", "FETCH FORWARD 10 FROM c", false),
        ("MOVE ABSOLUTE 0 FROM c;", "FETCH ABSOLUTE 0 FROM c", true),
        ("FETCH -1 FROM c", "FETCH -1 FROM c", false),
        ("MOVE RELATIVE -2 IN c", "FETCH RELATIVE -2 IN c", true),
        ("FETCH FORWARD +2 c", "FETCH FORWARD 2 FROM c", false),
        ("FETCH LAST FROM \"first\"", "FETCH LAST FROM \"first\"", false),
    ];
    for (written, meant, moves) in cases {
        let statement = parse_one(written).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(only_moves(&statement), moves, "{written}");
        let mut statement = statement;
        if let Statement::Fetch { into, .. } = &mut statement {
            *into = None;
        }
        assert_eq!(statement.to_string(), meant, "{written}");
    }
    // A column of that name is no statement.
    assert_eq!(parse("SELECT 1 AS move FROM fetch").map(|all| all.len()).unwrap_or_default(), 1);
}
