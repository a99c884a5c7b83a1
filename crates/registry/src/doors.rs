//! Places of callers by address, and callers turned away for want of one: people hear of it while
//! it lasts.

use rollcall_runtime::Instant;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::health::Health;

/// It is over after so long without anybody turned away.
const OVER_AFTER: Duration = Duration::from_secs(120);

/// Whoever has one address of IPv6 has all that share its first half.
pub fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

/// Places of callers by address, for as long as there are such callers.
pub struct Places {
    of_one: usize,
    all: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

impl Places {
    /// So many for each address.
    pub fn new(of_one: usize) -> Self {
        Self { of_one, all: Mutex::default() }
    }

    /// Those of callers from this address.
    pub fn of(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let address = block(address);
        if let Some(places) = all.get(&address).and_then(Weak::upgrade) {
            return places;
        }
        // Now and then, so that a crowd of addresses is not looked through for each of them.
        if all.len().is_power_of_two() {
            all.retain(|_, places| places.strong_count() > 0);
        }
        let places = Arc::new(Semaphore::new(self.of_one));
        all.insert(address, Arc::downgrade(&places));
        places
    }
}

#[derive(Debug)]
struct Turned {
    last: Instant,
    count: u64,
    from: IpAddr,
}

/// By port, who was turned away lately.
#[derive(Debug, Default)]
pub struct Doors(Mutex<BTreeMap<&'static str, Turned>>);

impl Doors {
    /// Somebody was turned away at a port.
    pub fn turned_away(&self, port: &'static str, address: IpAddr) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turned = doors.entry(port).or_insert(Turned { last: Instant::now(), count: 0, from: block(address) });
        turned.last = Instant::now();
        turned.count += 1;
        turned.from = block(address);
    }

    /// Tells of it, or that it is over.
    pub fn tell(&self, health: &Health) {
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
