// What the scripts of Go's clients share: checks that are counted, and the questions asked of every client.
// AGAINST=postgresql leaves out what only HQ has (coverage).
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	page       = "SELECT id FROM sales ORDER BY _site, id LIMIT $1 OFFSET $2"
	sameName   = "SELECT id, id, qty AS id FROM sales WHERE id = 1 AND _site = 'salem-01'"
	incomplete = "SELECT count(*) FROM sales"
	many       = "SELECT v FROM generate_series(1, 10000) AS g(v)"
	long       = "SELECT count(*) FROM generate_series(1, 1000000) AS a(v), generate_series(1, 1000000) AS b(v) WHERE (a.v + b.v) % 7 = 3"
	everyType  = `SELECT 7::smallint, 42::int, 9007199254740993::bigint, 12345.6789::numeric(12,4), 1.5::float8,
		'Grüße ☕, "o''pie"'::text, DATE '2026-01-31', TIMESTAMPTZ '2026-01-31 10:00:00.123456+02',
		TIMESTAMP '2026-01-31 10:00:00.5', true, '\x00ff41'::bytea, NULL::text`
)

var atHQ = os.Getenv("AGAINST") != "postgresql"

// What a condition with one parameter finds in the rows of both sites.
type condition struct {
	name, sql string
	value     interface{}
	expected  int64
}

var conditions = []condition{
	{"int", "qty = $1", int64(7), 2},
	{"decimal as text", "price = $1", "2.50", 2},
	{"float", "rebate = $1", 0.25, 2},
	{"float against decimal", "price > $1", 12.5, 4},
	{"text", "item = $1", `o'pie, "warm"`, 2},
	{"date", "day = $1", time.Date(2026, 2, 10, 0, 0, 0, 0, time.UTC), 2},
	{"timestamptz", "sold_at >= $1", time.Date(2026, 2, 11, 0, 0, 0, 0, time.UTC), 4},
	{"boolean", "paid = $1", true, 4},
	{"bytea", "receipt = $1", []byte{0, 255, 'A'}, 2},
	{"null, equal", "qty = $1", nil, 0},
	{"null, not distinct", "qty IS NOT DISTINCT FROM $1", nil, 2},
}

type check struct {
	name string
	run  func() error
}

var checks []check

func add(name string, run func() error) { checks = append(checks, check{name, run}) }

func addAtHQ(name string, run func() error) {
	if atHQ {
		add(name, run)
	}
}

// Fails unless both look the same, types included.
func same(got, expected interface{}) error {
	if g, e := fmt.Sprintf("%T %v", got, got), fmt.Sprintf("%T %v", expected, expected); g != e {
		return fmt.Errorf("%s, not %s", g, e)
	}
	return nil
}

// The first error.
func all(errors ...error) error {
	for _, err := range errors {
		if err != nil {
			return err
		}
	}
	return nil
}

// Fails unless err is one of SQL with this state, which says the words.
func refused(err error, state func(error) string, code string, words ...string) error {
	if err == nil {
		return fmt.Errorf("no error")
	}
	if state(err) != code {
		return fmt.Errorf("SQLSTATE %q, not %s: %v", state(err), code, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			return fmt.Errorf("does not name %s: %v", word, err)
		}
	}
	return nil
}

func runAll() {
	failed := 0
	for _, check := range checks {
		wanted := len(os.Args) < 2
		for _, word := range os.Args[1:] {
			wanted = wanted || strings.Contains(check.name, word)
		}
		if !wanted {
			continue
		}
		done := make(chan error, 1)
		go func() { done <- check.run() }()
		var err error
		select {
		case err = <-done:
		case <-time.After(time.Minute):
			err = fmt.Errorf("took more than a minute")
		}
		if err == nil {
			fmt.Println("ok", check.name)
		} else {
			failed++
			fmt.Printf("FAIL %s: %s\n", check.name, strings.Join(strings.Fields(err.Error()), " "))
		}
	}
	if failed > 0 || len(checks) == 0 {
		os.Exit(1)
	}
}
