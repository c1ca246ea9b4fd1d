//! A polynomial averaged over a grid, twice: as a loop that computes and as array operations that allocate.
//!
//! Both are meant to be slow: `slow_fn` computes the powers anew at every grid point; `slow_fn_malloc` allocates fresh memory for
//! every operation. `black_box` keeps the optimiser from removing that work; it does not change the results.

use std::hint::black_box;

/// The default n of [`slow_fn`].
pub const SLOW_FN_POINTS: u64 = 10_000;

/// The default n of [`slow_fn_malloc`].
pub const SLOW_FN_MALLOC_POINTS: u64 = 100_000;

/// Returns y = (1/n) Σ_{j=0}^{n−1} (j/n) Σ_i p_i^(i+1), for a vector p of any length, i from 0.
///
/// The terms (j/n)·p_i^(i+1) are added one by one to a single sum, j in the outer loop and i in the inner one, and the sum
/// is divided by n. Compute-bound: n·len(p) powers, no memory but p.
///
/// # Panics
/// If n is 0.
pub fn slow_fn(n: &u64, p: Vec<f64>) -> f64 {
    assert!(*n > 0, "slow_fn averages over n points: n must be at least 1");
    let points = *n as f64;
    let mut y = 0.0;
    for j in 0..*n {
        let x = j as f64 / points;
        for (i, p_i) in black_box(p.as_slice()).iter().enumerate() {
            y += x * p_i.powf((i + 1) as f64);
        }
    }
    y / points
}

/// Returns the sum of [`slow_fn`] over x = n evenly spaced points from 0 to 1, both included, as array operations:
/// y ← y + x·p_i^(i+1) for each i from 0, then Σy / n.
///
/// Every operation writes a fresh array of n doubles, as array languages do, so the job is bound by memory and by the
/// allocator. With n = 1 the only point is 0.
///
/// # Panics
/// If n is 0.
pub fn slow_fn_malloc(n: &u64, p: Vec<f64>) -> f64 {
    assert!(*n > 0, "slow_fn_malloc averages over n points: n must be at least 1");
    let last = (*n - 1).max(1) as f64;
    let x = fresh((0..*n).map(|j| j as f64 / last));
    let mut y = fresh((0..*n).map(|_| 0.0));
    for (i, p_i) in p.iter().enumerate() {
        let power = p_i.powf((i + 1) as f64);
        let term = fresh(x.iter().map(|x| x * power));
        y = fresh(y.iter().zip(&term).map(|(y, term)| y + term));
    }
    y.iter().sum::<f64>() / *n as f64
}

/// Returns a newly allocated array of these values.
fn fresh(values: impl Iterator<Item = f64>) -> Vec<f64> {
    black_box(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../tests/data/slow_fn_512.csv");

    /// Rows of p1 to p5, slow_fn, slow_fn_malloc.
    fn reference() -> Vec<Vec<f64>> {
        let row = |line: &str| line.split(',').map(|field| field.trim().parse().unwrap()).collect();
        let rows: Vec<_> = REFERENCE.lines().skip(1).map(row).collect();
        assert_eq!(rows.len(), 512);
        rows
    }

    #[track_caller]
    fn assert_close(value: f64, expected: f64) {
        assert!((value - expected).abs() <= 1e-12 * expected.abs(), "{value} is not {expected}");
    }

    #[test]
    fn slow_fn_agrees_with_double_precision_python() {
        for row in reference() {
            assert_close(slow_fn(&SLOW_FN_POINTS, row[..5].to_vec()), row[5]);
        }
    }

    #[test]
    fn slow_fn_malloc_agrees_with_double_precision_python() {
        for row in reference().iter().step_by(16) {
            assert_close(slow_fn_malloc(&SLOW_FN_MALLOC_POINTS, row[..5].to_vec()), row[6]);
        }
    }

    #[test]
    fn vectors_may_have_any_length() {
        // Σ j/n over n = 4 is 1.5, so y = 1.5/4 · (2 + 3² + 2³).
        assert_close(slow_fn(&4, vec![2.0, 3.0, 2.0]), 1.5 / 4.0 * 19.0);
        // The points 0, ½, 1 sum to 1.5.
        assert_close(slow_fn_malloc(&3, vec![2.0, 3.0, 2.0]), 1.5 / 3.0 * 19.0);
        assert_eq!(slow_fn(&4, vec![]), 0.0);
        assert_eq!(slow_fn_malloc(&4, vec![]), 0.0);
    }

    #[test]
    fn a_single_grid_point_is_zero() {
        assert_eq!(slow_fn(&1, vec![2.0]), 0.0);
        assert_eq!(slow_fn_malloc(&1, vec![2.0]), 0.0);
    }

    #[test]
    #[should_panic(expected = "n must be at least 1")]
    fn an_empty_grid_is_refused() {
        slow_fn(&0, vec![1.0]);
    }
}
