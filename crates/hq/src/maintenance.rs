//! What concerns several parts at once, and must be done now and then.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rollcall_alert::Alerts;
use rollcall_answer::Answers;
use rollcall_api::{Api, Credentials};
use rollcall_books::Books;
use rollcall_gateway::{Authority, capacity};
use rollcall_publish::{
    Publisher,
    arrivals::{self, LackingSince},
    note_orphans, scheduled, tables,
};
use rollcall_registry::{Registry, doors::Doors};
use rollcall_runtime::every;

/// How often what changed of sites' presence is stored.
const REMEMBER_EVERY: Duration = Duration::from_secs(60);
/// How often completeness is looked at again for sites that wait for a cursor.
const ADVANCE_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether other sites should have other tables.
const PUBLISHED_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked who has not taken what was published.
const ARRIVALS_EVERY: Duration = Duration::from_secs(5);
/// How often what other nodes committed is taken over.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How often secrets that another node changed are looked for.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// What one node changed of secrets every other one knows after this time.
pub(crate) const KNOWN_EVERYWHERE: Duration = Duration::from_secs(30);

/// Tasks that must go on, or the service manager starts HQ again.
const TASKS: [&str; 4] = [ADVANCE, FOLLOW, LATECOMERS, REMEMBER];
const ADVANCE: &str = "advance";
const FOLLOW: &str = "follow publications";
const LATECOMERS: &str = "look for latecomers";
const REMEMBER: &str = "remember";

/// Moves sites' completeness along with the lake, until the node stops.
pub(crate) async fn advance(registry: Arc<Registry>, answers: Arc<Answers>) {
    let mut timer = every(ADVANCE_EVERY);
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        registry.ledger.advance_all(&registry.lake, &registry.roster.all());
        answers.refresh_progress();
        registry.health.beat(ADVANCE, &TASKS);
    }
}

/// Takes over what is published and what is in quarantine, until the node stops.
pub(crate) async fn follow_publications(registry: Arc<Registry>, books: Arc<Books>, publisher: Arc<Publisher>) {
    let mut timer = every(PUBLISHED_EVERY);
    let mut unwanted = scheduled::Unwanted::new();
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        tables::refresh(&publisher).await;
        let looked = books.quarantine.look().await;
        registry.health.note("read what is in quarantine", &looked);
        if registry.is_acting() {
            scheduled::look(&publisher, &mut unwanted).await;
        }
        registry.health.beat(FOLLOW, &TASKS);
    }
}

/// Tells the watch who is late with what was published, and people of strangers at the doors, until
/// the node stops.
pub(crate) async fn look_for_latecomers(
    alerts: Arc<Alerts>,
    publisher: Arc<Publisher>,
    doors: Arc<Doors>,
    api: Arc<Api>,
) {
    const GUESSED: &str = "tell users from somebody who guesses";
    let (registry, mut timer, mut lacking) = (&alerts.registry, every(ARRIVALS_EVERY), LackingSince::new());
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        for late in arrivals::late(&publisher, &|| alerts.roll(), &mut lacking) {
            let mut watch = alerts.watching.watch();
            watch.set_publication(late.table.as_str(), &late.members, &late.text, registry.now());
        }
        doors.tell(&registry.health);
        match api.told_of_guesses() {
            Some(text) => registry.health.broken(GUESSED, &text),
            None => registry.health.done(GUESSED),
        }
        registry.health.beat(LATECOMERS, &TASKS);
    }
}

/// Stores what must survive a stop, until the node stops.
pub(crate) async fn remember(
    registry: Arc<Registry>,
    publisher: Arc<Publisher>,
    authority: Arc<Authority>,
    capacity: usize,
) {
    const STORE: &str = "store what was heard of sites";
    let (mut news, mut timer, mut orphans) = (every(ARRIVALS_EVERY), every(REMEMBER_EVERY), BTreeMap::new());
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = news.tick() => {
                if registry.ledger.has_news() {
                    registry.health.note(STORE, &registry.store_presence(false).await);
                }
            }
            _ = timer.tick() => {
                if registry.is_acting() {
                    registry.health.note("note publications", &note_orphans(&publisher, &mut orphans).await);
                }
                let count = registry.sessions.count();
                if capacity::is_nearly_full(count, capacity) {
                    tracing::error!(count, capacity, "nearly as many sites as this process may open files: add a node, or raise the limit");
                }
                registry.health.note("renew this node's certificate", &authority.reload().await);
                registry.health.note(STORE, &registry.store_presence(false).await);
                if registry.is_acting() {
                    registry.health.note("note how far the lake has come", &registry.lake.note_heads().await);
                }
            }
        }
        registry.health.beat(REMEMBER, &TASKS);
    }
}

/// Takes over what other nodes write, until the node stops.
pub(crate) async fn follow(
    registry: Arc<Registry>,
    authority: Arc<Authority>,
    credentials: Arc<Credentials>,
    alerts: Arc<Alerts>,
) {
    if registry.relay().is_none() {
        return;
    }
    let (mut timer, mut reload_tick) = (every(FOLLOW_EVERY), every(RELOAD_EVERY));
    let mut roster = registry.roster.all();
    loop {
        tokio::select! {
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {
                registry.health.note("read what other nodes wrote", &registry.lake.follow().await);
                let newest = registry.roster.all();
                if !Arc::ptr_eq(&roster, &newest) {
                    roster = newest;
                    registry.sessions.cut_strangers(|session| {
                        let record = roster.get(&session.site);
                        // One that is to send everything again hears of it when it comes next.
                        let is_to_resend = record.and_then(|record| record.resend.as_ref()).is_some_and(|resend| resend.epoch.is_none());
                        let key = record.and_then(|record| record.key_hash.as_deref());
                        !is_to_resend && key == Some(session.peer.key_hash.as_str())
                    });
                }
            }
            _ = reload_tick.tick() => {
                let reloaded = async {
                    authority.reload().await?;
                    credentials.reload().await?;
                    alerts.notifiers.reload().await
                };
                registry.health.note("read users, channels and certificates anew", &reloaded.await);
            }
        }
    }
}
