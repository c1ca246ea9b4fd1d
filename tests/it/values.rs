//! Values that can cross ranks, and the errors of those that cannot.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rankpool::{JobError, JobErrorKind, Shared};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::support::local;

fn values<T>(results: impl IntoIterator<Item = Result<T, JobError>>) -> Vec<T> {
    results.into_iter().collect::<Result<_, _>>().expect("no job fails")
}

#[test]
fn empty_values_and_units_travel() {
    local(2, 1, |pool| {
        assert_eq!(values(pool.map(|_: ()| (), vec![(); 1000])).len(), 1000);
        assert_eq!(values(pool.map(|s: String| s, vec![String::new(); 10])), vec![""; 10]);
        assert_eq!(values(pool.map(|v: Vec<u64>| v, vec![vec![]; 10])), vec![Vec::<u64>::new(); 10]);
        assert_eq!(values(pool.map(|v: [u8; 0]| v, [[0u8; 0]; 2])).len(), 2);
        assert_eq!(pool.apply(|v: Vec<()>| v, vec![(); 100_000]).unwrap().len(), 100_000);
        assert_eq!(values(pool.map_with((), [1], |(), x: u8| x)), [1]);
        assert_eq!(pool.apply(|x: Option<()>| x, None), Ok(None));
    });
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Number(i128),
    Named { name: String, weight: f64, flag: Option<bool> },
    Node(Vec<Tree>),
    Table(BTreeMap<String, (char, Box<Tree>)>),
}

fn tree(depth: u32) -> Tree {
    if depth == 0 {
        return Tree::Node(vec![
            Tree::Leaf,
            Tree::Number(i128::MIN),
            Tree::Named { name: "ä→∞".into(), weight: -0.0, flag: Some(true) },
        ]);
    }
    let table = BTreeMap::from([
        ("k".to_string(), ('ß', Box::new(tree(depth - 1)))),
        (String::new(), ('\0', Box::new(Tree::Leaf))),
    ]);
    Tree::Node(vec![tree(depth - 1), Tree::Table(table)])
}

#[test]
fn nested_values_travel() {
    local(2, 1, |pool| {
        for depth in 0..8 {
            assert_eq!(pool.apply(|tree: Tree| Tree::Node(vec![tree]), tree(depth)), Ok(Tree::Node(vec![tree(depth)])));
        }
        let map: HashMap<u8, Vec<Option<(u8, String)>>> = HashMap::from([(1, vec![None, Some((2, "x".into()))])]);
        assert_eq!(pool.apply(|map: HashMap<u8, Vec<Option<(u8, String)>>>| map, map.clone()), Ok(map));
        let nested: Option<Result<Vec<u8>, String>> = Some(Err("e".into()));
        assert_eq!(pool.apply(|x: Option<Result<Vec<u8>, String>>| x, nested.clone()), Ok(nested));
        assert_eq!(pool.apply(|x: Arc<str>| x, Arc::from("shared")), Ok(Arc::from("shared")));
    });
}

#[test]
fn numbers_of_all_kinds_keep_every_bit() {
    type All = (u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, (usize, isize, f32, f64, char, bool));
    local(2, 1, |pool| {
        let inputs: [All; 2] = [
            (
                u8::MAX,
                i8::MIN,
                u16::MAX,
                i16::MIN,
                u32::MAX,
                i32::MIN,
                u64::MAX,
                i64::MIN,
                u128::MAX,
                i128::MIN,
                (usize::MAX, isize::MIN, f32::MIN_POSITIVE, f64::MAX, char::MAX, true),
            ),
            Default::default(),
        ];
        assert_eq!(values(pool.map(|x: All| x, inputs)), inputs);
        let nan = pool.apply(|x: f64| x, f64::from_bits(0x7ff8_0000_0000_1234)).unwrap();
        assert_eq!(nan.to_bits(), 0x7ff8_0000_0000_1234);
        // Many small numbers in large types: the decode limit counts their full width.
        for n in [60, 63, 64, 65, 1000, 1020, 1023, 1024, 1025, 70_000, 1_100_000] {
            assert_eq!(pool.apply(|v: Vec<u128>| v, vec![1; n]), Ok(vec![1; n]), "{n} small u128");
            assert_eq!(pool.apply(|v: Vec<Vec<u128>>| v, vec![vec![1]; n / 2]), Ok(vec![vec![1]; n / 2]), "{n} nested");
            assert_eq!(
                pool.apply(|v: Vec<String>| v, vec![String::new(); n]),
                Ok(vec![String::new(); n]),
                "{n} strings"
            );
        }
    });
}

