//! Callers turned away at the ports for want of a place: people hear of it while it lasts.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{health::Health, sites_port::block};

/// It is over after so long without anybody turned away.
const OVER_AFTER: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Turned {
    last: Instant,
    count: u64,
    from: IpAddr,
}

/// By port, who was turned away lately.
#[derive(Debug, Default)]
pub(crate) struct Doors(Mutex<BTreeMap<&'static str, Turned>>);

impl Doors {
    /// Somebody was turned away at a port.
    pub(crate) fn turned_away(&self, port: &'static str, address: IpAddr) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turned = doors.entry(port).or_insert(Turned { last: Instant::now(), count: 0, from: block(address) });
        turned.last = Instant::now();
        turned.count += 1;
        turned.from = block(address);
    }

    /// Tells of it, or that it is over.
    pub(crate) fn tell(&self, health: &Health) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.retain(|port, turned| {
            let work = format!("let in all who call {port}");
            let lasts = turned.last.elapsed() < OVER_AFTER;
            match lasts {
                true => {
                    let text = format!("callers are turned away for want of places, the last from {}", turned.from);
                    health.broken(work, &text);
                }
                false => health.done(work),
            }
            lasts
        });
    }
}
