//! Judging a site's first message: it is turned away, or a session begins.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use rollcall_registry::{
    Heard, HqError, Lanes, Peer, Registry, SiteFact, facts::Welcomed, ledger::BACKLOG_MIN, sessions::Session,
};
use rollcall_roll::Condition;
use rollcall_types::{Cause, Epoch, Seq, SiteNumber, Timestamp, columns};
use rollcall_wire::{
    PROTOCOL, PROTOCOL_MIN, Refusal,
    proto::{Cursor, Hello, Welcome},
};

use crate::{
    epochs::{cursors, published_names},
    gateway::GatewayParts,
    news,
};

/// Bytes a site may have in flight before anything is confirmed.
const CREDIT_BYTES: u64 = 4 * 1024 * 1024;

/// A site that opened a control stream.
pub(crate) struct Visitor {
    pub(crate) parts: Arc<GatewayParts>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) number: SiteNumber,
    pub(crate) address: Option<SocketAddr>,
}

impl Visitor {
    pub(crate) fn registry(&self) -> &Registry {
        &self.parts.registry
    }

    pub(crate) fn address_text(&self) -> String {
        self.address.map_or_else(String::new, |address| address.to_string())
    }

    /// Checks the site's journal against the lake and opens a session.
    pub(crate) async fn welcome(&self, hello: &Hello) -> Result<(Arc<Session>, Welcome), Rejection> {
        let now = self.registry().now();
        if hello.protocol < PROTOCOL_MIN || hello.protocol_min > PROTOCOL {
            let message = format!(
                "HQ speaks protocol {PROTOCOL_MIN} to {PROTOCOL}, the agent {} to {}; update the older one",
                hello.protocol_min, hello.protocol
            );
            return Err(Rejection::Away { code: Refusal::Protocol, cause: Some(Cause::HqRefuses), message });
        }
        if self.registry().sessions.count() >= self.parts.capacity {
            let message =
                format!("this node holds {} sites, all it has open files for; call another", self.parts.capacity);
            return Err(Rejection::Away { code: Refusal::Full, cause: None, message });
        }
        if self.registry().sessions.is_clone(&self.peer.site, &hello.instance, now) {
            let message = "two running copies of this site take turns; stop one, then invite the site anew".to_owned();
            return Err(Rejection::Away { code: Refusal::Clone, cause: Some(Cause::CloneOrRewind), message });
        }
        // Another node may have taken this site's changes until a moment ago.
        self.registry().lake.follow().await.map_err(HqError::from)?;
        self.refuse_while_aside(hello)?;
        let (epoch, reason) = self.epoch_for(hello).await?;
        self.open(hello, epoch, reason, now)
    }

    /// Turns a site away as long as a table that it fills is set aside: what was confirmed cannot
    /// be told, and nothing of it could be taken. That is HQ's trouble, and told as such.
    fn refuse_while_aside(&self, hello: &Hello) -> Result<(), Rejection> {
        let lake = &self.registry().lake;
        let tables = lake.tables();
        let own = [lake.site_log(), lake.quarantine()].into_iter().filter(|table| table.set_aside().is_some());
        let aside = own.chain(tables.values().filter(|table| table.is_aside_for(self.number))).next();
        // One that has no confirmation has nothing that HQ could lack.
        let Some(table) = aside.filter(|_| hello.confirmed > 0) else { return Ok(()) };
        let root = table.root();
        let message = format!(
            "HQ's {root} is damaged and set aside; what this site has waits there until it is repaired (`rollcall lake repair`)"
        );
        Err(Rejection::Away { code: Refusal::Damaged, cause: None, message })
    }

    /// Makes this connection the one that speaks for its site.
    fn open(
        &self,
        hello: &Hello,
        epoch: Epoch,
        reason: String,
        now: Timestamp,
    ) -> Result<(Arc<Session>, Welcome), Rejection> {
        let (site, registry) = (&self.peer.site, self.registry());
        let cursors = self.all_cursors(epoch);
        let session = Arc::new(self.session(hello, epoch, now));
        registry.sessions.open(session.clone());
        let record = registry.roster.get(site);
        let key_hash = record.as_ref().and_then(|record| record.key_hash.as_deref());
        if key_hash != Some(self.peer.key_hash.as_str()) {
            // It was retired or enrolled anew while this one said hello.
            registry.sessions.close(&session);
            let message = "this site was retired or enrolled anew".to_owned();
            return Err(Rejection::Away { code: Refusal::NotOnRoster, cause: None, message });
        }
        self.note(hello, &session);
        let welcome = Welcome {
            protocol: hello.protocol.min(PROTOCOL),
            session: session.id,
            lake_id: registry.lake.id().to_owned(),
            epoch: epoch.0,
            cursors,
            now_micros: now.as_micros(),
            credit_bytes: CREDIT_BYTES,
            settings: Some(self.parts.settings_of(site)),
            epoch_reason: reason,
            older_lake: hello.epoch != epoch.0 && self.is_resend(epoch),
            published: published_names(&registry.lake)
                .into_iter()
                .chain(self.parts.books.quarantine.never_taken(site))
                .collect(),
        };
        Ok((session, welcome))
    }

