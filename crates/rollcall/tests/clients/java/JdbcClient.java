// pgjdbc: every question is described, portals are fetched in parts, autosave sets a savepoint before each statement.
import java.math.BigDecimal;
import java.sql.*;
import java.time.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.ds.PGConnectionPoolDataSource;

public class JdbcClient {
    static final boolean AT_HQ = !"postgresql".equals(System.getenv("AGAINST"));
    static final String MANY = "SELECT v FROM generate_series(1, 10000) AS g(v)";
    static final String INCOMPLETE = "SELECT count(*) FROM sales";
    static final String LONG = "SELECT count(*) FROM generate_series(1, 1000000) AS a(v), generate_series(1, 1000000) AS b(v)"
        + " WHERE (a.v + b.v) % 7 = 3";

    interface Check { void run() throws Exception; }
    interface Use { void on(Connection connection) throws Exception; }
    static final Map<String, Check> CHECKS = new LinkedHashMap<>();

    static String url() {
        return "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
    }

    static Properties settings(String... more) {
        Properties settings = new Properties();
        settings.put("user", System.getenv("PGUSER"));
        settings.put("password", System.getenv("PGPASSWORD"));
        settings.put("sslmode", "require");
        for (int at = 0; at < more.length; at += 2) settings.put(more[at], more[at + 1]);
        return settings;
    }

    static Check with(Use use, String... more) {
        return () -> { try (Connection connection = DriverManager.getConnection(url(), settings(more))) { use.on(connection); } };
    }

    static void same(Object got, Object expected) {
        boolean equal = got instanceof byte[] && expected instanceof byte[]
            ? Arrays.equals((byte[]) got, (byte[]) expected) : Objects.equals(got, expected);
        if (!equal) throw new AssertionError(got + ", not " + expected);
    }

    static SQLException refused(String state, Check check) throws Exception {
        try {
            check.run();
        } catch (SQLException error) {
            if (!state.equals(error.getSQLState())) throw new AssertionError("SQLSTATE " + error.getSQLState() + ": " + error.getMessage());
            return error;
        }
        throw new AssertionError("no error");
    }

