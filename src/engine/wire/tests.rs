//! Encoded values decode to the same values, and any bytes decode to a value or an error: no panic, no large allocation.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::num::NonZeroU32;

use allocation_counter::measure;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::wire::FunctionId;

/// Makes a function's id from the bytes of its encoding.
fn function_id(offset: i64, seal: u64) -> FunctionId {
    decode(&encode(&(offset, seal)).unwrap()).unwrap()
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(any::<u8>(), 0..20), (0usize..3000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),]
        .prop_map(Bytes::from)
}

/// Draws a message to a rank with its payload, which is empty if the message has none.
fn to_rank() -> impl Strategy<Value = (ToRank, Bytes)> {
    let plain = prop_oneof![
        any::<(u32, u32)>().prop_map(|(threads, slots_before)| ToRank::Welcome { threads, slots_before }),
        any::<u64>().prop_map(|part| ToRank::PartTaken { part }),
        any::<u64>().prop_map(|map| ToRank::Cancel { map: MapId(map) }),
        any::<u64>().prop_map(|chunk| ToRank::Recall { chunk: ChunkId(chunk) }),
        any::<u64>().prop_map(|map| ToRank::Release { map: MapId(map) }),
        any::<u64>().prop_map(|value| ToRank::Forget { value }),
        any::<bool>().prop_map(|after_loss| ToRank::Dismiss { after_loss }),
        Just(ToRank::GivenUp),
        Just(ToRank::Pulse),
        Just(ToRank::Abort),
    ];
    let loaded = (any::<(u64, u64, u64, u32, u32, i64, u8)>(), payload()).prop_map(|(numbers, payload)| {
        let (a, b, first, count, attempt, offset, which) = numbers;
        let bytes = payload.len() as u64;
        let head = match which % 3 {
            0 => ToRank::Define { map: MapId(a), function: function_id(offset, b), limit: b, bytes },
            1 => ToRank::Broadcast { value: a, bytes },
            _ => ToRank::Chunk { chunk: ChunkId(a), map: MapId(b), first, count, attempt, bytes },
        };
        (head, payload)
    });
    prop_oneof![plain.prop_map(|head| (head, Bytes::new())), loaded]
}

fn facts() -> impl Strategy<Value = RankFacts> {
    (".*", any::<(u32, u32, u32, u32, u64)>(), vec(any::<u32>(), 0..200)).prop_map(|(host, numbers, cpus)| {
        let (pid, parallelism, machine_cpus, asked, executable) = numbers;
        RankFacts {
            host,
            pid,
            processes: executable ^ 1,
            cpus,
            parallelism,
            machine_cpus,
            threads_asked: NonZeroU32::new(asked),
            cpus_per_job: NonZeroU32::new(pid).unwrap_or(NonZeroU32::MIN),
            executable,
            complaint: (pid % 2 == 0).then(|| "no such program".into()),
        }
    })
}

fn to_master() -> impl Strategy<Value = (ToMaster, Bytes)> {
    let plain = prop_oneof![
        facts().prop_map(|facts| ToMaster::Join(Box::new(facts))),
        any::<(u64, u32)>().prop_map(|(chunk, kept)| ToMaster::Returned { chunk: ChunkId(chunk), kept }),
        any::<u64>().prop_map(|chunk| ToMaster::Delayed { chunk: ChunkId(chunk) }),
        Just(ToMaster::Signalled),
        Just(ToMaster::Pulse),
        ".*".prop_map(|message| ToMaster::Failed { message }),
    ];
    let loaded = (any::<(u64, u32, u64, Option<bool>)>(), vec(any::<u32>(), 0..50), payload()).prop_map(
        |(numbers, failed, payload)| {
            let (a, count, b, stream) = numbers;
            let bytes = payload.len() as u64;
            let head = match stream {
                Some(is_stderr) => {
                    let stream = if is_stderr { OutputStream::Stderr } else { OutputStream::Stdout };
                    ToMaster::Part { part: a, map: MapId(b), job: a ^ b, stream, bytes }
                }
                None if b % 2 == 0 => ToMaster::Early { chunk: ChunkId(a), first: count / 2, count, bytes },
                None => ToMaster::Finished {
                    chunk: ChunkId(a),
                    count,
                    wall_ns: b,
                    useful_ns: a ^ b,
                    failed,
                    failed_results: 1,
                    bytes,
                    lists: 2,
                },
            };
            (head, payload)
        },
    );
    prop_oneof![plain.prop_map(|head| (head, Bytes::new())), loaded]
}

