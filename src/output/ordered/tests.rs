use proptest::prelude::*;

use super::*;

type Taken = Vec<(u64, Stream, Vec<u8>)>;

fn drain_into(ordered: &mut Ordered, taken: &mut Taken) {
    ordered
        .drain(&mut |job, stream, bytes| {
            assert!(!bytes.is_empty() && bytes.len() <= PIECE_BYTES);
            match taken.last_mut() {
                Some((last, same, whole)) if (*last, *same) == (job, stream) => whole.extend_from_slice(bytes),
                _ => taken.push((job, stream, bytes.to_vec())),
            }
            Ok(())
        })
        .unwrap();
}

fn drained(ordered: &mut Ordered) -> Taken {
    let mut taken = Taken::new();
    drain_into(ordered, &mut taken);
    taken
}

fn out(job: u64, text: &str) -> (u64, Stream, Vec<u8>) {
    (job, Stream::Out, text.as_bytes().to_vec())
}

fn err(job: u64, text: &str) -> (u64, Stream, Vec<u8>) {
    (job, Stream::Err, text.as_bytes().to_vec())
}

/// So many bytes that tell whose they are.
fn bytes_of(job: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| (job as usize * 31 + at * 7 + at / 251) as u8).collect()
}

#[test]
fn outputs_come_in_the_order_of_places_whatever_the_order_of_settling() {
    for limit in [0, DEFAULT_MEMORY] {
        let mut ordered = Ordered::new(Order::Places, limit);
        ordered.settle(2, b"two".to_vec(), b"2", b"").unwrap();
        assert_eq!(drained(&mut ordered), []);
        ordered.settle(0, b"zero".to_vec(), b"", b"").unwrap();
        assert_eq!(drained(&mut ordered), [out(0, "zero")]);
        ordered.settle(3, Vec::new(), b"", b"").unwrap();
        ordered.settle(4, Vec::new(), b"only err", b"").unwrap();
        ordered.skip(1);
        assert_eq!(drained(&mut ordered), [out(2, "two"), err(2, "2"), err(4, "only err")]);
        assert_eq!((ordered.head(), ordered.spilled()), (5, 0));
    }
}

#[test]
fn without_an_order_each_output_comes_when_it_settles() {
    let mut ordered = Ordered::new(Order::Settled, 0);
    ordered.part(7, Stream::Out, b"seven ").unwrap();
    ordered.settle(1_000_000_000_000, b"far".to_vec(), b"e", b"").unwrap();
    ordered.settle(7, b"and end".to_vec(), b"", b"").unwrap();
    ordered.settle(3, b"three".to_vec(), b"", b"").unwrap();
    ordered.skip(9);
    let expected =
        [out(1_000_000_000_000, "far"), err(1_000_000_000_000, "e"), out(7, "seven and end"), out(3, "three")];
    assert_eq!(drained(&mut ordered), expected);
    assert_eq!(ordered.spilled(), 0);
}

#[test]
fn the_pieces_of_a_running_job_are_followed_by_what_it_settles_with() {
    let mut ordered = Ordered::new(Order::Places, DEFAULT_MEMORY);
    ordered.part(1, Stream::Err, b"e1").unwrap();
    ordered.part(1, Stream::Out, b"o1").unwrap();
    ordered.part(0, Stream::Out, b"other").unwrap();
    ordered.part(1, Stream::Out, b"o2").unwrap();
    ordered.part(1, Stream::Err, b"e2").unwrap();
    ordered.settle(1, b"o3".to_vec(), b"e3", b"").unwrap();
    assert_eq!(drained(&mut ordered), []);
    ordered.settle(0, Vec::new(), b"", b"").unwrap();
    assert_eq!(drained(&mut ordered), [out(0, "other"), out(1, "o1o2o3"), err(1, "e1e2e3")]);
    assert_eq!((ordered.spilled(), ordered.parts, ordered.large.len()), (0, 0, 0));
}

