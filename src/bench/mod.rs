//! Measures the pool where it runs, and says why work is not faster.
//!
//! [`allocation`] measures the ranks themselves, [`scaling`] the same work with more and more threads or ranks, from which
//! [`diagnosis`] finds what limits it. What is shown, and how, is decided by `cli`.

pub(crate) mod allocation;
pub(crate) mod arithmetic;
pub(crate) mod curve;
pub(crate) mod diagnosis;
pub(crate) mod machine;
pub(crate) mod picture;
pub(crate) mod scaling;
pub(crate) mod tail;
pub(crate) mod text;

/// Returns the median. The mean of the two in the middle, if their number is even; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(high), 1) => *high,
        (Some(high), _) => f64::midpoint(sorted[middle - 1], *high),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!([median(&[]), median(&[3.0]), median(&[3.0, 1.0]), median(&[9.0, 1.0, 2.0])], [0.0, 3.0, 2.0, 2.0]);
    }
}
