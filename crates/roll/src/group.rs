//! Silences that share an attribute are one incident: which attribute explains them best.

use std::collections::BTreeMap;

/// Something sites have in common: an attribute and its value, numbered by the caller.
pub type Trait = u32;

/// One attribute's value with the silent sites that share it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// What they share.
    pub shared: Trait,
    /// Sites that have it.
    pub sites: usize,
    /// Silent ones among them.
    pub silent: usize,
    /// Silent sites without it.
    pub silent_elsewhere: usize,
    /// Sites without it.
    pub sites_elsewhere: usize,
}

/// So many silent sites, and this share of all, that have nothing in common which others have not,
/// are one incident as well.
const EVERYBODY_MIN: usize = 10;
const EVERYBODY_SHARE: f64 = 1.0 / 3.0;
/// At least so many silent sites …
const SILENT_MIN: usize = 3;
/// … this share of those that have it …
const SHARE_MIN: f64 = 0.5;
/// … and this much likelier than by chance (natural logarithm) make a group.
const LLR_MIN: f64 = 12.0;
/// A group is over when less than this share of it is silent.
pub(crate) const SHARE_OVER: f64 = 0.25;
/// Groups found at most, one after the other.
const GROUPS_MAX: usize = 5;

/// `LLR = s·ln(p/p0) + (n − s)·ln((1 − p)/(1 − p0))` of `silent` of `sites` against the rate
/// elsewhere, `p0 = (S − s + 1)/(N − n + 2)`: the binomial likelihood ratio with Laplace's rule for
/// the rest (Kulldorff, A spatial scan statistic, 1997, without the search over space).
pub fn log_likelihood_ratio(silent: usize, sites: usize, silent_elsewhere: usize, sites_elsewhere: usize) -> f64 {
    let share = silent as f64 / sites as f64;
    let elsewhere = (silent_elsewhere as f64 + 1.0) / (sites_elsewhere as f64 + 2.0);
    if share <= elsewhere {
        return 0.0;
    }
    let term = |count: f64, ratio: f64| if count > 0.0 { count * ratio.ln() } else { 0.0 };
    term(silent as f64, share / elsewhere) + term((sites - silent) as f64, (1.0 - share) / (1.0 - elsewhere))
}

/// Finds what the silent sites have in common. `sites` is how many sites can be measured,
/// `with_trait` how many of them have each trait, `silent` the traits of each silent site. The
/// largest ratio first; its sites are taken out before the next is looked for. Ties go to the
/// smallest group.
pub fn groups(sites: usize, with_trait: &dyn Fn(Trait) -> usize, silent: &[&[Trait]]) -> Vec<Group> {
    let mut found: Vec<Group> = Vec::new();
    let mut left: Vec<&[Trait]> = silent.to_vec();
    let mut sites = sites;
    let mut taken: BTreeMap<Trait, usize> = BTreeMap::new();
    while found.len() < GROUPS_MAX && left.len() >= SILENT_MIN {
        let mut counts: BTreeMap<Trait, usize> = BTreeMap::new();
        left.iter().flat_map(|traits| traits.iter()).for_each(|shared| *counts.entry(*shared).or_default() += 1);
        let candidates = counts.iter().filter(|(_, silent)| **silent >= SILENT_MIN).filter_map(|(shared, silent)| {
            let having = with_trait(*shared).saturating_sub(taken.get(shared).copied().unwrap_or(0)).max(*silent);
            let group = Group {
                shared: *shared,
                sites: having,
                silent: *silent,
                silent_elsewhere: left.len() - silent,
                sites_elsewhere: sites.saturating_sub(having),
            };
            let ratio = log_likelihood_ratio(group.silent, group.sites, group.silent_elsewhere, group.sites_elsewhere);
            // What all have tells none of them apart.
            let tells_apart = group.sites_elsewhere >= SILENT_MIN;
            (tells_apart && *silent as f64 >= SHARE_MIN * having as f64 && ratio >= LLR_MIN).then_some((ratio, group))
        });
        let best = candidates.max_by(|(ratio, group), (other, than)| {
            ratio.total_cmp(other).then(than.sites.cmp(&group.sites)).then(than.shared.cmp(&group.shared))
        });
        let Some((_, group)) = best else { break };
        let (members, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(|traits| traits.contains(&group.shared));
        members.iter().flat_map(|traits| traits.iter()).for_each(|shared| *taken.entry(*shared).or_default() += 1);
        sites = sites.saturating_sub(members.len());
        left = rest;
        found.push(group);
    }
    found
}

/// Whether so many silent sites without another explanation are more likely HQ's own trouble than
/// theirs.
pub(crate) fn is_everybody(silent: usize, sites: usize) -> bool {
    silent >= EVERYBODY_MIN && silent as f64 >= EVERYBODY_SHARE * sites as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sites numbered 0..n with traits: isp (10 values), region (20 values, offset 100).
    fn traits(site: u32) -> [Trait; 2] {
        [site % 10, 100 + site / 100]
    }

    fn find(sites: u32, silent: impl Fn(u32) -> bool) -> Vec<Group> {
        let all: Vec<[Trait; 2]> = (0..sites).map(traits).collect();
        let silent: Vec<&[Trait]> =
            (0..sites).filter(|site| silent(*site)).map(|site| &all[site as usize][..]).collect();
        let count = |shared: Trait| all.iter().filter(|traits| traits.contains(&shared)).count();
        groups(sites as usize, &count, &silent)
    }

    #[test]
    fn one_cause_is_named_and_scattered_failures_are_not_grouped() {
        let by_isp = find(2000, |site| site % 10 == 3);
        assert_eq!(by_isp.len(), 1);
        assert_eq!((by_isp[0].shared, by_isp[0].silent), (3, 200));
        assert_eq!(find(2000, |site| site % 97 == 0), []);
        assert_eq!(find(2000, |site| site < 2), [], "two are not a group");
    }

    #[test]
    fn two_causes_at_once_are_told_apart() {
        let both = find(2000, |site| site % 10 == 3 || site / 100 == 7);
        let mut shared: Vec<Trait> = both.iter().map(|group| group.shared).collect();
        shared.sort_unstable();
        assert_eq!(shared, [3, 107]);
    }

    proptest! {
        #[test]
        fn the_ratio_is_never_negative(silent in 1_usize..100, more in 0_usize..100, elsewhere in 0_usize..50, rest in 0_usize..1000) {
            let ratio = log_likelihood_ratio(silent, silent + more, elsewhere.min(rest), rest);
            prop_assert!(ratio >= 0.0 && ratio.is_finite());
        }
    }
}
