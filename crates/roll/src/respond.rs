//! What the watch does about silence: opens, joins, groups, holds, ends incidents, and has people
//! told.

use std::collections::{BTreeMap, BTreeSet};

use rollcall_types::{Cause, SiteId, Timestamp};

use crate::{
    incident::{Condition, Incident, Kind, Member, deafness_text},
    site::Decision,
    sites::SiteNumber,
    stream::{Change, Loudness, StreamId, Transition},
    watch::{Watch, instant, seconds},
};

/// Business minutes of a day, where no site says it.
const DAY_MINUTES: f64 = 720.0;
/// Business minutes of contact before a site that came back is well.
const WELL_AFTER_MINUTES: f64 = 15.0;

impl Watch {
    /// A stream became louder, or its volume dropped or returned.
    pub(crate) fn take(&mut self, transition: Transition) {
        let (number, at) = (self.streams.site(transition.stream), transition.at);
        if self.sites[number].retired {
            return;
        }
        match transition.what {
            Change::Louder(Loudness::Normal) => {}
            Change::Louder(loudness) => {
                // A timer that comes up late may jump over levels.
                self.groups.note_quiet(number, transition.stream);
                // Sites that are quiet with their whole cohort have no cause of their own to look
                // for. Nor have, as long as nobody knows their hours, those that only open a little
                // later than others.
                let is_suspect = self.clock.is_alone(transition.stream)
                    && (loudness >= Loudness::Red || !self.clock.is_assumed(transition.stream));
                if is_suspect {
                    self.groups.suspect(number);
                }
                if loudness >= Loudness::Red {
                    self.silent(number, transition.stream, loudness, at);
                }
            }
            Change::Dropped => self.dropped(number, transition.stream, at),
            Change::Restored => {
                if let Some(id) = self.sites[number].trouble().incident
                    && self.incidents[&id].kind == Kind::Drop
                {
                    self.sites[number].take_incident();
                    self.incidents.close(id, "the volume is back", instant(at));
                }
            }
        }
    }

    /// Declared closures that have begun explain the silence of their sites, whether they were
    /// declared before or after it.
    fn begin_closures(&mut self, now: Timestamp) {
        let quiet = self.groups.quiet().map(|(number, _)| number);
        let open = self.incidents.open().filter(|incident| incident.kind.is_absence());
        let absent = open.flat_map(Incident::absent).filter_map(|(site, _)| self.number(site));
        let numbers: BTreeSet<SiteNumber> = quiet.chain(absent).collect();
        for number in numbers {
            let calendar = self.clock.calendar(self.sites[number].calendar);
            if let Some(until) = calendar.closed_until(seconds(now)) {
                self.declared_closed(number, until);
            }
        }
    }

    /// A person declared the site closed: that explains its silence, until then.
    fn declared_closed(&mut self, number: SiteNumber, until: i64) {
        for stream in self.sites[number].streams.clone() {
            self.groups.note_heard(number, stream);
            self.clock.excuse(stream, until);
        }
        let now = instant(self.now);
        self.sites.recovering.remove(&number);
        if self.sites[number].streams.is_empty() {
            self.sites.awaits(number, until);
        }
        let site = &mut self.sites[number];
        site.take_back_since();
        if let Some(id) = site.take_incident() {
            self.incidents.close(id, &format!("declared closed until {}", instant(until).for_people()), now);
        }
        self.leave_groups(number, now);
    }

    /// The first thing ever heard of a site.
    pub(crate) fn first_heard(&mut self, number: SiteNumber, at: Timestamp) {
        if let Some(id) = self.sites[number].take_incident() {
            self.incidents.close(id, "the site was heard for the first time", at);
        }
    }

    /// Whether a site's incident is about the silence of this stream; after a restart of HQ its
    /// clock has yet to say so again.
    pub(crate) fn is_about(&self, number: SiteNumber, stream: StreamId) -> bool {
        let incident = self.incident_of(number);
        incident.is_some_and(|incident| {
            incident.kind == Kind::Silence && incident.stream.as_deref() == Some(self.streams.name(stream))
        })
    }

