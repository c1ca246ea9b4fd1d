//! Rank 0's loop: takes the driver's commands and the ranks' messages, and carries out the scheduler's actions.
//!
//! This is the only place that matches on [`Action`]. The loop moves byte buffers and ids; its work for a chunk does not
//! depend on the number of jobs in it. All messages of one turn to a rank are sent as one, and so are all results of a map.

mod error;
mod join;
mod leave;
mod maps;
mod pulse;
mod quiet;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, TryRecvError};

use crate::engine::board::{Board, BoardWriter, ChunkDone, Listener};
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::exchange::{Command, Delivery, OutputPart};
use crate::engine::limits;
use crate::engine::placement::{self, Rank};
use crate::engine::schedule::{Action, Assignment, ChunkId, Event, MapId, Outcome, RankId, Schedule};
use crate::engine::stop::Signals;
use crate::engine::transport::{Doorbell, Idle, Incoming, Transport};
use crate::engine::wire::{self, Lists, Packet, ToMaster, ToRank};

pub(crate) use error::MasterError;
use join::gather_facts;
use maps::{ChunkReport, ChunkResults, MapState};
use pulse::RankWatch;
use quiet::Quiet;

/// How a run ended, if it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// The driver has left, all jobs are settled, all ranks are dismissed. If some were lost, the ranks cannot end together.
    Finished { after_loss: bool },
    /// The run was asked to stop, and the driver or a job took longer than it may then.
    Stopped,
}

/// The largest number of messages, and of commands, that are handled before the resulting messages are sent.
const TURN: usize = 512;

/// The master's state of a rank.
struct RankState {
    threads: u32,
    outbox: Packet<ToRank>,
    lost: bool,
}

/// Rank 0's loop and its state.
pub(crate) struct Master<'t> {
    transport: &'t mut dyn Transport,
    commands: Receiver<Command>,
    signals: &'t Signals,
    board: BoardWriter<'t>,
    schedule: Schedule,
    actions: Vec<Action>,
    /// Empty; it keeps the memory for the inputs of a chunk.
    inputs: Vec<Bytes>,
    maps: BTreeMap<MapId, MapState>,
    /// Maps with deliveries for their clients.
    ready: Vec<MapId>,
    ranks: Vec<RankState>,
    /// Ranks with messages in their outboxes.
    unsent: Vec<RankId>,
    cancelled: u64,
    /// Since when the run is being stopped, and how long jobs and the driver may then go on.
    stopping: Option<Instant>,
    stop_grace: Duration,
    driver_gone: bool,
    undismissed: u32,
    /// Whether a rank has not received its last message.
    undelivered: bool,
    watch: Option<RankWatch>,
    /// How long jobs of abandoned maps may run on when nothing else is left, and since when nothing else is left.
    grace: Duration,
    lingering: Option<Instant>,
}

