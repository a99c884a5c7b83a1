//! How a node runs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rollcall_lake::{CompactionLimits, LakeOptions};
use rollcall_pg::PG_PORT;
use rollcall_query::EngineLimits;

/// Default port of console and API.
pub const HTTP_PORT: u16 = 7480;

/// How many bytes the process asked its allocator for and holds, if that one can tell.
pub type Allocator = fn() -> Option<u64>;

/// How a node runs.
#[derive(Debug, Clone)]
pub struct HqConfig {
    /// The lake's directory; with `store`, what this node needs to itself: its key, the operator's
    /// token.
    pub data: PathBuf,
    /// The object store that holds the lake, such as `s3://bucket/prefix`, in the place of `data`.
    /// Several nodes may use it.
    pub store: Option<String>,
    /// Where sites reach this node (`host:port`), if that is not where it listens.
    pub advertise: Option<String>,
    /// Where sites connect.
    pub listen_sites: SocketAddr,
    /// Where clients of PostgreSQL ask.
    pub listen_pg: SocketAddr,
    /// Where people and programs ask.
    pub listen_http: SocketAddr,
    /// What people call this HQ, such as the company's name: it is in every message.
    pub name: Option<String>,
    /// Where people reach it (`https://…`), for links in messages.
    pub public_url: Option<String>,
    /// How often sites say where they stand.
    pub beacon_interval: Duration,
    /// Nothing heard for this long, in the site's business time, is silence.
    pub silent_after: Duration,
    /// Nines of surprise at which a silence is an incident, and at which people are called, as
    /// `rollcall replay --tune` proposes them from a history. None: set anew each week by the alarm
    /// budget, from the defaults on.
    pub red_and_page: Option<(f64, f64)>,
    /// Life of sites' certificates; they renew them at two thirds.
    pub certificate_life: Duration,
    /// Addresses sites should know besides the one they have.
    pub announce: Vec<String>,
    /// When small files are merged.
    pub compaction: CompactionLimits,
    /// Whether a data file is compared with its digest before this process's first question takes
    /// rows of it. None: where the lake is a directory; object stores check what they keep by
    /// themselves.
    pub check_files: Option<bool>,
    /// How the lake is opened.
    pub lake: LakeOptions,
    /// Says how much memory is allocated, for metrics.
    pub allocator: Option<Allocator>,
}

impl HqConfig {
    /// Where sites reach this node; empty if that cannot be told.
    pub(crate) fn advertised(&self) -> String {
        match &self.advertise {
            Some(address) => address.clone(),
            None if self.listen_sites.ip().is_unspecified() => String::new(),
            None => self.listen_sites.to_string(),
        }
    }

    /// The same for people, with `HOST` for a name that only they know.
    pub(crate) fn address_for_sites(&self) -> String {
        match self.advertised() {
            known if known.is_empty() => format!("HOST:{}", self.listen_sites.port()),
            known => known,
        }
    }

    /// Bounds on questions, over a lake that several nodes share or not.
    pub(crate) fn engine_limits(&self, is_shared: bool) -> EngineLimits {
        EngineLimits { checks_files: self.check_files.unwrap_or(!is_shared), ..EngineLimits::default() }
    }

    /// The defaults, on this directory: loopback only, beacons every 30 s, silence after 10
    /// business minutes.
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            store: None,
            advertise: None,
            listen_sites: SocketAddr::from(([127, 0, 0, 1], rollcall_wire::SITES_PORT)),
            listen_http: SocketAddr::from(([127, 0, 0, 1], HTTP_PORT)),
            listen_pg: SocketAddr::from(([127, 0, 0, 1], PG_PORT)),
            name: None,
            public_url: None,
            beacon_interval: Duration::from_secs(30),
            silent_after: Duration::from_secs(600),
            red_and_page: None,
            certificate_life: Duration::from_secs(30 * 86_400),
            announce: Vec::new(),
            compaction: CompactionLimits::default(),
            check_files: None,
            lake: LakeOptions::default(),
            allocator: None,
        }
    }

    /// How often a site counts what it captured: every 10 minutes with beacons every 30 s.
    pub(crate) fn manifest_interval(&self) -> Duration {
        self.beacon_interval * 20
    }
}
