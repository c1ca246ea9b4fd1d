//! The stretches of a chunk: consecutive jobs that need the same room, so that a worker answers all of them before another room
//! is entered.

use crate::batch::job::{Attempt, Room};

/// Takes the jobs of a chunk, stretch by stretch.
pub(super) struct Stretches<W> {
    /// The room of this stretch.
    room: Room,
    /// The first job of the next stretch.
    ahead: Option<Attempt<W>>,
}

impl<W> Stretches<W> {
    pub(super) fn new() -> Self {
        Stretches { room: Room::default(), ahead: None }
    }

    /// Begins the next stretch and returns its room. `pull` takes a job of the chunk.
    pub(super) fn begin(&mut self, pull: impl FnOnce() -> Option<Attempt<W>>) -> Option<Room> {
        self.ahead = self.ahead.take().or_else(pull);
        self.room = self.ahead.as_ref()?.room;
        Some(self.room)
    }

    /// Takes the next job, if it belongs to this stretch.
    pub(super) fn next(&mut self, pull: impl FnOnce() -> Option<Attempt<W>>) -> Option<Attempt<W>> {
        self.ahead = self.ahead.take().or_else(pull);
        let room = self.room;
        self.ahead.take_if(|ahead| ahead.room == room)
    }

    /// Takes the job that was pulled and belongs to no stretch so far.
    pub(super) fn take(&mut self) -> Option<Attempt<W>> {
        self.ahead.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u64, room: Room) -> Attempt<()> {
        Attempt { place: number - 1, number, attempt: 1, seed: 0, work: (), avoid: None, room }
    }

    #[test]
    fn a_chunk_is_divided_where_a_job_needs_another_room() {
        use Room::{Alone, Half, Shared};
        let rooms = [Shared, Shared, Alone, Alone, Shared, Half];
        let mut chunk = (1..).zip(rooms).map(|(number, room)| attempt(number, room));
        let mut stretches = Stretches::new();
        let mut seen = Vec::new();
        while let Some(room) = stretches.begin(|| chunk.next()) {
            let mut numbers = Vec::new();
            while let Some(attempt) = stretches.next(|| chunk.next()) {
                numbers.push(attempt.number);
            }
            seen.push((room, numbers));
        }
        assert_eq!(seen, [(Shared, vec![1, 2]), (Alone, vec![3, 4]), (Shared, vec![5]), (Half, vec![6])]);
    }

    #[test]
    fn the_job_that_needs_another_room_can_be_taken_back() {
        let mut stretches = Stretches::new();
        assert_eq!(stretches.begin(|| Some(attempt(1, Room::Half))), Some(Room::Half));
        assert_eq!(stretches.next(|| panic!("it is there")).map(|attempt| attempt.number), Some(1));
        assert!(stretches.next(|| Some(attempt(2, Room::Alone))).is_none());
        assert_eq!(stretches.take().map(|attempt| attempt.number), Some(2));
        assert!(stretches.next(|| None).is_none() && stretches.take().is_none());
    }
}