    /// The incident of a site's own silence.
    pub(crate) fn incident_of(&self, number: SiteNumber) -> Option<&Incident> {
        self.incidents.get(&self.sites[number].trouble().incident?)
    }

    /// Whether a site that was silent is heard again, and recovers.
    fn is_back(&self, number: SiteNumber) -> bool {
        self.sites[number].trouble().back_since.is_some()
    }

    /// A silent site is heard again: it is well once that lasts.
    pub(crate) fn came_back(&mut self, number: SiteNumber, stream: StreamId, at: i64) {
        let site = &mut self.sites[number];
        if site.trouble().back_since.is_none() {
            site.trouble_mut().back_since = Some(at);
            let text = format!("{} is heard again ({})", site.id, self.streams.name(stream));
            if let Some(incident) = site.trouble().incident.and_then(|id| self.incidents.change(id)) {
                incident.tell(instant(at), text);
            }
            self.sites.recovering.insert(number);
        }
    }

    /// What is due besides timers of streams: sites never heard, and sites on their way back.
    pub(crate) fn look_after(&mut self, now: Timestamp) {
        let now_s = seconds(now);
        while let Some(number) = self.sites.take_due(now_s) {
            self.never_heard(number, now);
        }
        let recovering: Vec<SiteNumber> = self.sites.recovering.iter().copied().collect();
        for number in recovering {
            let site = &self.sites[number];
            let Some(since) = site.trouble().back_since else { continue };
            let elapsed = match self.contact(number) {
                // Where silence shows within seconds, business time is too coarse.
                Some(contact) if self.config.contact_unit >= 60 => self.clock.business_minutes(contact, since, now_s),
                _ => (now_s - since) as f64 / 60.0,
            };
            let is_steady = elapsed >= WELL_AFTER_MINUTES * self.config.contact_unit as f64 / 60.0;
            // A site that states manifests is well when one made since was found to agree.
            let is_counted = site.reconciled_at.is_none_or(|counted| counted >= since)
                && !site.trouble().conditions.contains_key(&Condition::Manifest);
            if is_steady && is_counted && !site.has_backlog && !self.groups.is_quiet(number) {
                self.is_well(number, now);
            }
        }
    }

    fn is_well(&mut self, number: SiteNumber, now: Timestamp) {
        self.sites.recovering.remove(&number);
        let site = &mut self.sites[number];
        site.take_back_since();
        let (incident, id) = (site.take_incident(), site.id.clone());
        self.leave_groups(number, now);
        if let Some(incident) = incident {
            self.count_silence(number, incident, seconds(now));
            if let Some(known) = self.incidents.get_mut(&incident)
                && let Some(member) = known.members.get_mut(&id)
            {
                member.until = Some(now);
            }
            self.incidents.close(incident, "the site is back, and its backlog is here", now);
        }
    }

    fn never_heard(&mut self, number: SiteNumber, now: Timestamp) {
        let site = &self.sites[number];
        if site.retired || !site.streams.is_empty() || site.trouble().incident.is_some() {
            return;
        }
        if let Some(until) = self.clock.calendar(site.calendar).closed_until(seconds(now)) {
            self.sites.awaits(number, until);
            return;
        }
        let (id, since, enrolled) = (site.id.clone(), instant(site.expected_from), site.enrolled);
        let incident = self.incidents.add(Kind::NeverHeard, since, now);
        self.sites[number].trouble_mut().incident = Some(incident);
        if let Some(incident) = self.incidents.get_mut(&incident) {
            incident.cause = Some(if enrolled { Cause::PowerOrLink } else { Cause::NeverEnrolled });
            incident.evidence = format!("{id} is on the roster since {} and was never heard", since.for_people());
            incident.members.insert(id, Member { since, until: None });
            incident.calls = true;
        }
    }

    /// Opens or ends what is wrong with a site that is heard. `detail` none means that it is well
    /// again.
    pub fn set_condition(&mut self, id: &SiteId, condition: Condition, detail: Option<&str>, now: Timestamp) {
        self.set_condition_until(id, condition, detail, "it is well again", now);
    }