#[test]
fn the_pieces_of_an_attempt_that_failed_are_forgotten() {
    let mut ordered = Ordered::new(Order::Places, DEFAULT_MEMORY);
    ordered.part(0, Stream::Out, b"first attempt").unwrap();
    ordered.forget_parts(0);
    assert_eq!(ordered.spilled(), 0);
    ordered.part(0, Stream::Out, b"second ").unwrap();
    ordered.settle(0, b"attempt".to_vec(), b"", b"").unwrap();
    ordered.part(1, Stream::Out, b"never seen").unwrap();
    ordered.skip(1);
    ordered.settle(2, b"two".to_vec(), b"", b"").unwrap();
    assert_eq!(drained(&mut ordered), [out(0, "second attempt"), out(2, "two")]);
    // What has settled stays as it is.
    ordered.settle(3, b"three".to_vec(), b"", b"").unwrap();
    ordered.forget_parts(3);
    ordered.part(3, Stream::Out, b"late").unwrap();
    ordered.settle(3, b"again".to_vec(), b"", b"").unwrap();
    ordered.part(0, Stream::Out, b"very late").unwrap();
    assert_eq!(drained(&mut ordered), [out(3, "three")]);
    assert_eq!(ordered.spilled(), 0);
}

#[test]
fn a_run_that_ends_early_hands_on_what_waits_behind_jobs_that_never_settle() {
    let mut ordered = Ordered::new(Order::Places, 0);
    ordered.part(0, Stream::Out, b"unfinished").unwrap();
    ordered.settle(2, b"two".to_vec(), b"", b"").unwrap();
    ordered.settle(5, b"five".to_vec(), b"", b"").unwrap();
    ordered.skip_open();
    assert_eq!(drained(&mut ordered), [out(2, "two"), out(5, "five")]);
    assert_eq!((ordered.spilled(), ordered.head()), (0, 6));
}

#[test]
fn outputs_larger_than_a_block_are_whole() {
    for limit in [0, 1 << 30] {
        let mut ordered = Ordered::new(Order::Places, limit);
        for (job, length) in [(3, 5 * BLOCK_BYTES + 1), (2, BLOCK_BYTES), (1, BLOCK_BYTES + 1), (0, 3 * BLOCK_BYTES)] {
            ordered.settle(job, bytes_of(job, length), &bytes_of(job + 100, length / 3), b"").unwrap();
        }
        let taken = drained(&mut ordered);
        for (index, (job, length)) in
            [(0, 3 * BLOCK_BYTES), (1, BLOCK_BYTES + 1), (2, BLOCK_BYTES), (3, 5 * BLOCK_BYTES + 1)]
                .into_iter()
                .enumerate()
        {
            assert!(taken[2 * index] == (job, Stream::Out, bytes_of(job, length)));
            assert!(taken[2 * index + 1] == (job, Stream::Err, bytes_of(job + 100, length / 3)));
        }
        assert_eq!(ordered.spilled(), 0);
    }
}

#[test]
fn the_file_grows_with_what_waits_and_not_with_what_has_ever_waited() {
    let mut ordered = Ordered::new(Order::Places, 0);
    // There is always a job whose pieces wait, so the file is never empty.
    let mut taken = Taken::new();
    for job in 0..200 {
        ordered.part(job + 1, Stream::Out, &bytes_of(job + 1, BLOCK_BYTES / 2)).unwrap();
        ordered.settle(job, bytes_of(job, 10), b"", b"").unwrap();
        taken.clear();
        drain_into(&mut ordered, &mut taken);
        assert_eq!(taken.len(), 1);
        assert!(ordered.spilled() > 0);
    }
    assert!(ordered.spill.file_bytes() <= 4 * BLOCK_BYTES as u64, "{}", ordered.spill.file_bytes());
    assert!(ordered.memory() < 1 << 20);
}

#[test]
fn two_hundred_thousand_outputs_that_wait_for_one_job_stay_far_below_100_mib() {
    for (limit, most) in [(DEFAULT_MEMORY, 56 << 20), (1 << 20, 24 << 20)] {
        let mut ordered = Ordered::new(Order::Places, limit);
        let measured = allocation_counter::measure(|| {
            for job in 1..=200_000 {
                ordered.settle(job, vec![b'x'; 100], b"", b"").unwrap();
            }
        });
        assert!(measured.bytes_max < most, "{} with {limit}", measured.bytes_max);
        assert!(ordered.memory() as u64 >= measured.bytes_current as u64 * 3 / 4);
        let (mut bytes, mut next) = (0, 0);
        ordered.settle(0, b"slow".to_vec(), b"", b"").unwrap();
        ordered
            .drain(&mut |job, _, piece| {
                assert_eq!(job, next);
                next += 1;
                bytes += piece.len();
                Ok(())
            })
            .unwrap();
        assert_eq!((next, bytes), (200_001, 20_000_004));
        assert_eq!(ordered.spilled(), 0);
        assert!(ordered.memory() < 1 << 20, "{}", ordered.memory());
    }
}

