//! What silences have in common: groups that share an attribute, and cohorts that are quiet as a
//! whole.

use std::collections::BTreeSet;

use rollcall_types::{Cause, Timestamp};

use crate::{
    cohorts::FamilyNumber,
    group::{self, Group, Trait},
    groups::Question,
    incident::{Attribute, GRACE_MINUTES, Incident, Kind, Member},
    sites::SiteNumber,
    stream::StreamId,
    watch::{Watch, instant},
};

impl Watch {
    /// Not one site's silence but its whole cohort's: one question speaks for all of them.
    pub(crate) fn quiet_with_cohort(&mut self, own: u64, number: SiteNumber, stream: StreamId, now: Timestamp) {
        let family = self.family_of(stream);
        let question = match self.groups.questions.get(&family) {
            Some(question) => question.incident,
            None => self.ask(family, stream, now),
        };
        let cohort = self.clock.cohort_of(stream);
        if let Some(question) = self.groups.questions.get_mut(&family) {
            question.cohorts.insert(cohort);
            question.answered_since = None;
        }
        let site = self.sites[number].id.clone();
        let (since, calls) = self.incidents.get(&own).map_or((now, false), |own| (own.since, own.calls));
        if let Some(incident) = self.incidents.get_mut(&question) {
            incident.members.insert(site, Member { since, until: None });
            incident.calls |= calls;
            incident.since = incident.since.min(since);
        }
        if let Some(own) = self.incidents.get_mut(&own) {
            (own.held_by, own.was_held) = (Some(question), true);
        }
        self.incidents.note(question);
    }