/// Returns the packet of these messages; each payload is added in two parts.
fn packet_of<H: Head + Clone>(messages: &[(H, Bytes)]) -> Bytes {
    let mut packet = Packet::default();
    for (head, payload) in messages {
        if payload.is_empty() {
            packet.push(head.clone());
        } else {
            let middle = payload.len() / 2;
            packet.push_with(head.clone(), [payload.slice(..middle), payload.slice(middle..)]);
        }
    }
    assert_eq!(packet.is_empty(), messages.is_empty());
    let bytes = packet.take().unwrap().packet;
    assert!(packet.is_empty());
    bytes
}

/// Returns how much decoding `bytes` bytes may allocate: the decode limit, which is 16 times the upper end of the size class and
/// so at most 512 times `bytes`, and the memory that three nested collections reserve, a mebibyte each.
fn allowance(bytes: usize) -> u64 {
    512 * bytes as u64 + (4 << 20)
}

/// Decodes bytes in every possible way; none may panic, or allocate more than the allowance.
fn read_in_all_ways(bytes: &[u8]) {
    fn reads<T>(what: &str, length: usize, read: impl FnOnce() -> T) -> T {
        let mut value = None;
        let used = measure(|| value = Some(read()));
        assert!(used.bytes_max < allowance(length), "{what} of {length} bytes allocated {}", used.bytes_max);
        value.expect("it was read")
    }
    let length = bytes.len();
    let packet = Bytes::copy_from_slice(bytes);
    drop(reads("opening a packet", length, || open::<ToRank>(packet.clone())));
    drop(reads("opening a packet", length, || open::<ToMaster>(packet.clone())));
    drop(reads("a string", length, || decode::<String>(bytes)));
    drop(reads("bytes", length, || decode::<Vec<u8>>(bytes)));
    drop(reads("numbers", length, || decode::<Vec<u64>>(bytes)));
    drop(reads("nested lists", length, || decode::<Vec<Vec<Vec<String>>>>(bytes)));
    drop(reads("a table", length, || decode::<BTreeMap<String, Option<(f64, char)>>>(bytes)));
    drop(reads("a failure", length, || decode::<Failure>(bytes)));
    drop(reads("facts", length, || decode::<RankFacts>(bytes)));
    drop(reads("a boxed text", length, || decode::<Box<str>>(bytes)));
    drop(reads("large elements", length, || decode::<Vec<[u128; 32]>>(bytes)));
    reads("frames", length, || {
        let mut frames = Frames::new(bytes);
        let mut left = bytes.len();
        while frames.next().is_ok() {
            assert!(frames.rest().len() < left, "every frame takes at least a byte");
            left = frames.rest().len();
        }
        assert!(frames.rest().len() <= left);
    });
}

/// Checks that a value is decoded from its encoding, and not from a part of it.
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = encode(value).unwrap();
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value));
    let mut more = bytes.to_vec();
    more.push(0);
    assert!(decode::<T>(&more).is_err(), "a byte is left over");
}

