//! Evenly spaced numbers, by start, end and count.

/// The numbers of [`linspace`].
#[derive(Clone, Debug)]
pub struct Linspace {
    start: f64,
    end: f64,
    count: u64,
    next: u64,
}

/// Returns `count` evenly spaced numbers from `start` to `end`, both included exactly. With a count of 1 only `start`.
pub fn linspace(start: f64, end: f64, count: u64) -> Linspace {
    Linspace { start, end, count, next: 0 }
}

impl Iterator for Linspace {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let i = self.next;
        if i >= self.count {
            return None;
        }
        self.next += 1;
        // Each value is computed by itself: adding up a step would drift away from the end.
        Some(match i {
            0 => self.start,
            _ if i == self.count - 1 => self.end,
            _ => self.start + (self.end - self.start) * i as f64 / (self.count - 1) as f64,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.next) as usize;
        (left, Some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_included_exactly() {
        let widths: Vec<f64> = linspace(1.0, 1.2, 100).collect();
        assert_eq!((widths.len(), widths[0], widths[99]), (100, 1.0, 1.2));
        assert!(widths.windows(2).all(|pair| (pair[1] - pair[0] - 0.2 / 99.0).abs() < 1e-15));
        assert_eq!(linspace(0.0, 1.0, 5).collect::<Vec<_>>(), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(linspace(2.0, -2.0, 3).collect::<Vec<_>>(), [2.0, 0.0, -2.0]);
    }

    #[test]
    fn one_number_is_the_start_and_none_is_none() {
        assert_eq!(linspace(3.0, 4.0, 1).collect::<Vec<_>>(), [3.0]);
        assert_eq!(linspace(3.0, 4.0, 0).next(), None);
    }
}
