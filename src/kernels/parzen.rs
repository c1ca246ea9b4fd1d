//! Parzen-window density estimation: one job for each window width, over samples that all ranks share.
//!
//! The estimator is that of Parzen (1962) with the hypercube window of Duda, Hart and Stork, *Pattern Classification*,
//! section 4.3.

use serde::{Deserialize, Serialize};

/// The context of [`parzen`]: N samples and a point, all of D dimensions. Sent once to each rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parzen {
    point: Vec<f64>,
    /// N·D coordinates, sample after sample.
    samples: Vec<f64>,
}

/// The error of samples and a point that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ParzenError {
    #[error("the point has no coordinates")]
    NoDimensions,
    #[error("there are no samples")]
    NoSamples,
    #[error("the samples have {samples} coordinates each, but the point has {point}")]
    Dimensions { samples: usize, point: usize },
    #[error("{values} coordinates do not make whole samples of {dimensions}")]
    Ragged { values: usize, dimensions: usize },
}

impl Parzen {
    /// Takes samples of `dimensions` coordinates each, sample after sample, and the point at which to estimate.
    pub fn new(dimensions: usize, samples: Vec<f64>, point: Vec<f64>) -> Result<Parzen, ParzenError> {
        if point.is_empty() {
            return Err(ParzenError::NoDimensions);
        }
        if samples.is_empty() {
            return Err(ParzenError::NoSamples);
        }
        if dimensions != point.len() {
            return Err(ParzenError::Dimensions { samples: dimensions, point: point.len() });
        }
        if samples.len() % dimensions != 0 {
            return Err(ParzenError::Ragged { values: samples.len(), dimensions });
        }
        Ok(Parzen { point, samples })
    }

    /// Returns D.
    pub fn dimensions(&self) -> usize {
        self.point.len()
    }

    /// Returns N.
    pub fn sample_count(&self) -> usize {
        self.samples.len() / self.dimensions()
    }
}

/// The result of [`parzen`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Density {
    /// The length of the window's edge.
    pub h: f64,
    /// k: the number of samples in the window.
    pub count: u64,
    /// k / (N·h^D), in samples per unit of volume.
    pub density: f64,
}

/// Counts the samples in the hypercube of edge h centred at the point c, and returns the density:
/// k = #{x : |x_d − c_d| / h ≤ ½ in each dimension d}, density = k / (N·h^D). The window's faces belong to it.
///
/// # Panics
/// If h is not a positive finite number.
pub fn parzen(context: &Parzen, h: f64) -> Density {
    assert!(h > 0.0 && h.is_finite(), "a window of width {h}: the width must be a positive finite number");
    let inside = |sample: &&[f64]| sample.iter().zip(&context.point).all(|(x, c)| (x - c).abs() / h <= 0.5);
    let count = context.samples.chunks_exact(context.dimensions()).filter(inside).count() as u64;
    let volume = h.powf(context.dimensions() as f64);
    Density { h, count, density: count as f64 / (context.sample_count() as f64 * volume) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAUSSIAN: &str = include_str!("../../tests/data/gaussian_2d.csv");

    fn gaussian() -> Parzen {
        let samples: Vec<f64> = GAUSSIAN.split([',', '\n']).filter_map(|field| field.trim().parse().ok()).collect();
        assert_eq!(samples.len(), 20_000);
        Parzen::new(2, samples, vec![0.0, 0.0]).unwrap()
    }

    #[test]
    fn counts_at_the_origin_of_a_bivariate_normal_are_exact() {
        let context = gaussian();
        let counts: Vec<_> = (1..=12).map(|tenths| parzen(&context, f64::from(tenths) / 10.0).count).collect();
        assert_eq!(counts, [16, 61, 135, 247, 390, 547, 742, 939, 1194, 1445, 1728, 2022]);
    }

    #[test]
    fn density_divides_by_the_volume_of_the_window() {
        let context = gaussian();
        assert_eq!((context.dimensions(), context.sample_count()), (2, 10_000));
        let density = |h| parzen(&context, h).density;
        assert!((density(0.5) - 0.156).abs() < 1e-12);
        assert!((density(0.5) - 1.0 / (2.0 * std::f64::consts::PI)).abs() < 0.004);
        // k / (N·h) is what the tutorial prints; it is the density times h in two dimensions.
        for (h, printed) in [(0.1, 0.016), (0.2, 0.0305), (0.3, 0.045), (0.4, 0.06175), (0.5, 0.078)] {
            assert!((density(h) * h - printed).abs() < 1e-12);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn three_of_ten_points_in_the_unit_cube_are_a_density_of_0_3() {
        let points = vec![
            0.0, 0.0, 0.0,  0.2, 0.2, 0.2,  0.1, -0.1, -0.3,
            -1.2, 0.3, -0.3,  0.8, -0.82, -0.9,  1.0, 0.6, -0.7,  0.8, 0.7, 0.2,
            0.7, -0.8, -0.45,  -0.3, 0.6, 0.9,  0.7, -0.6, -0.8,
        ];
        let context = Parzen::new(3, points, vec![0.0; 3]).unwrap();
        assert_eq!(parzen(&context, 1.0), Density { h: 1.0, count: 3, density: 0.3 });
    }

    #[test]
    fn the_faces_of_the_window_belong_to_it_and_the_point_may_lie_anywhere() {
        let context = Parzen::new(1, vec![1.5, 2.5, 2.500001, 1.4], vec![2.0]).unwrap();
        assert_eq!(parzen(&context, 1.0).count, 2);
        let line = serde_json::to_string(&parzen(&context, 1.0)).unwrap();
        assert_eq!(line, "{\"h\":1.0,\"count\":2,\"density\":0.5}");
    }

    #[test]
    fn samples_that_do_not_fit_the_point_are_refused() {
        let refused = |dimensions, values: usize, point: usize| {
            Parzen::new(dimensions, vec![0.0; values], vec![0.0; point]).unwrap_err().to_string()
        };
        assert_eq!(refused(3, 6, 2), "the samples have 3 coordinates each, but the point has 2");
        assert_eq!(refused(2, 5, 2), "5 coordinates do not make whole samples of 2");
        assert_eq!(refused(2, 0, 2), "there are no samples");
        assert_eq!(refused(0, 4, 0), "the point has no coordinates");
    }

    #[test]
    #[should_panic(expected = "a window of width 0: the width must be a positive finite number")]
    fn a_window_without_width_is_refused() {
        parzen(&gaussian(), 0.0);
    }
}
