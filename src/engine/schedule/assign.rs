//! Assignments and recalls: gives queued jobs to ranks with credit, and recalls chunks for idle threads.

use super::event::{Action, ChunkId, MapId, RankId};
use super::pace::Pace;
use super::queue::Range;
use super::ranks::Gain;
use super::suspects::{SUSPECT, root};
use super::{Chunk, RECALLS_MAX, Recall, Schedule};

/// How many chunks are recalled at once for each idle thread after a while without events.
const RECALLS_PER_IDLE_THREAD: u64 = 16;

impl Schedule {
    /// Assigns chunks as long as there are jobs and ranks with credit: maps take turns, one chunk each, and each chunk goes to the
    /// rank with the least work.
    pub(super) fn assign_queued(&mut self, out: &mut Vec<Action>) {
        self.given_back = self.given_back && self.serving.iter().any(|map| self.has_given_back(*map));
        // The number of maps in a row that have no job for the ranks with credit.
        let mut stuck = 0;
        while stuck < self.serving.len() && self.ranks.next().is_some() {
            let Some(&map) = self.serving.front() else { break };
            let matched = self.next_assignment(map);
            self.serving.pop_front();
            match matched {
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

    /// Returns the next jobs of a map that can be assigned, and the rank that gets them. Jobs that are to avoid a rank wait for
    /// another one, if there is one that works.
    pub(super) fn next_assignment(&self, map: MapId) -> Option<(RankId, Range)> {
        if self.waits_for_idle_thread() {
            return None;
        }
        let queue = &self.maps.get(&map)?.queue;
        let taker = |range: &Range| {
            let rank = self.ranks.next_but(range.avoid.filter(|rank| self.ranks.has_other(*rank)))?;
            (range.recalls == 0 || self.ranks.is_idle(rank)).then_some(rank)
        };
        let front = queue.front()?;
        if let Some(rank) = taker(&front) {
            return Some((rank, front));
        }
        let front = queue.first_suitable(|range| taker(range).is_some())?;
        Some((taker(&front)?, front))
    }

    /// Returns whether jobs that were given back wait for an idle thread. All other jobs wait with them: otherwise they would take
    /// the idle thread, and the jobs given back would wait at a rank once more, maybe behind a job that never ends.
    fn waits_for_idle_thread(&self) -> bool {
        self.ranks.idle() == 0 && self.given_back && self.serving.iter().any(|map| self.has_given_back(*map))
    }

    fn has_given_back(&self, map: MapId) -> bool {
        self.maps.get(&map).is_some_and(|map| map.queue.has_given_back())
    }

    fn queue_is_empty(&self, map: MapId) -> bool {
        self.maps.get(&map).is_none_or(|map| map.queue.is_empty())
    }

    /// Takes the next chunk of a map from `front` and assigns it to a rank.
    fn assign(&mut self, map_id: MapId, rank: RankId, front: Range, out: &mut Vec<Action>) {
        let threads = self.ranks.threads();
        let Some(map) = self.maps.get_mut(&map_id) else { return };
        let queued = map.queue.len();
        let size = match front.split {
            // A job that tests a rank on trial is a chunk of its own.
            _ if self.ranks.is_on_trial(rank) => 1,
            true => map.pace.split_chunk_jobs(front.count, queued, threads),
            false => map.pace.chunk_jobs(queued, threads),
        };
        // One of them may have killed its rank.
        let size = if front.losses > 0 { size.min(root(front.count)) } else { size };
        let Some(jobs) = map.queue.take_some(&front, size.min(u64::from(u32::MAX))) else {
            return;
        };
        self.send_chunk(map_id, rank, jobs, out);
    }

    /// Assigns the next suspect of a map to a rank.
    pub(super) fn assign_suspect(&mut self, map_id: MapId, rank: RankId, out: &mut Vec<Action>) {
        let Some(map) = self.maps.get_mut(&map_id) else { return };
        let jobs = map.suspects.front().and_then(|front| map.suspects.take_some(&front, 1));
        if map.suspects.is_empty() {
            self.suspected.remove(&map_id);
        }
        if let Some(jobs) = jobs {
            self.send_chunk(map_id, rank, jobs, out);
        }
    }

    /// Assigns jobs that were taken out of the queue, as one chunk.
    fn send_chunk(&mut self, map_id: MapId, rank: RankId, jobs: Range, out: &mut Vec<Action>) {
        let threads = self.ranks.threads();
        let Some(map) = self.maps.get_mut(&map_id) else { return };
        map.held += jobs.count;
        map.orders = map.orders.saturating_add(1);

        let work = map.pace.estimate(jobs.count, threads);
        let gain = map.pace.gain(jobs.count, threads);
        let id = ChunkId(self.next_chunk);
        self.next_chunk += 1;
        let chunk = Chunk { rank, map: map_id, jobs, work, recall: Recall::Never, delays: 0 };
        self.ranks.update(rank, |rank| {
            rank.held.push(id);
            let worth = chunk.is_recallable() && gain.waiting > 0 && jobs.losses < SUSPECT;
            rank.recallable.extend(worth.then_some((id, gain)));
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

    /// Notes that jobs of a chunk wait behind one that takes long. They are recalled for the next idle thread, whether they were
    /// recalled before or not.
    ///
    /// This terminates: each delay of a chunk is behind another one of its jobs.
    pub(super) fn delayed(&mut self, rank: RankId, id: ChunkId) {
        let Some(chunk) = self.chunks.get_mut(id).filter(|chunk| chunk.rank == rank) else { return };
        let is_new = u64::from(chunk.delays) + 1 < chunk.jobs.count;
        // If it was asked, the answer counts these jobs: they can be given back since before this event was sent.
        if is_new && chunk.recall != Recall::Asked && chunk.jobs.recalls < RECALLS_MAX {
            chunk.delays += 1;
            chunk.recall = Recall::Never;
            self.delayed.insert(id);
        }
    }

    /// Returns the chunk to recall because jobs of it are delayed, if more threads are idle than recalls are unanswered.
    pub(super) fn next_delayed(&self) -> Option<(RankId, ChunkId)> {
        let id = *self.delayed.first().filter(|_| self.has_slack())?;
        Some((self.chunks.get(id)?.rank, id))
    }

    /// Recalls delayed jobs, one chunk for each idle thread.
    fn recall_delayed(&mut self, out: &mut Vec<Action>) {
        while let Some((rank, id)) = self.next_delayed() {
            // One of them may take long, too.
            self.split_when_returned(id);
            self.recall(rank, id, out);
        }
    }

    /// Returns the chunk to recall now, if more threads are idle than recalls are unanswered. Called after all jobs that can be
    /// assigned are assigned.
    pub(super) fn next_recall(&self) -> Option<(RankId, ChunkId)> {
        if self.has_slack() { self.ranks.recall_candidate() } else { None }
    }

    /// When threads are idle, recalls chunks from the ranks with the most work, one for each idle thread. The jobs that are given
    /// back are then assigned to the idle threads.
    ///
    /// This terminates: a chunk is recalled once; its jobs go to an idle thread; a chunk that runs is only cut if
    /// it is so long that its jobs make smaller chunks when they are assigned again. A recall may also overtake the
    /// start of a chunk, which is then given back whole; so a job is recalled `RECALLS_MAX` times at most.
    pub(super) fn recall_for_idle_threads(&mut self, out: &mut Vec<Action>) {
        self.recall_delayed(out);
        while let Some((rank, id)) = self.next_recall() {
            // Its jobs may turn out to be shorter than was estimated when it was assigned.
            let threads = self.ranks.threads();
            let chunk = self.chunks.get(id);
            let pace = chunk.and_then(|chunk| Some((chunk, &self.maps.get(&chunk.map)?.pace)));
            let gain = pace.map_or_else(Gain::default, |(chunk, pace)| pace.gain(chunk.jobs.count, threads));
            if self.ranks.update_gain(rank, id, gain) {
                self.recall(rank, id, out);
            }
        }
    }

    /// Recalls chunks for idle threads that are too short to be worth a recall otherwise: nothing has happened for a while, so
    /// they wait behind a job that takes much longer than others, or never ends.
    pub(super) fn recall_when_quiet(&mut self, out: &mut Vec<Action>) {
        let mut room =
            self.ranks.idle().saturating_sub(self.ranks.unanswered()).saturating_mul(RECALLS_PER_IDLE_THREAD);
        let mut chunks = Vec::new();
        for (id, rank) in self.ranks.present() {
            let threads = usize::try_from(rank.threads).unwrap_or(usize::MAX);
            for (position, chunk) in rank.held.iter().enumerate() {
                let Some(state) = self.chunks.get(*chunk).filter(|_| room > 0) else { break };
                let pace = self.maps.get(&state.map).map(|map| &map.pace);
                let can_be_cut = state.jobs.count > 1 && pace.is_some_and(Pace::is_automatic);
                if state.is_recallable() && (position >= threads || can_be_cut) {
                    room -= 1;
                    chunks.push((id, *chunk));
                }
            }
        }
        for (rank, chunk) in chunks {
            self.split_when_returned(chunk);
            self.recall(rank, chunk, out);
        }
    }

    /// Recalls all jobs that ranks have not started: those of map `only`, which was abandoned, or of all maps.
    pub(super) fn recall_unstarted(&mut self, only: Option<MapId>, out: &mut Vec<Action>) {
        let mut chunks = Vec::new();
        for (id, rank) in self.ranks.present() {
            let threads = usize::try_from(rank.threads).unwrap_or(usize::MAX);
            for (position, chunk) in rank.held.iter().enumerate() {
                let Some(state) = self.chunks.get(*chunk) else { continue };
                let started = position < threads && state.jobs.count == 1;
                if state.recall == Recall::Never && !started && only.is_none_or(|map| state.map == map) {
                    chunks.push((id, *chunk));
                }
            }
        }
        for (rank, chunk) in chunks {
            self.recall(rank, chunk, out);
        }
    }

    /// Has the jobs that come back from a chunk assigned in smaller chunks.
    fn split_when_returned(&mut self, id: ChunkId) {
        if let Some(chunk) = self.chunks.get_mut(id) {
            chunk.jobs.split = true;
        }
    }

    fn recall(&mut self, rank: RankId, id: ChunkId, out: &mut Vec<Action>) {
        self.delayed.remove(&id);
        if let Some(chunk) = self.chunks.get_mut(id) {
            chunk.recall = Recall::Asked;
            self.maps.entry(chunk.map).and_modify(|map| map.orders = map.orders.saturating_add(1));
            self.ranks.update(rank, |rank| {
                rank.recallable.remove(&id);
                rank.unanswered += 1;
            });
            out.push(Action::Recall { rank, chunk: id });
        }
    }
}