proptest! {
    // A failing case is printed completely; no file is written.
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_of_all_messages_survive(there in vec(to_rank(), 0..20), back in vec(to_master(), 0..20)) {
        prop_assert_eq!(open::<ToRank>(packet_of(&there)).unwrap(), there);
        prop_assert_eq!(open::<ToMaster>(packet_of(&back)).unwrap(), back);
    }

    #[test]
    fn a_packet_that_is_cut_short_or_has_more_is_an_error(messages in vec(to_rank(), 1..6), cut in any::<prop::sample::Index>()) {
        let packet = packet_of(&messages);
        prop_assert!(open::<ToRank>(packet.slice(..cut.index(packet.len()))).is_err());
        let mut more = packet.to_vec();
        more.push(0);
        prop_assert!(open::<ToRank>(more.into()).is_err());
    }

    #[test]
    fn a_packet_with_a_flipped_bit_is_an_error_or_a_value(
        there in vec(to_rank(), 1..6),
        back in vec(to_master(), 1..6),
        place in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        for packet in [packet_of(&there), packet_of(&back)] {
            let mut bytes = packet.to_vec();
            let place = place.index(bytes.len());
            bytes[place] ^= 1_u8 << bit;
            read_in_all_ways(&bytes);
        }
    }

    #[test]
    fn garbage_is_an_error_or_a_value(bytes in vec(any::<u8>(), 0..200)) {
        read_in_all_ways(&bytes);
    }

    /// Wrong lengths are the most dangerous kind of garbled bytes.
    #[test]
    fn garbage_with_great_lengths_is_an_error_or_a_value(
        parts in vec((prop_oneof![Just(251u8), Just(252), Just(253), Just(254), Just(255), 0..8u8], any::<u64>()), 1..20),
        padding in 0usize..3000,
    ) {
        let mut bytes = Vec::new();
        for (tag, number) in parts {
            bytes.push(tag);
            bytes.extend(number.to_le_bytes());
        }
        bytes.resize(bytes.len() + padding, 0);
        read_in_all_ways(&bytes);
        // And as the heads of a packet.
        let mut packet = bytes.clone();
        packet.extend((bytes.len() as u32).to_le_bytes());
        read_in_all_ways(&packet);
    }

    #[test]
    fn values_survive(
        numbers in vec(any::<(u128, i64, f64)>(), 0..40),
        table in prop::collection::btree_map(".*", vec(any::<Option<char>>(), 0..5), 0..10),
        text in ".*",
    ) {
        survives(&numbers);
        survives(&table);
        survives(&text);
        survives(&(numbers, table, text));
    }

    #[test]
    fn frames_survive(jobs in vec(prop_oneof![payload().prop_map(Ok), ".*".prop_map(Err)], 0..30)) {
        let mut out = Vec::new();
        for job in &jobs {
            push(&mut out, job);
        }
        let mut frames = Frames::new(&out);
        for job in &jobs {
            is_next(&mut frames, job);
        }
        prop_assert!(frames.rest().is_empty());
        prop_assert!(frames.next().is_err());
    }

    #[test]
    fn frames_that_are_cut_short_are_an_error(job in prop_oneof![payload().prop_map(Ok), ".*".prop_map(Err)], cut in any::<prop::sample::Index>()) {
        let mut out = Vec::new();
        push(&mut out, &job);
        prop_assert!(Frames::new(&out[..cut.index(out.len())]).next().is_err());
    }
}

fn failure(message: &str) -> Failure {
    let location = (message.len() % 2 == 0).then(|| format!("{message}.rs:1:2"));
    Failure { kind: JobErrorKind::Panic, message: message.into(), location }
}

fn push(out: &mut Vec<u8>, job: &Result<Bytes, String>) {
    match job {
        Ok(value) => push_value(out, |out| {
            out.extend_from_slice(value);
            Ok::<_, CodecError>(())
        })
        .unwrap(),
        Err(message) => push_failure(out, &failure(message)),
    }
}

fn is_next(frames: &mut Frames<'_>, job: &Result<Bytes, String>) {
    match (frames.next().unwrap(), job) {
        (Frame::Value(bytes), Ok(value)) => assert_eq!(bytes, &value[..]),
        (Frame::Failure(bytes), Err(message)) => assert_eq!(decode::<Failure>(bytes), Ok(failure(message))),
        (frame, _) => panic!("{frame:?} for {job:?}"),
    }
}

#[test]
fn frames_of_all_lengths_near_a_limit_survive() {
    for length in (0..600).chain(65_530..65_540) {
        let job = Ok(Bytes::from(vec![length as u8; length]));
        let mut out = b"before".to_vec();
        push(&mut out, &job);
        push(&mut out, &Err("after".into()));
        let mut frames = Frames::new(&out[6..]);
        is_next(&mut frames, &job);
        is_next(&mut frames, &Err("after".into()));
        assert!(frames.rest().is_empty());
    }
}

#[test]
fn a_value_that_fails_to_be_written_leaves_no_trace() {
    let mut out = vec![1, 2, 3];
    let written = push_value(&mut out, |out| {
        out.extend([9; 1000]);
        Err("half way")
    });
    assert_eq!((written, out), (Err("half way"), vec![1, 2, 3]));
}

#[test]
fn every_length_of_small_numbers_in_large_types_can_be_read() {
    // The limit on what is decoded counts numbers at their full width.
    for length in (0..1200).chain([4095, 65_535, 1 << 20, (1 << 20) + 9]) {
        assert_eq!(
            decode::<Vec<u128>>(&encode(&vec![1u128; length]).unwrap()).map(|numbers| numbers.len()),
            Ok(length)
        );
        let nested = vec![vec![0i128]; length / 2];
        assert_eq!(decode::<Vec<Vec<i128>>>(&encode(&nested).unwrap()).map(|lists| lists.len()), Ok(length / 2));
    }
}

#[test]
fn a_text_whose_length_is_a_lie_is_not_allocated() {
    for length in [1u64 << 20, 1 << 32, 1 << 40, u64::MAX] {
        let mut bytes = encode(&length).unwrap().to_vec();
        for padding in [0, 10, 1000, 2000, 100_000] {
            bytes.resize(9 + padding, b'x');
            read_in_all_ways(&bytes);
        }
    }
}