    /// [`Self::set_condition`], and why the incident is over if it is.
    pub fn set_condition_until(
        &mut self,
        id: &SiteId,
        condition: Condition,
        detail: Option<&str>,
        mended: &str,
        now: Timestamp,
    ) {
        let Some(number) = self.number(id) else { return };
        let known = self.sites[number].trouble().conditions.get(&condition).copied();
        match (known, detail) {
            (None, Some(detail)) if !self.sites[number].retired => {
                let incident = self.incidents.add(Kind::Condition(condition), now, now);
                self.sites[number].trouble_mut().conditions.insert(condition, incident);
                if let Some(incident) = self.incidents.get_mut(&incident) {
                    incident.cause = Some(condition.cause());
                    incident.evidence = detail.to_owned();
                    incident.members.insert(id.clone(), Member { since: now, until: None });
                    incident.calls = true;
                    incident.tell(now, detail);
                }
                self.hold_consequences(number, condition, now);
            }
            (Some(incident), Some(detail)) => {
                if self.incidents[&incident].evidence != detail
                    && let Some(incident) = self.incidents.change(incident)
                {
                    incident.evidence = detail.to_owned();
                }
            }
            (Some(incident), None) => {
                self.sites[number].trouble_mut().conditions.remove(&condition);
                self.release_consequences(incident, condition);
                self.incidents.close(incident, mended, now);
            }
            (None, _) => {}
        }
    }

    /// Opens or ends the incident of a way to tell people that does not work.
    pub fn set_channel(&mut self, channel: &str, problem: Option<&str>, now: Timestamp) {
        let problem = problem.map(|problem| format!("people cannot be told by {channel}: {problem}"));
        self.set_own(Kind::Channel, channel, problem.as_deref(), "it works again", now);
    }

    /// Opens, changes or ends the incident of something that HQ itself must do and cannot.
    pub fn set_hq(&mut self, work: &str, problem: Option<&str>, now: Timestamp) {
        self.set_own(Kind::Hq, work, problem, "HQ can do it again", now);
    }

    /// What HQ itself cannot do, of which an incident is open.
    pub fn open_of_hq(&self) -> Vec<String> {
        let open = self.incidents.open().filter(|incident| incident.kind == Kind::Hq);
        open.filter_map(|incident| incident.stream.clone()).collect()
    }

    /// The open incident of this kind about a channel, a table or a work of HQ.
    fn open_about(&self, kind: Kind, stream: &str) -> Option<u64> {
        let is_it = |incident: &&Incident| incident.kind == kind && incident.stream.as_deref() == Some(stream);
        self.incidents.open().find(is_it).map(|incident| incident.id)
    }

    fn set_own(&mut self, kind: Kind, stream: &str, problem: Option<&str>, mended: &str, now: Timestamp) {
        let open = self.open_about(kind, stream);
        let Some(problem) = problem else {
            if let Some(id) = open {
                self.incidents.close(id, mended, now);
            }
            return;
        };
        let id = open.unwrap_or_else(|| self.incidents.add(kind, now, now));
        let Some(incident) = self.incidents.get_mut(&id).filter(|incident| incident.evidence != problem) else {
            return;
        };
        incident.stream = Some(stream.to_owned());
        problem.clone_into(&mut incident.evidence);
        incident.calls = true;
        self.incidents.note(id);
    }

    /// Opens, changes or ends the incident of a table that HQ publishes: the sites that should have
    /// it, are heard, and have not, each with the time since when. `detail` says the same in a
    /// sentence.
    pub fn set_publication(&mut self, table: &str, late: &BTreeMap<SiteId, Timestamp>, detail: &str, now: Timestamp) {
        let open = self.open_about(Kind::Publication, table);
        let Some(first) = late.values().min().copied() else {
            if let Some(id) = open {
                self.incidents.close(id, "every site that is heard has it", now);
            }
            return;
        };
        let id = open.unwrap_or_else(|| self.incidents.add(Kind::Publication, first, now));
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        let mut members: BTreeMap<SiteId, Member> =
            late.iter().map(|(site, since)| (site.clone(), Member { since: *since, until: None })).collect();
        for (site, member) in &incident.members {
            // Who has it now stays named as one that had not.
            let known = members.entry(site.clone()).or_insert(Member { until: Some(now), ..*member });
            known.until = known.until.and(member.until.or(Some(now)));
        }
        if incident.members == members && incident.evidence == detail {
            return;
        }
        incident.stream = Some(table.to_owned());
        incident.cause = Some(Cause::NotUpdated);
        incident.members = members;
        detail.clone_into(&mut incident.evidence);
        incident.calls = true;
        self.incidents.note(id);
    }

