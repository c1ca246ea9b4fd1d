//! How numbers are spread over many orders of magnitude: quantiles and a histogram from counts by logarithm, in a fixed size.

/// The number of buckets for each power of two: a quantile is at most 5 % too high.
const PER_DOUBLING: f64 = 16.0;

/// The spread of whole numbers, such as times in ns or sizes in bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spread {
    /// How many numbers there are, by their logarithm.
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
    least: u64,
    most: u64,
}

/// A bar of a histogram: numbers from `from` to below `to`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bin {
    pub from: f64,
    pub to: f64,
    pub count: u64,
}

fn bucket_of(number: u64) -> usize {
    ((number.max(1) as f64).log2() * PER_DOUBLING) as usize
}

fn begin_of(bucket: usize) -> f64 {
    (bucket as f64 / PER_DOUBLING).exp2()
}

impl Spread {
    pub(crate) fn add(&mut self, number: u64) {
        let bucket = bucket_of(number);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.least = if self.count == 0 { number } else { self.least.min(number) };
        self.most = self.most.max(number);
        self.count += 1;
        self.sum += number as f64;
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }

    pub(crate) fn least(&self) -> u64 {
        self.least
    }

    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// Returns a number that this share of the numbers does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = ((share * self.count as f64).ceil() as u64).max(1);
        let mut counted = 0;
        let bucket = self.buckets.iter().position(|count| {
            counted += count;
            counted >= wanted
        });
        let end = bucket.map_or(self.most, |bucket| begin_of(bucket + 1) as u64);
        end.clamp(self.least, self.most)
    }

    /// Returns a histogram of at most about `most` bins of equal width on a logarithmic scale, from the least number to the greatest.
    pub(crate) fn bins(&self, most: usize) -> Vec<Bin> {
        let Some(last) = self.buckets.iter().rposition(|count| *count > 0) else { return Vec::new() };
        let first = self.buckets.iter().position(|count| *count > 0).unwrap_or(0);
        let width = (last + 1 - first).div_ceil(most.max(1));
        let bins = (first..=last).step_by(width).map(|from| {
            let to = from + width;
            let count = self.buckets[from..to.min(last + 1)].iter().sum();
            Bin { from: begin_of(from), to: begin_of(to), count }
        });
        bins.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_at_most_a_bucket_too_high_and_exact_at_both_ends() {
        let mut spread = Spread::default();
        (1..=1000).for_each(|number| spread.add(number * 1000));
        for (share, exact) in [(0.5, 500_000.0), (0.95, 950_000.0)] {
            let found = spread.quantile(share) as f64;
            assert!((exact..=exact * 1.05).contains(&found), "{share}: {found}");
        }
        assert!((1000..=1050).contains(&spread.quantile(0.0)));
        assert_eq!(spread.quantile(1.0), 1_000_000);
        assert_eq!((spread.least(), spread.most(), spread.mean()), (1000, 1_000_000, 500_500.0));
    }

    #[test]
    fn a_histogram_has_every_number_once_and_few_bins() {
        let mut spread = Spread::default();
        assert!(spread.bins(10).is_empty() && spread.quantile(0.5) == 0);
        for number in [0, 1, 5, 1 << 40, u64::MAX] {
            spread.add(number);
        }
        let bins = spread.bins(50);
        assert!(bins.len() <= 50 && spread.buckets.len() <= 1025);
        assert_eq!(bins.iter().map(|bin| bin.count).sum::<u64>(), 5);
        assert!(bins.windows(2).all(|pair| pair[0].to == pair[1].from));
    }
}
