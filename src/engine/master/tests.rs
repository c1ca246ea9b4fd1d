use std::sync::mpsc;
use std::thread;

use super::*;
use crate::engine::func;
use crate::engine::placement::RankFacts;
use crate::engine::rank;
use crate::engine::stats::Stats;
use crate::engine::transport::local::{Spoke, star};
use crate::engine::transport::{Polling, TransportError, TransportInfo};
use crate::engine::wire::FunctionId;
use crate::pool::Pool;

const EXECUTABLE: u64 = 7;

fn facts(executable: u64) -> RankFacts {
    RankFacts {
        host: "here".into(),
        pid: 1,
        processes: 1,
        cpus: vec![0],
        parallelism: 1,
        machine_cpus: 1,
        threads_asked: None,
        cpus_per_job: std::num::NonZeroU32::MIN,
        executable,
        complaint: None,
    }
}

fn send(spoke: &mut Spoke, message: ToMaster) {
    let mut packet = Packet::default();
    packet.push(message);
    spoke.send(RankId(0), packet.take().unwrap()).unwrap();
}

/// Waits until the master has sent a message that `wanted` accepts.
fn wait_for(spoke: &mut Spoke, wanted: impl Fn(&ToRank) -> bool) -> (ToRank, Bytes) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(Incoming::Message(_, message)) = spoke.receive().unwrap() {
            for (message, payload) in wire::open::<ToRank>(message.packet).unwrap() {
                if wanted(&message) {
                    return (message, payload);
                }
            }
        }
        assert!(Instant::now() < deadline, "the master did not send it");
        thread::yield_now();
    }
}

/// The results of the driver's map.
type Results = Vec<Result<u64, JobErrorKind>>;

/// Runs a map of 100 jobs on two ranks: a real one, and one that `other` plays. Returns how the master ended and the map's results.
fn run_with(other: impl FnOnce(Spoke) + Send) -> (Result<RunEnd, MasterError>, Results) {
    let (ended, results, _) = run_and_count(other);
    (ended, results)
}

/// As [`run_with`], and the board's statistics when the map is over.
fn run_and_count(other: impl FnOnce(Spoke) + Send) -> (Result<RunEnd, MasterError>, Results, Option<Stats>) {
    let doorbell = Doorbell::default();
    let signals = &Signals::default();
    let (mut center, mut spokes) = star(2, &doorbell);
    let (played, mut real) = (spokes.pop().unwrap(), spokes.pop().unwrap());
    let (sender, results) = mpsc::channel();
    let ended = thread::scope(|scope| {
        scope.spawn(move || {
            let (rank, doorbell) = (real.rank(), real.doorbell());
            rank::serve(rank, &mut real, doorbell, facts(EXECUTABLE), None, signals)
        });
        scope.spawn(move || other(played));
        let (commands, received) = crossbeam_channel::unbounded();
        let mut master = Master::gather(&mut center, 2, false, received, &doorbell, signals, Vec::new())?;
        // The driver asks for more time.
        master.set_grace(limits::LINGER, Duration::ZERO);
        let pool = Pool::new(commands, doorbell.clone(), EXECUTABLE, master.board(), TransportInfo::Local);
        pool.grant_after_stop(limits::STOP_GRACE);
        scope.spawn(move || {
            let map = pool.map(|x: u64| x * x, 0..100).chunk_size(1);
            let results: Results = map.map(|result| result.map_err(|error| error.kind)).collect();
            let _ = sender.send((results, pool.stats()));
            pool.leave();
        });
        let ended = master.run();
        drop(master);
        drop(center);
        ended
    });
    let (results, stats) = results.recv().unwrap_or_default();
    (ended, results, stats)
}

fn squares() -> Vec<Result<u64, JobErrorKind>> {
    (0..100).map(|x| Ok(x * x)).collect()
}

