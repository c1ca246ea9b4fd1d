//! Who gets what: dealing queued jobs to ranks with credit, and fetching work back for idle threads.

use super::event::{Action, ChunkId, MapId, RankId};
use super::queue::Range;
use super::roster::Gain;
use super::{Chunk, Recall, Schedule};

impl Schedule {
    /// Deals as long as there are jobs and ranks with credit: maps in turn, a chunk at a time, each to the rank that
    /// has least to do.
    pub(super) fn deal(&mut self, out: &mut Vec<Action>) {
        // Maps in a row with nothing for the ranks that have credit.
        let mut stuck = 0;
        while stuck < self.serving.len() && self.roster.next().is_some() {
            let Some(map) = self.serving.pop_front() else { break };
            match self.match_up(map) {
                Some((rank, front)) => {
                    stuck = 0;
                    self.assign(map, rank, front, out);
                }
                None => stuck += 1,
            }
            if !self.queue_is_empty(map) {
                self.serving.push_back(map);
            }
        }
    }

    /// The next jobs of a map that some rank can have, and that rank. Jobs that are to avoid a rank wait for another one, if
    /// there is one that works.
    pub(super) fn match_up(&self, map: MapId) -> Option<(RankId, Range)> {
        let queue = &self.maps.get(&map)?.queue;
        let front = queue.front()?;
        let avoid = front.avoid.filter(|rank| self.roster.has_other(*rank));
        if let Some(rank) = self.roster.next_but(avoid) {
            return Some((rank, front));
        }
        let rank = self.roster.next()?;
        Some((rank, queue.front_for(rank)?))
    }

    fn queue_is_empty(&self, map: MapId) -> bool {
        self.maps.get(&map).is_none_or(|map| map.queue.is_empty())
    }

    /// Cuts the next chunk of a map and gives it to a rank.
    fn assign(&mut self, map_id: MapId, rank: RankId, front: Range, out: &mut Vec<Action>) {
        let threads = self.roster.threads();
        let Some(map) = self.maps.get_mut(&map_id) else { return };
        // A job that may have killed its rank goes alone, so that it takes no others with it; so does one that tries out a rank.
        let alone = front.losses > 0 || self.roster.is_on_trial(rank);
        let size = if alone { 1 } else { map.pace.chunk_jobs(map.queue.len(), threads) };
        let Some(jobs) = map.queue.take_some(front.first, size.min(u64::from(u32::MAX))) else {
            return;
        };
        map.held += jobs.count;
        map.orders = map.orders.saturating_add(1);

        let work = map.pace.estimate(jobs.count, threads);
        let gain = map.pace.gain(jobs.count, jobs.recalls, threads);
        let id = ChunkId(self.next_chunk);
        self.next_chunk += 1;
        let chunk = Chunk { rank, map: map_id, jobs, work, recall: Recall::Never };
        self.roster.update(rank, |rank| {
            rank.held.insert(id);
            rank.recallable.extend((chunk.is_recallable() && gain.waiting > 0).then_some((id, gain)));
            rank.work = rank.work.saturating_add(work);
        });
        self.chunks.insert(id, chunk);
        out.push(Action::Assign {
            rank,
            chunk: id,
            map: map_id,
            first: jobs.first,
            count: u32::try_from(jobs.count).unwrap_or(u32::MAX),
            attempt: jobs.failures.saturating_add(1),
        });
    }

    /// The chunk to ask for now, if nothing is queued and more threads are idle than were asked for. What is short and only may
    /// wait for long is asked for one after the other, so that many ranks that run dry at once do not keep the master busy.
    pub(super) fn wanted_back(&self) -> Option<(RankId, ChunkId)> {
        if !self.serving.is_empty() || self.roster.unanswered() >= self.roster.idle() {
            return None;
        }
        let (rank, id) = self.roster.donation()?;
        (self.roster.unanswered() == 0 || !self.roster.is_cheap(rank)).then_some((rank, id))
    }

    /// When nothing is queued and threads are idle, asks the ranks with most to do for what they have not started: one
    /// chunk for each idle thread. What comes back is dealt to the idle ones, since they have least to do.
    ///
    /// This comes to an end: a chunk is recalled once; a chunk that waits goes to an idle thread; a chunk that runs is
    /// only cut if it is so long that its jobs, dealt again, make smaller chunks. Ranks may see that differently (a recall
    /// overtakes the start of a chunk, which comes back whole), so that a job is recalled `RECALLS_MAX` times at most.
    pub(super) fn fetch_back(&mut self, out: &mut Vec<Action>) {
        while let Some((rank, id)) = self.wanted_back() {
            // What looked long when it was dealt may be known to be short by now.
            let threads = self.roster.threads();
            let chunk = self.chunks.get(&id);
            let pace = chunk.and_then(|chunk| Some((chunk, &self.maps.get(&chunk.map)?.pace)));
            let gain = pace
                .map_or_else(Gain::default, |(chunk, pace)| pace.gain(chunk.jobs.count, chunk.jobs.recalls, threads));
            if self.roster.reconsider(rank, id, gain) {
                self.recall(rank, id, out);
            }
        }
    }

    /// Asks for what ranks have not started of a map that nobody wants any more, or of all maps.
    pub(super) fn withdraw(&mut self, only: Option<MapId>, out: &mut Vec<Action>) {
        let mut chunks = Vec::new();
        for (id, rank) in self.roster.present() {
            let threads = usize::try_from(rank.threads).unwrap_or(usize::MAX);
            for (place, chunk) in rank.held.iter().enumerate() {
                let Some(state) = self.chunks.get(chunk) else { continue };
                let started = place < threads && state.jobs.count == 1;
                if state.recall == Recall::Never && !started && only.is_none_or(|map| state.map == map) {
                    chunks.push((id, *chunk));
                }
            }
        }
        for (rank, chunk) in chunks {
            self.recall(rank, chunk, out);
        }
    }

    fn recall(&mut self, rank: RankId, id: ChunkId, out: &mut Vec<Action>) {
        if let Some(chunk) = self.chunks.get_mut(&id) {
            chunk.recall = Recall::Asked;
            self.maps.entry(chunk.map).and_modify(|map| map.orders = map.orders.saturating_add(1));
            self.roster.update(rank, |rank| {
                rank.recallable.remove(&id);
                rank.unanswered += 1;
            });
            out.push(Action::Recall { rank, chunk: id });
        }
    }
}
