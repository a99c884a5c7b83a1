//! What happens in the demo: a router is tripped over, a shop closes, a store's name leads to an
//! old HQ.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rollcall_types::SiteState;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    screen::{Feed, print_numbers},
    stores::{CLOSED, Stores},
};
use crate::{client::Client, show::RollLine};

const TRIPPED: &str = "tacoma-01";
const LOST: &str = "newyork-01";
/// The mailbox that is told in the demo.
const DESK: &str = "desk";
/// So long nothing happens.
const CALM: Duration = Duration::from_secs(10);
/// Longer than anything that is waited for here should take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mailbox whose mails are shown and not sent: they would be from the loudest level on, which
/// nothing here reaches.
pub(super) async fn set_desk(client: &Arc<Client>) -> anyhow::Result<()> {
    let mail = json!({"kind": "smtp", "host": "127.0.0.1", "tls": "none", "from": "rollcall@contoso.example",
        "to": ["desk@contoso.example"], "min_level": 5});
    call(client, move |client| client.put::<Value>(&format!("/api/channels/{DESK}"), &mail)).await?;
    Ok(())
}

/// Does something with HQ's API beside the stores.
async fn call<T: Send + 'static>(
    client: &Arc<Client>,
    work: impl FnOnce(&Client) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let client = client.clone();
    tokio::task::spawn_blocking(move || work(&client)).await?
}

/// Tells it, once; then the stores go on selling.
pub(super) async fn tell(
    client: &Arc<Client>,
    feed: &Arc<Feed>,
    stores: &mut Stores,
    old: SocketAddr,
) -> anyhow::Result<()> {
    feed.say("All stores are open. Every sale is at HQ within a second or two.");
    sleep(CALM).await;

    feed.say(format!("Someone trips over the router of {TRIPPED}. Its till sells on; nobody tells HQ."));
    stores.get(TRIPPED)?.relay.cut();
    let took = until(client, TRIPPED, |line| line.state == SiteState::Silent).await?;
    feed.say(format!("HQ noticed after {} s and names the store next to every number.", took.as_secs()));
    print_numbers(client, feed).await?;
    show_mail(client, feed, TRIPPED).await?;
    sleep(CALM).await;

    feed.say(format!("{CLOSED} closes for the day: its agent says goodbye. Nobody is called about that."));
    stores.get(CLOSED)?.shut().await;
    until(client, CLOSED, |line| matches!(line.state, SiteState::QuietExpected | SiteState::DeclaredClosed)).await?;
    sleep(CALM / 2).await;

    feed.say(format!("The router of {TRIPPED} is plugged in again."));
    stores.get(TRIPPED)?.relay.mend();
    let took = until(client, TRIPPED, |line| line.state == SiteState::Ok && line.unconfirmed_rows == 0).await?;
    feed.say(format!("Caught up {} s later: what was sold meanwhile is here, once.", took.as_secs()));
    sleep(CALM / 2).await;

    feed.say(format!("HQ moved, and {LOST} was not told: its name for HQ leads to an old server, which answers."));
    let called = stores.get(LOST)?.relay.address().to_string();
    stores.get(LOST)?.relay.lead_to(old);
    let took = until(client, LOST, |line| line.state == SiteState::Silent).await?;
    feed.say(format!("Both ends look healthy. HQ misses the store after {} s all the same.", took.as_secs()));
    sleep(CALM / 2).await;
    feed.say(format!("Somebody corrects the address. {LOST} says where its calls went meanwhile:"));
    stores.get(LOST)?.relay.mend();
    until(client, LOST, |line| line.state == SiteState::Ok && line.unconfirmed_rows == 0).await?;
    feed.say(format!("  {}", what_it_told(client, LOST, &called).await?));

    let store = stores.get(LOST)?;
    let sold = prove(client, store.database.clone()).await?;
    feed.say(format!("Proof: {sold}."));
    stores.get(CLOSED)?.open()?;
    feed.say(format!("{CLOSED} opens. That was the story."));
    feed.is_told();
    Ok(())
}

/// Waits until the roll says so of a site; how long that took.
async fn until(client: &Arc<Client>, site: &str, holds: impl Fn(&RollLine) -> bool) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let look = async || {
        let roll = call(client, |client| client.get("/api/roll")).await?;
        let lines: Vec<RollLine> = serde_json::from_str(&roll)?;
        Ok(lines.iter().any(|line| line.site.as_str() == site && holds(line)).then_some(()))
    };
    wait_for(&format!("HQ did not notice what became of {site}"), look).await?;
    Ok(begun.elapsed())
}

/// Looks until there is something; what is wrong if that takes too long.
async fn wait_for<T>(wrong: &str, mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        sleep(Duration::from_millis(300)).await;
    }
    anyhow::bail!("{wrong} within {} s; that is a fault: please report it", PATIENCE.as_secs())
}

async fn incident_of(client: &Arc<Client>, site: &'static str) -> anyhow::Result<Option<Value>> {
    let incidents = call(client, |client| client.get("/api/incidents?all=true")).await?;
    let incidents: Vec<Value> = serde_json::from_str(&incidents)?;
    Ok(incidents.into_iter().rev().find(|incident| !incident["members"][site].is_null()))
}

/// What the incident says of the address that the site called meanwhile.
async fn what_it_told(client: &Arc<Client>, site: &'static str, address: &str) -> anyhow::Result<String> {
    let look = async || {
        let incident = incident_of(client, site).await?.unwrap_or_default();
        let texts = incident["timeline"].as_array().into_iter().flatten().filter_map(|entry| entry["text"].as_str());
        // The line that broke off when HQ moved is told as well; the point is who answered
        // afterwards.
        let is_void = |text: &&str| text.contains(address) && text.contains("void");
        Ok(texts.into_iter().find(is_void).map(str::to_owned))
    };
    wait_for(&format!("the incident about {site} did not name {address}"), look).await
}

/// Shows the mail about a site as it would be sent.
async fn show_mail(client: &Arc<Client>, feed: &Arc<Feed>, site: &'static str) -> anyhow::Result<()> {
    let Some(incident) = incident_of(client, site).await? else { return Ok(()) };
    let path = format!("/api/channels/{DESK}/preview?incident={}", incident["id"]);
    let mail: Value = serde_json::from_str(&call(client, move |client| client.get(&path)).await?)?;
    feed.mail(mail["subject"].as_str().unwrap_or_default(), mail["text"].as_str().unwrap_or_default());
    Ok(())
}

/// Counts a store's sales in its own file and at HQ.
async fn prove(client: &Arc<Client>, database: std::path::PathBuf) -> anyhow::Result<String> {
    let look = async || {
        let file = database.clone();
        let (here, there) = call(client, move |client| {
            let here = rollcall_sim::count_sales(&file)?;
            let sql = format!("SELECT count(*) AS n FROM sales WHERE _site = '{LOST}' AND id <= {here}");
            let (body, _) = client.sql(&sql, "json")?;
            let answer: Value = serde_json::from_slice(&body)?;
            anyhow::Ok((here, answer["rows"][0]["n"].as_u64().unwrap_or_default()))
        })
        .await?;
        let proof = || format!("{LOST} has {here} sales in its own file, and HQ has {there}");
        Ok((here == there).then(proof))
    };
    wait_for(&format!("HQ did not have all sales of {LOST}"), look).await
}