#[test]
fn the_jobs_of_a_rank_that_goes_away_are_run_by_another() {
    let (ended, results, stats) = run_and_count(|mut spoke| {
        send(&mut spoke, ToMaster::Join(Box::new(facts(EXECUTABLE))));
        wait_for(&mut spoke, |message| matches!(message, ToRank::Chunk { .. }));
    });
    assert_eq!(ended.unwrap(), RunEnd::Finished { after_loss: true });
    assert_eq!(results, squares());
    let stats = stats.expect("the run goes on until the driver has left");
    assert_eq!((stats.jobs, stats.failed, stats.ranks[0].jobs, stats.ranks[1].jobs), (100, 0, 100, 0));
    assert!(stats.ranks[1].lost.is_some() && stats.ranks[0].lost.is_none() && stats.stop_requested.is_none());
    assert!(stats.ranks[1].messages_to > 0 && stats.ranks[1].bytes_to > 0 && stats.ranks[1].messages_from == 0);
    assert!(stats.ranks[0].messages_from > 0 && stats.ranks[0].bytes_from > 0 && stats.wall > Duration::ZERO);
}

#[test]
fn a_rank_that_gets_a_signal_stops_the_run_and_the_board_shows_it() {
    let (ended, results, stats) = run_and_count(|mut spoke| {
        send(&mut spoke, ToMaster::Join(Box::new(facts(EXECUTABLE))));
        wait_for(&mut spoke, |message| matches!(message, ToRank::Chunk { .. }));
        send(&mut spoke, ToMaster::Signalled);
    });
    assert_eq!(ended.unwrap(), RunEnd::Finished { after_loss: true });
    assert_eq!(results.len(), 100);
    assert!(stats.unwrap().stop_requested.is_some());
}

#[test]
fn a_garbled_message_ends_the_run_and_names_the_rank() {
    let (ended, results) = run_with(|mut spoke| {
        send(&mut spoke, ToMaster::Join(Box::new(facts(EXECUTABLE))));
        wait_for(&mut spoke, |message| matches!(message, ToRank::Welcome { .. }));
        spoke.send(RankId(0), Bytes::from_static(b"nonsense").into()).unwrap();
        wait_until_closed(&mut spoke);
    });
    let error = ended.unwrap_err().to_string();
    assert!(error.starts_with("rank 1 on here: garbled message"), "{error}");
    assert_eq!(results.last().unwrap(), &Err(JobErrorKind::Closed), "the driver gets an error");
}

fn wait_until_closed(spoke: &mut Spoke) {
    while !matches!(spoke.receive().unwrap(), Some(Incoming::Closed(_))) {
        thread::yield_now();
    }
}

#[test]
fn a_rank_that_fails_ends_the_run_with_its_own_message() {
    let (ended, _) = run_with(|mut spoke| {
        send(&mut spoke, ToMaster::Join(Box::new(facts(EXECUTABLE))));
        send(&mut spoke, ToMaster::Failed { message: "out of threads".into() });
        wait_until_closed(&mut spoke);
    });
    assert_eq!(ended.unwrap_err().to_string(), "rank 1 on here failed: out of threads");
}

#[test]
fn another_executable_on_a_rank_is_refused() {
    let (ended, _) = run_with(|mut spoke| {
        send(&mut spoke, ToMaster::Join(Box::new(facts(EXECUTABLE + 1))));
        wait_until_closed(&mut spoke);
    });
    let error = ended.unwrap_err().to_string();
    assert!(error.starts_with("the program on here (rank 1) differs from the one on here (rank 0)"), "{error}");
}

#[test]
fn a_rank_that_leaves_before_it_joins_ends_the_run() {
    let (ended, _) = run_with(drop);
    assert!(ended.unwrap_err().to_string().contains("left before the run began"));
}

#[test]
fn late_and_repeated_answers_change_nothing() {
    let (ended, results) = run_with(|mut spoke| {
        send(&mut spoke, ToMaster::Join(Box::new(facts(EXECUTABLE))));
        let is_chunk = |message: &ToRank| matches!(message, ToRank::Chunk { .. });
        let (ToRank::Chunk { chunk, .. }, _) = wait_for(&mut spoke, is_chunk) else { return };
        // An answer to a chunk that does not exist, two answers to recalls that were not sent; the chunk is never answered.
        let stranger = ChunkId(chunk.0 + 1_000_000);
        let answer = ToMaster::Finished {
            chunk: stranger,
            count: 3,
            wall_ns: 1,
            useful_ns: 1,
            failed: vec![0, 9],
            failed_results: 0,
            bytes: 0,
            lists: 0,
        };
        send(&mut spoke, answer);
        send(&mut spoke, ToMaster::Returned { chunk: stranger, kept: 1 });
        send(&mut spoke, ToMaster::Returned { chunk, kept: 0 });
    });
    assert_eq!(ended.unwrap(), RunEnd::Finished { after_loss: true });
    assert_eq!(results, squares());
}

