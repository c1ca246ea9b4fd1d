//! The variants of `map` and `submit`, and programs that go on after a run.

use std::process::Command;

use rankpool::{JobErrorKind, Launch, as_completed, is_driver};
use serde::{Deserialize, Serialize, Serializer};

use crate::support::{Gate, local, until};

/// A value that cannot be cloned.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unique(Vec<f64>);

#[test]
fn a_map_by_reference_leaves_the_inputs_to_the_driver() {
    local(2, 1, |pool| {
        let inputs: Vec<Unique> = (0..5000).map(|n| Unique(vec![f64::from(n); 3])).collect();
        let sum = |input: &Unique| input.0.iter().sum::<f64>();
        let sums: Vec<f64> = pool.map_ref(sum, &inputs).collect::<Result<_, _>>().unwrap();
        assert_eq!(sums, inputs.iter().map(sum).collect::<Vec<_>>());
        assert_eq!(pool.map_ref(sum, &inputs).size_hint(), (5000, Some(5000)));
        let some: Vec<f64> = pool.map_ref(sum, inputs.iter().skip(4998)).unordered().collect::<Result<_, _>>().unwrap();
        assert_eq!(some.len(), 2);
    });
}

#[test]
fn an_input_by_reference_that_cannot_be_written_fails_its_job_only() {
    fn even<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        if number % 2 == 0 {
            serializer.serialize_u32(*number)
        } else {
            Err(serde::ser::Error::custom("an odd number"))
        }
    }
    #[derive(Serialize, Deserialize)]
    struct Even(#[serde(serialize_with = "even")] u32);
    local(2, 1, |pool| {
        let inputs = [Even(2), Even(3), Even(4)];
        let results: Vec<_> = pool.map_ref(|number: &Even| number.0, &inputs).collect();
        let error = results[1].as_ref().unwrap_err();
        assert!(error.kind == JobErrorKind::Encode && error.message.contains("an odd number"), "{error}");
        assert_eq!((results[0].clone(), results[2].clone()), (Ok(2), Ok(4)));
    });
}

#[test]
fn submitted_jobs_have_contexts_of_their_own() {
    local(2, 1, |pool| {
        let power = |exponent: &u32, x: u64| x.pow(*exponent);
        let handles: Vec<_> = (0..100).map(|n| pool.submit_with(n % 5, power, 2)).collect();
        for (n, handle) in (0..100).zip(&handles) {
            assert_eq!(handle.wait(), Ok(1 << (n % 5)));
        }
        let large = vec![0.5; 100_000];
        let handle = pool.submit_with(large.clone(), |context: &Vec<f64>, input: Vec<f64>| *context == input, large);
        assert_eq!(handle.wait(), Ok(true));
        let panics = pool.submit_with("no".to_string(), |why: &String, (): ()| -> u8 { panic!("{why}") }, ());
        assert_eq!(panics.wait().unwrap_err().message, "no");
    });
}

#[test]
fn a_tuple_can_be_submitted_to_a_function_of_several_arguments() {
    local(2, 1, |pool| {
        assert_eq!(pool.submit_star(|a: u32, b: u32| a - b, (5, 3)).wait(), Ok(2));
        let five = |a: u8, b: String, c: f64, d: char, e: bool| format!("{a}{b}{c}{d}{e}");
        assert_eq!(pool.submit_star(five, (1, "b".into(), 0.5, 'd', true)).wait(), Ok("1b0.5dtrue".into()));
    });
}

#[test]
fn jobs_can_be_added_to_those_whose_ends_are_waited_for() {
    static GATE: Gate = Gate::new();
    let wait = |x: u32| {
        if x == 0 {
            GATE.pass();
        }
        x
    };
    local(2, 1, move |pool| {
        let slow = pool.submit(wait, 0);
        until("the slow job runs", || slow.is_running());
        let mut completed = as_completed([slow.clone()]);
        completed.add(slow);
        assert_eq!(completed.pending(), 1, "a job that is there is not added again");
        let first = pool.submit(wait, 1);
        assert_eq!(first.wait(), Ok(1));
        completed.add(first.clone());
        assert_eq!(completed.next().unwrap().wait(), Ok(1), "one that has ended is yielded at once");
        completed.add(first);
        assert_eq!(completed.next().unwrap().wait(), Ok(1), "one that was yielded can be added again");
        completed.add(pool.submit(wait, 2));
        assert_eq!((completed.pending(), completed.next().unwrap().wait()), (2, Ok(2)));
        GATE.open();
        assert_eq!(completed.next().unwrap().wait(), Ok(0));
        assert!(completed.next().is_none());
        completed.add(pool.submit(wait, 3));
        assert_eq!(completed.next().unwrap().wait(), Ok(3), "also behind the end");
    });
}

/// Runs the test with this name alone, in a process of its own with this environment variable; returns its exit code and its output.
fn alone(test: &str, case: &str) -> (Option<i32>, String) {
    let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("RANKPOOL_TEST_CASE", case);
    let output = command.output().expect("it can be started");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_run_for_a_value_returns_it_or_ends_the_process_with_the_exit_code() {
    let launch = || Launch::new().local(2).threads(1);
    let fails = |x: u32| if x == 1 { panic!("one is too much") } else { x };
    match std::env::var("RANKPOOL_TEST_CASE").as_deref() {
        Err(_) => {}
        Ok("job") => {
            let _: Vec<u32> = launch().run_value(|pool| Ok(pool.map(fails, 0..3).collect::<Result<_, _>>()?));
            panic!("it came back");
        }
        Ok("error") => launch().run_value(|_| Err("nothing to do".into())),
        Ok(_) => launch().run_value(|_| -> Result<(), _> { panic!("in the driver") }),
    }
    let text = String::from("not only 'static");
    let value = launch().run_value(|pool| Ok((pool.apply(|x: u64| x + 1, 1)?, &text[..3])));
    assert_eq!(value, (2, "not"));
    let test = "variants::a_run_for_a_value_returns_it_or_ends_the_process_with_the_exit_code";
    for (case, code, words) in
        [("job", 3, "one is too much"), ("error", 1, "nothing to do"), ("panic", 1, "in the driver")]
    {
        let (ended, said) = alone(test, case);
        assert_eq!(ended, Some(code), "{case}: {said}");
        assert!(said.contains(words) && !said.contains("came back"), "{case}: {said}");
    }
}

#[test]
fn a_process_knows_whether_it_calls_the_driver() {
    let test = "variants::a_process_knows_whether_it_calls_the_driver";
    if std::env::var_os("RANKPOOL_TEST_CASE").is_some() {
        println!("driver: {}", is_driver());
        return;
    }
    assert!(alone(test, "").1.contains("driver: true"));
    for (rank, expected) in [("0", "driver: true"), ("1", "driver: false")] {
        let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
        command.args(["--exact", test, "--nocapture"]).env("RANKPOOL_TEST_CASE", "");
        command.envs([("OMPI_COMM_WORLD_RANK", rank), ("OMPI_COMM_WORLD_SIZE", "2")]);
        let output = command.output().expect("it can be started");
        assert!(String::from_utf8_lossy(&output.stdout).contains(expected), "{output:?}");
    }
}