    static Object one(Connection connection, String sql, Object... parameters) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int at = 0; at < parameters.length; at++) statement.setObject(at + 1, parameters[at]);
            try (ResultSet rows = statement.executeQuery()) { rows.next(); return rows.getObject(1); }
        }
    }

    static void run(Connection connection, String... statements) throws Exception {
        try (Statement statement = connection.createStatement()) { for (String sql : statements) statement.execute(sql); }
    }

    static List<Object> column(ResultSet rows, int index) throws Exception {
        List<Object> all = new ArrayList<>();
        while (rows.next()) all.add(rows.getObject(index));
        return all;
    }

    static void types() {
        String sql = "SELECT 7::smallint, 42::int, 9007199254740993::bigint, 12345.6789::numeric(12,4), 1.5::float8, 1.25::real,"
            + " 'Grüße ☕, \"o''pie\"'::text, DATE '2026-01-31', TIMESTAMPTZ '2026-01-31 10:00:00.123456+02',"
            + " TIMESTAMP '2026-01-31 10:00:00.5', true, '\\x00ff41'::bytea, NULL::text";
        Use select = connection -> {
            // From the fifth time on the driver has it prepared, and values come in binary.
            for (int time = 0; time < 7; time++) {
                try (PreparedStatement statement = connection.prepareStatement(sql); ResultSet row = statement.executeQuery()) {
                    row.next();
                    same(row.getShort(1), (short) 7);
                    same(row.getObject(2), 42);
                    same(row.getObject(3), 9007199254740993L);
                    same(row.getBigDecimal(4), new BigDecimal("12345.6789"));
                    same(row.getObject(5), 1.5);
                    same(row.getObject(6), 1.25f);
                    same(row.getString(7), "Grüße ☕, \"o'pie\"");
                    same(row.getObject(8, LocalDate.class), LocalDate.of(2026, 1, 31));
                    same(row.getObject(9, OffsetDateTime.class).toInstant(), Instant.parse("2026-01-31T08:00:00.123456Z"));
                    same(row.getObject(10, LocalDateTime.class), LocalDateTime.parse("2026-01-31T10:00:00.5"));
                    same(row.getObject(11), true);
                    same(row.getBytes(12), new byte[] {0, (byte) 255, 'A'});
                    same(row.getString(13), null);
                }
            }
        };
        CHECKS.put("select every type", with(select));
        CHECKS.put("select every type, simple protocol", with(select, "preferQueryMode", "simple"));
        CHECKS.put("select every type, binary at once", with(select, "prepareThreshold", "-1"));
    }

    static void parameters() {
        Object[][] conditions = {
            {"int", "qty = ?", 7, 2L}, {"bigint", "qty = ?", 7L, 2L}, {"decimal", "price = ?", new BigDecimal("2.50"), 2L},
            {"float", "rebate = ?", 0.25, 2L}, {"float against decimal", "price > ?", 12.5, 4L}, {"text", "item = ?", "o'pie, \"warm\"", 2L},
            {"date", "day = ?", LocalDate.of(2026, 2, 10), 2L}, {"sql date", "day = ?", java.sql.Date.valueOf("2026-02-10"), 2L},
            {"timestamptz", "sold_at >= ?", OffsetDateTime.parse("2026-02-11T00:00:00Z"), 4L},
            {"sql timestamp", "sold_at >= ?", Timestamp.from(Instant.parse("2026-02-11T00:00:00Z")), 4L},
            {"boolean", "paid = ?", true, 4L}, {"bytea", "receipt = ?", new byte[] {0, (byte) 255, 'A'}, 2L},
            {"null, equal", "qty = ?", null, 0L}, {"null, not distinct", "qty IS NOT DISTINCT FROM ?", null, 2L},
            {"text array", "_site = ANY(?)", new String[] {"salem-01", "elsewhere"}, 4L}, {"int array", "id = ANY(?)", new Long[] {1L, 3L}, 4L},
            {"array with quotes and null", "item = ANY(?)", new String[] {"tea", null, "o'pie, \"warm\""}, 4L},
            {"not in an array", "id <> ALL(?)", new Long[] {1L, 2L}, 4L},
        };
        for (Object[] condition : conditions) {
            Use ask = connection -> {
                Object value = condition[2];
                if (value instanceof String[]) value = connection.createArrayOf("text", (Object[]) value);
                if (value instanceof Long[]) value = connection.createArrayOf("int8", (Object[]) value);
                try (PreparedStatement statement = connection.prepareStatement("SELECT count(*) FROM sales WHERE " + condition[1])) {
                    for (int time = 0; time < 7; time++) {
                        if (value == null) statement.setNull(1, Types.BIGINT); else statement.setObject(1, value);
                        try (ResultSet rows = statement.executeQuery()) { rows.next(); same(rows.getObject(1), condition[3]); }
                    }
                }
            };
            CHECKS.put("parameter: " + condition[0], with(ask));
            // The driver cannot put bytes into a text.
            if (!(condition[2] instanceof byte[])) CHECKS.put("parameter put in by the client: " + condition[0], with(ask, "preferQueryMode", "simple"));
        }
        CHECKS.put("parameter: null without a type", with(connection -> {
            try (PreparedStatement statement = connection.prepareStatement("SELECT count(*) FROM sales WHERE qty = ?")) {
                statement.setNull(1, Types.NULL);
                try (ResultSet rows = statement.executeQuery()) { rows.next(); same(rows.getLong(1), 0L); }
            }
        }));
        CHECKS.put("parameter: text of no type", with(connection -> same(one(connection, "SELECT count(*) FROM sales WHERE qty = ?", "7"), 2L), "stringtype", "unspecified"));
        CHECKS.put("limit and offset", with(connection -> {
            try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM sales ORDER BY _site, id LIMIT ? OFFSET ?")) {
                statement.setInt(1, 2);
                statement.setInt(2, 1);
                same(column(statement.executeQuery(), 1), List.of(2L, 3L));
            }
        }));
        CHECKS.put("two columns of one name", with(connection -> {
            ResultSet row = connection.createStatement().executeQuery("SELECT id, id, qty AS id FROM sales WHERE id = 1 AND _site = 'salem-01'");
            row.next();
            same(List.of(row.getLong(1), row.getLong(2), row.getLong(3)), List.of(1L, 1L, 5L));
        }));
        CHECKS.put("types of parameters and columns", with(connection -> {
            try (PreparedStatement statement = connection.prepareStatement("SELECT id, price FROM sales WHERE qty = ? AND item = ?")) {
                ParameterMetaData parameters = statement.getParameterMetaData();
                same(parameters.getParameterTypeName(1) + " " + parameters.getParameterTypeName(2), "int8 text");
                ResultSetMetaData columns = statement.getMetaData();
                same(columns.getColumnTypeName(1) + " " + columns.getColumnTypeName(2), "int8 numeric");
                same(columns.getPrecision(2) + "," + columns.getScale(2), "10,2");
            }
        }));
    }

    static void coverage() {
        CHECKS.put("note", with(connection -> {
            try (Statement statement = connection.createStatement()) {
                statement.executeQuery(INCOMPLETE);
                SQLWarning warning = statement.getWarnings();
                if (warning == null || !warning.getMessage().contains("tacoma-01")) throw new AssertionError("warning: " + warning);
            }
        }));
        CHECKS.put("strict", with(connection -> {
            run(connection, "SET rollcall.coverage = 'strict'");
            for (int time = 0; time < 7; time++) {
                SQLException error = refused("RC001", () -> one(connection, INCOMPLETE + " WHERE id > ?", 0L));
                if (!error.getMessage().contains("tacoma-01")) throw new AssertionError(error.getMessage());
                same(one(connection, "SELECT 1::int"), 1);
            }
        }));
        CHECKS.put("strict by options", with(connection -> refused("RC001", () -> one(connection, INCOMPLETE)), "options", "-c rollcall.coverage=strict"));
    }

    static void pools() {
        CHECKS.put("pool", () -> {
            PGConnectionPoolDataSource source = new PGConnectionPoolDataSource();
            source.setUrl(url() + "?sslmode=require");
            source.setUser(System.getenv("PGUSER"));
            source.setPassword(System.getenv("PGPASSWORD"));
            source.setDefaultAutoCommit(false);
            javax.sql.PooledConnection pooled = source.getPooledConnection();
            Connection first = pooled.getConnection();
            run(first, "SET rollcall.coverage = 'strict'", "SET statement_timeout = 54321");
            // Rolled back, and with it what was set.
            first.close();
            Connection second = pooled.getConnection();
            same(one(second, "SHOW statement_timeout"), "0");
            same(one(second, INCOMPLETE), 8L);
            pooled.close();
        });
        for (String reset : List.of("DISCARD ALL", "RESET ALL")) {
            CHECKS.put("reset: " + reset, with(connection -> {
                run(connection, "SET rollcall.coverage = 'strict'", "SET statement_timeout = 54321", reset);
                same(one(connection, "SHOW statement_timeout"), "0");
                same(one(connection, INCOMPLETE), 8L);
            }));
        }
    }

    static void transactions() {
        CHECKS.put("savepoint", with(connection -> {
            connection.setAutoCommit(false);
            one(connection, "SELECT 1");
            Savepoint savepoint = connection.setSavepoint("Named one");
            refused("42P01", () -> one(connection, "SELECT * FROM nosuch"));
            refused("25P02", () -> one(connection, "SELECT 1"));
            connection.rollback(savepoint);
            same(one(connection, INCOMPLETE), 8L);
            connection.releaseSavepoint(savepoint);
            connection.commit();
        }));
        for (String autosave : List.of("always", "conservative")) {
            CHECKS.put("autosave " + autosave, with(connection -> {
                connection.setAutoCommit(false);
                one(connection, "SELECT 1");
                try { one(connection, "SELECT * FROM nosuch"); } catch (SQLException expected) { same(expected.getSQLState(), "42P01"); }
                if (autosave.equals("always")) same(one(connection, INCOMPLETE), 8L); else connection.rollback();
                same(one(connection, INCOMPLETE), 8L);
                connection.commit();
            }, "autosave", autosave));
        }
        CHECKS.put("read only transaction", with(connection -> {
            connection.setReadOnly(true);
            connection.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            connection.setAutoCommit(false);
            same(one(connection, INCOMPLETE), 8L);
            connection.commit();
        }));
        CHECKS.put("fetch size", with(connection -> {
            connection.setAutoCommit(false);
            try (PreparedStatement statement = connection.prepareStatement(MANY)) {
                statement.setFetchSize(700);
                long sum = 0;
                try (ResultSet rows = statement.executeQuery()) { while (rows.next()) sum += rows.getLong(1); }
                same(sum, 50005000L);
            }
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(10);
                statement.setMaxRows(25);
                same(column(statement.executeQuery(MANY), 1).size(), 25);
            }
            connection.commit();
        }));
        CHECKS.put("declare, fetch, close", with(connection -> {
            connection.setAutoCommit(false);
            run(connection, "DECLARE c CURSOR FOR SELECT id FROM sales WHERE _site = 'salem-01' ORDER BY id");
            same(column(connection.createStatement().executeQuery("FETCH 3 FROM c"), 1), List.of(1L, 2L, 3L));
            same(column(connection.createStatement().executeQuery("FETCH ALL FROM c"), 1), List.of(4L));
            run(connection, "CLOSE c");
            connection.commit();
        }));
    }

    static void others() {
        String sql = "COPY (SELECT id, item, paid FROM sales WHERE _site = 'salem-01' ORDER BY id) TO STDOUT";
        for (String form : List.of("WITH (FORMAT csv, HEADER)", "CSV HEADER")) {
            CHECKS.put("copy " + form, with(connection -> {
                java.io.StringWriter out = new java.io.StringWriter();
                connection.unwrap(PGConnection.class).getCopyAPI().copyOut(sql + " " + form, out);
                same(out.toString(), "id,item,paid\n1,tea,t\n2,\"o'pie, \"\"warm\"\"\",f\n3,Grüße ☕,\n4,,t\n");
            }));
        }
        CHECKS.put("tables", with(connection -> {
            Set<Object> names = new HashSet<>(column(connection.getMetaData().getTables(null, "public", "%", null), 3));
            if (!names.containsAll(List.of("sales", "sites"))) throw new AssertionError(names);
        }));
        CHECKS.put("columns", with(connection -> {
            Map<String, String> found = new HashMap<>();
            ResultSet rows = connection.getMetaData().getColumns(null, "public", "sales", "%");
            while (rows.next()) found.put(rows.getString("COLUMN_NAME"), rows.getString("TYPE_NAME") + " " + rows.getInt("DATA_TYPE"));
            String[][] wanted = {{"id", "int8 -5"}, {"item", "text 12"}, {"price", "numeric 2"}, {"paid", "bool -7"}, {"day", "date 91"},
                {"sold_at", "timestamptz 93"}, {"receipt", "bytea -2"}};
            for (String[] each : wanted) same(each[0] + " " + found.get(each[0]), each[0] + " " + each[1]);
        }));
        CHECKS.put("primary keys", with(connection -> {
            Set<Object> names = new HashSet<>(column(connection.getMetaData().getPrimaryKeys(null, "public", "sales"), 4));
            if (!names.containsAll(List.of("_site", "id"))) throw new AssertionError(names);
        }));
        CHECKS.put("other metadata", with(connection -> {
            DatabaseMetaData data = connection.getMetaData();
            for (ResultSet rows : List.of(data.getSchemas(), data.getCatalogs(), data.getTableTypes(), data.getTypeInfo(),
                data.getIndexInfo(null, "public", "sales", false, true), data.getImportedKeys(null, "public", "sales"),
                data.getExportedKeys(null, "public", "sales"), data.getFunctions(null, "public", "%"), data.getProcedures(null, "public", "%"),
                data.getTablePrivileges(null, "public", "sales"))) {
                while (rows.next()) { }
            }
        }));
        CHECKS.put("cancel", with(connection -> {
            long started = System.currentTimeMillis();
            Statement statement = connection.createStatement();
            Thread other = new Thread(() -> {
                try { Thread.sleep(1000); statement.cancel(); } catch (Exception error) { throw new RuntimeException(error); }
            });
            other.start();
            refused("57014", () -> statement.executeQuery(LONG));
            other.join();
            if (System.currentTimeMillis() - started > 20000) throw new AssertionError("took long");
            same(one(connection, "SELECT 1::int"), 1);
        }));
        CHECKS.put("query timeout", with(connection -> {
            try (Statement statement = connection.createStatement()) {
                statement.setQueryTimeout(1);
                refused("57014", () -> statement.executeQuery(LONG));
            }
            same(one(connection, "SELECT 1::int"), 1);
        }));
        CHECKS.put("statement_timeout", with(connection -> {
            refused("57014", () -> one(connection, LONG));
            same(one(connection, "SELECT 1::int"), 1);
        }, "options", "-c statement_timeout=2000"));
        CHECKS.put("set_config", with(connection -> {
            same(one(connection, "SELECT set_config(?, ?, false)", "application_name", "till"), "till");
            same(one(connection, "SELECT current_setting(?)", "application_name"), "till");
        }));
        CHECKS.put("schema", with(connection -> {
            connection.setSchema("public");
            same(connection.getSchema(), "public");
            same(connection.isValid(5), true);
        }));
    }

    public static void main(String[] words) {
        types();
        parameters();
        if (AT_HQ) coverage();
        pools();
        transactions();
        others();
        int failed = 0;
        for (Map.Entry<String, Check> check : CHECKS.entrySet()) {
            if (words.length > 0 && Arrays.stream(words).noneMatch(check.getKey()::contains)) continue;
            Throwable[] error = {new AssertionError("took more than a minute")};
            Thread thread = new Thread(() -> {
                try { check.getValue().run(); error[0] = null; } catch (Throwable thrown) { error[0] = thrown; }
            });
            thread.setDaemon(true);
            thread.start();
            try { thread.join(60000); } catch (InterruptedException interrupted) { throw new RuntimeException(interrupted); }
            if (error[0] == null) {
                System.out.println("ok " + check.getKey());
            } else {
                failed++;
                System.out.println("FAIL " + check.getKey() + ": " + error[0].toString().replaceAll("\\s+", " "));
            }
        }
        System.exit(failed > 0 || CHECKS.isEmpty() ? 1 : 0);
    }
}