    /// Asks whether a family's quiet is a closing day; a question of the last day is asked again.
    fn ask(&mut self, family: FamilyNumber, stream: StreamId, now: Timestamp) -> u64 {
        let kind = self.cohorts.name(family);
        let evidence = format!("most sites like {kind} are quiet where they should be open: a closing day?");
        let recent = self
            .incidents
            .values()
            .rev()
            .find(|known| known.kind == Kind::CohortQuiet && known.evidence == evidence && known.is_recent(now));
        let id = match recent.map(|known| known.id) {
            Some(id) => id,
            None => self.incidents.add(Kind::CohortQuiet, now, now),
        };
        let name = self.streams.name(stream).to_owned();
        let is_asked_again = !self.incidents[&id].is_open();
        if is_asked_again {
            self.incidents.reopen(id, now, "they are quiet together");
        }
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.calls &= !is_asked_again;
            incident.stream = Some(name);
            incident.evidence = evidence;
        }
        let question = Question { incident: id, cohorts: BTreeSet::new(), answered_since: None };
        self.groups.questions.insert(family, question);
        id
    }

    /// Ends questions about cohorts that speak again for some time; who is silent still, speaks for
    /// itself.
    pub(crate) fn close_questions(&mut self, now: Timestamp) {
        const SPEAKS_FOR: i64 = 900;
        let mut over = Vec::new();
        for (family, question) in &mut self.groups.questions {
            // Each zone answers in its own daytime.
            question.cohorts.retain(|cohort| !self.clock.is_cohort_speaking(*cohort));
            let is_answered = question.cohorts.is_empty();
            question.answered_since = if is_answered { question.answered_since.or(Some(self.now)) } else { None };
            if question.answered_since.is_some_and(|since| self.now - since >= SPEAKS_FOR) {
                over.push(*family);
            }
        }
        for family in over {
            let Some(Question { incident: id, .. }) = self.groups.questions.remove(&family) else { continue };
            if let Some(incident) = self.incidents.get_mut(&id) {
                incident.members.values_mut().for_each(|member| member.until = member.until.or(Some(now)));
            }
            self.release(id);
            self.incidents.close(id, "most of these sites are heard again", now);
        }
    }

    /// Whom an incident held, speaks for itself again.
    pub(crate) fn release(&mut self, id: u64) {
        for held in self.incidents.open_ids() {
            if let Some(incident) = self.incidents.get_mut(&held)
                && incident.held_by == Some(id)
            {
                incident.held_by = None;
                incident.quiet_until = Some(instant(self.now).plus_micros(GRACE_MINUTES * 60_000_000));
                self.incidents.note(held);
            }
        }
    }

    /// Looks for what silent sites have in common.
    pub(crate) fn regroup(&mut self, now: Timestamp) {
        self.close_groups(now);
        let open = self.open_groups();
        for (id, shared) in &open {
            self.join_group(*id, *shared, now);
        }
        // Sites already explained take no part in looking for another explanation.
        let explained = |number: &SiteNumber| {
            let site = &self.sites[*number].id;
            open.iter().any(|(id, _)| self.incidents[id].members.contains_key(site))
        };
        let left: Vec<SiteNumber> = self.groups.suspects().filter(|number| !explained(number)).collect();
        if left.len() < 3 {
            return;
        }
        let named: Vec<Vec<Trait>> = left
            .iter()
            .map(|number| {
                let traits = self.sites[*number].shares().iter().copied();
                traits.filter(|shared| !self.sites.traits.get(*shared).0.is_empty()).collect()
            })
            .collect();
        let silent: Vec<&[Trait]> = named.iter().map(Vec::as_slice).collect();
        let measurable = self.sites.watched().count();
        let found = group::groups(measurable, &|shared| self.sites.traits.sites(shared), &silent);
        let mut left = left;
        for found in found {
            let (members, rest) = left.into_iter().partition(|number| self.is_of(*number, Some(found.shared)));
            left = rest;
            self.open_group(&self.described(&found), members, now);
        }
        left.retain(|number| self.is_of(*number, None));
        if group::is_everybody(left.len(), measurable) {
            let text = format!(
                "HQ does not hear {} of {measurable} sites, which have nothing in common that others have not: that is more likely \
                 HQ's own line, name or certificate than theirs",
                left.len()
            );
            self.open_group(&(None, text), left, now);
        }
    }

    /// Whether a quiet site is of a group: it shares what that is about. Of everybody only those
    /// are that have an incident of their own: at opening time many are late.
    fn is_of(&self, number: SiteNumber, shared: Option<Trait>) -> bool {
        match shared {
            Some(shared) => self.sites[number].shares().contains(&shared),
            None => self.incident_of(number).is_some_and(|incident| incident.kind == Kind::Silence),
        }
    }

    /// Whether a group with an attribute speaks for a site already; everybody's does not take it
    /// from there.
    fn is_another_groups(&self, number: SiteNumber, shared: Option<Trait>) -> bool {
        shared.is_none() && self.incident_of(number).is_some_and(|own| own.held_by.is_some())
    }

    /// What a group shares, and in a sentence why it is one.
    fn described(&self, found: &Group) -> (Option<Attribute>, String) {
        let (name, value) = self.sites.traits.get(found.shared).clone();
        let text = format!(
            "{} of {} silent sites share {name} = {value}; {} of {} others are silent",
            found.silent,
            found.silent + found.silent_elsewhere,
            found.silent_elsewhere,
            found.sites_elsewhere
        );
        (Some(Attribute { name, value }), text)
    }

    /// Opens the incident of a group; one without an attribute is everybody.
    fn open_group(&mut self, found: &(Option<Attribute>, String), members: Vec<SiteNumber>, now: Timestamp) {
        let (shared, text) = found;
        let again = self
            .incidents
            .values()
            .rev()
            .find(|known| known.kind == Kind::Group && known.attribute == *shared && known.is_recent(now));
        let again = again.map(|known| known.id);
        let id = again.unwrap_or_else(|| self.incidents.add(Kind::Group, now, now));
        if again.is_some() {
            self.incidents.reopen(id, now, "they are silent together");
        }
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.attribute.clone_from(shared);
            incident.cause = Some(Cause::PowerOrLink);
            incident.evidence.clone_from(text);
            incident.calls = true;
            incident.tell(now, text);
        }
        for number in members {
            self.join(id, number);
        }
        if let Some(incident) = self.incidents.get_mut(&id) {
            // It began when half of them were gone: one that was away for weeks has little to do
            // with it.
            let mut since: Vec<Timestamp> = incident.absent().map(|(_, member)| member.since).collect();
            since.sort_unstable();
            incident.since = since.get(since.len() / 2).copied().unwrap_or(now);
            incident.counted_to = now;
        }
    }

    fn join(&mut self, group: u64, number: SiteNumber) {
        let site = &self.sites[number];
        let last = site.streams.first().map_or(self.now, |stream| self.clock.last(*stream));
        let (id, own) = (site.id.clone(), site.trouble().incident);
        if let Some(incident) = self.incidents.get_mut(&group) {
            incident.members.insert(id, Member { since: instant(last), until: None });
        }
        if let Some(own) = own.and_then(|own| self.incidents.get_mut(&own)) {
            (own.held_by, own.was_held) = (Some(group), true);
            let own = own.id;
            self.incidents.note(own);
        }
        self.incidents.note(group);
    }

    /// Open groups, and the trait each is about; none if it is about everybody.
    fn open_groups(&self) -> Vec<(u64, Option<Trait>)> {
        let groups = self.incidents.open().filter(|incident| incident.kind == Kind::Group);
        let shared = |incident: &Incident| {
            let trait_of = |attribute: Attribute| self.sites.traits.known(attribute.name, attribute.value);
            match incident.attribute.clone() {
                Some(attribute) => Some((incident.id, Some(trait_of(attribute)?))),
                None => Some((incident.id, None)),
            }
        };
        groups.filter_map(shared).collect()
    }

    /// Suspects that share what an open group shares belong to it.
    fn join_group(&mut self, id: u64, shared: Option<Trait>, now: Timestamp) {
        let joining: Vec<SiteNumber> = self
            .groups
            .suspects()
            .filter(|number| {
                let site = &self.sites[*number];
                let absent = self.incidents[&id].members.get(&site.id).is_some_and(|member| member.until.is_none());
                self.is_of(*number, shared) && !absent && !self.is_another_groups(*number, shared)
            })
            .collect();
        if joining.is_empty() {
            return;
        }
        let count = joining.len();
        joining.into_iter().for_each(|number| self.join(id, number));
        if let Some(incident) = self.incidents.get_mut(&id) {
            let absent = incident.absent().count();
            incident.tell(now, format!("{count} more sites, {absent} now"));
        }
    }

    /// Ends groups of which less than a quarter is silent; what is left of them speaks for itself
    /// again.
    fn close_groups(&mut self, now: Timestamp) {
        for (id, shared) in self.open_groups() {
            let has_it = |number: &SiteNumber| self.is_of(*number, shared);
            let suspects = self.groups.suspects().filter(has_it);
            // After a restart of HQ a member's clock has yet to say so again: who was not heard
            // since is silent.
            let unheard = self.incidents[&id].absent().filter_map(|(site, member)| {
                let number = self.number(site)?;
                let last = self.sites[number].streams.first().map_or(0, |stream| self.clock.last(*stream));
                (instant(last) <= member.since).then_some(number)
            });
            let silent = suspects.chain(unheard).collect::<BTreeSet<SiteNumber>>().len();
            if (silent as f64) < group::SHARE_OVER * self.sites.having(shared).max(1) as f64 {
                self.release(id);
                self.incidents.close(
                    id,
                    &format!("{silent} of its sites are still silent, each with its own incident"),
                    now,
                );
            }
        }
    }

    pub(crate) fn leave_groups(&mut self, number: SiteNumber, now: Timestamp) {
        let site = self.sites[number].id.clone();
        for id in self.incidents.open_ids() {
            if let Some(incident) = self.incidents.get_mut(&id)
                && incident.kind == Kind::Group
                && let Some(member) = incident.members.get_mut(&site)
                && member.until.is_none()
            {
                member.until = Some(now);
                self.incidents.note(id);
            }
        }
        self.groups.look_again();
    }
}