impl<'t> Master<'t> {
    /// Waits until all ranks have joined, compares their executables and sends each rank its number of threads.
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
        let state = |threads: &u32| RankState { threads: *threads, outbox: Packet::default(), lost: false };
        let states = threads.iter().map(state).collect();
        let ranks = facts.into_iter().zip(threads).map(|(facts, threads)| Rank { facts, threads });
        let watch = RankWatch::new(size as usize, transport.silence());
        let mut master = Master {
            transport,
            commands,
            signals,
            board: BoardWriter::new(ranks.collect(), listeners),
            schedule: Schedule::new(),
            actions: Vec::new(),
            inputs: Vec::new(),
            maps: BTreeMap::new(),
            ready: Vec::new(),
            ranks: states,
            unsent: Vec::new(),
            cancelled: 0,
            stopping: None,
            stop_grace: limits::STOP_GRACE,
            driver_gone: false,
            undismissed: 0,
            undelivered: false,
            watch,
            grace: limits::LINGER,
            lingering: None,
        };
        master.send_threads()?;
        Ok(master)
    }

    /// Sets how long jobs of abandoned maps may run on when nothing else is left, and how long jobs and the driver may go on
    /// after a request to stop.
    pub(crate) fn set_grace(&mut self, grace: Duration, stop_grace: Duration) {
        (self.grace, self.stop_grace) = (grace, stop_grace);
    }

    /// The board of the run, which the master writes.
    pub(crate) fn board(&self) -> Arc<Board> {
        self.board.board().clone()
    }

    /// Serves driver and ranks until the driver has left, all jobs are settled and all ranks are dismissed.
    pub(crate) fn run(&mut self) -> Result<RunEnd, MasterError> {
        let (mut idle, mut quiet) = (Idle::new(), Quiet::default());
        while self.undismissed > 0 {
            let mut active = false;
            for _ in 0..TURN {
                let Some(incoming) = self.transport.receive()? else { break };
                active = true;
                self.handle_incoming(incoming)?;
            }
            if active {
                idle.received();
            }
            for _ in 0..TURN {
                match self.commands.try_recv() {
                    Ok(command) => {
                        active = true;
                        self.handle_command(command);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.driver_left();
                        break;
                    }
                }
            }
            if self.signals.poll() {
                self.stop();
            }
            if self.stopping.is_some_and(|since| since.elapsed() > self.stop_grace) {
                return Ok(RunEnd::Stopped);
            }
            self.end_lingering();
            self.watch(active)?;
            self.send()?;
            self.deliver();
            if active {
                quiet.end();
                idle.reset(self.need());
            } else {
                self.pause(&mut idle, &mut quiet);
            }
        }
        self.flush()?;
        Ok(RunEnd::Finished { after_loss: self.has_lost() })
    }

    fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(Instant::now());
            self.board.stop_requested();
            self.handle_event(Event::Draining, None);
        }
    }

    fn host(&self, rank: RankId) -> String {
        self.board.board().host(rank).to_string()
    }

    fn handle_incoming(&mut self, incoming: Incoming) -> Result<(), MasterError> {
        let (rank, incoming) = match incoming {
            Incoming::Message(rank, message) => (rank, message),
            Incoming::Closed(rank) => return self.rank_lost(rank, "is gone"),
        };
        if self.ranks.get(rank.0 as usize).is_none_or(|book| book.lost) {
            // It was given up and is alive. It waits for the end of the run, and ends earlier if it hears nothing.
            return self.send_to_lost(rank, ToRank::Pulse);
        }
        if let Some(watch) = &mut self.watch {
            watch.received(rank);
        }
        self.board.received(rank, incoming.bytes());
        let wire::Message { packet, lists } = incoming;
        let (packet_bytes, mut lists) = (packet.len(), lists.into_iter());
        let messages = wire::open::<ToMaster>(packet).map_err(|error| self.decode_error(rank, error))?;
        for (message, payload) in messages {
            match message {
                ToMaster::Finished {
                    chunk, count, wall_ns, useful_ns, failed, failed_results, lists: number, ..
                } => {
                    let report = ChunkReport {
                        count,
                        wall_ns,
                        useful_ns,
                        failed,
                        failed_results,
                        frames: payload,
                        lists: Lists::new(lists.by_ref().take(number as usize)),
                        packet_bytes,
                    };
                    self.finished(rank, chunk, report);
                }
                ToMaster::Part { part, map, job, stream, .. } => {
                    self.deliver_part(map, OutputPart { job, stream, bytes: payload, rank, part });
                }
                ToMaster::Early { chunk, first, count, .. } => self.deliver_early(rank, chunk, first, count, payload),
                ToMaster::Returned { chunk, kept } => self.handle_event(Event::Returned { rank, chunk, kept }, None),
                ToMaster::Delayed { chunk } => self.handle_event(Event::Delayed { rank, chunk }, None),
                ToMaster::Signalled => self.stop(),
                ToMaster::Failed { message } => return Err(MasterError::RankFailed(rank, self.host(rank), message)),
                ToMaster::Load(load) => self.board.load(rank, load),
                ToMaster::Join(_) | ToMaster::Pulse => {}
            }
        }
        Ok(())
    }

    fn decode_error(&self, rank: RankId, error: wire::CodecError) -> MasterError {
        MasterError::Codec(rank, self.host(rank), error)
    }

    /// Hands on results of a chunk that is not finished. It stays assigned: only its end settles its jobs.
    fn deliver_early(&mut self, rank: RankId, chunk: ChunkId, first: u32, count: u32, frames: Bytes) {
        let assignment = self.schedule.chunk(chunk).filter(|assignment| assignment.rank == rank);
        let Some(Assignment { map, first: start, .. }) = assignment else { return };
        if let Some(book) = self.maps.get_mut(&map) {
            let packet_bytes = frames.len();
            let first = start + u64::from(first);
            book.deliver(Delivery::Early { first, count: count.into(), frames, packet_bytes });
            self.mark_ready(map);
        }
    }

    fn finished(&mut self, rank: RankId, chunk: ChunkId, report: ChunkReport) {
        let ChunkReport { count, wall_ns, useful_ns, failed, failed_results, frames, lists, packet_bytes } = report;
        let Some(Assignment { map, first, attempt, .. }) =
            self.schedule.chunk(chunk).filter(|assignment| assignment.rank == rank)
        else {
            return;
        };
        let jobs = u64::from(count);
        let done =
            ChunkDone { jobs, failed: (failed.len() as u64 + u64::from(failed_results)).min(jobs), wall_ns, useful_ns };
        self.board.chunk_done(rank, done);
        let results =
            ChunkResults { rank, first, count, attempt, frames, lists, packet_bytes, next: first, position: 0 };
        self.handle_event(Event::Finished { rank, chunk, busy: wall_ns, failed, failed_results }, Some(results));
        self.update_queue_target(map);
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            // The driver has left, so the map would never be closed. Its client learns from its closed channel that the pool has
            // ended.
            Command::Open { .. } if self.driver_gone => {}
            Command::Open { map, function, context, policy, job_timeout, client } => {
                self.maps.insert(map, MapState::new(function, context, job_timeout, client, self.ranks.len()));
                self.handle_event(Event::Opened { map, policy, function: function.offset }, None);
                self.update_queue_target(map);
            }
            Command::Submit { map, block } => {
                let runs: Vec<_> = block.runs().collect();
                if let Some(book) = self.maps.get_mut(&map) {
                    book.add(block);
                    for (count, avoid) in runs {
                        self.handle_event(Event::Submitted { map, count, avoid }, None);
                    }
                }
            }
            Command::Close { map } => {
                self.maps.entry(map).and_modify(|book| book.closed = true);
                self.handle_event(Event::Closed { map }, None);
            }
            Command::GiveUp { map } => self.handle_event(Event::Abandoned { map }, None),
            Command::Abandon { map } => self.abandon(map),
            Command::PartTaken { rank, part } => self.queue_message(rank, ToRank::PartTaken { part }, Vec::new()),
            Command::Cancel { map, job, reply } => {
                let before = self.cancelled;
                self.handle_event(Event::CancelAsked { map, job }, None);
                let _ = reply.send(self.cancelled > before);
            }
            Command::Broadcast { value, bytes } => {
                for number in 0..self.ranks.len() as u32 {
                    let head = ToRank::Broadcast { value, bytes: bytes.len() as u64 };
                    self.queue_message(RankId(number), head, vec![bytes.clone()]);
                }
            }
            Command::Forget { value } => {
                for number in 0..self.ranks.len() as u32 {
                    self.queue_message(RankId(number), ToRank::Forget { value }, Vec::new());
                }
            }
            Command::ReportLoads { every } => {
                let every_ms = u32::try_from(every.as_millis()).unwrap_or(u32::MAX);
                for number in 0..self.ranks.len() as u32 {
                    self.queue_message(RankId(number), ToRank::ReportLoad { every_ms }, Vec::new());
                }
            }
            Command::StopGrace { least } => self.stop_grace = self.stop_grace.max(least),
            Command::Stop => self.stop(),
            Command::DriverLeft => self.driver_left(),
        }
    }

    fn update_queue_target(&mut self, map: MapId) {
        if let Some(book) = self.maps.get(&map) {
            book.client.queue_target.store(self.schedule.queue_target(map), Ordering::Relaxed);
        }
    }

    /// Hands an event to the scheduler and carries out the resulting actions. `results` holds the results of a finished chunk.
    fn handle_event(&mut self, event: Event, mut results: Option<ChunkResults>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.schedule.handle(event, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Assign { rank, chunk, map, first, count, attempt } => {
                    self.assign(rank, chunk, map, first, count, attempt);
                }
                Action::Recall { rank, chunk } => self.queue_message(rank, ToRank::Recall { chunk }, Vec::new()),
                Action::Settle { map, first, count, outcome, attempt } => {
                    self.settle(map, first, count, outcome, attempt, results.as_mut());
                }
                Action::Release { map } => self.release(map),
                Action::Dismiss { rank } => {
                    self.queue_message(rank, ToRank::Dismiss { after_loss: self.has_lost() }, Vec::new());
                    self.undismissed -= 1;
                }
            }
        }
        self.actions = actions;
    }

    fn assign(&mut self, rank: RankId, chunk: ChunkId, map: MapId, first: u64, count: u32, attempt: u32) {
        let Some(book) = self.maps.get_mut(&map) else { return };
        self.board.dispatched();
        let definition = book.define(map, rank);
        let mut inputs = std::mem::take(&mut self.inputs);
        inputs.extend(book.inputs(first, count));
        let bytes = inputs.iter().map(|part| part.len() as u64).sum();
        if book.client.starts {
            book.deliver(Delivery::Started { first, count });
            self.mark_ready(map);
        }
        if let Some((definition, context)) = definition {
            self.queue_message(rank, definition, vec![context]);
        }
        self.queue_message(rank, ToRank::Chunk { chunk, map, first, count, attempt, bytes }, inputs.drain(..));
        self.inputs = inputs;
    }

    fn settle(
        &mut self,
        map: MapId,
        first: u64,
        count: u64,
        how: Outcome,
        attempt: u32,
        results: Option<&mut ChunkResults>,
    ) {
        let failure = |kind, message: &str| Some(Failure::new(kind, message));
        let failure = match how {
            Outcome::Done | Outcome::Failed => None,
            Outcome::Lost if attempt == 0 => failure(JobErrorKind::Lost, "no rank is left to run the job"),
            Outcome::Lost => {
                failure(JobErrorKind::Lost, &format!("lost with its rank in attempt {attempt}: it may be the cause"))
            }
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
        match (failure, results) {
            (Some(failure), _) => book.deliver(Delivery::Unrun { first, count, attempt, failure }),
            (None, Some(results)) if how == Outcome::Done => book.deliver(results.done(first, count)),
            (None, Some(results)) => {
                for job in first..first + count {
                    book.deliver(results.failed(job, self.board.board().host(results.rank())));
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

    /// Delivers a piece of output to a map's client.
    fn deliver_part(&mut self, map: MapId, part: OutputPart) {
        if let Some(book) = self.maps.get_mut(&map) {
            book.deliver(Delivery::Part(part));
            self.mark_ready(map);
        }
    }

    fn release(&mut self, map: MapId) {
        self.deliver();
        if let Some(book) = self.maps.remove(&map) {
            for rank in book.defined_on() {
                self.queue_message(rank, ToRank::Release { map }, Vec::new());
            }
        }
    }

    fn mark_ready(&mut self, map: MapId) {
        if self.ready.last() != Some(&map) {
            self.ready.push(map);
        }
    }

    /// Sends all deliveries to the maps' clients.
    fn deliver(&mut self) {
        for map in std::mem::take(&mut self.ready) {
            if let Some(book) = self.maps.get_mut(&map) {
                book.hand_over(map);
            }
        }
    }

    /// Queues a message for a rank, to be sent by the next [`Self::send`]; `payload` holds the parts of its payload.
    fn queue_message(&mut self, rank: RankId, head: ToRank, payload: impl IntoIterator<Item = Bytes>) {
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
            self.board.sent(rank, packet.bytes());
            if let Some(watch) = &mut self.watch {
                watch.sent(rank);
            }
            self.transport.send(rank, packet)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
