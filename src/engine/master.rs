//! Rank 0's loop: commands of the driver and messages of the ranks in, orders of the scheduler out.
//!
//! This is the only place that matches on [`Action`]. The loop moves byte buffers and ids; its work for a chunk does not
//! depend on how many jobs are in it. All messages that a turn has for a rank leave as one, and so do all results for a map.

mod book;
mod error;
mod join;
mod leave;
mod pulse;
mod quiet;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, TryRecvError};

use crate::console;
use crate::engine::board::{Board, BoardWriter, ChunkDone, Listener};
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::exchange::{Command, Delivery, OutputPart};
use crate::engine::placement::{self, Rank};
use crate::engine::schedule::{Action, Assignment, ChunkId, Event, MapId, Outcome, RankId, Schedule};
use crate::engine::stop::Signals;
use crate::engine::transport::{Doorbell, Idle, Incoming, Need, Transport};
use crate::engine::wire::{self, Packet, ToMaster, ToRank};

use book::{Arrived, MapBook, Report};
pub(crate) use error::MasterError;
use join::gather_facts;
use pulse::Watch;
use quiet::Quiet;

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The driver has left, everything is settled, all ranks are dismissed.
    Whole,
    /// A signal asked for the end, and the driver or a job took longer than the time of grace.
    Stopped,
}

/// How long running jobs and the driver may take after a signal.
const GRACE: Duration = Duration::from_secs(10);
/// How long jobs of maps that were given up may run on when nothing else is left, unless it is said.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// How long ranks may take to report after they were started.
pub(crate) const JOIN: Duration = Duration::from_secs(120);
/// How long the last messages may take to leave.
const FAREWELL: Duration = Duration::from_secs(20);
/// How many messages or commands are taken in before what came of them is sent.
const TURN: usize = 512;

/// A rank as the master knows it.
struct RankBook {
    threads: u32,
    outbox: Packet<ToRank>,
    lost: bool,
}

/// Rank 0's loop and all that it knows.
pub(crate) struct Master<'t> {
    transport: &'t mut dyn Transport,
    commands: Receiver<Command>,
    signals: &'t Signals,
    board: BoardWriter<'t>,
    schedule: Schedule,
    actions: Vec<Action>,
    maps: BTreeMap<MapId, MapBook>,
    /// Maps that have something for their clients.
    ready: Vec<MapId>,
    ranks: Vec<RankBook>,
    /// Ranks that have something in their outboxes.
    unsent: Vec<RankId>,
    cancelled: u64,
    stopping: Option<Instant>,
    driver_gone: bool,
    undismissed: u32,
    watch: Option<Watch>,
    /// How long jobs of maps that were given up may run on when nothing else is left, and since when that is so.
    grace: Duration,
    lingering: Option<Instant>,
}

impl<'t> Master<'t> {
    /// Waits until all ranks have reported, compares their programs and tells each its number of threads.
    pub(crate) fn gather(
        transport: &'t mut dyn Transport,
        size: u32,
        dedicated: bool,
        commands: Receiver<Command>,
        doorbell: &Doorbell,
        signals: &'t Signals,
        listeners: Vec<Box<dyn Listener + 't>>,
    ) -> Result<Self, MasterError> {
        doorbell.install();
        let facts = gather_facts(transport, size, signals)?;
        for (rank, other) in facts.iter().enumerate() {
            if other.executable != facts[0].executable {
                let (host, first) = (other.host.clone(), facts[0].host.clone());
                return Err(MasterError::OtherProgram(RankId(rank as u32), host, first));
            }
        }
        let threads = placement::threads_per_rank(&facts, dedicated);
        let book = |threads: &u32| RankBook { threads: *threads, outbox: Packet::default(), lost: false };
        let books = threads.iter().map(book).collect();
        let ranks = facts.into_iter().zip(threads).map(|(facts, threads)| Rank { facts, threads });
        let watch = Watch::new(size as usize, transport.silence());
        let mut master = Master {
            transport,
            commands,
            signals,
            board: BoardWriter::new(ranks.collect(), listeners),
            schedule: Schedule::new(),
            actions: Vec::new(),
            maps: BTreeMap::new(),
            ready: Vec::new(),
            ranks: books,
            unsent: Vec::new(),
            cancelled: 0,
            stopping: None,
            driver_gone: false,
            undismissed: 0,
            watch,
            grace: LINGER,
            lingering: None,
        };
        master.welcome()?;
        Ok(master)
    }

