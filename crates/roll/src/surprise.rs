//! How surprising a silence is, in nines: 4 means that one healthy gap in 10,000 is as long.

/// The tail of a stream's own healthy gaps, in expected events: a generalised Pareto distribution
/// above a threshold.
///
/// `P(gap > μ) = p·(1 + ξ(μ − u)/β)^(−1/ξ)` for `μ > u` (Coles, An Introduction to Statistical
/// Modeling of Extreme Values, 2001, section 4.3), with ξ = 0.25 fixed, u the 95th percentile and p
/// the share above it: 0.05 of a smooth distribution, less of contact, whose gaps are nearly all
/// alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tail {
    /// p.
    pub above: f32,
    /// u.
    pub threshold: f32,
    /// β.
    pub scale: f32,
}

impl Tail {
    /// Where the threshold is taken.
    pub const QUANTILE: f64 = 0.95;
    /// ξ.
    pub const SHAPE: f64 = 0.25;
    /// How late surprise rises below the threshold.
    const RISE: i32 = 4;

    /// Nines of a gap of `expected` events.
    pub fn surprise(&self, expected: f64) -> f64 {
        let base = -f64::from(self.above).log10();
        let threshold = f64::from(self.threshold);
        if expected <= threshold {
            // Below the threshold nothing is rare; rise to it late and steadily, so that surprise
            // never falls with time.
            return base * (expected / threshold.max(1e-9)).powi(Self::RISE);
        }
        let growth = (1.0 + Self::SHAPE * (expected - threshold) / f64::from(self.scale)).log10();
        base + growth / Self::SHAPE
    }

    /// The smallest number of expected events with at least this surprise.
    pub(crate) fn needed(&self, surprise: f64) -> f64 {
        let base = -f64::from(self.above).log10();
        let threshold = f64::from(self.threshold);
        if surprise <= base {
            return threshold * (surprise / base).powf(1.0 / f64::from(Self::RISE));
        }
        threshold + f64::from(self.scale) / Self::SHAPE * (10.0_f64.powf(Self::SHAPE * (surprise - base)) - 1.0)
    }

    /// The same to about a sixteenth: streams alike share theirs.
    pub(crate) fn rounded(&self) -> Self {
        let round = |value: f32| (value.max(1e-6).log2() * 16.0).round() / 16.0;
        Self {
            above: round(self.above).exp2().min(0.5),
            threshold: round(self.threshold).exp2(),
            scale: round(self.scale).exp2(),
        }
    }
}

/// A stream's gaps are of two kinds: within open time, and over a closed one, whose edges vary from
/// day to day. The share p of each is one of all the stream's gaps: nights are few, so that one
/// night in twenty is rarer than one minute in twenty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tails {
    /// Gaps within open time.
    pub open: Tail,
    /// Gaps over a night, a Sunday, a holiday.
    pub closed: Tail,
}

impl Tails {
    /// What is assumed of rows before anything was learned: independent events, whose 95th
    /// percentile is 3 and mean excess 1.
    pub const OF_ROWS: Self = {
        let tail = Tail { above: 0.045, threshold: 3.0, scale: 0.75 };
        Self { open: tail, closed: Tail { above: 0.005, ..tail } }
    };
    /// What is assumed of contact: beacons come evenly, opening times do not.
    pub const OF_CONTACT: Self = Self {
        open: Tail { above: 0.01, threshold: 1.4, scale: 0.4 },
        closed: Tail { above: 7e-5, threshold: 8.0, scale: 1.5 },
    };

    /// The one for a gap.
    pub fn of(&self, over_closed: bool) -> &Tail {
        if over_closed { &self.closed } else { &self.open }
    }
}

/// Nines of a gap in which `expected` events were expected, of which `evidence` events are the
/// ground: `min(k·log10(1 + μ/k), S_tail)`. The first is the chance of no event when the rate
/// itself is only known from k events (negative binomial); it caps how sure one can be of a new
/// site.
pub fn surprise(expected: f64, evidence: f64, tail: &Tail) -> f64 {
    let uncertain = evidence * (1.0 + expected / evidence).log10();
    uncertain.min(tail.surprise(expected))
}

/// The smallest number of expected events whose [`surprise`] is `nines`.
pub fn expected_for(nines: f64, evidence: f64, tail: &Tail) -> f64 {
    let uncertain = evidence * (10.0_f64.powf(nines / evidence) - 1.0);
    uncertain.max(tail.needed(nines))
}

/// One-sided cumulative sum for a drop without a stop, in a slot of 15 minutes with `seen` rows
/// where `expected` were: `G = max(0, G + 0.6·m + n·ln 0.4)`, the log likelihood ratio of 40 % of
/// the rate against the whole (Page, Biometrika 41, 1954; Poisson form: Lucas, Technometrics 27,
/// 1985).
pub fn cusum(sum: f32, expected: f32, seen: f32) -> f32 {
    const DROP_TO: f32 = 0.4;
    (sum + (1.0 - DROP_TO) * expected + seen * DROP_TO.ln()).max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_site_cannot_surprise_much() {
        let tail = Tails::OF_ROWS.open;
        assert!(surprise(12.0, 2.0, &tail) < 2.0);
        assert!(surprise(12.0, 1000.0, &tail) > 3.0);
    }

    #[test]
    fn a_drop_to_four_tenths_is_seen_and_the_usual_is_not() {
        let (mut usual, mut dropped) = (0.0, 0.0);
        for _ in 0..32 {
            usual = cusum(usual, 5.0, 5.0);
            dropped = cusum(dropped, 5.0, 2.0);
        }
        assert_eq!(usual, 0.0);
        assert!(dropped > 12.0, "{dropped}");
    }

    proptest! {
        #[test]
        fn surprise_never_falls_and_is_inverted(
            first in 0.0_f64..1000.0, more in 0.0_f64..1000.0, evidence in 2.0_f64..1e5,
            threshold in 0.1_f32..50.0, scale in 0.01_f32..50.0, nines in 0.1_f64..8.0,
        ) {
            let tail = Tail { above: 0.05, threshold, scale };
            prop_assert!(surprise(first + more, evidence, &tail) >= surprise(first, evidence, &tail) - 1e-9);
            let needed = expected_for(nines, evidence, &tail);
            prop_assert!((surprise(needed, evidence, &tail) - nines).abs() < 1e-3);
        }
    }
}