#[test]
fn heads_that_claim_more_payload_than_there_is_are_an_error() {
    let mut packet = Packet::default();
    packet.push_with(ToRank::Broadcast { value: 1, bytes: u64::MAX }, [Bytes::from_static(b"few")]);
    assert!(open::<ToRank>(packet.take().unwrap().packet).is_err());
    packet.push_with(ToRank::Broadcast { value: 1, bytes: 2 }, [Bytes::from_static(b"more")]);
    assert!(open::<ToRank>(packet.take().unwrap().packet).is_err());
}

#[test]
fn a_piece_of_output_of_an_unknown_stream_is_an_error() {
    let packet_of = |stream| {
        let mut packet = Packet::default();
        packet.push(ToMaster::Part { part: 3, map: MapId(4), job: 5, stream, bytes: 0 });
        packet.take().unwrap().packet
    };
    let (stdout, stderr) = (packet_of(OutputStream::Stdout), packet_of(OutputStream::Stderr));
    let differ: Vec<_> = (0..stdout.len()).filter(|&at| stdout[at] != stderr[at]).collect();
    let [at] = differ[..] else { panic!("the stream is one byte: {differ:?}") };
    for byte in 0..=u8::MAX {
        let mut packet = stdout.to_vec();
        packet[at] = byte;
        let opened = open::<ToMaster>(packet.into());
        assert_eq!(opened.is_ok(), byte == stdout[at] || byte == stderr[at], "{byte}: {opened:?}");
    }
}

#[test]
fn payloads_are_not_copied_when_a_packet_is_opened() {
    let payload = Bytes::from(vec![7; 10_000_000]);
    let packet = packet_of(&[(ToRank::Broadcast { value: 1, bytes: payload.len() as u64 }, payload)]);
    let used = measure(|| drop(open::<ToRank>(packet.clone()).unwrap()));
    assert!(used.bytes_total < 10_000, "{used:?}");
}

#[test]
fn a_large_payload_with_a_single_owner_is_not_copied_to_be_sent() {
    let payload = Bytes::from(vec![7; 10_000_000]);
    let bytes = payload.len() as u64;
    let mut packet = Packet::default();
    packet.push_with(ToRank::Broadcast { value: 1, bytes }, [payload.slice(..)]);
    let mut sent = Bytes::new();
    let used = measure(|| sent = packet.take().unwrap().packet);
    assert!(used.bytes_total > bytes, "one that others have must be copied: {used:?}");
    assert!(used.bytes_total < bytes + 10_000, "and copied once: {used:?}");
    assert_eq!(open::<ToRank>(sent.clone()).unwrap(), [(ToRank::Broadcast { value: 1, bytes }, payload)]);
    // As a rank sends a result: a buffer of its own that nothing else shares.
    let mut frames = Vec::new();
    push_value(&mut frames, |out| encode_value(&vec![0.5f64; 1_000_000], out)).unwrap();
    let copy = Bytes::copy_from_slice(&frames);
    packet.push_with(ToRank::Broadcast { value: 1, bytes: copy.len() as u64 }, [frames.into()]);
    let used = measure(|| sent = packet.take().unwrap().packet);
    assert!(used.bytes_total < 10_000, "{used:?}");
    assert_eq!(open::<ToRank>(sent).unwrap(), [(ToRank::Broadcast { value: 1, bytes: copy.len() as u64 }, copy)]);
}

#[test]
fn a_large_payload_is_copied_once_whichever_usual_head_it_has() {
    let payload = Bytes::from(vec![7; 10_000_000]);
    let bytes = payload.len() as u64;
    let chunk = ToRank::Chunk { chunk: ChunkId(1), map: MapId(2), first: 3, count: 4, attempt: 5, bytes };
    let define = ToRank::Define { map: MapId(1), function: FunctionId { offset: 2, seal: 3 }, limit: 4, bytes };
    fn copied<H: Head>(head: H, payload: &Bytes) -> u64 {
        let mut packet = Packet::default();
        packet.push_with(head, [payload.clone()]);
        measure(|| drop(packet.take().unwrap())).bytes_total
    }
    for used in [copied(chunk, &payload), copied(define, &payload)] {
        assert!(used < bytes + 10_000, "{used} bytes");
    }
    let finished = ToMaster::Finished {
        chunk: ChunkId(1),
        count: 2,
        wall_ns: 3,
        useful_ns: 4,
        failed: Vec::new(),
        failed_results: 5,
        bytes,
        lists: 6,
    };
    let used = copied(finished, &payload);
    assert!(used < bytes + 10_000, "{used} bytes");
}