    pub(crate) fn tell_of_deafness(&mut self, was_deaf: bool, now: Timestamp) {
        let open = self.incidents.open_of(Kind::HqBlind);
        match (self.guard.deaf(), open) {
            (Some((since, why)), None) => {
                let id = self.incidents.add(Kind::HqBlind, instant(since), now);
                if let Some(incident) = self.incidents.get_mut(&id) {
                    incident.evidence = format!("since {}: {}", instant(since).for_people(), deafness_text(why));
                    incident.calls = true;
                }
            }
            (None, Some(id)) if was_deaf => self.incidents.close(id, "HQ hears again", now),
            _ => {}
        }
    }

    /// Lets open incidents get louder.
    pub(crate) fn review(&mut self, now: Timestamp) {
        self.close_questions(now);
        self.begin_closures(now);
        let ladder = self.config.ladder;
        let deaf = self.guard.deaf().is_some();
        for id in self.incidents.open_ids() {
            let Some(incident) = self.incidents.get(&id) else { continue };
            // While HQ cannot hear, only that itself is told.
            if deaf && !matches!(incident.kind, Kind::HqBlind | Kind::Channel | Kind::Hq) {
                continue;
            }
            let (missed, day) = self.missed(incident, now);
            // Who is heard again is not told of as if he were not; what is wrong with him otherwise
            // has an incident of its own.
            let back = |id: &SiteId| self.number(id).is_some_and(|number| self.is_back(number));
            let is_back = incident.absent().next().is_some() && incident.absent().all(|(id, _)| back(id));
            let Some(incident) = self.incidents.get_mut(&id) else { continue };
            incident.missed_minutes += missed;
            incident.counted_to = now;
            if is_back {
                continue;
            }
            let level_before = incident.level;
            if let Some(notice) = incident.review(&ladder, day, now) {
                let decision = Decision { at: now, incident: id, notice, level: incident.level };
                self.incidents.decide(decision);
            } else if incident.level != level_before {
                self.incidents.note(id);
            }
        }
        self.incidents.forget_old(now);
    }

    /// Business minutes that an incident's longest absent site missed since they were counted last,
    /// and those of its day.
    fn missed(&self, incident: &Incident, now: Timestamp) -> (f64, f64) {
        let (from, to) = (seconds(incident.counted_to), seconds(now));
        let plain = ((to - from) as f64 / 60.0, DAY_MINUTES);
        if incident.members.is_empty() {
            return plain;
        }
        let Some(number) = self.longest_absent(incident) else { return (0.0, DAY_MINUTES) };
        let Some(stream) = self.counted_by(number) else { return plain };
        let day = self.clock.business_day(stream);
        if self.clock.is_assumed(stream) && self.clock.is_in_quiet_cohort(stream) {
            return (0.0, day);
        }
        (self.clock.business_minutes(stream, from, to), day)
    }

    /// Whose missed time makes an incident louder: the site that is away for the longest. While a
    /// site recovers, nothing more is missed.
    fn longest_absent(&self, incident: &Incident) -> Option<SiteNumber> {
        let absent = incident.absent().filter_map(|(id, member)| Some((self.number(id)?, member.since)));
        let gone = absent.filter(|(number, _)| !self.is_back(*number));
        gone.min_by_key(|(_, since)| *since).map(|(number, _)| number)
    }

    /// The stream by which a site's missed time is counted: contact if there is any, else the first
    /// table.
    fn counted_by(&self, number: SiteNumber) -> Option<StreamId> {
        self.sites[number].streams.first().copied()
    }