#[test]
fn a_rank_that_fails_reports_it_to_the_master() {
    let doorbell = Doorbell::default();
    let (mut center, mut spokes) = star(1, &doorbell);
    let mut spoke = spokes.pop().unwrap();
    center.send(RankId(0), Bytes::from_static(b"nonsense").into()).unwrap();
    let doorbell = spoke.doorbell();
    assert!(rank::serve(RankId(0), &mut spoke, doorbell, facts(EXECUTABLE), None, &Signals::default()).is_err());
    let mut messages = Vec::new();
    while let Some(Incoming::Message(_, message)) = center.receive().unwrap() {
        messages.extend(wire::open::<ToMaster>(message.packet).unwrap().into_iter().map(|(message, _)| message));
    }
    assert!(
        matches!(messages.last(), Some(ToMaster::Failed { message }) if message.contains("garbled")),
        "{messages:?}"
    );
}

#[test]
fn a_bug_on_a_rank_is_reported_to_the_master_too() {
    let doorbell = Doorbell::default();
    let (mut center, mut spokes) = star(1, &doorbell);
    let mut spoke = spokes.pop().unwrap();
    // A chunk that arrives before the rank has threads is a bug of the master, and a panic on the rank.
    let function = FunctionId::of(func::plain(|x: u64| x), EXECUTABLE).unwrap();
    let mut packet = Packet::default();
    packet.push(ToRank::Define { map: MapId(0), function, limit: 0, bytes: 0 });
    packet.push(ToRank::Chunk { chunk: ChunkId(0), map: MapId(0), first: 0, count: 0, attempt: 1, bytes: 0 });
    center.send(RankId(0), packet.take().unwrap()).unwrap();
    let doorbell = spoke.doorbell();
    assert!(rank::serve(RankId(0), &mut spoke, doorbell, facts(EXECUTABLE), None, &Signals::default()).is_err());
    let mut messages = Vec::new();
    while let Some(Incoming::Message(_, message)) = center.receive().unwrap() {
        messages.extend(wire::open::<ToMaster>(message.packet).unwrap().into_iter().map(|(message, _)| message));
    }
    assert!(
        matches!(messages.last(), Some(ToMaster::Failed { message }) if message.starts_with("a bug in")),
        "{messages:?}"
    );
}

const SILENCE: Duration = Duration::from_secs(1);

/// A transport whose other end can die without being reported.
struct Mortal<T>(T);

impl<T: Transport> Transport for Mortal<T> {
    fn send(&mut self, to: RankId, message: wire::Message) -> Result<(), TransportError> {
        self.0.send(to, message)
    }

    fn receive(&mut self) -> Result<Option<Incoming>, TransportError> {
        self.0.receive()
    }

    fn polling(&self) -> Polling {
        Polling::Sometimes
    }

    fn is_flushed(&self) -> bool {
        self.0.is_flushed()
    }

    fn silence(&self) -> Option<Duration> {
        Some(SILENCE)
    }
}

/// Runs a master of two ranks, of which `play` plays the second; the first is not watched. Returns how the master ended.
fn watched(play: impl FnOnce(&mut Spoke) + Send) -> Result<RunEnd, MasterError> {
    let doorbell = Doorbell::default();
    let signals = &Signals::default();
    let (center, mut spokes) = star(2, &doorbell);
    let mut center = Mortal(center);
    let (mut played, mut first) = (spokes.pop().unwrap(), spokes.pop().unwrap());
    let (commands, received) = crossbeam_channel::unbounded();
    for spoke in [&mut first, &mut played] {
        send(spoke, ToMaster::Join(Box::new(facts(EXECUTABLE))));
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            play(&mut played);
            let _ = commands.send(Command::DriverLeft);
            while !matches!(played.receive().unwrap(), Some(Incoming::Closed(_))) {
                thread::yield_now();
            }
        });
        let mut master = Master::gather(&mut center, 2, false, received, &doorbell, signals, Vec::new())?;
        let ended = master.run();
        if ended.is_err() {
            master.abort_ranks();
        }
        drop(master);
        drop(center);
        ended
    })
}

