//! Workers that write a line too much: their answers may be those of other records, and are never taken for right.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::LIMIT;
use crate::map_support::{Module, kinds, lines};
use crate::support::{self, Finished};

/// Answers ten times the record; writes something besides where it has no business to.
const WORKER: &str = "\
import atexit, json, sys, time
where, how = sys.argv[1:]
def surplus(x):
    if how == 'blank':
        print()
    elif how == 'text':
        print('the record is', x)
    elif how == 'slow':
        print(x, flush=True)
        time.sleep(0.2)
    elif how == 'flushed':
        print(x, flush=True)
    elif how == 'unfinished':
        print(x, end='')
    else:
        print(x)
if where == 'exit':
    atexit.register(surplus, 5)
for line in sys.stdin:
    x = json.loads(line)
    if where == str(x) or where == 'all':
        surplus(x)
    print(x * 10, flush=True)
";

fn with_worker() -> Module {
    let module = Module::new("");
    module.files.with("w.py", WORKER);
    module
}

fn map(module: &Module, ranks: u32, more: &[&str], worker: &[&str]) -> Finished {
    let words = ["map", "-q", "--range", "1:6", "--threads", "1"];
    support::run(&mut module.program(ranks, &[&words, more, &["--", "python3", "w.py"], worker].concat()), LIMIT)
}

/// For each job its last record's status.
fn statuses(module: &Module) -> BTreeMap<u64, String> {
    let of = |record: &Value| (record["number"].as_u64().unwrap_or(0), record["status"].as_str().map(String::from));
    let records = fs::read_to_string(module.files.path("r")).expect("the records");
    let records = records.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    records.map(|record: Value| of(&record)).map(|(number, status)| (number, status.unwrap_or_default())).collect()
}

#[test]
fn no_answer_is_taken_for_that_of_another_record() {
    let module = with_worker();
    for where_ in ["1", "3", "6", "all", "exit"] {
        for how in ["plain", "flushed", "slow", "blank", "text"] {
            let both = [1, 2];
            for &ranks in if ["plain", "slow"].contains(&how) { &both[..] } else { &both[1..] } {
                let words = ["--records", "r", "--output", "o"];
                let run = map(&module, ranks, &words, &[where_, how]);
                let case = format!("{where_} {how} {ranks}: {}", run.stderr);
                assert!([Some(1), Some(3)].contains(&run.code), "{case}");
                let statuses = statuses(&module);
                let out = fs::read_to_string(module.files.path("o"));
                let out = out.or_else(|_| fs::read_to_string(module.files.path("o.partial"))).unwrap_or_default();
                for (line, number) in out.lines().zip(1u64..) {
                    let line: Value = serde_json::from_str(line).expect("JSON");
                    let is_right = line == json!(number * 10);
                    assert!(is_right || line["error"]["kind"].is_string(), "{case}: {line}");
                    let said_ok = statuses.get(&number).is_some_and(|status| status == "ok");
                    assert!(is_right || !said_ok, "{case}: job {number} is ok");
                }
                let _ = fs::remove_file(module.files.path("o.partial"));
                let _ = fs::remove_file(module.files.path("o"));
            }
        }
    }
}

#[test]
fn what_is_written_with_the_answer_costs_only_its_record() {
    let module = with_worker();
    let run = map(&module, 1, &["--chunk", "6"], &["3", "plain"]);
    assert_eq!(kinds(&lines(run.expect_code(3))), ["10", "20", "!surplus", "40", "50", "60"]);
    let message = "wrote more than one line for this record, the last one \\\"30\\\"";
    assert!(run.stderr.replace('"', "\\\"").contains(message), "{}", run.stderr);
}

#[test]
fn doubtful_answers_are_named_and_run_again_by_only_failed() {
    let module = with_worker();
    let run = map(&module, 1, &["--chunk", "2", "--records", "r", "--unordered"], &["exit", "plain"]);
    run.expect_code(3).expect_said("the answers of 6 job(s) (1-6) may be those of other jobs, and count as failed");
    run.expect_said("--worker-ids").expect_said("6 of 6 job(s) failed").expect_said("--only-failed r");
    assert!(statuses(&module).values().all(|status| status == "failed") && statuses(&module).len() == 6);
    let words = ["--only-failed", "r", "--records", "r", "--output", "again"];
    map(&module, 2, &words, &["never", "plain"]).expect_code(0);
    assert!(statuses(&module).values().all(|status| status == "ok"));
    let again = fs::read_to_string(module.files.path("again")).expect("the output");
    assert_eq!(again, "10\n20\n30\n40\n50\n60\n");
}