#[test]
fn jobs_that_settle_nearly_in_order_allocate_nothing_but_their_buffers() {
    let mut ordered = Ordered::new(Order::Places, DEFAULT_MEMORY);
    let mut round = |first: u64| {
        for job in [first + 1, first, first + 3, first + 2] {
            ordered.settle(job, b"output\n".to_vec(), b"", b"").unwrap();
            ordered.drain(&mut |_, _, _| Ok(())).unwrap();
        }
    };
    round(0);
    let measured = allocation_counter::measure(|| (1..1000).for_each(|index| round(4 * index)));
    assert_eq!(measured.count_total, 999 * 4);
}

#[test]
fn an_entry_takes_no_more_than_40_bytes() {
    assert!(size_of::<Entry>() <= 40);
}

#[test]
fn a_buffer_that_is_mostly_empty_is_not_kept_so() {
    let mut ordered = Ordered::new(Order::Places, DEFAULT_MEMORY);
    for job in 1..1000 {
        let mut buffer = Vec::with_capacity(64 << 10);
        buffer.extend_from_slice(b"short");
        ordered.settle(job, buffer, b"", b"").unwrap();
    }
    assert_eq!(ordered.spilled(), 0);
    assert!(ordered.memory() < 1 << 20);
}

#[test]
fn what_the_taker_says_is_handed_back() {
    let mut ordered = Ordered::new(Order::Places, DEFAULT_MEMORY);
    ordered.settle(0, b"x".to_vec(), b"", b"").unwrap();
    let error = ordered.drain(&mut |_, _, _| Err(OutputError::Closed { name: "it".into() })).unwrap_err();
    assert!(error.is_closed());
}

#[test]
fn a_temporary_file_that_cannot_be_used_is_an_error_that_names_its_folder() {
    let mut ordered = Ordered::new(Order::Places, 0);
    ordered.spill = Spill::new("/no/such/folder".into());
    let error = ordered.part(1, Stream::Out, &bytes_of(1, BLOCK_BYTES)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot keep outputs that wait for their turn in a temporary file in /no/such/folder: No such file or directory \
         (TMPDIR chooses another folder)"
    );
    assert!(!error.is_closed());
}

/// What one job does: pieces of attempts that fail, pieces of the last one, and its end.
#[derive(Clone, Debug)]
struct Story {
    failed_parts: Vec<(bool, usize)>,
    parts: Vec<(bool, usize)>,
    end: (usize, usize),
    is_skipped: bool,
}

fn story() -> impl Strategy<Value = Story> {
    let size = || prop_oneof![6 => 0..40_usize, 3 => 0..5000_usize, 1 => 200_000..400_000_usize];
    let parts = || prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec((any::<bool>(), size()), 1..4)];
    (parts(), parts(), (size(), size()), prop::bool::weighted(0.1))
        .prop_map(|(failed_parts, parts, end, is_skipped)| Story { failed_parts, parts, end, is_skipped })
}

impl Story {
    /// What is to be seen of it.
    fn output(&self, job: u64, wanted: Stream) -> Vec<u8> {
        if self.is_skipped {
            return Vec::new();
        }
        let pieces = self.parts.iter().enumerate().filter(|(_, (is_err, _))| stream(*is_err) == wanted);
        let mut output: Vec<u8> =
            pieces.flat_map(|(index, (_, length))| bytes_of(job + index as u64, *length)).collect();
        let length = if wanted == Stream::Out { self.end.0 } else { self.end.1 };
        output.extend(bytes_of(job + 50, length));
        output
    }

    fn settle(&self, job: u64, ordered: &mut Ordered) {
        if self.is_skipped {
            return ordered.skip(job);
        }
        ordered.settle(job, bytes_of(job + 50, self.end.0), &bytes_of(job + 50, self.end.1), b"").unwrap();
    }
}

