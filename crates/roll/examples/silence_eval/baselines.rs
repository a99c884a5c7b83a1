//! Other ways to notice silence, which ours is measured beside.

/// What the baselines know of a stream: the gaps of its training, in minutes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gaps {
    pub(crate) last: Option<i64>,
    count: f64,
    sum: f64,
    squares: f64,
    sorted: Vec<f64>,
}

impl Gaps {
    /// Training is over.
    pub(crate) fn trained(&mut self) {
        self.sorted.sort_by(f64::total_cmp);
    }

    /// Minutes since the last event.
    pub(crate) fn elapsed(&self, minute: i64) -> f64 {
        self.last.map_or(0.0, |last| (minute - last) as f64)
    }

    /// An event, which is learned from during training.
    pub(crate) fn event(&mut self, minute: i64, is_training: bool) {
        if let Some(last) = self.last
            && is_training
        {
            let gap = (minute - last) as f64;
            self.count += 1.0;
            self.sum += gap;
            self.squares += gap * gap;
            self.sorted.push(gap);
        }
        self.last = Some(minute);
    }

    /// Elapsed time as a multiple of the stream's own 99.9th percentile gap: one number for the
    /// fleet would be worse.
    pub(crate) fn timeout(&self, elapsed: f64) -> f64 {
        let index = (self.sorted.len() as f64 * 0.999) as usize;
        elapsed / self.sorted.get(index.min(self.sorted.len().saturating_sub(1))).copied().unwrap_or(60.0).max(1.0)
    }

    /// φ = −log10 P(gap > elapsed), gaps taken as normal (Hayashibara et al., The φ accrual failure
    /// detector, 2004).
    pub(crate) fn phi(&self, elapsed: f64) -> f64 {
        let mean = self.sum / self.count.max(1.0);
        let deviation = (self.squares / self.count.max(1.0) - mean * mean).max(0.25).sqrt();
        let y = (elapsed - mean) / deviation;
        // The logistic approximation of the normal tail that implementations use; its logarithm
        // does not underflow.
        let exponent = y * (1.5976 + 0.070566 * y * y);
        if exponent > 30.0 { exponent / std::f64::consts::LN_10 } else { (1.0 + exponent.exp()).log10() }
    }
}

/// A clock by the hour of the week: rates of each of 168 hours, smoothed towards the stream's mean,
/// and what was expected since the last event by them. No cohort, no tails, no evidence.
#[derive(Debug, Clone)]
pub(crate) struct HourOfWeek {
    counts: Box<[f64; 168]>,
    weeks: f64,
    /// Events expected up to the end of each hour of the week.
    sums: Box<[f64; 168]>,
}

impl HourOfWeek {
    pub(crate) fn new() -> Self {
        Self { counts: Box::new([0.0; 168]), weeks: 0.0, sums: Box::new([0.0; 168]) }
    }

    /// An event in that local minute of the week, during training.
    pub(crate) fn event(&mut self, minute_of_week: i64) {
        self.counts[(minute_of_week / 60) as usize % 168] += 1.0;
    }

    /// Training is over, which lasted so many weeks.
    pub(crate) fn trained(&mut self, weeks: f64) {
        self.weeks = weeks;
        let mean = self.counts.iter().sum::<f64>() / 168.0;
        let mut sum = 0.0;
        for (count, total) in self.counts.iter().zip(self.sums.iter_mut()) {
            // As if one more week had been as the mean of all hours.
            sum += (count + 0.2 * mean) / (weeks + 0.2);
            *total = sum;
        }
    }

    fn up_to(&self, minute_of_week: i64) -> f64 {
        let hour = (minute_of_week / 60) as usize % 168;
        let before = if hour == 0 { 0.0 } else { self.sums[hour - 1] };
        before + (self.sums[hour] - before) * (minute_of_week % 60) as f64 / 60.0
    }

    /// What was expected in the `elapsed` minutes up to this one.
    pub(crate) fn expected(&self, minute_of_week: i64, elapsed: i64) -> f64 {
        let from = minute_of_week - elapsed;
        let weeks = from.div_euclid(7 * 1440);
        self.up_to(minute_of_week) - self.up_to(from.rem_euclid(7 * 1440)) - weeks as f64 * self.sums[167]
    }
}
