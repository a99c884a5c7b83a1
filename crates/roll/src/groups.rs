//! What is quiet now, and the questions that this opened: from these, groups are found
//! ([`crate::grouping`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cohorts::FamilyNumber,
    sites::SiteNumber,
    stream::{CohortId, StreamId},
};

/// See above.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Sites that are quiet by themselves, not with all the others: what have they in common?
    suspects: BTreeSet<SiteNumber>,
    suspects_changed: bool,
    /// Streams that are suspect or louder.
    quiet: BTreeSet<(SiteNumber, StreamId)>,
    /// Open questions about whole cohorts, by family: one, in however many zones the day comes.
    pub(crate) questions: BTreeMap<FamilyNumber, Question>,
}

/// An open question about a family: is this a closing day?
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) incident: u64,
    /// Its cohorts that are quiet.
    pub(crate) cohorts: BTreeSet<CohortId>,
    /// Since when none is.
    pub(crate) answered_since: Option<i64>,
}

impl Groups {
    /// A stream is suspect or louder.
    pub(crate) fn note_quiet(&mut self, number: SiteNumber, stream: StreamId) {
        self.quiet.insert((number, stream));
    }

    /// A stream is not quiet any more.
    pub(crate) fn note_heard(&mut self, number: SiteNumber, stream: StreamId) {
        if self.quiet.remove(&(number, stream)) && !self.is_quiet(number) {
            self.acquit(number);
        }
    }

    /// Whether a stream of the site is suspect or louder.
    pub(crate) fn is_quiet(&self, number: SiteNumber) -> bool {
        self.quiet.range((number, StreamId(0))..=(number, StreamId(u32::MAX))).next().is_some()
    }

    /// Streams that are suspect or louder, by site.
    pub(crate) fn quiet(&self) -> impl Iterator<Item = (SiteNumber, StreamId)> {
        self.quiet.iter().copied()
    }

    /// A site counts when it is asked what silent ones have in common.
    pub(crate) fn suspect(&mut self, number: SiteNumber) {
        self.suspects_changed |= self.suspects.insert(number);
    }

    /// It counts no more.
    pub(crate) fn acquit(&mut self, number: SiteNumber) {
        self.suspects_changed |= self.suspects.remove(&number);
    }

    pub(crate) fn suspects(&self) -> impl Iterator<Item = SiteNumber> {
        self.suspects.iter().copied()
    }

    /// Groups are to be looked for anew.
    pub(crate) fn look_again(&mut self) {
        self.suspects_changed = true;
    }

    /// Whether groups are to be looked for anew; asked once.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.suspects_changed)
    }
}