    /// The next level of an open incident, and when it comes if nothing changes until then; none at
    /// the top.
    pub fn next_level(&self, id: u64) -> Option<(u8, Timestamp)> {
        let incident = self.incidents.get(&id).filter(|incident| incident.is_open())?;
        let counted = seconds(incident.counted_to);
        let stream = self.longest_absent(incident).and_then(|number| self.counted_by(number));
        let day = stream.map_or(DAY_MINUTES, |stream| self.clock.business_day(stream));
        let (level, minutes) = self.config.ladder.next(incident.level, day)?;
        let left = (minutes - incident.missed_minutes).max(0.0);
        let at = match stream {
            Some(stream) => self.clock.after_business_minutes(stream, counted, left),
            None => counted + (left * 60.0) as i64,
        };
        Some((level, instant(at)))
    }

    /// A person takes an incident. Returns until when; see [`Incident::acknowledge`].
    pub fn acknowledge(
        &mut self,
        id: u64,
        by: &str,
        reason: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.incidents.get(&id).filter(|incident| incident.is_open())?;
        let incident = self.incidents.change(id)?;
        Some(incident.acknowledge(by, reason, until, now))
    }

    /// A person says that a site's last silence was normal (learn it) or an outage (do not).
    pub fn explain(&mut self, id: u64, was_normal: bool, by: &str, now: Timestamp) -> bool {
        let Some(incident) = self.incidents.get(&id) else { return false };
        let (since, until) = (seconds(incident.since), seconds(incident.closed_at.unwrap_or(now)));
        let members: Vec<SiteId> = incident.members.keys().cloned().collect();
        for site in members {
            let Some(number) = self.number(&site) else { continue };
            let calendar = self.clock.calendar(self.sites[number].calendar).clone();
            for stream in self.sites[number].streams.clone() {
                let expected = self.clock.expected_between(stream, since, until);
                if let Some(past) = self.streams.past_mut(stream) {
                    if was_normal {
                        past.was_normal(&calendar, since, until, expected);
                    } else {
                        past.was_outage(since, until);
                    }
                }
            }
        }
        let explained = self.incidents.get_mut(&id).filter(|_| !was_normal).and_then(|incident| {
            incident.was_outage = true;
            incident.peak_nines.take()
        });
        self.forget_peak(explained);
        let Some(incident) = self.incidents.get_mut(&id) else { return false };
        let what = match (incident.kind, was_normal) {
            (Kind::HqBlind, true) => "normal: the sites that are missing are judged again",
            (_, true) => "normal: it is learned from",
            (_, false) => "an outage: it is not learned from",
        };
        incident.tell(now, format!("{by} says that this was {what}"));
        let (kind, is_open) = (incident.kind, incident.is_open());
        let site = incident.members.keys().next().cloned();
        self.incidents.note(id);
        if kind == Kind::HqBlind && was_normal && is_open {
            let was_deaf = self.guard.believe_missing(self.now);
            self.tell_of_deafness(was_deaf, now);
        }
        // Nothing brings back what is lost, a count that nobody can make agree stays, and a table
        // that was dropped while it was stated again is never complete: once a person accounts for
        // it, it is over.
        if let Kind::Condition(condition @ (Condition::Loss | Condition::Manifest | Condition::Restated)) = kind {
            if let Some(number) = site.and_then(|site| self.number(&site)) {
                self.sites[number].trouble_mut().conditions.remove(&condition);
            }
            self.incidents.close(id, &format!("{by} accounted for it"), now);
        }
        if kind == Kind::Hq {
            // What HQ need not do any more never succeeds. What it still must comes back when it
            // fails again.
            self.incidents.close(id, &format!("{by} accounted for it"), now);
        }
        true
    }

    /// What was learned afterwards corrects the cause of a site's newest silence and adds to its
    /// story.
    pub fn correct_cause(&mut self, site: &SiteId, cause: Option<Cause>, text: &str, now: Timestamp) {
        let of_site = self.incidents.values().rev().find(|incident| {
            matches!(incident.kind, Kind::Silence | Kind::Group) && incident.members.contains_key(site)
        });
        let of_site = of_site.map(|incident| incident.id);
        if let Some(incident) = of_site.and_then(|id| self.incidents.change(id)) {
            incident.cause = cause.or(incident.cause);
            incident.tell(now, text);
        }
    }
}