#[test]
fn a_silent_rank_is_given_up_and_what_it_says_later_is_dropped_and_answered() {
    let started = Instant::now();
    let ended = watched(|spoke| {
        wait_for(spoke, |message| *message == ToRank::GivenUp);
        let waited = started.elapsed();
        assert!(waited >= SILENCE && waited < SILENCE * 2, "given up after {waited:?}");
        // From any other rank this would end the run.
        send(spoke, ToMaster::Failed { message: "a late word".into() });
        wait_for(spoke, |message| *message == ToRank::Pulse);
    });
    assert_eq!(ended.unwrap(), RunEnd::Finished { after_loss: true });
}

#[test]
fn a_given_up_rank_stops_its_jobs_and_waits_for_the_end_of_the_run() {
    let doorbell = Doorbell::default();
    let (mut center, mut spokes) = star(1, &doorbell);
    let spoke = spokes.pop().unwrap();
    let doorbell = spoke.doorbell();
    thread::scope(|scope| {
        let serve =
            move || rank::serve(RankId(0), &mut Mortal(spoke), doorbell, facts(EXECUTABLE), None, &Signals::default());
        let served = scope.spawn(serve);
        let mut order = |message| {
            let mut packet = Packet::default();
            packet.push(message);
            center.send(RankId(0), packet.take().unwrap()).unwrap();
        };
        order(ToRank::Welcome { threads: 1, slots_before: 0 });
        order(ToRank::GivenUp);
        // It would be a bug of the master if it came before the rank was given up: the map is not defined.
        order(ToRank::Chunk { chunk: ChunkId(1), map: MapId(1), first: 0, count: 1, attempt: 1, bytes: 0 });
        order(ToRank::Dismiss { after_loss: false });
        assert_eq!(served.join().unwrap().unwrap(), rank::RankEnd::AfterLoss);
    });
}

#[test]
fn a_rank_that_only_sends_pulses_is_kept_and_gets_pulses() {
    let ended = watched(|spoke| {
        let started = Instant::now();
        while started.elapsed() < SILENCE * 2 {
            send(spoke, ToMaster::Pulse);
            wait_for(spoke, |message| *message == ToRank::Pulse);
        }
    });
    assert_eq!(ended.unwrap(), RunEnd::Finished { after_loss: false });
}

#[test]
fn a_rank_ends_by_itself_when_its_master_is_silent() {
    let doorbell = Doorbell::default();
    let (mut center, mut spokes) = star(1, &doorbell);
    let spoke = spokes.pop().unwrap();
    let doorbell = spoke.doorbell();
    let mut packet = Packet::default();
    packet.push(ToRank::Welcome { threads: 1, slots_before: 0 });
    center.send(RankId(0), packet.take().unwrap()).unwrap();
    let ended = rank::serve(RankId(0), &mut Mortal(spoke), doorbell, facts(EXECUTABLE), None, &Signals::default());
    let error = ended.unwrap_err().to_string();
    assert!(error.starts_with("rank 0 has sent no message for "), "{error}");
    let mut pulses = 0;
    while let Some(Incoming::Message(_, message)) = center.receive().unwrap() {
        pulses +=
            wire::open::<ToMaster>(message.packet).unwrap().iter().filter(|(head, _)| *head == ToMaster::Pulse).count();
    }
    assert!(pulses > 2, "{pulses} pulses in 2 s");
}

#[test]
fn a_rank_that_is_ordered_to_abort_ends_without_a_message() {
    let doorbell = Doorbell::default();
    let (mut center, mut spokes) = star(1, &doorbell);
    let mut spoke = spokes.pop().unwrap();
    let doorbell = spoke.doorbell();
    let mut packet = Packet::default();
    packet.push(ToRank::Abort);
    center.send(RankId(0), packet.take().unwrap()).unwrap();
    let ended = rank::serve(RankId(0), &mut spoke, doorbell, facts(EXECUTABLE), None, &Signals::default());
    assert!(matches!(ended, Err(rank::RankError::Aborted)), "{ended:?}");
    while let Some(Incoming::Message(_, message)) = center.receive().unwrap() {
        let messages = wire::open::<ToMaster>(message.packet).unwrap();
        assert!(!messages.iter().any(|(head, _)| matches!(head, ToMaster::Failed { .. })), "{messages:?}");
    }
}
