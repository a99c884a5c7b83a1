// pgx: everything is prepared and kept, parameters and values are binary where both know the type; with a pool.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgtype"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

var ctx = context.Background()

func configured(settings map[string]string) (*pgx.ConnConfig, error) {
	// Everything comes from the environment.
	config, err := pgx.ParseConfig("")
	if err != nil {
		return nil, err
	}
	for name, value := range settings {
		config.RuntimeParams[name] = value
	}
	return config, nil
}

func with(settings map[string]string, run func(c *pgx.Conn) error) func() error {
	return func() error {
		config, err := configured(settings)
		if err != nil {
			return err
		}
		config.PreferSimpleProtocol = settings["simple"] != ""
		delete(config.RuntimeParams, "simple")
		c, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		return run(c)
	}
}

func state(err error) string {
	var sql *pgconn.PgError
	if errors.As(err, &sql) {
		return sql.Code
	}
	return err.Error()
}

type asker interface {
	QueryRow(ctx context.Context, sql string, parameters ...interface{}) pgx.Row
	Query(ctx context.Context, sql string, parameters ...interface{}) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, parameters ...interface{}) (pgconn.CommandTag, error)
}

func count(c asker, expected int64, sql string, parameters ...interface{}) error {
	var got int64
	if err := c.QueryRow(ctx, sql, parameters...).Scan(&got); err != nil {
		return err
	}
	return same(got, expected)
}