    /// How far the lake has come in this epoch, by table.
    fn all_cursors(&self, epoch: Epoch) -> Vec<Cursor> {
        let lake = &self.registry().lake;
        let told = |table: &str, cursor: &rollcall_lake::Cursor| Cursor {
            table: table.to_owned(),
            seq: cursor.seq.0,
            hash: cursor.hash.get(),
        };
        let of_tables = cursors(lake, self.number, epoch);
        let log = lake.site_log().cursor(self.number, epoch);
        let of_tables = of_tables.iter().map(|(table, cursor)| told(table.as_str(), cursor));
        of_tables.chain(log.as_ref().map(|cursor| told(columns::LOG_TABLE, cursor))).collect()
    }

    fn session(&self, hello: &Hello, epoch: Epoch, now: Timestamp) -> Session {
        let registry = self.registry();
        let same_epoch = Epoch(hello.epoch) == epoch;
        let confirmed = if same_epoch { Seq(hello.confirmed) } else { Seq(hello.oldest.saturating_sub(1)) };
        let is_backlog = hello.head.saturating_sub(confirmed.0) > BACKLOG_MIN;
        let clock_offset_micros = now.as_micros().saturating_sub(hello.clock_micros);
        Session {
            id: registry.sessions.next_id(),
            site: self.peer.site.clone(),
            number: self.number,
            peer: self.peer.clone(),
            epoch,
            lane: Lanes::new(if is_backlog { Seq(hello.head) } else { confirmed }),
            confirmed_through: AtomicU64::new(confirmed.0),
            opened_at: now,
            clock_offset_micros,
            clock_off: AtomicI64::new(clock_offset_micros),
            is_clock_off: AtomicBool::new(true),
            has_data: AtomicBool::new(false),
            is_taken: AtomicBool::new(false),
            over: registry.stop.child_token(),
        }
    }

    /// Tells of a session that begins.
    fn note(&self, hello: &Hello, session: &Session) {
        let (site, registry) = (&session.site, self.registry());
        let welcomed = Welcomed {
            is_new_epoch: Epoch(hello.epoch) != session.epoch,
            head: Seq(hello.head),
            confirmed: Seq(session.confirmed_through.load(Ordering::Acquire)),
            instance: hello.instance.clone(),
            authority: self.parts.authority.shown(self.peer.authority, &hello.authorities),
            detail: format!("agent {} at {}", hello.agent_version, self.address_text()),
            agent_version: hello.agent_version.chars().take(80).collect(),
            states_manifests: hello.states_manifests,
            takes_published: hello.takes_published,
            clock_off_micros: session.clock_offset_micros,
            is_blind: hello.blind,
            applied: news::applied(&hello.applied),
        };
        registry.record(site, SiteFact::Welcomed(welcomed));
        self.parts.books.proposed.take(site, &hello.event_times, &registry.lake);
        let seen = seen_of(hello, self.address);
        registry.record_heard(site, Heard::Welcomed { seen, states_manifests: hello.states_manifests });
        if !hello.blind {
            registry.record_heard(site, Heard::Condition(Condition::CloneOrRewind, None));
        }
        news::judge_clock(registry, session);
    }
}

/// What a connection shows of a site that others may share: names as in
/// [`rollcall_roll::WatchConfig::group_by`].
fn seen_of(hello: &Hello, peer: Option<SocketAddr>) -> BTreeMap<String, String> {
    let block = peer.map_or_else(String::new, |peer| block_of(peer.ip()));
    let seen = [
        ("agent", hello.agent_version.as_str()),
        ("endpoint", hello.called.as_str()),
        ("dns", hello.resolved.as_str()),
        ("block", block.as_str()),
    ];
    seen.map(|(name, value)| (name.to_owned(), value.chars().take(200).collect())).into()
}

/// The network an address is in, as providers give them out: 24 bits of IPv4, 48 of IPv6.
fn block_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

/// Why a site got no session.
#[derive(Debug)]
pub(crate) enum Rejection {
    Away { code: Refusal, cause: Option<Cause>, message: String },
    Failed(HqError),
}

impl From<HqError> for Rejection {
    fn from(error: HqError) -> Self {
        Self::Failed(error)
    }
}
