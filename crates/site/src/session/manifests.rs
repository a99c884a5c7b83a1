//! When a site states how much it captured.

use tokio::time::Instant;

use super::Session;

use crate::error::SiteError;

impl Session<'_> {
    pub(super) fn is_manifest_due(&self) -> bool {
        let is_due = |every| self.manifest_stated.is_none_or(|stated| stated.elapsed() >= every);
        self.behaviour.manifest_every().is_some_and(is_due)
    }

    /// States a manifest when it is time, and at once when other tables or columns are captured, or
    /// there to be captured: HQ counts on the newest one for what this site sends and does not.
    pub(super) async fn state_manifest(&mut self) -> Result<(), SiteError> {
        let Some(every) = self.behaviour.manifest_every() else { return Ok(()) };
        // A program of the store's may make tables and drop them all the time.
        if self.manifest_stated.is_some_and(|stated| stated.elapsed() < every / 10) {
            return Ok(());
        }
        let (is_due, of_last) = (self.is_manifest_due(), self.manifest_of.clone());
        let stated = self.feed.call(move |source| {
            let captured = source.registration();
            let now = captured.map(|captured| Ok((captured, source.uncaptured_tables()?))).transpose()?;
            if !is_due && (now.is_none() || now == of_last) {
                return Ok(None);
            }
            source.state_manifest()?;
            Ok(Some(now))
        });
        if let Some(now) = stated.await? {
            (self.manifest_stated, self.manifest_of) = (Some(Instant::now()), now);
        }
        Ok(())
    }
}