func numbers(c asker, expected []int64, sql string, parameters ...interface{}) error {
	rows, err := c.Query(ctx, sql, parameters...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var all []int64
	for rows.Next() {
		var number int64
		if err := rows.Scan(&number); err != nil {
			return err
		}
		all = append(all, number)
	}
	if rows.Err() != nil {
		return rows.Err()
	}
	return same(all, expected)
}

func execute(c asker, statements ...string) error {
	for _, statement := range statements {
		if _, err := c.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

func main() {
	add("select every type", with(nil, func(c *pgx.Conn) error {
		var s int16
		var i int32
		var b int64
		var n, nineteen pgtype.Numeric
		var f float64
		var t string
		var d, z, l time.Time
		var o bool
		var y []byte
		var e *string
		if err := c.QueryRow(ctx, everyType).Scan(&s, &i, &b, &n, &f, &t, &d, &z, &l, &o, &y, &e); err != nil {
			return err
		}
		nineteen.Set("12345.6789")
		return all(
			same([]int64{int64(s), int64(i), b}, []int64{7, 42, 9007199254740993}), same(n.Int.String()+fmt.Sprint(n.Exp), nineteen.Int.String()+fmt.Sprint(nineteen.Exp)),
			same(f, 1.5), same(t, `Grüße ☕, "o'pie"`), same(d.Format("2006-01-02"), "2026-01-31"), same(o, true), same(y, []byte{0, 255, 'A'}), same(e == nil, true),
			same(z.UTC().Format(time.RFC3339Nano), "2026-01-31T08:00:00.123456Z"), same(l.Format("2006-01-02 15:04:05.9"), "2026-01-31 10:00:00.5"),
		)
	}))
	quoted := `o'pie, "warm"`
	tea := "tea"
	for _, protocol := range []string{"", "simple"} {
		name := "parameter: "
		if protocol != "" {
			name = "parameter put in by the client: "
		}
		for _, c := range append(conditions,
			condition{"text array", "_site = ANY($1)", []string{"salem-01", "elsewhere"}, 4},
			condition{"stated text array", "_site = any($1::text[])", []string{"salem-01", "elsewhere"}, 4},
			condition{"int array", "id = ANY($1)", []int64{1, 3}, 4},
			condition{"array with quotes and null", "item = ANY($1)", []*string{&tea, nil, &quoted}, 4},
			condition{"not in an array", "id <> ALL($1)", []int64{1, 2}, 4},
		) {
			c := c
			if _, pointers := c.value.([]*string); pointers && protocol != "" {
				// The client has no text for it.
				continue
			}
			add(name+c.name, with(map[string]string{"simple": protocol}, func(conn *pgx.Conn) error {
				return count(conn, c.expected, "SELECT count(*) FROM sales WHERE "+c.sql, c.value)
			}))
		}
	}
	add("limit and offset", with(nil, func(c *pgx.Conn) error { return numbers(c, []int64{2, 3}, page, 2, 1) }))
	add("two columns of one name", with(nil, func(c *pgx.Conn) error {
		var one, two, five int64
		return all(c.QueryRow(ctx, sameName).Scan(&one, &two, &five), same([]int64{one, two, five}, []int64{1, 1, 5}))
	}))
	add("batch", with(nil, func(c *pgx.Conn) error {
		batch := &pgx.Batch{}
		batch.Queue("SELECT count(*) FROM sales WHERE qty = $1", 7)
		batch.Queue("SELECT count(*) FROM sales WHERE item = $1", "tea")
		results := c.SendBatch(ctx, batch)
		var first, second int64
		return all(results.QueryRow().Scan(&first), results.QueryRow().Scan(&second), same([]int64{first, second}, []int64{2, 2}), results.Close())
	}))
	addAtHQ("note", func() error {
		config, err := configured(nil)
		if err != nil {
			return err
		}
		var notes []*pgconn.Notice
		config.OnNotice = func(_ *pgconn.PgConn, note *pgconn.Notice) { notes = append(notes, note) }
		c, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		if err := count(c, 8, incomplete); err != nil {
			return err
		}
		if len(notes) == 0 {
			return fmt.Errorf("no note")
		}
		last := notes[len(notes)-1]
		return all(same(last.Severity, "WARNING"), same(strings.Contains(last.Message, "tacoma-01"), true))
	})
	addAtHQ("strict", with(nil, func(c *pgx.Conn) error {
		return all(
			execute(c, "SET rollcall.coverage = 'strict'"),
			refused(count(c, 8, incomplete), state, "RC001", "tacoma-01"),
			refused(count(c, 8, incomplete+" WHERE id > $1", 0), state, "RC001", "tacoma-01"),
			count(c, 1, "SELECT 1"),
		)
	}))
	addAtHQ("strict as a setting of the connection", with(map[string]string{"rollcall.coverage": "strict"}, func(c *pgx.Conn) error {
		return refused(count(c, 8, incomplete), state, "RC001")
	}))
	add("pool reset", func() error {
		config, err := pgxpool.ParseConfig("")
		if err != nil {
			return err
		}
		config.MaxConns = 1
		reset := make(chan error, 10)
		config.AfterRelease = func(c *pgx.Conn) bool {
			err := execute(c, "DISCARD ALL")
			reset <- err
			return err == nil
		}
		pool, err := pgxpool.ConnectConfig(ctx, config)
		if err != nil {
			return err
		}
		defer pool.Close()
		c, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		err = execute(c, "SET rollcall.coverage = 'strict'", "SET statement_timeout = 54321")
		c.Release()
		if err != nil {
			return err
		}
		if err := <-reset; err != nil {
			return err
		}
		c, err = pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer c.Release()
		var timeout string
		return all(
			c.QueryRow(ctx, "SHOW statement_timeout", pgx.QuerySimpleProtocol(true)).Scan(&timeout), same(timeout, "0"),
			count(c, 8, incomplete, pgx.QuerySimpleProtocol(true)),
		)
	})
	add("reset: RESET ALL", with(nil, func(c *pgx.Conn) error {
		var timeout string
		return all(
			execute(c, "SET rollcall.coverage = 'strict'", "SET statement_timeout = 54321", "RESET ALL"),
			c.QueryRow(ctx, "SHOW statement_timeout").Scan(&timeout), same(timeout, "0"), count(c, 8, incomplete),
		)
	}))
	add("nested transactions", with(nil, func(c *pgx.Conn) error {
		return c.BeginFunc(ctx, func(outer pgx.Tx) error {
			err := outer.BeginFunc(ctx, func(inner pgx.Tx) error { return count(inner, 0, "SELECT count(*) FROM nosuch") })
			return all(
				refused(err, state, "42P01"),
				outer.BeginFunc(ctx, func(inner pgx.Tx) error { return count(inner, 8, incomplete) }),
				count(outer, 1, "SELECT 1"),
			)
		})
	}))
	add("read only transaction", with(nil, func(c *pgx.Conn) error {
		options := pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly, DeferrableMode: pgx.Deferrable}
		return c.BeginTxFunc(ctx, options, func(tx pgx.Tx) error { return count(tx, 8, incomplete) })
	}))
	add("declare, fetch, close", with(nil, func(c *pgx.Conn) error {
		return c.BeginFunc(ctx, func(tx pgx.Tx) error {
			return all(
				execute(tx, "DECLARE c CURSOR FOR SELECT id FROM sales WHERE _site = 'salem-01' ORDER BY id"),
				numbers(tx, []int64{1, 2, 3}, "FETCH 3 FROM c"), numbers(tx, []int64{4}, "FETCH ALL FROM c"), execute(tx, "CLOSE c"),
			)
		})
	}))
	add("copy", with(nil, func(c *pgx.Conn) error {
		var out strings.Builder
		_, err := c.PgConn().CopyTo(ctx, &out, "COPY (SELECT id, item, paid FROM sales WHERE _site = 'salem-01' ORDER BY id) TO STDOUT CSV HEADER")
		return all(err, same(out.String(), "id,item,paid\n1,tea,t\n2,\"o'pie, \"\"warm\"\"\",f\n3,Grüße ☕,\n4,,t\n"))
	}))
	add("cancel", with(nil, func(c *pgx.Conn) error {
		started := time.Now()
		go func() {
			time.Sleep(time.Second)
			c.PgConn().CancelRequest(ctx)
		}()
		return all(
			refused(count(c, 0, long), state, "57014"),
			same(time.Since(started) < 20*time.Second, true),
			count(c, 1, "SELECT 1"),
		)
	}))
	add("statement_timeout", with(map[string]string{"statement_timeout": "2000"}, func(c *pgx.Conn) error {
		return all(refused(count(c, 0, long), state, "57014"), count(c, 1, "SELECT 1"))
	}))
	add("set_config", with(nil, func(c *pgx.Conn) error {
		var was, now string
		return all(
			c.QueryRow(ctx, "SELECT set_config($1, $2, false)", "application_name", "till").Scan(&was), same(was, "till"),
			c.QueryRow(ctx, "SELECT current_setting($1)", "application_name").Scan(&now), same(now, "till"),
		)
	}))
	runAll()
}
