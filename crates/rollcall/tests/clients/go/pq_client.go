// lib/pq under database/sql: parameters as text after a description, or put in where there are none.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"
)

var notes = make(chan *pq.Error, 100)

func open(more string) (*sql.DB, error) {
	// Everything else comes from the environment.
	connector, err := pq.NewConnector(more)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(pq.ConnectorWithNoticeHandler(connector, func(note *pq.Error) {
		select {
		case notes <- note:
		default:
		}
	}))
	db.SetMaxOpenConns(1)
	return db, nil
}

func with(more string, run func(db *sql.DB) error) func() error {
	return func() error {
		db, err := open(more)
		if err != nil {
			return err
		}
		defer db.Close()
		return run(db)
	}
}

func state(err error) string {
	if err, ok := err.(*pq.Error); ok {
		return string(err.Code)
	}
	return err.Error()
}

type asker interface {
	QueryRow(query string, parameters ...interface{}) *sql.Row
}

func count(db asker, expected int64, sql string, parameters ...interface{}) error {
	var got int64
	if err := db.QueryRow(sql, parameters...).Scan(&got); err != nil {
		return err
	}
	return same(got, expected)
}

func numbers(rows *sql.Rows, err error) ([]int64, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []int64
	for rows.Next() {
		var number int64
		if err := rows.Scan(&number); err != nil {
			return nil, err
		}
		all = append(all, number)
	}
	return all, rows.Err()
}

