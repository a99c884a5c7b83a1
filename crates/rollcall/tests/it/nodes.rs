//! Several nodes on one object store: any site on any node, and one of them keeps the watch.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    bucket::Bucket,
    chaos::{SCHEMA, assert_same, random, start_writer, write_script},
    engines,
    published::publish_to,
    support::{Hq, Store, wait_for},
};
use rand::Rng;

/// A new store joined at one node, which may go to any.
fn join(directory: &Path, id: &str, nodes: &[Hq], at: usize) -> Store {
    let store = Store::new(directory, id, SCHEMA);
    store.join(nodes[at].sites, &nodes[at].invite(id), "sales,items");
    store
}

/// The node that keeps the watch, by what `asked` says.
fn acting(asked: &Hq) -> Option<String> {
    let nodes = asked.api("/api/nodes");
    let acting = nodes.as_array()?.iter().find(|node| node["acts"] == true)?;
    Some(acting["sites"].as_str()?.to_owned())
}

fn two_nodes(directory: &Path, bucket: &Bucket) -> Vec<Hq> {
    ["node-1", "node-2"].map(|name| Hq::start_node(directory, name, bucket)).into_iter().collect()
}

/// Waits until a node acts, which is the first.
fn first_acts(nodes: &[Hq]) -> String {
    let first = wait_for("one to act", || acting(&nodes[0]));
    assert_eq!(first, nodes[0].sites.to_string(), "the first one");
    first
}

/// Shops that were joined at the first node.
fn three_shops(directory: &Path, nodes: &[Hq]) -> Vec<Store> {
    (0..3).map(|number| join(directory, &format!("shop-{number}"), nodes, 0)).collect()
}

#[test]
fn sites_that_move_between_nodes_that_die_lose_and_double_nothing() {
    // Method: two nodes on one bucket, four stores with writers; nodes are killed in turn and
    // agents are restarted at either; then everything must be at HQ once, whichever node is asked.
    let directory = tempfile::tempdir().expect("a directory");
    let bucket = Bucket::start(directory.path());
    let mut random = random();
    let mut nodes = two_nodes(directory.path(), &bucket);
    let writer = write_script(directory.path());
    let mut stores = Vec::new();
    let mut writers = Vec::new();
    for number in 0..4 {
        let mut store = join(directory.path(), &format!("store-{number}"), &nodes, number % 2);
        writers.push(start_writer(&writer, &store, number, 15.0));
        // Invited at one node, it calls at the other.
        store.run(Some(nodes[(number + 1) % 2].sites));
        stores.push(store);
    }
    let started = Instant::now();
    let (mut turn, mut rate) = (0, 0);
    while started.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(random.random_range(300..1500)));
        if random.random_bool(0.3) {
            turn = 1 - turn;
            nodes[turn].kill();
            std::thread::sleep(Duration::from_millis(random.random_range(0..1000)));
            nodes[turn].restart();
        } else {
            let victim = random.random_range(0..stores.len());
            stores[victim].kill();
            stores[victim].run(Some(nodes[random.random_range(0..2)].sites));
        }
        // Published at either node, wherever the stores are.
        rate += 1;
        let text = format!("code,rate\nnow,{rate}\nn{},{rate}\n", rate % 7);
        publish_to(&nodes[random.random_range(0..2)], directory.path(), "rates", "code", &text, &[]);
    }
    for mut writer in writers {
        assert!(writer.wait().success(), "a writer was refused");
    }
    for store in &stores {
        store.wait_confirmed();
    }
    for node in &nodes {
        assert_eq!(node.new_epochs(), Vec::<String>::new(), "no database was restored");
        for store in &stores {
            let of_store = store.sql("SELECT count(*) FROM sales");
            let sql = format!("SELECT count(*) FROM sales WHERE _site = '{}'", store.id);
            wait_for("a node to know what the other committed", || (node.value(&sql)? == of_store).then_some(()));
            assert_same(node, store);
        }
    }
    for store in &stores {
        let newest = format!("now {rate}\n{}", rate.min(7));
        let has = "SELECT 'now ' || rate FROM rates WHERE code = 'now' UNION ALL SELECT count(*) FROM rates WHERE code <> 'now'";
        wait_for(&format!("{} to have the newest rates", store.id), || (store.sql(has) == newest).then_some(()));
    }
    engines::assert_agree_over_s3(&nodes[0], "sales", &stores, &bucket);
}

