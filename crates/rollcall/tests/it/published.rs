//! HQ's tables at the stores: each has exactly what is for it, whatever is killed on the way, and
//! who has not is named.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::Path,
    time::{Duration, Instant},
};

use rand::{Rng, rngs::StdRng};

use crate::{
    ask::{err, new_user, out, psql},
    chaos::random,
    journals::copy_tree,
    support::{Hq, Store, running_store, wait_for},
};

const REGIONS: [&str; 8] = ["north", "south", "east", "west", "mid", "coast", "hills", "isles"];

/// A size from the environment, for runs larger than a test's.
fn size(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What HQ has: region and cents by article and region.
type Prices = BTreeMap<(u32, usize), u32>;

fn csv(rows: impl Iterator<Item = ((u32, usize), u32)>) -> String {
    let mut text = "sku,region,price\n".to_owned();
    for ((sku, region), cents) in rows {
        writeln!(text, "a{sku:05},{},{}.{:02}", REGIONS[region], cents / 100, cents % 100).expect("text");
    }
    text
}

/// Publishes until HQ says that it did: what it did without saying so changes nothing the second
/// time.
pub(crate) fn publish_to(hq: &Hq, directory: &Path, table: &str, key: &str, text: &str, arguments: &[&str]) {
    let path = directory.join(format!("{table}.csv"));
    std::fs::write(&path, text).expect("writes");
    let from = path.to_str().expect("text");
    let all = [&["publish", table, "--from", from, "--key", key], arguments].concat();
    wait_for("HQ to publish", || {
        let output = hq.run(&all);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || said.contains("cannot be reached") || said.contains("io:"), "{said}");
        output.status.success().then_some(())
    });
}

fn publish(hq: &Hq, directory: &Path, text: &str, arguments: &[&str]) {
    publish_to(hq, directory, "prices", "sku,region", text, arguments);
}

fn roster(regions: &BTreeMap<String, usize>) -> String {
    let lines = regions.iter().map(|(site, region)| format!("{site},{},24/7\n", REGIONS[*region]));
    std::iter::once("id,region,hours\n".to_owned()).chain(lines).collect()
}

fn import(hq: &Hq, directory: &Path, regions: &BTreeMap<String, usize>) {
    let path = directory.join("roster.csv");
    std::fs::write(&path, roster(regions)).expect("writes");
    wait_for("the roster to be taken", || {
        let output = hq.run(&["roster", "import", path.to_str().expect("text")]);
        // A file without time zones is taken, and that is a finding.
        (output.status.code() != Some(3)).then_some(())
    });
}

