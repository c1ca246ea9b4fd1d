//! Finds the number of a record by the place of its job.

/// For each run of jobs with consecutive numbers, the first job's place and number. There is one run, and one more for each gap in
/// the numbers.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    runs: Vec<(u64, u64)>,
}

impl Numbers {
    /// Adds a job; places ascend.
    pub(super) fn push(&mut self, place: u64, number: u64) {
        let follows =
            self.runs.last().is_some_and(|(first, of_first)| number.checked_sub(*of_first) == Some(place - first));
        if !follows {
            self.runs.push((place, number));
        }
    }

    /// Returns the number of the job at a place that was added.
    pub(super) fn get(&self, place: u64) -> u64 {
        let run = self.runs.partition_point(|(first, _)| *first <= place).checked_sub(1);
        run.map_or(place + 1, |run| self.runs[run].1 + (place - self.runs[run].0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_gaps_are_found_again_by_their_places() {
        let mut numbers = Numbers::default();
        let all = [3, 4, 5, 9, 10, 20, 21];
        (0..).zip(all).for_each(|(place, number)| numbers.push(place, number));
        assert_eq!((0..7).map(|place| numbers.get(place)).collect::<Vec<_>>(), all);
        assert_eq!(numbers.runs.len(), 3);
    }
}
