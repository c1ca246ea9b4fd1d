//! The invariants that hold after every event.

use super::event::ChunkId;
use super::suspects::{MASTER, SUSPECT, root};
use super::{LOSSES_MAX, RECALLS_MAX, Recall, Schedule, orders_per_job};

impl Schedule {
    /// Asserts every invariant. Takes time in proportion to the size of the state: for tests.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold, which is a bug of the scheduler.
    pub fn check(&self) {
        self.ranks.check();
        self.check_maps();
        self.check_chunks();
        let assigned = self.serving.iter().all(|map| self.next_assignment(*map).is_none());
        assert!(assigned, "jobs wait although a rank with credit may have them");
        assert!(self.next_suspect().is_none(), "a suspect waits although a rank may have it");
        assert!(self.next_recall().is_none(), "threads are idle although a rank has a chunk to give back");
        assert!(self.next_delayed().is_none(), "threads are idle although jobs are delayed");
        assert!(!self.is_finished() || self.ranks.present().next().is_none(), "a rank was not dismissed");
    }

    fn check_maps(&self) {
        let waiting = self.maps.iter().filter(|(_, map)| !map.queue.is_empty()).map(|(id, _)| *id);
        let mut serving: Vec<_> = self.serving.iter().copied().collect();
        serving.sort_unstable();
        assert_eq!(serving, waiting.collect::<Vec<_>>(), "maps with queued jobs");
        let chunks = || self.chunks.in_order().into_iter().map(|(_, chunk)| chunk);
        for (id, map) in &self.maps {
            map.queue.check();
            assert_eq!(map.submitted, map.settled + map.queue.len() + map.suspects.len() + map.held, "jobs of {id:?}");
            assert!(!(map.closed || map.abandoned) || map.settled < map.submitted, "{id:?} was not released");
            let (jobs, suspects) = (self.unassignable(*id), self.unassignable_suspects(*id));
            assert!(
                (map.queue.is_empty() || jobs.is_none()) && (map.suspects.is_empty() || suspects.is_none()),
                "{id:?} has queued jobs that will not be assigned: {jobs:?} {suspects:?}"
            );
            map.suspects.check();
            assert_eq!(self.suspected.contains(id), !map.suspects.is_empty(), "suspects of {id:?}");
            assert!(map.queue.ranges().all(|jobs| jobs.losses < SUSPECT), "{id:?} queues suspects as usual");
            assert!(map.suspects.ranges().all(|jobs| jobs.losses >= SUSPECT), "{id:?} suspects other jobs");

            let held = chunks().filter(|chunk| chunk.map == *id).map(|chunk| chunk.jobs);
            let mut ranges: Vec<_> = held.chain(map.queue.ranges().chain(map.suspects.ranges()).copied()).collect();
            ranges.sort_unstable();
            assert!(ranges.windows(2).all(|pair| pair[0].end() <= pair[1].first), "{id:?} has a job twice");
            assert!(
                ranges.last().is_none_or(|last| last.end() <= map.submitted),
                "{id:?} has a job that was not submitted"
            );
            assert!(ranges.iter().all(|jobs| jobs.failures <= map.retries), "{id:?} retries too often");
            assert!(ranges.iter().all(|jobs| jobs.losses < LOSSES_MAX), "{id:?} loses jobs too often");
            assert!(ranges.iter().all(|jobs| jobs.recalls <= RECALLS_MAX), "{id:?} recalls jobs too often");
            let most = map.submitted.saturating_mul(orders_per_job(map.retries));
            assert!(map.orders <= most, "{} orders about {} jobs of {id:?}", map.orders, map.submitted);
        }
    }

    fn check_chunks(&self) {
        let held: usize = self.ranks.present().map(|(_, rank)| rank.held.len()).sum();
        assert_eq!(held, self.chunks.len(), "chunks held");
        for (id, chunk) in self.chunks.in_order() {
            let rank = self.ranks.get(chunk.rank).expect("a chunk's rank");
            assert!(rank.held.contains(id), "{id:?} is held by its rank");
            assert!(chunk.is_recallable() || !rank.recallable.contains_key(&id), "{id:?} recallable");
            assert!(chunk.jobs.count > 0, "{id:?} is empty");
        }
        let is_recallable = |id: &ChunkId| self.chunks.get(*id).is_some_and(|chunk| chunk.recall == Recall::Never);
        assert!(self.delayed.iter().all(is_recallable), "delayed chunks {:?}", self.delayed);
        for (map, held) in self.maps.iter().map(|(id, map)| (id, map.held)) {
            let chunks = self.chunks.in_order().into_iter().map(|(_, chunk)| chunk).filter(|chunk| chunk.map == *map);
            assert_eq!(held, chunks.map(|chunk| chunk.jobs.count).sum::<u64>(), "jobs of {map:?} held");
        }
        for (id, rank) in self.ranks.present() {
            let chunks = || rank.held.iter().filter_map(|chunk| self.chunks.get(*chunk));
            let work = chunks().map(|chunk| chunk.work).fold(0, u64::saturating_add);
            assert_eq!(rank.work, work, "work of {id:?}");
            let asked = chunks().filter(|chunk| chunk.recall == Recall::Asked).count() as u64;
            assert_eq!(rank.unanswered, asked, "recalls of {id:?}");
            let suspects: Vec<_> = chunks().map(|chunk| chunk.jobs).filter(|jobs| jobs.losses >= SUSPECT).collect();
            if let Some(first) = suspects.first() {
                assert!(id != MASTER && suspects.len() == rank.held.len(), "{id:?} holds suspects and others");
                assert!(suspects.iter().all(|jobs| jobs.count == 1 && jobs.losses == first.losses), "{suspects:?}");
                let most = if first.losses + 1 < LOSSES_MAX { root(rank.threads) } else { 1 };
                assert!(suspects.len() as u64 <= most && rank.reserved, "{id:?} holds {} suspects", suspects.len());
            }
            assert!(!rank.reserved || !self.suspected.is_empty() || !suspects.is_empty(), "{id:?} is reserved");
        }
    }
}