fn invitation(hq: &Hq, site: &str) -> String {
    let output = hq.run(&["roster", "invite", site, "--new"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// What a store has, once it is what it should have.
fn wait_has(store: &Store, region: usize, prices: &Prices) {
    let of_region = prices.iter().filter(|((_, of), _)| *of == region);
    let wanted: Vec<String> = of_region
        .map(|((sku, _), cents)| format!("a{sku:05}|{}|{}.{:02}", REGIONS[region], cents / 100, cents % 100))
        .collect();
    let wanted = wanted.join("\n");
    wait_for(&format!("{} to have the prices of {}", store.id, REGIONS[region]), || {
        let there = store.sql("SELECT count(*) FROM sqlite_master WHERE name = 'prices'");
        let has = || store.sql("SELECT sku, region, printf('%.2f', price) FROM prices ORDER BY sku");
        (there == "1" && has() == wanted).then_some(())
    });
}

fn change(random: &mut StdRng, prices: &mut Prices, share: f64) -> String {
    let changed: Vec<(u32, usize)> = prices.keys().filter(|_| random.random_bool(share)).copied().collect();
    for key in &changed {
        prices.insert(*key, random.random_range(1..100_000));
    }
    csv(changed.into_iter().map(|key| (key, prices[&key])))
}

#[test]
fn every_store_has_the_prices_that_are_for_it() {
    // Method: agents on SQLite in eight regions; prices are published, changed and deleted, stores
    // move between regions, agents and HQ are killed meanwhile; then every store's table must be
    // exactly what the rule says.
    let directory = tempfile::tempdir().expect("a directory");
    let (sites, articles) = (size("ROLLCALL_AGENTS", 8), size("ROLLCALL_ARTICLES", 150));
    let seconds = size("ROLLCALL_SECONDS", 12);
    let mut random = random();
    let mut hq = Hq::start(directory.path());
    let mut regions: BTreeMap<String, usize> =
        (0..sites).map(|number| (format!("store-{number:03}"), number % REGIONS.len())).collect();
    import(&hq, directory.path(), &regions);
    let mut prices: Prices = (0..articles as u32)
        .flat_map(|sku| (0..REGIONS.len()).map(move |region| (sku, region)))
        .map(|key| (key, random.random_range(1..100_000)))
        .collect();
    publish(&hq, directory.path(), &csv(prices.clone().into_iter()), &["--to", "region = site.region"]);
    let mut stores = Vec::new();
    for id in regions.keys() {
        let mut store = Store::new(
            directory.path(),
            id,
            "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, sku TEXT)",
        );
        store.join(hq.sites, &invitation(&hq, id), "sales");
        store.run(None);
        stores.push(store);
    }
    let started = Instant::now();
    let (mut publications, mut kills) = (1, 0);
    while started.elapsed() < Duration::from_secs(seconds as u64) {
        match random.random_range(0..8) {
            0 => {
                hq.kill();
                std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
                hq.restart();
                kills += 1;
            }
            1 | 2 => {
                let victim = random.random_range(0..stores.len());
                stores[victim].kill();
                stores[victim].run(None);
                kills += 1;
            }
            3 => {
                let site = stores[random.random_range(0..stores.len())].id.clone();
                regions.insert(site, random.random_range(0..REGIONS.len()));
                import(&hq, directory.path(), &regions);
            }
            4 => {
                let gone: Vec<(u32, usize)> = prices.keys().filter(|_| random.random_bool(0.005)).copied().collect();
                prices.retain(|key, _| !gone.contains(key));
                publish(&hq, directory.path(), &csv(gone.into_iter().map(|key| (key, 0))), &["--delete"]);
                publications += 1;
            }
            5 => {
                // The whole table again, with some articles changed, one gone and one new.
                let first = *prices.keys().next().expect("some");
                prices.remove(&first);
                prices.insert((100_000 + publications, 3), 1);
                change(&mut random, &mut prices, 0.01);
                publish(&hq, directory.path(), &csv(prices.clone().into_iter()), &["--replace"]);
                publications += 1;
            }
            _ => {
                let text = change(&mut random, &mut prices, 0.01);
                publish(&hq, directory.path(), &text, &[]);
                publications += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(random.random_range(50..400)));
    }
    println!("{publications} publications, {kills} kills");
    for store in &stores {
        wait_has(store, regions[&store.id], &prices);
    }
    assert_eq!(hq.value("SELECT count(*) FROM prices"), Some(prices.len().to_string()));
    wait_for("every site to say that it has the newest version", || {
        let lacking = "SELECT count(*) FROM rollcall.arrivals WHERE lacks_because IS NOT NULL";
        (hq.value(lacking)? == "0").then_some(())
    });
    assert_eq!(hq.value("SELECT count(*) FROM rollcall.arrivals"), Some(stores.len().to_string()));
    // A question about HQ's own rows lacks no site's, whoever is away.
    stores[0].stop();
    let output = hq.run(&["sql", "SELECT count(*) FROM prices"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn who_has_not_taken_a_version_is_named_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut stores = Vec::new();
    for (id, sql) in [
        ("a-1", "CREATE TABLE sales (id INTEGER PRIMARY KEY)"),
        ("b-2", "CREATE TABLE sales (id INTEGER PRIMARY KEY)"),
        (
            "own-3",
            "CREATE TABLE sales (id INTEGER PRIMARY KEY); CREATE TABLE prices (sku TEXT PRIMARY KEY, price NUMERIC); INSERT INTO prices VALUES ('mine', 1)",
        ),
    ] {
        let mut store = Store::new(directory.path(), id, sql);
        store.join(hq.sites, &hq.invite(id), "sales");
        store.run(None);
        stores.push(store);
    }
    let path = directory.path().join("prices.csv");
    let publish = |text: &str, more: &[&str]| {
        std::fs::write(&path, text).expect("writes");
        let output = hq.run(&[&["publish", "prices", "--from", path.to_str().expect("text")], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Another table: what happens to one is noticed beside the other.
    let articles = directory.path().join("articles.csv");
    std::fs::write(&articles, "sku,name\na,Apples\n").expect("writes");
    let published = hq.run(&["publish", "articles", "--from", articles.to_str().expect("text"), "--key", "sku"]);
    assert!(published.status.success(), "{}", err(&published));
    // What is wrong is said before anything is done.
    for (text, more, why) in [
        ("sku,price\na,1\n", &[][..], "--key"),
        ("sku,price\na,1\na,2\n", &["--key", "sku"], "same key"),
        ("sku,price\na,1\n", &["--key", "code"], "code"),
        ("sku,price\na,1\n", &["--key", "sku", "--to", "site.regoin = 'x'"], "regoin"),
        ("sku,price\na,1\n", &["--key", "sku", "--to", "format = site.format"], "no column format"),
        ("sku,price\na,1234567890123456.78\n", &["--key", "sku"], "publish it as text"),
    ] {
        let (code, said) = publish(text, more);
        assert!(code == Some(3) && said.contains(why), "{said}");
    }
    let (_, said) = publish("sku,price\na,1.50\nb,2\n", &["--key", "sku", "--dry-run"]);
    assert!(said.contains("2 rows new") && said.contains("3 sites"), "{said}");
    let (code, said) = publish("sku,price\na,1.50\nb,2\n", &["--key", "sku"]);
    assert_eq!(code, Some(0), "{said}");
    let lacking = |site: &str| {
        hq.value(&format!(
            "SELECT lacks_because FROM rollcall.arrivals WHERE table_name = 'prices' AND site = '{site}'"
        ))
    };
    wait_for("two stores to have the prices", || {
        (lacking("a-1")? == "null" && lacking("b-2")? == "null").then_some(())
    });
    wait_for("the third to say why it has not", || lacking("own-3").filter(|why| why.contains("rows of its own")));
    wait_for("an incident", || {
        let incident =
            hq.value("SELECT evidence FROM rollcall.incidents WHERE kind = 'publication' AND closed_at IS NULL")?;
        (incident.contains("own-3") && incident.contains("rows of its own")).then_some(())
    });
    let output = hq.run(&["publications", "prices"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && shown.contains("2 of 3") && shown.contains("own-3"), "{shown}");
    assert_eq!(stores[2].sql("SELECT * FROM prices"), "mine|1", "nothing of the store's is touched");
    let adopted = stores[2].agent_command(&["adopt", "prices"]).output().expect("runs");
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    wait_for("the store to have HQ's rows", || (stores[2].sql("SELECT * FROM prices") == "a|1.5\nb|2").then_some(()));
    wait_for("the incident to end", || {
        let open = "SELECT count(*) FROM rollcall.incidents WHERE kind = 'publication' AND closed_at IS NULL";
        (hq.value(open)? == "0").then_some(())
    });
    // What a store changes itself is put right and counted.
    stores[0].sql("UPDATE prices SET price = 99 WHERE sku = 'a'");
    wait_for("the row to be put right", || {
        (stores[0].sql("SELECT price FROM prices WHERE sku = 'a'") == "1.5").then_some(())
    });
    wait_for("the edit to be counted", || {
        (hq.value("SELECT edits FROM rollcall.arrivals WHERE table_name = 'prices' AND site = 'a-1'")? == "1")
            .then_some(())
    });
    // A store that is away is named, and has the present state when it is back.
    stores[1].stop();
    publish("sku,price\na,3\nc,4\n", &["--replace"]);
    wait_for("the store to be named", || lacking("b-2").filter(|why| why != "null"));
    stores[1].run(None);
    wait_for("the store to have it", || {
        (stores[1].sql("SELECT * FROM prices ORDER BY sku") == "a|3\nc|4").then_some(())
    });
    // Nobody but HQ fills its tables.
    let refused = stores[1].agent_command(&["status", "--json"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&refused.stdout).contains("\"prices\""));
}

#[test]
fn a_slip_in_a_file_reaches_no_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    publish(&hq, directory.path(), "sku,region,price\na100,West,9.99\n", &[]);
    let path = directory.path().join("slip.csv");
    let refused = |text: &str, arguments: &[&str]| {
        std::fs::write(&path, text).expect("writes");
        let output = hq.run(&[&["publish", "prices", "--from", path.to_str().expect("text")], arguments].concat());
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let typo = refused("sku,region,prise\na100,West,10\n", &[]).expect("is refused");
    assert!(typo.contains("no column prise; is \"price\" meant?") && typo.contains("--new-columns"), "{typo}");
    let empty = refused("sku,region,price\n", &["--replace"]).expect("is refused");
    assert!(empty.contains("all 1 rows of prices would go") && empty.contains("--allow-empty"), "{empty}");
    let no_key = refused("sku,regin,price\na100,West,10\n", &[]).expect("is refused");
    assert!(no_key.contains("no column region of the key; is \"regin\" meant?"), "{no_key}");
    assert_eq!(out(&hq.run(&["sql", "SELECT price FROM prices", "--format", "csv"])), "price\n9.99");
    // Who means it says so.
    assert_eq!(refused("sku,region,unit\na100,West,kg\n", &["--new-columns"]), None);
    assert_eq!(refused("sku,region,price\n", &["--replace", "--allow-empty"]), None);
    assert_eq!(out(&hq.run(&["sql", "SELECT count(*) AS n FROM prices", "--json"])).matches("\"n\":0").count(), 1);
    // The form of an answer is that of its file's name.
    let workbook = directory.path().join("x.xlsx");
    out(&hq.run(&["sql", "SELECT 1 AS one", "--out", workbook.to_str().expect("text")]));
    assert!(std::fs::read(&workbook).expect("is there").starts_with(b"PK"), "a workbook is a zip");
}

/// Some seconds from now by the clock of a zone that is so many hours behind UTC.
fn local_time(seconds: i64, hours_behind: i64) -> String {
    let time = chrono::Utc::now() + chrono::TimeDelta::seconds(seconds - hours_behind * 3600);
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

#[test]
fn prices_change_at_the_same_hour_of_each_store_with_hq_or_without() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path.to_str().expect("text").to_owned()
    };
    let roster = file(
        "roster.csv",
        "id,region,tz,hours\nlisbon,south,UTC,24/7\nazores,south,Etc/GMT+1,24/7\nporto,north,UTC,24/7\n",
    );
    assert!(hq.run(&["roster", "import", &roster]).status.code() != Some(3));
    let prices = file("prices.csv", "sku,region,price\na,south,1\nb,south,2\nc,south,3\na,north,1\n");
    let published =
        hq.run(&["publish", "prices", "--from", &prices, "--key", "sku,region", "--to", "region = site.region"]);
    assert!(published.status.success(), "{}", err(&published));
    let mut stores = Vec::new();
    for id in ["lisbon", "azores", "porto"] {
        let mut store =
            Store::new(directory.path(), id, "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY)");
        store.join(hq.sites, &invitation(&hq, id), "sales");
        store.run(None);
        stores.push(store);
    }
    let has = |store: &Store, wanted: &str| {
        wait_for(&format!("{} to have {wanted}", store.id), || {
            let there = store.sql("SELECT count(*) FROM sqlite_master WHERE name = 'prices'") == "1";
            let has = || store.sql("SELECT group_concat(sku || price, ' ') FROM (SELECT * FROM prices ORDER BY sku)");
            (there && has() == wanted).then_some(())
        });
    };
    let (old, north) = ("a1 b2 c3", "a1");
    stores.iter().zip([old, old, north]).for_each(|(store, wanted)| has(store, wanted));

    // Ahead of their time the rows are at the stores they are for, and nothing changes.
    let changed = file("changed.csv", "sku,region,price\na,south,10\nd,south,40\n");
    let at = local_time(12, 0);
    let scheduled = hq.run(&["publish", "prices", "--from", &changed, "--at", &at, "--note", "spring"]);
    assert!(scheduled.status.success() && err(&scheduled).contains("scheduled as 1"), "{}", err(&scheduled));
    wait_for("the stores to hold what is scheduled", || {
        let shown = out(&hq.run(&["publications"]));
        (shown.contains("spring") && shown.contains("3 of 3")).then_some(())
    });
    has(&stores[0], old);
    // HQ is gone when the time comes in Lisbon; on the Azores it is an hour earlier. An agent that
    // was down is no exception.
    hq.kill();
    stores[0].kill();
    std::thread::sleep(Duration::from_secs(13));
    stores[0].run(None);
    has(&stores[0], "a10 b2 c3 d40");
    has(&stores[1], old);
    hq.restart();
    assert_eq!(hq.value("SELECT price FROM prices WHERE sku = 'a' AND region = 'south'"), Some("1".to_owned()));

    // What HQ publishes meanwhile does not undo it; a row that both speak of stays as it was
    // scheduled.
    let meanwhile = file("meanwhile.csv", "sku,region,price\na,south,5\nb,south,6\n");
    assert!(hq.run(&["publish", "prices", "--from", &meanwhile]).status.success());
    has(&stores[0], "a10 b6 c3 d40");
    has(&stores[1], "a5 b6 c3");

    // Taken back, it is gone where it was in effect.
    let withdrawn = hq.run(&["publish", "prices", "--withdraw-at", "1"]);
    assert!(withdrawn.status.success(), "{}", err(&withdrawn));
    has(&stores[0], "a5 b6 c3");
    has(&stores[1], "a5 b6 c3");

    // A time that is past in Lisbon and comes on the Azores: then it is in effect everywhere, and
    // HQ's table has it.
    let gone = file("gone.csv", "sku,region\nc,south\n");
    let scheduled = hq.run(&["publish", "prices", "--from", &gone, "--delete", "--at", &local_time(8, 1)]);
    assert!(scheduled.status.success(), "{}", err(&scheduled));
    has(&stores[0], "a5 b6");
    let both = "SELECT count(*) AS n FROM prices WHERE region = 'south'";
    wait_for("HQ's own table to have it", || (hq.value(both)? == "2").then_some(()));
    has(&stores[1], "a5 b6");
    has(&stores[2], north);
    wait_for("nobody to wait for it any more", || (hq.value("SELECT count(*) FROM prices_next")? == "0").then_some(()));
    wait_for("every site to say that it has the newest version", || {
        let lacking = "SELECT count(*) FROM rollcall.arrivals WHERE lacks_because IS NOT NULL";
        (hq.value(lacking)? == "0").then_some(())
    });
    for (arguments, why) in [
        (&["--from", &changed, "--at", "2020-01-01 06:00"][..], "past at every site"),
        (&["--from", &changed, "--at", "tomorrow"], "write it as"),
        (&["--withdraw-at", "1"], "does not wait any more"),
        (&["--withdraw-at", "99"], "nothing is scheduled as 99"),
    ] {
        let output = hq.run(&[&["publish", "prices"], arguments].concat());
        assert!(!output.status.success() && err(&output).contains(why), "{}", err(&output));
    }
    let output = hq.run(&["publish", "prices_next", "--from", &changed]);
    assert!(err(&output).contains("holds what is scheduled"), "{}", err(&output));
}

/// The same by a driver: with parameters, and inside a transaction, where it is refused.
const DRIVER: &str = r#"
import sys
from decimal import Decimal
try:
    import psycopg
except ImportError:
    print("without psycopg: pip install psycopg[binary]"); sys.exit(0)
host, port, password = sys.argv[1:]
with psycopg.connect(host=host, port=port, user="ada", password=password, dbname="hq", autocommit=True) as conn:
    told = []
    conn.add_notice_handler(lambda notice: told.append(notice.message_primary))
    try:
        with conn.pipeline():
            conn.execute("UPDATE prices SET price = %s WHERE sku = %s", (Decimal("7.25"), "b"))
            conn.execute("SELECT 1 / 0")
        raise SystemExit("an error was not told")
    except psycopg.Error:
        pass
    assert any("took effect and stays" in text for text in told), told
    try:
        with conn.transaction():
            conn.execute("DELETE FROM prices")
        raise SystemExit("a change in a transaction was taken")
    except psycopg.errors.ActiveSqlTransaction:
        pass
    assert conn.execute("SELECT price FROM prices WHERE sku = 'b'").fetchone()[0] == Decimal("7.25")
print("psycopg is served")
"#;

#[test]
fn hqs_tables_are_changed_in_sql() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let store = running_store(
        &hq,
        directory.path(),
        "a-1",
        "CREATE TABLE sales (id INTEGER PRIMARY KEY); INSERT INTO sales VALUES (1)",
        "sales",
    );
    let path = directory.path().join("prices.csv");
    std::fs::write(&path, "sku,price,note\na,1.50,x\nb,2.25,y\nc,3.00,z\n").expect("writes");
    let published = hq.run(&["publish", "prices", "--from", path.to_str().expect("text"), "--key", "sku"]);
    assert!(published.status.success(), "{}", err(&published));
    let password = new_user(&hq, &["ada", "--role", "operator"]);
    let ask = |script: &str| psql(&hq, "ada", &password, script);
    store.wait_confirmed();
    for (statement, why) in [
        ("UPDATE sales SET id = 2;", "not a table that HQ publishes"),
        ("INSERT INTO prices (sku, price) VALUES ('a', 9);", "there already"),
        ("UPDATE prices SET sku = 'q' WHERE sku = 'a';", "delete a row and insert another"),
        ("BEGIN; DELETE FROM prices; COMMIT;", "outside a transaction"),
        // As one text.
        ("BEGIN\\; DELETE FROM prices\\; ROLLBACK;", "by itself"),
        ("DELETE FROM prices\\; SELECT 1 / 0;", "by itself"),
        ("PREPARE gone AS DELETE FROM prices; EXECUTE gone\\; SELECT 1 / 0;", "by itself"),
        ("DELETE FROM prices RETURNING sku;", "not yet supported"),
        ("INSERT INTO prices (sku) VALUES ('q') ON CONFLICT DO NOTHING;", "not supported"),
        ("DROP TABLE prices;", "not possible here"),
        // Exactly, or not: as in a file.
        ("UPDATE prices SET price = price * 1.055 WHERE sku = 'a';", "cannot be kept exactly"),
        ("UPDATE prices SET price = 0.123456 WHERE sku = 'a';", "cannot be kept exactly"),
        ("UPDATE prices SET price = '0.125' WHERE sku = 'a';", "cannot be kept exactly"),
        ("UPDATE prices SET price = 0.125::float8 WHERE sku = 'a';", "cannot be kept exactly"),
        ("INSERT INTO prices (sku, price) VALUES ('q', 1), ('r', 0.125);", "cannot be kept exactly"),
        ("INSERT INTO prices (price, sku) SELECT price / 7, sku || '2' FROM prices;", "cannot be kept exactly"),
        ("UPDATE prices SET price = 1e40 WHERE sku = 'a';", "numeric"),
    ] {
        let refused = ask(statement);
        assert!(!refused.status.success() && err(&refused).contains(why), "{statement}: {}", err(&refused));
    }
    let viewer = new_user(&hq, &["eve", "--role", "viewer"]);
    let refused = psql(&hq, "eve", &viewer, "DELETE FROM prices;");
    assert!(err(&refused).contains("may not change"), "{}", err(&refused));
    let changed = ask("INSERT INTO prices (sku, price) VALUES ('d', 4), ('e', 5.5);
         UPDATE prices SET price = price * 2 WHERE sku IN ('a', 'd');
         DELETE FROM prices WHERE note = 'z';");
    assert!(changed.status.success(), "{}", err(&changed));
    assert_eq!(out(&ask("SELECT sku, price, note FROM prices ORDER BY sku;")), "a|3.00|x\nb|2.25|y\nd|8.00|\ne|5.50|");
    // Who says how it is rounded is heard.
    let rounded = ask("INSERT INTO prices (sku, price) VALUES ('r', 3.125::numeric(10,2)), ('s', '1.50'), ('t', 2);
         UPDATE prices SET price = CAST(price * 1.055 AS NUMERIC(10,2)) WHERE sku = 'r';
         UPDATE prices SET price = round(price / 1.055, 2) WHERE sku = 's';");
    assert!(rounded.status.success(), "{}", err(&rounded));
    let three = out(&ask("SELECT price FROM prices WHERE sku IN ('r', 's', 't') ORDER BY sku;"));
    assert_eq!(three, "3.30\n1.42\n2.00");
    assert!(ask("DELETE FROM prices WHERE sku IN ('r', 's', 't');").status.success());
    let driver = std::process::Command::new("python3")
        .args(["-c", DRIVER, &hq.pg.ip().to_string(), &hq.pg.port().to_string(), &password])
        .output()
        .expect("python3 runs");
    assert!(driver.status.success(), "{}{}", out(&driver), err(&driver));
    let is_there = out(&driver).contains("is served");
    let of_b = if is_there { "7.25" } else { "2.25" };
    wait_for("the store to have it", || {
        let has = "SELECT sku || ' ' || printf('%.2f', price) || ' ' || coalesce(note, '-') FROM prices ORDER BY sku";
        let there = store.sql("SELECT count(*) FROM sqlite_master WHERE name = 'prices'") == "1";
        (there && store.sql(has) == format!("a 3.00 x\nb {of_b} y\nd 8.00 -\ne 5.50 -")).then_some(())
    });
    // A price raised again since stays; what was added with the first goes.
    let raised =
        hq.value("SELECT min(version) FROM rollcall.publications WHERE published_by = 'ada'").expect("a version");
    assert!(ask("UPDATE prices SET price = 1 WHERE sku = 'e';").status.success());
    let back = hq.run(&["publish", "prices", "--withdraw", &raised]);
    assert!(back.status.success() && err(&back).contains("2 rows were published again"), "{}", err(&back));
    let of_update = hq.value("SELECT version FROM rollcall.publications WHERE updated = 2").expect("a version");
    let back = hq.run(&["publish", "prices", "--withdraw", &of_update]);
    assert!(back.status.success(), "{}", err(&back));
    assert_eq!(out(&ask("SELECT sku, price FROM prices ORDER BY sku;")), format!("a|1.50\nb|{of_b}\nd|4.00\ne|1.00"));
    let by = "SELECT count(*) FROM rollcall.publications WHERE published_by = 'ada'";
    assert_eq!(hq.value(by), Some(if is_there { "9" } else { "8" }.to_owned()));
}

#[test]
fn a_version_that_hq_lost_is_not_taken_for_another_of_its_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let to = |hq: &Hq, rows: &str| {
        publish_to(hq, directory.path(), "prices", "sku", &format!("sku,price\n{rows}"), &[]);
    };
    to(&hq, "a,1.00\nb,1.00\n");
    let sql = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, sku TEXT)";
    let store = running_store(&hq, directory.path(), "tacoma-01", sql, "sales");
    let wait_prices = |wanted: &str| {
        wait_for("the prices", || {
            let there = store.sql("SELECT count(*) FROM sqlite_master WHERE name = 'prices'");
            let has = || store.sql("SELECT sku, printf('%.2f', price) FROM prices ORDER BY sku");
            (there == "1" && has() == wanted).then_some(())
        });
    };
    wait_prices("a|1.00\nb|1.00");
    // What the store says of itself when it connects is confirmed before: else it would refuse the
    // older lake as such.
    store.wait_confirmed();
    std::thread::sleep(Duration::from_secs(1));
    store.wait_confirmed();
    let backup = directory.path().join("backup");
    copy_tree(&hq.data, &backup);
    to(&hq, "a,2.00\n");
    wait_prices("a|2.00\nb|1.00");
    hq.kill();
    std::fs::remove_dir_all(&hq.data).expect("lost");
    copy_tree(&backup, &hq.data);
    // Of the number that the store has, or soon after.
    hq.restart();
    to(&hq, "b,3.00\n");
    wait_prices("a|1.00\nb|3.00");
    let applied = store.sql("SELECT version FROM _rollcall_applied");
    assert_eq!(hq.value("SELECT max(_seq) FROM history.prices"), Some(applied));
}

#[test]
fn what_is_the_stores_own_stays_and_what_it_makes_of_hqs_rows_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "CREATE TABLE sale (id INTEGER PRIMARY KEY, sku TEXT REFERENCES prices(sku) ON DELETE CASCADE);
        CREATE TABLE prices (sku TEXT PRIMARY KEY, price INTEGER, label TEXT UNIQUE);
        CREATE TRIGGER up AFTER UPDATE ON prices BEGIN UPDATE prices SET label = upper(label) WHERE sku = NEW.sku; END;";
    let store = running_store(&hq, directory.path(), "boston-01", schema, "sale");
    store.wait_confirmed();
    let give = |text: &str, arguments: &[&str]| publish_to(&hq, directory.path(), "prices", "sku", text, arguments);
    give("sku,price,label\na,1,ONE\nb,2,TWO\nc,3,THREE\n", &[]);
    wait_for("the prices", || (store.sql("SELECT count(*) FROM prices") == "3").then_some(()));
    store.sql("INSERT INTO sale VALUES (1, 'a'), (2, 'a'), (3, 'b')");
    let arrival = |column: &str| {
        hq.value(&format!("SELECT coalesce({column}, '-') FROM rollcall.arrivals WHERE table_name = 'prices'"))
    };
    // HQ's deletes touch no sale, and two labels may be swapped.
    give("sku,price,label\nb,2,THREE\nc,3,TWO\n", &["--replace"]);
    let has = "SELECT group_concat(sku || label, ' ') FROM (SELECT * FROM prices ORDER BY sku)";
    wait_for("the next prices", || (store.sql(has) == "bTHREE cTWO").then_some(()));
    assert_eq!(store.sql("SELECT group_concat(sku, '') FROM sale"), "aab");
    wait_for("what names a row that is gone", || (arrival("dangling::text")? == "2").then_some(()));
    assert_eq!(arrival("lacks_because").as_deref(), Some("-"));
    // A row of which a rule of the store's makes another is told with both values.
    give("sku,price,label\nb,2,low\n", &[]);
    wait_for("the difference", || {
        arrival("lacks_because").filter(|lacks| lacks.contains("HQ sent 'low', the store has 'LOW'"))
    });
    assert_eq!(hq.run(&["publications", "prices"]).status.code(), Some(1));
    wait_for("an incident", || {
        let evidence = hq.open_incident("publication")?;
        evidence.contains("HQ sent 'low'").then_some(())
    });
    give("sku,price,label\nb,2,low\n", &["--rewritten", "label"]);
    wait_for("it is accepted", || (arrival("lacks_because")? == "-").then_some(()));
    // Where references are to be whole, what is named stays.
    give("sku\nb\n", &["--delete", "--references", "refuse"]);
    wait_for("the row that stays", || arrival("lacks_because").filter(|lacks| lacks.contains("it is there")));
    assert_eq!(store.sql("SELECT count(*) FROM prices WHERE sku = 'b'"), "1");
}

#[test]
fn what_a_store_does_to_its_table_is_counted_and_one_that_is_not_for_it_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path.to_str().expect("text").to_owned()
    };
    let import = |of_tacoma: &str| {
        let roster =
            file("roster.csv", &format!("id,format,hours\nboston-01,outlet,24/7\ntacoma-01,{of_tacoma},24/7\n"));
        assert!(hq.run(&["roster", "import", &roster]).status.code() != Some(3));
    };
    import("outlet");
    let mut stores = ["boston-01", "tacoma-01"].map(|id| {
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY)";
        let store = Store::new(directory.path(), id, sql);
        store.join(hq.sites, &invitation(&hq, id), "sales");
        store
    });
    stores.iter_mut().for_each(|store| store.run(None));
    let prices = file("prices.csv", "sku,price\na,1\nb,2\nc,3\n");
    let refused = hq.run(&["publish", "prices", "--to", "site.format = 'outlet'"]);
    assert!(err(&refused).contains("never published"), "{}", err(&refused));
    for (name, why) in [("sqlite_prices", "SQLite's own"), ("rollcall.prices", "Rollcall's own")] {
        let refused = hq.run(&["publish", name, "--from", &prices, "--key", "sku"]);
        assert!(!refused.status.success() && err(&refused).contains(why), "{}", err(&refused));
    }
    let published = hq.run(&["publish", "prices", "--from", &prices, "--key", "sku", "--to", "site.format = 'outlet'"]);
    assert!(published.status.success(), "{}", err(&published));
    let has = |store: &Store, sql: &str, wanted: &str| {
        wait_for(&format!("{} to have {wanted:?}", store.id), || {
            let there = store.sql("SELECT count(*) FROM sqlite_master WHERE name = 'prices'") == "1";
            (there && store.sql(sql) == wanted).then_some(())
        });
    };
    const ALL: &str = "SELECT group_concat(sku || price, ' ') FROM (SELECT * FROM prices ORDER BY sku)";
    stores.iter().for_each(|store| has(store, ALL, "a1 b2 c3"));
    let arrival = |column: &str| {
        hq.value(&format!(
            "SELECT coalesce({column}::text, '-') FROM rollcall.arrivals WHERE table_name = 'prices' AND site = 'boston-01'"
        ))
    };
    // A table that is dropped, and one that is renamed away, come back, and all their rows are
    // counted.
    for (statement, edits) in [("DROP TABLE prices", "3"), ("ALTER TABLE prices RENAME TO elsewhere", "6")] {
        stores[0].sql(statement);
        has(&stores[0], ALL, "a1 b2 c3");
        wait_for("HQ to count it", || (arrival("edits")? == edits).then_some(()));
    }
    // A publication that finds no table changes nothing of that.
    stores[0].sql("DROP TABLE prices");
    let changed = file("changed.csv", "sku,price\na,10\n");
    assert!(hq.run(&["publish", "prices", "--from", &changed]).status.success());
    has(&stores[0], ALL, "a10 b2 c3");
    wait_for("HQ to count it", || (arrival("edits")? == "9").then_some(()));
    // Edits that are left are named and counted; the site has not what HQ has.
    let said = hq.run(&["publish", "prices", "--edits", "report"]);
    assert!(said.status.success(), "{}", err(&said));
    wait_for("the rule to be there", || (arrival("lacks_because")? == "-").then_some(()));
    stores[0].sql("UPDATE prices SET price = 99 WHERE sku = 'b'");
    let lacks = wait_for("HQ to say so", || arrival("lacks_because").filter(|lacks| lacks.contains("'b'")));
    assert!(lacks.contains("price: HQ sent 2, the store has 99"), "{lacks}");
    assert_eq!((arrival("edits").as_deref(), arrival("differing").as_deref()), (Some("10"), Some("1")));
    let have = "SELECT have || ' of ' || sites FROM rollcall.publications WHERE table_name = 'prices' ORDER BY published_at DESC LIMIT 1";
    assert_eq!(hq.value(have).as_deref(), Some("1 of 2"));
    let named = hq.run(&["publications", "prices"]);
    assert!(named.status.code() == Some(1) && out(&named).contains("boston-01"), "{}", out(&named));
    assert_eq!(stores[0].sql("SELECT price FROM prices WHERE sku = 'b'"), "99", "left as HQ asks");
    stores[0].sql("UPDATE prices SET price = 2 WHERE sku = 'b'");
    wait_for("it to be right again", || {
        (arrival("lacks_because")? == "-" && arrival("differing")? == "0").then_some(())
    });
    // A store of another kind has no such table; one that is of the kind again has it.
    import("mall");
    wait_for("the table to go", || {
        (stores[1].sql("SELECT count(*) FROM sqlite_master WHERE name = 'prices'") == "0").then_some(())
    });
    let sites = "SELECT string_agg(site, ' ') FROM rollcall.arrivals WHERE table_name = 'prices'";
    wait_for("HQ to know", || (hq.value(sites)? == "boston-01").then_some(()));
    import("outlet");
    has(&stores[1], ALL, "a10 b2 c3");
    // What is said of the table is said by itself.
    let said = hq.run(&["publish", "prices", "--to", "site.format = 'outlet' AND price > 2"]);
    assert!(said.status.success(), "{}", err(&said));
    stores.iter().for_each(|store| has(store, ALL, "a10 c3"));
    let coverage = hq.run(&["sql", "SELECT count(*) FROM rollcall.coverage('SELECT count(*) FROM sales')"]);
    assert!(coverage.status.success(), "{}", err(&coverage));
}

/// Writes a Parquet file with a column of each type.
const PARQUET: &str = r#"
import sys, datetime, decimal, pyarrow as pa, pyarrow.parquet as pq
utc = datetime.timezone.utc
pq.write_table(pa.table({
    "n": pa.array([42, -7], pa.int32()),
    "price": pa.array([decimal.Decimal("9.99"), decimal.Decimal("-0.05")], pa.decimal128(10, 2)),
    "ratio": pa.array([0.1, 1e300], pa.float64()),
    "flag": pa.array([True, False]),
    "day": pa.array([datetime.date(2026, 1, 31), None]),
    "at": pa.array([datetime.datetime(2026, 1, 31, 9, 0, 0, 250000, utc), None], pa.timestamp("ns", "UTC")),
    "note": pa.array(["hello", ""]).dictionary_encode(),
    "code": pa.array(["00123", " k "], pa.large_string()),
    "bytes": pa.array([b"\x00\xff", None]),
}), sys.argv[1])
"#;

#[test]
fn every_type_of_every_form_is_the_same_at_hq_and_at_the_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let sql = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY)";
    let store = running_store(&hq, directory.path(), "boston-01", sql, "sales");
    let file = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    let csv = "n,price,flag,day,at,note,code\n42,9.99,true,2026-01-31,2026-01-31T10:00:00.25+01:00,hello,00123\n-7,-0.05,false,,,\"\",\" k \"\n";
    std::fs::write(file("of_csv.csv"), csv).expect("writes");
    let json = r#"{"n":4.2e1,"price":9.99,"flag":true,"day":"2026-01-31","at":"2026-01-31T10:00:00.25+01:00","note":"hello","code":"00123"}
{"n":-7,"price":-0.05,"flag":false,"day":null,"note":"","code":" k "}"#;
    std::fs::write(file("of_json.json"), json).expect("writes");
    let mut forms = vec!["of_csv.csv", "of_json.json"];
    let python = std::process::Command::new("python3").args(["-c", PARQUET, &file("of_parquet.parquet")]).output();
    match python.expect("python3 runs") {
        made if made.status.success() => forms.push("of_parquet.parquet"),
        failed => eprintln!("pyarrow is not installed: Parquet is left out: {}", err(&failed)),
    }
    for form in forms {
        let table = form.split('.').next().expect("a name");
        let published = hq.run(&["publish", table, "--from", &file(form), "--key", "code"]);
        assert!(published.status.success(), "{form}: {}", err(&published));
        let of_hq = format!(
            "SELECT concat_ws('|', n, price, flag, day, to_char(at, 'YYYY-MM-DD HH24:MI:SS.MS'), note, code) FROM {table} WHERE n = 42"
        );
        assert_eq!(
            hq.value(&of_hq).as_deref(),
            Some("42|9.99|t|2026-01-31|2026-01-31 09:00:00.250|hello|00123"),
            "{form}"
        );
        let other = format!(
            "SELECT count(*) FROM {table} WHERE n = -7 AND price = -0.05 AND NOT flag AND day IS NULL AND at IS NULL \
             AND note = '' AND code = ' k '"
        );
        assert_eq!(hq.value(&other).as_deref(), Some("1"), "{form}");
        wait_for("the store to have it", || {
            (store.sql(&format!("SELECT count(*) FROM sqlite_master WHERE name = '{table}'")) == "1").then_some(())
        });
        let all =
            ["n", "price", "flag", "day", "at", "note", "code"].map(|name| format!("typeof({name}) || ' ' || {name}"));
        let row = store.sql(&format!("SELECT {} FROM {table} WHERE n = 42", all.join(" || '|' || ")));
        let wanted =
            "integer 42|real 9.99|integer 1|text 2026-01-31|text 2026-01-31 09:00:00.250Z|text hello|text 00123";
        assert_eq!(row, wanted, "{form}");
        let types = format!(
            "SELECT group_concat(name || ' ' || type, '|') FROM (SELECT * FROM pragma_table_info('{table}') ORDER BY name)"
        );
        let digits = if form == "of_parquet.parquet" { "10" } else { "18" };
        let declared = store.sql(&types);
        for wanted in
            ["n INTEGER", &format!("price DECIMAL({digits},2)"), "flag BOOLEAN", "day DATE", "at DATETIME", "code TEXT"]
        {
            assert!(declared.split('|').any(|declared| declared == wanted), "{form}: {declared}");
        }
        let wrong = file("wrong.csv");
        std::fs::write(&wrong, "code,day\n00123,2026-02-30\n").expect("writes");
        let refused = hq.run(&["publish", table, "--from", &wrong]);
        assert!(!refused.status.success() && err(&refused).contains("2026-02-30"), "{form}: {}", err(&refused));
        if form == "of_parquet.parquet" {
            let more = "SELECT typeof(ratio) || ' ' || ratio || ' ' || typeof(bytes) || ' ' || hex(bytes) FROM of_parquet WHERE n = 42";
            assert_eq!(store.sql(more), "real 0.1 blob 00FF");
        }
    }
}