func execute(db interface {
	Exec(query string, parameters ...interface{}) (sql.Result, error)
}, statements ...string) error {
	for _, statement := range statements {
		if _, err := db.Exec(statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

func main() {
	add("select every type", with("", func(db *sql.DB) error {
		var s, i, b int64
		var n, t string
		var f float64
		var d, z, l time.Time
		var o bool
		var y []byte
		var e sql.NullString
		if err := db.QueryRow(everyType).Scan(&s, &i, &b, &n, &f, &t, &d, &z, &l, &o, &y, &e); err != nil {
			return err
		}
		return all(
			same([]int64{s, i, b}, []int64{7, 42, 9007199254740993}), same([]string{n, t}, []string{"12345.6789", `Grüße ☕, "o'pie"`}),
			same(f, 1.5), same(d.Format("2006-01-02"), "2026-01-31"), same(o, true), same(y, []byte{0, 255, 'A'}), same(e.Valid, false),
			same(z.UTC().Format(time.RFC3339Nano), "2026-01-31T08:00:00.123456Z"), same(l.Format("2006-01-02 15:04:05.9"), "2026-01-31 10:00:00.5"),
		)
	}))
	add("types of columns", with("", func(db *sql.DB) error {
		rows, err := db.Query("SELECT id, item, price, rebate, paid, day, sold_at, receipt FROM sales WHERE _site = 'nowhere'")
		if err != nil {
			return err
		}
		defer rows.Close()
		types, err := rows.ColumnTypes()
		var names []string
		for _, kind := range types {
			names = append(names, kind.DatabaseTypeName())
		}
		return all(err, same(strings.Join(names, " "), "INT8 TEXT NUMERIC FLOAT8 BOOL DATE TIMESTAMPTZ BYTEA"))
	}))
	for _, binary := range []string{"no", "yes"} {
		for _, c := range append(conditions,
			condition{"text array", "_site = ANY($1)", pq.Array([]string{"salem-01", "elsewhere"}), 4},
			condition{"stated text array", "_site = any($1::text[])", pq.Array([]string{"salem-01", "elsewhere"}), 4},
			condition{"int array", "id = ANY($1)", pq.Array([]int64{1, 3}), 4},
			condition{"array with quotes and null", "item = ANY($1)", pq.Array([]sql.NullString{{String: "tea", Valid: true}, {}, {String: `o'pie, "warm"`, Valid: true}}), 4},
			condition{"not in an array", "id <> ALL($1)", pq.Array([]int64{1, 2}), 4},
		) {
			c := c
			add("parameter, binary "+binary+": "+c.name, with("binary_parameters="+binary, func(db *sql.DB) error {
				return count(db, c.expected, "SELECT count(*) FROM sales WHERE "+c.sql, c.value)
			}))
		}
	}
	add("prepared and asked again", with("", func(db *sql.DB) error {
		statement, err := db.Prepare("SELECT count(*) FROM sales WHERE qty = $1")
		if err != nil {
			return err
		}
		defer statement.Close()
		for quantity, expected := range map[int64]int64{7: 2, 2: 2, 8: 0} {
			var got int64
			if err := all(statement.QueryRow(quantity).Scan(&got), same(got, expected)); err != nil {
				return err
			}
		}
		return nil
	}))
	add("limit and offset", with("", func(db *sql.DB) error {
		got, err := numbers(db.Query(page, 2, 1))
		return all(err, same(got, []int64{2, 3}))
	}))
	add("two columns of one name", with("", func(db *sql.DB) error {
		var a, b, c int64
		return all(db.QueryRow(sameName).Scan(&a, &b, &c), same([]int64{a, b, c}, []int64{1, 1, 5}))
	}))
	addAtHQ("note", with("", func(db *sql.DB) error {
		for len(notes) > 0 {
			<-notes
		}
		if err := count(db, 8, incomplete); err != nil {
			return err
		}
		select {
		case note := <-notes:
			return all(same(note.Severity, "WARNING"), same(strings.Contains(note.Message, "tacoma-01"), true))
		case <-time.After(5 * time.Second):
			return fmt.Errorf("no note")
		}
	}))
	addAtHQ("strict", with("", func(db *sql.DB) error {
		return all(
			execute(db, "SET rollcall.coverage = 'strict'"),
			refused(count(db, 8, incomplete), state, "RC001", "tacoma-01"),
			refused(count(db, 8, incomplete+" WHERE id > $1", 0), state, "RC001", "tacoma-01"),
			count(db, 1, "SELECT 1"),
		)
	}))
	addAtHQ("strict as a setting of the connection", with("rollcall.coverage=strict", func(db *sql.DB) error {
		return refused(count(db, 8, incomplete), state, "RC001")
	}))
	for _, reset := range []string{"DISCARD ALL", "RESET ALL"} {
		reset := reset
		add("pool reset: "+reset, with("", func(db *sql.DB) error {
			var timeout string
			return all(
				execute(db, "SET rollcall.coverage = 'strict'", "SET statement_timeout = 54321", reset),
				db.QueryRow("SHOW statement_timeout").Scan(&timeout), same(timeout, "0"),
				count(db, 8, incomplete),
			)
		}))
	}
	add("savepoint", with("", func(db *sql.DB) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		return all(
			execute(tx, "SAVEPOINT a"),
			refused(count(tx, 0, "SELECT count(*) FROM nosuch"), state, "42P01"),
			refused(count(tx, 1, "SELECT 1"), state, "25P02"),
			execute(tx, "ROLLBACK TO SAVEPOINT a"),
			count(tx, 8, incomplete),
			execute(tx, "RELEASE SAVEPOINT a"),
			tx.Commit(),
		)
	}))
	add("read only transaction", with("", func(db *sql.DB) error {
		tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		if err != nil {
			return err
		}
		return all(count(tx, 8, incomplete), tx.Commit())
	}))
	add("declare, fetch, close", with("", func(db *sql.DB) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := execute(tx, "DECLARE c CURSOR FOR SELECT id FROM sales WHERE _site = 'salem-01' ORDER BY id"); err != nil {
			return err
		}
		first, err := numbers(tx.Query("FETCH 3 FROM c"))
		if err != nil {
			return err
		}
		rest, err := numbers(tx.Query("FETCH ALL FROM c"))
		return all(err, same(append(first, rest...), []int64{1, 2, 3, 4}), execute(tx, "CLOSE c"), tx.Commit())
	}))
	add("cancel", with("", func(db *sql.DB) error {
		ctx, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		started := time.Now()
		var got int64
		err := db.QueryRowContext(ctx, long).Scan(&got)
		return all(
			refused(err, state, "57014"),
			same(time.Since(started) < 20*time.Second, true),
			count(db, 1, "SELECT 1"),
		)
	}))
	add("statement_timeout", with("statement_timeout=2000", func(db *sql.DB) error {
		return all(refused(count(db, 0, long), state, "57014"), count(db, 1, "SELECT 1"))
	}))
	add("set_config", with("", func(db *sql.DB) error {
		var was, now string
		return all(
			db.QueryRow("SELECT set_config($1, $2, false)", "application_name", "till").Scan(&was), same(was, "till"),
			db.QueryRow("SHOW application_name").Scan(&now), same(now, "till"),
		)
	}))
	runAll()
}