fn stream(is_err: bool) -> Stream {
    if is_err { Stream::Err } else { Stream::Out }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_permutation_with_any_sizes_gives_the_exact_concatenation(
        stories in prop::collection::vec(story(), 1..40),
        limit in prop_oneof![Just(0_usize), 0..20_000_usize, Just(DEFAULT_MEMORY)],
        is_ordered: bool,
        seed: u64,
    ) {
        use rand::{SeedableRng, seq::SliceRandom};

        let mut jobs: Vec<u64> = (0..stories.len() as u64).collect();
        jobs.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        let order = if is_ordered { Order::Places } else { Order::Settled };
        let mut ordered = Ordered::new(order, limit);
        let mut taken = Taken::new();
        // Neighbours run at the same time: their pieces interleave.
        for running in jobs.chunks(3) {
            for index in 0..4 {
                for job in running {
                    if let Some((is_err, length)) = stories[*job as usize].failed_parts.get(index) {
                        ordered.part(*job, stream(*is_err), &bytes_of(*job + 9, *length)).unwrap();
                    }
                }
            }
            running.iter().for_each(|job| ordered.forget_parts(*job));
            for index in 0..4 {
                for job in running {
                    if let Some((is_err, length)) = stories[*job as usize].parts.get(index) {
                        ordered.part(*job, stream(*is_err), &bytes_of(*job + index as u64, *length)).unwrap();
                    }
                }
            }
            for job in running {
                stories[*job as usize].settle(*job, &mut ordered);
            }
            drain_into(&mut ordered, &mut taken);
        }
        if is_ordered {
            jobs.sort_unstable();
        }
        let mut expected = Taken::new();
        for job in jobs {
            for stream in [Stream::Out, Stream::Err] {
                let output = stories[job as usize].output(job, stream);
                if !output.is_empty() {
                    expected.push((job, stream, output));
                }
            }
        }
        prop_assert!(taken == expected);
        prop_assert_eq!(ordered.spilled(), 0);
        prop_assert_eq!(ordered.parts, 0);
        prop_assert!(ordered.memory == 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Outputs come alone or in runs, in any order, and are handed on in the order of places, all and once.
    #[test]
    fn runs_and_single_outputs_come_in_the_order_of_places(
        counts in prop::collection::vec(1_u64..6, 1..20),
        keys in prop::collection::vec(any::<u64>(), 20),
        limit in prop_oneof![Just(0), Just(DEFAULT_MEMORY)],
        forced in any::<bool>(),
    ) {
        let mut first = 0;
        let mut pieces: Vec<(u64, u64)> = counts.iter().map(|count| { first += count; (first - count, *count) }).collect();
        pieces.sort_by_key(|(first, _)| keys[*first as usize % keys.len()]);
        let mut ordered = Ordered::new(Order::Places, limit);
        let mut taken = Vec::new();
        for (at, (first, count)) in pieces.iter().copied().enumerate() {
            let lines: Vec<u8> = (first..first + count).flat_map(|place| format!("{place}\n").into_bytes()).collect();
            if count == 1 {
                ordered.settle(first, lines, b"", b"").unwrap();
            } else if ordered.pass_run(first, count) {
                taken.extend(lines);
            } else {
                ordered.settle_run(first, count, lines).unwrap();
            }
            let give = &mut |_, _, bytes: &[u8]| { taken.extend_from_slice(bytes); Ok(()) };
            ordered.drain(give).unwrap();
            if forced && at == pieces.len() / 2 {
                ordered.drain_waiting(give).unwrap();
            }
        }
        prop_assert_eq!(ordered.waiting_places(), 0);
        prop_assert!(!ordered.is_waiting() && ordered.memory < 100);
        let mut lines: Vec<u64> = String::from_utf8(taken).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        if forced {
            lines.sort_unstable();
        }
        prop_assert_eq!(lines, (0..first).collect::<Vec<_>>());
    }
}

#[test]
fn what_waits_in_a_run_is_not_open_and_comes_behind_gaps_that_are_skipped() {
    let mut ordered = Ordered::new(Order::Places, DEFAULT_MEMORY);
    ordered.settle_run(2, 3, b"2 3 4".to_vec()).unwrap();
    assert_eq!((ordered.waiting_places(), ordered.is_waiting()), (5, true));
    assert!(!ordered.pass_run(2, 3), "it is not their turn");
    ordered.settle(3, b"again".to_vec(), b"", b"").unwrap();
    assert_eq!(drained(&mut ordered), []);
    assert!(ordered.skip_open().is_empty());
    assert_eq!(drained(&mut ordered), [out(2, "2 3 4")]);
    assert_eq!((ordered.head(), ordered.is_waiting()), (5, false));
}