#[test]
fn the_watch_goes_on_when_its_node_dies_and_a_node_that_slept_has_no_say() {
    let directory = tempfile::tempdir().expect("a directory");
    let bucket = Bucket::start(directory.path());
    let mut nodes = two_nodes(directory.path(), &bucket);
    let first = first_acts(&nodes);
    wait_for("the other to know", || (acting(&nodes[1])? == first).then_some(()));
    let mut stores = three_shops(directory.path(), &nodes);
    // All at the second node, so that the first knows of them by telling alone.
    for store in &mut stores {
        store.run(Some(nodes[1].sites));
    }
    for node in &nodes {
        for store in &stores {
            node.wait_state(&store.id, "ok");
        }
    }
    stores[0].kill();
    for node in &nodes {
        node.wait_state("shop-0", "silent");
    }
    let incident = |node: &Hq| -> Option<Value> {
        let output = node.run(&["incidents", "--json"]);
        let incidents: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
        incidents.into_iter().find(|incident| incident["members"]["shop-0"].is_object())
    };
    let opened = wait_for("an incident, asked at the node that does not act", || incident(&nodes[1]));
    let id = opened["id"].to_string();
    // Taken at the node that does not act; the one that acts does it.
    let taken = nodes[1].run(&["incidents", "ack", &id, "--reason", "a technician comes", "--by", "Ada"]);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    // The node that acts falls asleep: the other takes over, with the same incident, and hears that
    // the shop is back.
    nodes[0].signal("-STOP");
    let asleep = Instant::now();
    let second = nodes[1].sites.to_string();
    wait_for("the other to act", || (acting(&nodes[1])? == second).then_some(()));
    println!("taken over after {:?}", asleep.elapsed());
    assert_eq!(incident(&nodes[1]).expect("kept")["id"], opened["id"]);
    assert_eq!(incident(&nodes[1]).expect("kept")["lease"]["by"], "operator for Ada");
    stores[0].run(Some(nodes[1].sites));
    wait_for("the incident to end", || incident(&nodes[1]).is_none().then_some(()));
    nodes[0].signal("-CONT");
    wait_for("the sleeper to see it", || (acting(&nodes[0])? == second).then_some(()));
    assert!(incident(&nodes[0]).is_none(), "what it decided before counts no more");
    for store in &stores {
        nodes[1].wait_state(&store.id, "ok");
    }
    // A node that is stopped hands over at once, its sites too.
    nodes[1].stop();
    wait_for("the first to act again", || (acting(&nodes[0])? == first).then_some(()));
    for store in &stores {
        nodes[0].wait_state(&store.id, "ok");
        store.sql("INSERT INTO sales (sku, qty, price) VALUES ('last', 1, 1)");
        store.wait_confirmed();
    }
    let last = "SELECT count(*) FROM sales WHERE sku = 'last'";
    wait_for("the last rows", || (nodes[0].value(last)? == "3").then_some(()));
}

#[test]
fn a_node_without_the_key_is_told_where_to_get_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let bucket = Bucket::start(directory.path());
    let first = Hq::start_node(directory.path(), "node-1", &bucket);
    let stranger = first.second_on(&directory.path().join("stranger"));
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(!stranger.status.success() && said.contains("copy node.key"), "{said}");
    assert!(!directory.path().join("stranger/node.key").exists(), "no wrong key is left behind");
}

#[test]
fn what_is_scheduled_takes_effect_once_though_the_acting_node_dies() {
    let directory = tempfile::tempdir().expect("a directory");
    let bucket = Bucket::start(directory.path());
    let mut nodes = two_nodes(directory.path(), &bucket);
    first_acts(&nodes);
    let mut stores = three_shops(directory.path(), &nodes);
    // Published at the first node; the stores are at the second.
    for store in &mut stores {
        store.run(Some(nodes[1].sites));
    }
    let roster = directory.path().join("roster.csv");
    std::fs::write(&roster, "id,tz\nshop-0,UTC\nshop-1,UTC\nshop-2,UTC\n").expect("writes");
    assert!(nodes[0].run(&["roster", "import", roster.to_str().expect("text")]).status.code() != Some(3));
    publish_to(&nodes[0], directory.path(), "rates", "code", "code,rate\na,1\nb,2\n", &[]);
    let has = |wanted: &str| {
        for store in &stores {
            wait_for(&format!("{} to have {wanted}", store.id), || {
                let there = store.sql("SELECT count(*) FROM sqlite_master WHERE name = 'rates'") == "1";
                let rates = "SELECT group_concat(code || rate, ' ') FROM (SELECT * FROM rates ORDER BY code)";
                (there && store.sql(rates) == wanted).then_some(())
            });
        }
    };
    has("a1 b2");
    let changed = directory.path().join("changed.csv");
    std::fs::write(&changed, "code,rate\na,10\nc,30\n").expect("writes");
    let at = chrono::Utc::now() + chrono::TimeDelta::seconds(10);
    let at = at.format("%Y-%m-%d %H:%M:%S").to_string();
    let from = changed.to_str().expect("text");
    let scheduled = nodes[0].run(&["publish", "rates", "--from", from, "--at", &at]);
    assert!(scheduled.status.success(), "{}", String::from_utf8_lossy(&scheduled.stderr));
    wait_for("the stores to hold it", || {
        let held = |store: &Store| {
            let is_there = store.sql("SELECT count(*) FROM sqlite_master WHERE name = 'rates_next'") == "1";
            is_there && store.sql("SELECT count(*) FROM rates_next") == "2"
        };
        stores.iter().all(held).then_some(())
    });
    // The node that would publish it dies before the time, and while the other one may be about it.
    nodes[0].kill();
    has("a10 b2 c30");
    let published = "SELECT count(*) FROM rates WHERE rate >= 10";
    wait_for("the other node to publish it", || (nodes[1].value(published)? == "2").then_some(()));
    nodes[0].restart();
    nodes[1].kill();
    nodes[1].restart();
    for node in &nodes {
        wait_for("both to know", || (node.value(published)? == "2").then_some(()));
        let versions = node.value("SELECT count(*) FROM history.rates WHERE rate >= 10");
        assert_eq!(versions.as_deref(), Some("2"), "once");
        wait_for("nothing to wait any more", || (node.value("SELECT count(*) FROM rates_next")? == "0").then_some(()));
    }
    has("a10 b2 c30");
    wait_for("every store to say so", || {
        let lacking = "SELECT count(*) FROM rollcall.arrivals WHERE lacks_because IS NOT NULL";
        (nodes[0].value(lacking)? == "0").then_some(())
    });
}
