//! Connections of each site: one that opens ever more loses its oldest.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use rollcall_types::SiteId;
use tokio::sync::Notify;

/// Connections that a site may have at a time: its session, one that it does not know to be dead,
/// and a person's look.
const OF_SITE_MAX: usize = 4;

/// The connections of all sites.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<HashMap<SiteId, VecDeque<Arc<Notify>>>>);

/// One connection, as long as it lasts.
#[derive(Debug)]
pub(crate) struct Line {
    all: Arc<Lines>,
    site: SiteId,
    over: Arc<Notify>,
}

impl Lines {
    /// Notes a new connection of a site.
    pub(crate) fn open(self: &Arc<Self>, site: SiteId) -> Line {
        let over = Arc::new(Notify::new());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_site = all.entry(site.clone()).or_default();
        of_site.push_back(over.clone());
        if of_site.len() > OF_SITE_MAX
            && let Some(oldest) = of_site.pop_front()
        {
            oldest.notify_one();
        }
        drop(all);
        Line { all: self.clone(), site, over }
    }
}

impl Line {
    /// Ends once newer connections have taken its place.
    pub(crate) async fn over(&self) {
        self.over.notified().await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of_site) = all.get_mut(&self.site) else { return };
        of_site.retain(|line| !Arc::ptr_eq(line, &self.over));
        if of_site.is_empty() {
            all.remove(&self.site);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_and_other_sites_stay() {
        let lines = Arc::new(Lines::default());
        let site = |name: &str| SiteId::new(name).expect("a site");
        let other = lines.open(site("other"));
        let mut of_one: VecDeque<Line> = (0..OF_SITE_MAX).map(|_| lines.open(site("one"))).collect();
        for _ in 0..100 {
            of_one.push_back(lines.open(site("one")));
            let oldest = of_one.pop_front().expect("one");
            oldest.over().await;
        }
        let is_over = |line: &Line| futures::FutureExt::now_or_never(line.over()).is_some();
        assert!(!of_one.iter().any(is_over) && !is_over(&other));
        drop((of_one, other));
        assert!(lines.0.lock().expect("no panic").is_empty(), "nothing is kept of what is over");
    }
}