#[test]
fn borrowed_data_can_be_sent_without_a_copy_of_its_own() {
    local(2, 1, |pool| {
        let text = String::from("the inputs are words of a longer text");
        let words: Vec<&str> = text.split(' ').collect();
        let lengths = values(pool.map(|word: String| word.len(), words.iter().map(|word| word.to_string())));
        assert_eq!(lengths, words.iter().map(|word| word.len()).collect::<Vec<_>>());
        // Borrowed by the driver, owned on the rank.
        let cows = ["a", "bc"].into_iter().map(Cow::Borrowed);
        let back = values(pool.map(|cow: Cow<'static, str>| cow, cows));
        assert_eq!(back, [Cow::Borrowed("a"), Cow::Borrowed("bc")]);
        let bytes: Vec<Cow<'static, [u8]>> = vec![Cow::Borrowed(b"xyz"), Cow::Owned(vec![])];
        assert_eq!(values(pool.map(|cow: Cow<'static, [u8]>| cow.len(), bytes)), [3, 0]);
    });
}

/// 100 MB.
const BIG: usize = 100_000_000;

fn big() -> Vec<u8> {
    let mut big = vec![7; BIG];
    (big[0], big[BIG / 2], big[BIG - 1]) = (1, 2, 3);
    big
}

fn marks(big: &[u8]) -> (usize, u8, u8, u8) {
    (big.len(), big[0], big[BIG / 2], big[BIG - 1])
}

#[test]
fn a_hundred_megabytes_travel_there_and_back() {
    local(2, 1, |pool| {
        let back = pool.apply(
            |mut big: Vec<u8>| {
                big[0] += 10;
                big
            },
            big(),
        );
        assert_eq!(marks(&back.unwrap()), (BIG, 11, 2, 3));
    });
}

#[test]
fn a_hundred_megabytes_travel_as_a_context() {
    local(2, 1, |pool| {
        let text = String::from_utf8(big()).expect("small numbers are characters");
        let lengths = values(pool.map_with(text, 0..4, |text, x: usize| text.len() + x).chunk_size(1));
        assert_eq!(lengths, [BIG, BIG + 1, BIG + 2, BIG + 3]);
    });
}

/// A value that cannot be serialised if it is 13, nor deserialised if it is 17; 19 is serialised as bytes that cannot be
/// deserialised.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Picky(u32);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            13 => Err(S::Error::custom("thirteen is not written")),
            value => (value, "some more").serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match <(u32, String)>::deserialize(deserializer)?.0 {
            17 => Err(D::Error::custom("seventeen is not read")),
            value => Ok(Picky(value)),
        }
    }
}

/// Checks that of twenty jobs only this one failed, with this error, and that the others have the right results.
fn only_failed(results: &[Result<Picky, JobError>], bad: u64, kind: JobErrorKind, what: &str) {
    assert_eq!(results.len(), 20);
    for (job, result) in (0..).zip(results) {
        match result {
            Ok(Picky(value)) => assert_eq!((u64::from(*value), job != bad), (job, true)),
            Err(error) => {
                assert_eq!((error.job, job, error.kind), (bad, bad, kind), "{error}");
                assert!(error.message.contains(what), "{error}");
            }
        }
    }
}

#[test]
fn an_input_that_cannot_be_written_fails_its_job_only() {
    local(2, 1, |pool| {
        for chunk in [0, 1, 6] {
            let map = pool.map(|x: Picky| x, (0..20).map(Picky)).chunk_size(chunk);
            let results: Vec<_> = map.map(|result| result.or_else(keep_only(13))).collect();
            only_failed(&results, 13, JobErrorKind::Encode, "thirteen is not written");
        }
        assert_eq!(pool.submit(|x: Picky| x, Picky(13)).wait().unwrap_err().kind, JobErrorKind::Encode);
        assert_eq!(pool.apply(|x: Picky| x, Picky(14)), Ok(Picky(14)));
    });
}

/// Keeps the error of the job `bad` and replaces the other one by a value, for tests of one of them.
fn keep_only(bad: u64) -> impl FnMut(JobError) -> Result<Picky, JobError> {
    move |error| if error.job == bad { Err(error) } else { Ok(Picky(u32::try_from(error.job).unwrap())) }
}

#[test]
fn an_input_that_cannot_be_read_fails_its_job_only() {
    local(2, 1, |pool| {
        for chunk in [0, 1, 6] {
            let map = pool.map(|x: Picky| x, (0..20).map(Picky)).chunk_size(chunk);
            let results: Vec<_> = map.map(|result| result.or_else(keep_only(17))).collect();
            only_failed(&results, 17, JobErrorKind::Decode, "seventeen is not read");
            let error = results[17].as_ref().unwrap_err();
            assert!(error.message.contains("input") && error.message.contains("Picky"), "{error}");
            assert!(error.rank.is_some() && error.host.is_some() && error.attempt == 1, "{error}");
        }
        assert_eq!(pool.apply(|x: Picky| x, Picky(17)).unwrap_err().kind, JobErrorKind::Decode);
        assert_eq!(pool.apply(|x: Picky| x, Picky(18)), Ok(Picky(18)));
    });
}

#[test]
fn a_result_that_cannot_be_written_fails_its_job_only() {
    local(2, 1, |pool| {
        for chunk in [0, 1, 6] {
            let map = pool.map(Picky, 0..20).chunk_size(chunk);
            let results: Vec<_> = map.map(|result| result.or_else(keep_only(13))).collect();
            only_failed(&results, 13, JobErrorKind::Encode, "thirteen is not written");
            let error = results[13].as_ref().unwrap_err();
            assert!(error.message.contains("result") && error.rank.is_some(), "{error}");
        }
        assert_eq!(pool.apply(Picky, 13).unwrap_err().kind, JobErrorKind::Encode);
        assert_eq!(pool.apply(Picky, 14), Ok(Picky(14)));
    });
}

#[test]
fn a_result_that_cannot_be_read_fails_its_job_only() {
    local(2, 1, |pool| {
        for chunk in [0, 1, 6] {
            let map = pool.map(Picky, 0..20).chunk_size(chunk);
            let results: Vec<_> = map.map(|result| result.or_else(keep_only(17))).collect();
            only_failed(&results, 17, JobErrorKind::Decode, "seventeen is not read");
            assert!(results[17].as_ref().unwrap_err().message.contains("result"));
        }
        assert_eq!(pool.apply(Picky, 17).unwrap_err().kind, JobErrorKind::Decode);
        assert_eq!(pool.apply(Picky, 18), Ok(Picky(18)));
    });
}

#[test]
fn a_value_that_writes_half_of_itself_and_fails_leaves_its_neighbours_whole() {
    #[derive(Deserialize)]
    struct Half(Vec<u8>);
    impl Serialize for Half {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
            for byte in &self.0 {
                if *byte == 13 {
                    return Err(S::Error::custom("half is written"));
                }
                seq.serialize_element(byte)?;
            }
            seq.end()
        }
    }
    local(2, 1, |pool| {
        let there = |bytes: Half| bytes.0;
        let here = |bytes: Vec<u8>| Half(bytes);
        let inputs =
            || (0..30u8).map(|x| vec![x; 400 * usize::from(x % 3)].into_iter().chain([x]).collect::<Vec<u8>>());
        for (x, (there, here)) in
            (0..).zip(pool.map(there, inputs().map(Half)).chunk_size(4).zip(pool.map(here, inputs()).chunk_size(4)))
        {
            if x == 13 {
                for error in [there.unwrap_err(), here.map(|half| half.0).unwrap_err()] {
                    assert_eq!(error.kind, JobErrorKind::Encode);
                }
            } else {
                let expected = inputs().nth(x).unwrap();
                assert_eq!((there.as_ref(), &here.unwrap().0), (Ok(&expected), &expected));
            }
        }
    });
}

#[test]
fn a_context_that_cannot_be_written_fails_the_map_and_the_pool_lives() {
    local(2, 1, |pool| {
        let results: Vec<_> = pool.map_with(Picky(13), 0..9, |_, x: u32| x).collect();
        assert_eq!(results.len(), 1, "one error, and the end");
        let error = results[0].as_ref().unwrap_err();
        assert_eq!(error.kind, JobErrorKind::Encode);
        assert!(error.message.contains("context") && error.message.contains("thirteen"), "{error}");
        assert_eq!(values(pool.map_with(Picky(14), 0..2, |context, x: u32| context.0 + x)), [14, 15]);
    });
}

#[test]
fn a_context_that_cannot_be_read_fails_every_job_and_the_pool_lives() {
    local(2, 1, |pool| {
        let results: Vec<_> = pool.map_with(Picky(17), 0..9, |_, x: u32| x).collect();
        assert_eq!(results.len(), 9);
        for error in results.into_iter().map(Result::unwrap_err) {
            assert_eq!(error.kind, JobErrorKind::Decode);
            assert!(error.message.contains("context") && error.message.contains("seventeen"), "{error}");
        }
        assert_eq!(values(pool.map_with(Picky(18), 0..2, |context, x: u32| context.0 + x)), [18, 19]);
    });
}

#[test]
fn serialisation_that_panics_is_the_failure_of_a_job_or_a_map_not_of_the_run() {
    #[derive(Debug, PartialEq)]
    struct Mine(u32);
    impl Serialize for Mine {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            assert_ne!(self.0, 3, "cannot write a three");
            self.0.serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Mine {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let value = u32::deserialize(deserializer)?;
            assert_ne!(value, 5, "cannot read a five");
            Ok(Mine(value))
        }
    }
    local(2, 1, |pool| {
        // In a job: as its result and as its input.
        let results: Vec<_> = pool.map(|x: u32| _ = Mine(x), 0..6).collect();
        assert!(results.iter().all(Result::is_ok));
        let out: Vec<_> = pool.map(Mine, [1, 3, 4]).map(|result| result.map_err(|error| error.kind)).collect();
        assert_eq!(out, [Ok(Mine(1)), Err(JobErrorKind::Panic), Ok(Mine(4))]);
        let back: Vec<_> =
            pool.map(|x: Mine| x.0, [1, 5, 4].map(Mine)).map(|result| result.map_err(|error| error.kind)).collect();
        assert_eq!(back, [Ok(1), Err(JobErrorKind::Panic), Ok(4)]);
        // On the driver's side the inputs end with the panic.
        let inputs: Vec<_> = pool.map(|x: Mine| x.0, [1, 3, 4].map(Mine)).collect();
        assert_eq!(inputs[0], Ok(1));
        assert_eq!(inputs[1].as_ref().unwrap_err().kind, JobErrorKind::Input);
        assert_eq!(inputs.len(), 2);
        assert_eq!(pool.apply(|x: Mine| x.0, Mine(8)), Ok(8));
    });
}

#[test]
fn a_broadcast_value_can_be_read_in_jobs_on_every_rank() {
    local(3, 2, |pool| {
        let table = pool.broadcast((0..10_000u64).map(|x| x * x).collect::<Vec<_>>()).unwrap();
        assert_eq!(table[9], 81, "on the driver's side too");
        let by_context = pool.map_with(table.clone(), 0..1000, |table, i: usize| table[i]);
        assert_eq!(values(by_context), (0..1000).map(|x| x * x).collect::<Vec<u64>>());
        let look_up = |(table, i): (Shared<Vec<u64>>, usize)| table[i];
        let by_input = pool.map(look_up, (0..100).map(|i| (table.clone(), i)));
        assert_eq!(values(by_input), (0..100).map(|x| x * x).collect::<Vec<u64>>());
        assert_eq!(pool.apply(look_up, (table.clone(), 7)), Ok(49));
    });
}

#[test]
fn broadcast_values_do_not_mix_and_outlive_the_map_and_the_driver_s_copy() {
    local(2, 1, |pool| {
        let text = pool.broadcast("text".to_string()).unwrap();
        let number = pool.broadcast(7u64).unwrap();
        let job = |(text, number): &(Shared<String>, Shared<u64>), x: u64| format!("{}{}{x}", **text, **number);
        for _ in 0..3 {
            assert_eq!(values(pool.map_with((text.clone(), number.clone()), 0..2, job)), ["text70", "text71"]);
        }
        let handle = pool.submit(|text: Shared<String>| text.len(), text.clone());
        drop(text);
        assert_eq!(handle.wait(), Ok(4));
    });
}

#[test]
fn a_broadcast_value_that_cannot_be_sent_is_an_error() {
    local(2, 1, |pool| {
        assert_eq!(pool.broadcast(Picky(13)).unwrap_err().kind, JobErrorKind::Encode);
        let unreadable = pool.broadcast(Picky(17)).unwrap();
        let error = pool.apply(|picky: Shared<Picky>| picky.0, unreadable).unwrap_err();
        assert_eq!(error.kind, JobErrorKind::Decode);
        assert!(error.message.contains("seventeen"), "{error}");
        assert_eq!(pool.apply(|x: u32| x, 1), Ok(1));
    });
}

/// Large enough to travel beside the packet for inputs that are divisible by 3; small for others.
fn list_of(x: u32) -> Vec<f64> {
    assert!(x % 7 != 5, "unlucky");
    vec![f64::from(x); if x % 3 == 0 { 100_000 } else { 10 }]
}

fn is_list_of(x: u32, result: &Result<Vec<f64>, JobError>) -> bool {
    match result {
        Ok(list) => x % 7 != 5 && *list == list_of(x),
        Err(error) => x % 7 == 5 && error.kind == JobErrorKind::Panic,
    }
}

#[test]
fn large_lists_among_small_ones_and_failures_are_the_results_of_their_jobs() {
    local(3, 1, |pool| {
        for jobs in [1, 4, 40] {
            let results: Vec<_> = pool.map(list_of, 0..100).chunk_size(jobs).collect();
            assert_eq!(results.len(), 100);
            assert!((0..).zip(&results).all(|(x, result)| is_list_of(x, result)), "chunks of {jobs}");
        }
        let mut lengths: Vec<_> =
            pool.map(list_of, [0, 1, 2, 3, 4, 6]).unordered().map(|list| list.unwrap().len()).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [10, 10, 10, 100_000, 100_000, 100_000]);
    });
}

#[test]
fn a_large_list_can_be_waited_for_again() {
    local(2, 1, |pool| {
        let handle = pool.submit(list_of, 9);
        let (first, second) = (handle.wait().unwrap(), handle.clone().wait().unwrap());
        assert!(first == list_of(9) && first == second && first.as_ptr() != second.as_ptr());
        assert!(pool.apply(list_of, 15).unwrap() == list_of(15));
    });
}

#[test]
fn large_lists_and_texts_of_all_kinds_are_results() {
    const LENGTH: usize = 300_000;
    local(2, 1, |pool| {
        assert!(pool.apply(|x: u8| vec![x; LENGTH], 7).unwrap() == vec![7_u8; LENGTH]);
        assert!(pool.apply(|x: i32| vec![x; LENGTH], -7).unwrap() == vec![-7; LENGTH]);
        assert!(pool.apply(|x: f32| vec![x; LENGTH].into_boxed_slice(), 0.1).unwrap() == vec![0.1; LENGTH].into());
        assert!(pool.apply(|x: usize| vec![x; LENGTH], usize::MAX).unwrap() == vec![usize::MAX; LENGTH]);
        assert!(pool.apply(|x: String| x.repeat(LENGTH), "é".into()).unwrap() == "é".repeat(LENGTH));
        // Only lists as a whole travel as they are.
        let nested = pool.apply(|x: u64| (x, vec![x; LENGTH], vec![vec![x; LENGTH]]), 5).unwrap();
        assert!(nested == (5, vec![5; LENGTH], vec![vec![5; LENGTH]]));
    });
}