#[test]
fn every_process_of_every_rank_is_listened_to_to_its_end() {
    let module = with_worker();
    // Each rank's process alone has a line too much, when its time has come.
    let script = "while read -r x; do echo $x; sleep 0.01; done; [ $RANKPOOL_RANK = RANK ] && echo 5; true";
    for (ranks, rank) in [(1, 0), (3, 0), (3, 2)] {
        let script = script.replace("RANK ]", &format!("{rank} ]"));
        let words = ["map", "-q", "--range", "1:60", "--chunk", "1", "--threads", "1", "--", "sh", "-c", &script];
        let run = support::run(&mut module.program(ranks, &words), LIMIT);
        run.expect_code(3).expect_said("may be those of other jobs");
        let right = script.replace("echo 5", "true");
        let words = ["map", "-q", "--range", "1:60", "--chunk", "1", "--threads", "1", "--", "sh", "-c", &right];
        support::run(&mut module.program(ranks, &words), LIMIT).expect_code(0);
    }
}

#[test]
fn a_run_that_is_stopped_tells_of_doubtful_answers() {
    let module = Module::new("");
    // It has answered two records, and more than that, when the third one keeps it busy.
    let script = "trap 'echo 5; echo 6; exit' TERM; n=0; while read -r x; do n=$((n + 1)); \
                  [ $n = 3 ] && { touch third; while :; do sleep 0.01; done; }; echo $x; done";
    let words =
        ["map", "-q", "--range", "1:3", "--threads", "1", "--chunk", "1", "--kill-after", "1s", "--records", "r"];
    let words = [&words[..], &["--grace", "0.3s", "--", "sh", "-c", script]].concat();
    let mut child = support::start(&mut module.program(1, &words));
    let deadline = Instant::now() + LIMIT;
    while !module.files.path("third").exists() {
        assert!(Instant::now() < deadline, "the third record is not begun");
        thread::sleep(Duration::from_millis(5));
    }
    support::signal(&child, Signal::SIGTERM);
    let status = support::wait(&mut child, LIMIT).expect("it ends");
    assert_eq!(status.code(), Some(75));
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it is text");
    assert!(said.contains("the answers of job(s) 1-2 may be those of other jobs"), "{said}");
}

#[test]
fn with_ids_each_answer_says_which_record_it_is_for() {
    let module = Module::new("");
    let worker = "import json, sys\n\
        for line in sys.stdin:\n    \
            request = json.loads(line)\n    \
            assert list(request) == ['id', 'record']\n    \
            x = request['record']\n    \
            if x == SURPLUS: print(x)\n    \
            print(json.dumps({'id': request['id'] + (x == WRONG), 'result': x * 10}), flush=True)\n\
        if EXIT: print('done')\n";
    let map = |surplus: &str, wrong: &str, exit: &str| {
        let text = worker.replace("SURPLUS", surplus).replace("WRONG", wrong).replace("EXIT", exit);
        module.files.with("ids.py", text);
        let words = ["map", "-q", "--worker-ids", "--range", "1:6", "--", "python3", "ids.py"];
        support::run(&mut module.program(2, &words), LIMIT)
    };
    let right = ["10", "20", "30", "40", "50", "60"];
    assert_eq!(kinds(&lines(map("0", "0", "False").expect_code(0))), right);
    assert_eq!(kinds(&lines(map("0", "0", "True").expect_code(0))), right, "its answers are right all the same");
    let expected = ["10", "20", "!garbage", "40", "50", "60"];
    assert_eq!(kinds(&lines(map("3", "0", "False").expect_code(3))), expected);
    let run = map("0", "3", "False");
    assert_eq!(kinds(&lines(run.expect_code(3))), expected);
    run.expect_said("an answer with the id 4 where 3 was due");
    let words = ["map", "--worker-ids", "--python", "m.py:f", "--range", "1:2"];
    support::run(&mut module.program(1, &words), LIMIT).expect_code(2).expect_said("cannot be used with");
}