    /// How long jobs of maps that were given up may run on when nothing else is left.
    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// What the run has done so far, for everybody.
    pub(crate) fn board(&self) -> Arc<Board> {
        self.board.board().clone()
    }

    /// Serves driver and ranks until the driver has left, all jobs are settled and all ranks are dismissed.
    pub(crate) fn run(&mut self) -> Result<Ended, MasterError> {
        let (mut idle, mut quiet) = (Idle::new(), Quiet::default());
        while self.undismissed > 0 {
            let mut active = false;
            for _ in 0..TURN {
                let Some(incoming) = self.transport.receive()? else { break };
                active = true;
                self.take_in(incoming)?;
            }
            if active {
                idle.heard();
            }
            for _ in 0..TURN {
                match self.commands.try_recv() {
                    Ok(command) => {
                        active = true;
                        self.obey(command);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.driver_left();
                        break;
                    }
                }
            }
            if self.signals.raised() {
                self.stop();
            }
            if self.stopping.is_some_and(|since| since.elapsed() > GRACE) {
                return Ok(Ended::Stopped);
            }
            self.leave_behind();
            self.watch(active)?;
            self.send()?;
            self.deliver();
            if active {
                quiet.end();
                idle.reset(if self.schedule.idle_threads() > 0 { Need::Now } else { Need::Later });
            } else {
                self.pause(&mut idle, &mut quiet);
            }
        }
        self.farewell()?;
        Ok(Ended::Whole)
    }

    fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(Instant::now());
            self.board.stop_requested();
            self.tell(Event::Draining, None);
        }
    }

    fn host(&self, rank: RankId) -> String {
        self.board.board().host(rank).to_string()
    }

    fn take_in(&mut self, incoming: Incoming) -> Result<(), MasterError> {
        let (rank, packet) = match incoming {
            Incoming::Message(rank, packet) => (rank, packet),
            Incoming::Closed(rank) => return self.lose(rank),
        };
        if self.ranks.get(rank.0 as usize).is_none_or(|book| book.lost) {
            return Ok(());
        }
        if let Some(watch) = &mut self.watch {
            watch.heard(rank);
        }
        self.board.received(rank, packet.len());
        let messages = wire::open::<ToMaster>(packet).map_err(|error| self.garbled(rank, error))?;
        for (message, payload) in messages {
            match message {
                ToMaster::Finished { chunk, count, wall_ns, useful_ns, failed, bad, .. } => {
                    let report = Report { count, wall_ns, useful_ns, failed, bad };
                    self.finished(rank, chunk, report, payload);
                }
                ToMaster::Part { part, map, job, stream, .. } => {
                    self.pass_on(map, OutputPart { job, stream, bytes: payload, rank, part });
                }
                ToMaster::Returned { chunk, kept } => self.tell(Event::Returned { rank, chunk, kept }, None),
                ToMaster::Signalled => self.stop(),
                ToMaster::Broken { message } => return Err(MasterError::Broken(rank, self.host(rank), message)),
                ToMaster::Join(_) | ToMaster::Pulse => {}
            }
        }
        Ok(())
    }

    fn garbled(&self, rank: RankId, error: wire::CodecError) -> MasterError {
        MasterError::Codec(rank, self.host(rank), error)
    }

    fn finished(&mut self, rank: RankId, chunk: ChunkId, report: Report, frames: Bytes) {
        let Report { count, wall_ns, useful_ns, failed, bad } = report;
        let Some(Assignment { map, first, attempt, .. }) =
            self.schedule.chunk(chunk).filter(|assignment| assignment.rank == rank)
        else {
            return;
        };
        let jobs = u64::from(count);
        let done = ChunkDone { jobs, failed: (failed.len() as u64 + u64::from(bad)).min(jobs), wall_ns, useful_ns };
        self.board.chunk_done(rank, done);
        let arrived = Arrived::new(rank, first, count, attempt, frames);
        self.tell(Event::Finished { rank, chunk, busy: wall_ns, failed, bad }, Some(arrived));
        self.advise(map);
    }

    /// A rank is gone; its jobs are given to those that remain, if any do.
    fn lose(&mut self, rank: RankId) -> Result<(), MasterError> {
        let host = self.host(rank);
        let Some(book) = self.ranks.get_mut(rank.0 as usize).filter(|book| !book.lost) else { return Ok(()) };
        book.lost = true;
        book.outbox = Packet::default();
        if let Some(watch) = &mut self.watch {
            watch.ignore(rank);
        }
        self.undismissed -= u32::from(book.threads > 0);
        if self.ranks.iter().all(|book| book.lost || book.threads == 0) {
            return Err(MasterError::Alone);
        }
        console::complain(format_args!("rank {rank} on {host} is gone; its jobs are given to others"));
        self.board.lost(rank);
        self.tell(Event::Lost { rank }, None);
        Ok(())
    }

    fn obey(&mut self, command: Command) {
        match command {
            // Nobody would close it; its client learns from the end of its channel that the pool has ended.
            Command::Open { .. } if self.driver_gone => {}
            Command::Open { map, function, context, policy, job_timeout, client } => {
                self.maps.insert(map, MapBook::new(function, context, job_timeout, client, self.ranks.len()));
                self.tell(Event::Opened { map, policy, function: function.offset }, None);
                self.advise(map);
            }
            Command::Submit { map, block } => {
                let runs: Vec<_> = block.runs().collect();
                if let Some(book) = self.maps.get_mut(&map) {
                    book.add(block);
                    for (count, avoid) in runs {
                        self.tell(Event::Submitted { map, count, avoid }, None);
                    }
                }
            }
            Command::Close { map } => {
                self.maps.entry(map).and_modify(|book| book.closed = true);
                self.tell(Event::Closed { map }, None);
            }
            Command::GiveUp { map } => self.tell(Event::Abandoned { map }, None),
            Command::Abandon { map } => self.abandon(map),
            Command::Took { rank, part } => self.post(rank, ToRank::Took { part }, Vec::new()),
            Command::Cancel { map, job, reply } => {
                let before = self.cancelled;
                self.tell(Event::CancelAsked { map, job }, None);
                let _ = reply.send(self.cancelled > before);
            }
            Command::Keep { value, bytes } => {
                for number in 0..self.ranks.len() as u32 {
                    let head = ToRank::Keep { value, bytes: bytes.len() as u64 };
                    self.post(RankId(number), head, vec![bytes.clone()]);
                }
            }
            Command::DriverLeft => self.driver_left(),
        }
    }

    fn advise(&mut self, map: MapId) {
        if let Some(book) = self.maps.get(&map) {
            book.client.advice.store(self.schedule.queue_advice(map), Ordering::Relaxed);
        }
    }

    /// Tells the scheduler a fact and carries out what it orders.
    fn tell(&mut self, event: Event, mut arrived: Option<Arrived>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.schedule.handle(event, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Assign { rank, chunk, map, first, count, attempt } => {
                    self.assign(rank, chunk, map, first, count, attempt);
                }
                Action::Recall { rank, chunk } => self.post(rank, ToRank::Recall { chunk }, Vec::new()),
                Action::Settle { map, first, count, outcome, attempt } => {
                    self.settle(map, first, count, outcome, attempt, arrived.as_mut());
                }
                Action::Release { map } => self.release(map),
                Action::Dismiss { rank } => {
                    self.post(rank, ToRank::Dismiss, Vec::new());
                    self.undismissed -= 1;
                }
            }
        }
        self.actions = actions;
    }

    fn assign(&mut self, rank: RankId, chunk: ChunkId, map: MapId, first: u64, count: u32, attempt: u32) {
        let Some(book) = self.maps.get_mut(&map) else { return };
        self.board.dispatched();
        let definition = book.introduce(map, rank);
        let inputs = book.inputs(first, count);
        let bytes = inputs.iter().map(|part| part.len() as u64).sum();
        if book.client.starts {
            book.deliver(Delivery::Started { first, count });
            self.mark_ready(map);
        }
        if let Some((definition, context)) = definition {
            self.post(rank, definition, vec![context]);
        }
        self.post(rank, ToRank::Chunk { chunk, map, first, count, attempt, bytes }, inputs);
    }

    fn settle(
        &mut self,
        map: MapId,
        first: u64,
        count: u64,
        how: Outcome,
        attempt: u32,
        arrived: Option<&mut Arrived>,
    ) {
        let failure = |kind, message: &str| Some(Failure::new(kind, message));
        let failure = match how {
            Outcome::Done | Outcome::Failed => None,
            Outcome::Lost => failure(JobErrorKind::Lost, "the ranks that had the job are gone"),
            Outcome::Cancelled => failure(JobErrorKind::Cancelled, "cancelled before it started"),
            Outcome::Stopped => failure(JobErrorKind::Stopped, "the run was stopped before the job started"),
        };
        let Some(book) = self.maps.get_mut(&map) else { return };
        let (ended, failed) = match how {
            Outcome::Done => (count, 0),
            Outcome::Failed | Outcome::Lost => (count, count),
            Outcome::Cancelled | Outcome::Stopped => (0, 0),
        };
        if let Some(settled) = &book.client.settled {
            settled.add(ended, failed);
        }
        self.board.settled(ended, failed);
        match (failure, arrived) {
            (Some(failure), _) => book.deliver(Delivery::Unrun { first, count, attempt, failure }),
            (None, Some(arrived)) if how == Outcome::Done => book.deliver(arrived.done(first, count)),
            (None, Some(arrived)) => {
                for job in first..first + count {
                    book.deliver(arrived.failed(job, self.board.board().host(arrived.rank())));
                }
            }
            (None, None) => {}
        }
        book.settle(first, count);
        self.mark_ready(map);
        if how == Outcome::Cancelled {
            self.cancelled += count;
        }
    }

    /// A piece of output for a map's client.
    fn pass_on(&mut self, map: MapId, part: OutputPart) {
        if let Some(book) = self.maps.get_mut(&map) {
            book.deliver(Delivery::Part(part));
            self.mark_ready(map);
        }
    }

    fn release(&mut self, map: MapId) {
        self.deliver();
        if let Some(book) = self.maps.remove(&map) {
            for rank in book.known_by() {
                self.post(rank, ToRank::Release { map }, Vec::new());
            }
        }
    }

    fn mark_ready(&mut self, map: MapId) {
        if self.ready.last() != Some(&map) {
            self.ready.push(map);
        }
    }

    /// Hands results over to the driver's side.
    fn deliver(&mut self) {
        for map in std::mem::take(&mut self.ready) {
            if let Some(book) = self.maps.get_mut(&map) {
                book.hand_over(map);
            }
        }
    }

    /// Adds a message to what the next [`Self::send`] sends to a rank; `payload` are its parts.
    fn post(&mut self, rank: RankId, head: ToRank, payload: Vec<Bytes>) {
        let Some(book) = self.ranks.get_mut(rank.0 as usize).filter(|book| !book.lost) else { return };
        if book.threads == 0 {
            return;
        }
        if book.outbox.is_empty() {
            self.unsent.push(rank);
        }
        book.outbox.push_with(head, payload);
    }

    fn send(&mut self) -> Result<(), MasterError> {
        for rank in std::mem::take(&mut self.unsent) {
            let book = &mut self.ranks[rank.0 as usize];
            if book.outbox.is_empty() {
                continue;
            }
            let packet = book.outbox.take();
            let packet = packet.map_err(|error| MasterError::Codec(rank, self.host(rank), error))?;
            self.board.sent(rank, packet.len());
            if let Some(watch) = &mut self.watch {
                watch.spoke(rank);
            }
            self.transport.send(rank, packet)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
