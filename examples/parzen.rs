//! Counts the samples in windows of growing width around a point, which is Parzen's density estimate: one job for each width.
//! The samples are sent to each rank once.
//!
//! `mpiexec -n 4 target/release/examples/parzen tests/data/gaussian_2d.csv`

use std::error::Error;

type Point = [f64; 2];

/// Returns the number of samples in the square of width `width` around the origin.
#[expect(clippy::ptr_arg, reason = "the context is a Vec, and the function takes a reference to just that")]
fn count_inside(samples: &Vec<Point>, width: f64) -> usize {
    samples.iter().filter(|sample| sample.iter().all(|x| x.abs() <= width / 2.0)).count()
}

fn read_samples(path: &str) -> Result<Vec<Point>, Box<dyn Error + Send + Sync>> {
    let mut samples = Vec::new();
    for line in std::fs::read_to_string(path)?.lines() {
        let (x, y) = line.split_once(',').ok_or_else(|| format!("{path}: '{line}' is not a point"))?;
        samples.push([x.parse()?, y.parse()?]);
    }
    Ok(samples)
}

fn main() -> rankpool::ExitCode {
    rankpool::launch(|pool| {
        let path = std::env::args().nth(1).unwrap_or_else(|| "tests/data/gaussian_2d.csv".into());
        let samples = read_samples(&path)?;
        let all = samples.len() as f64;
        let widths: Vec<f64> = (1..=12).map(|tenths| f64::from(tenths) / 10.0).collect();
        let counts = pool.map_with(samples, widths.iter().copied(), count_inside);
        for (width, count) in widths.iter().zip(counts) {
            let count = count?;
            println!("width {width:.1}: {count} samples, density {:.4}", count as f64 / (all * width * width));
        }
        Ok(())
    })
}
