//! What failures of single jobs come to in `rankpool map`: their line, their record, and nothing for their neighbours.

use crate::map_support::{Module, kinds, lines};

/// Fails in each way that there is, at numbers of its own.
const WAYS: &str = "\
import ctypes, os, signal, sys, time
def f(x):
    if x == 3: raise ValueError('th\u{fc}ree')
    if x == 5: sys.exit(2)
    if x == 7: os._exit(9)
    if x == 9: os.kill(os.getpid(), signal.SIGKILL)
    if x == 11: ctypes.string_at(0)
    if x == 13: time.sleep(100)
    if x == 15: return object()
    if x == 17: print('printed'); os.write(1, b'{\"written\":1}\\n')
    if x == 19: return [sys.stdin.read(), input if False else None]
    if x == 21: raise KeyboardInterrupt
    if x == 23: recurse()
    if x == 25: os.closerange(3, 100)
    return x
def recurse(): recurse()
";

#[test]
fn line_k_answers_record_k_however_jobs_end_and_wherever_they_run() {
    let module = Module::new(WAYS);
    let words = ["--range", "1:30", "--timeout", "2s", "--kill-after", "200ms"];
    let mut outputs = Vec::new();
    for (ranks, threads) in [(1, "1"), (2, "1"), (4, "1"), (1, "3"), (2, "2")] {
        let records = format!("{ranks}{threads}.jsonl");
        let words = [&words[..], &["--threads", threads, "--records", &records]].concat();
        let run = module.map_on(ranks, "f", &words);
        run.expect_code(3).expect_said("ValueError: th\u{fc}ree").expect_said("line 3, in f");
        run.expect_said("printed").expect_said("{\"written\":1}").expect_said("10 of 30 job(s) failed:");
        outputs.push(run.out());
    }
    for output in &outputs {
        assert_eq!(*output, outputs[0], "the same bytes everywhere");
    }
    let got: Vec<serde_json::Value> =
        outputs[0].lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let mut expected: Vec<String> = (1..=30).map(|number| number.to_string()).collect();
    for (number, kind) in [
        (3, "!exception"),
        (5, "!exit"),
        (7, "!crash"),
        (9, "!crash"),
        (11, "!crash"),
        (13, "!timeout"),
        (15, "!encode"),
        (19, "[\"\",null]"),
        (21, "!exception"),
        (23, "!exception"),
        (25, "!crash"),
    ] {
        expected[number - 1] = kind.into();
    }
    assert_eq!(kinds(&got), expected);
    assert!(got.iter().zip(1..).all(|(line, number)| line["error"]["job"].as_u64().is_none_or(|job| job == number)));
    records_tell_the_same(&module.records("22.jsonl"));
}

fn records_tell_the_same(records: &[serde_json::Value]) {
    assert_eq!(records.len(), 30);
    for (record, number) in records.iter().zip(1..) {
        assert_eq!((record["number"].as_u64(), record["input"].as_u64()), (Some(number), Some(number)));
        let status = match number {
            3 | 5 | 7 | 15 | 21 | 23 | 25 => "failed",
            9 | 11 => "signal",
            13 => "timeout",
            _ => "ok",
        };
        assert_eq!(record["status"], status, "{record}");
        assert_eq!((record["attempts"].as_u64(), record["message"].is_string()), (Some(1), status != "ok"), "{record}");
        assert!(record["rank"].as_u64() < Some(2) && record["slot"].as_u64() <= Some(4), "{record}");
    }
    assert_eq!((&records[6]["exit"], &records[8]["signal_name"]), (&9.into(), &"SIGKILL".into()));
    assert!(records[12]["seconds"].as_f64() > Some(0.6), "{}", records[12]);
    let traceback = records[2]["traceback"].as_str().expect("an exception has one");
    assert!(traceback.starts_with("Traceback") && traceback.contains("m.py\", line 3, in f"), "{traceback}");
    assert!(!traceback.contains("<rankpool>"), "only the user's own lines: {traceback}");
}

/// Succeeds at the third attempt, with two of its records.
const RETRIED: &str = "\
import os
def f(x):
    attempt = int(os.environ['RANKPOOL_ATTEMPT'])
    if x == 2 and attempt < 3: raise ValueError('attempt %d' % attempt)
    if x == 5 and attempt < 3: os._exit(attempt)
    if x == 7: raise ValueError('attempt %d' % attempt)
    return [x, attempt, os.environ['RANKPOOL_SEED']]
";

#[test]
fn jobs_are_run_again_and_only_the_last_attempt_counts() {
    let module = Module::new(RETRIED);
    let words = ["--range", "1:8", "--retries", "2", "--retry-pause", "10ms", "--records", "r.jsonl"];
    let run = module.map("f", &words);
    let out = lines(run.expect_code(3));
    let attempts: Vec<_> = out.iter().map(|line| line[1].as_u64()).collect();
    assert_eq!(attempts, [1, 3, 1, 1, 3, 1, 0, 1].map(|n| (n > 0).then_some(n)));
    assert_eq!(out[6]["error"]["message"], "ValueError: attempt 3");
    assert!(!run.stderr.contains("attempt 1"), "what is run again is no news: {}", run.stderr);
    let records = module.records("r.jsonl");
    let attempts: Vec<_> = records.iter().map(|record| record["attempts"].as_u64().expect("a number")).collect();
    assert_eq!(attempts, [1, 3, 1, 1, 3, 1, 3, 1]);
    let seeds = |run: &crate::support::Finished| lines(run).iter().map(|line| line[2].clone()).collect::<Vec<_>>();
    let calm = module.map_on(1, "f", &["--range", "1:8", "--retries", "2", "--retry-pause", "1ms"]);
    assert_eq!(seeds(&calm), seeds(&run), "a job's seed is its own");
    let crashes = ["--args", "5", "--retries", "2", "--retry-pause", "1ms", "--retry-on", "timeout"];
    assert_eq!(kinds(&lines(module.map("f", &crashes).expect_code(3))), ["!crash"]);
}

#[test]
fn only_what_failed_is_run_when_asked() {
    let module = Module::new(
        "import os\ndef f(x):\n    if x % 2 and not os.path.exists('fixed'): raise ValueError(x)\n    return -x\n",
    );
    let words = ["--range", "1:6", "--records", "r.jsonl"];
    let first = module.map("f", &words);
    first.expect_code(3).expect_said("3 of 6 job(s) failed").expect_said("--only-failed r.jsonl");
    let dry = module.map("f", &["--range", "1:6", "--only-failed", "r.jsonl", "--dry-run"]);
    assert_eq!(dry.expect_code(0).out(), "1\n3\n5\n");
    module.files.with("fixed", "");
    let again = module.map("f", &[&words[..], &["--only-failed", "r.jsonl"]].concat());
    assert_eq!(again.expect_code(0).out(), "-1\n-3\n-5\n");
    assert_eq!(module.records("r.jsonl").len(), 9, "the file goes on");
    let nothing = module.map("f", &[&words[..], &["--only-failed", "r.jsonl"]].concat());
    assert_eq!(nothing.expect_code(0).out(), "");
    let other = module.map("f", &["--range", "2:7", "--only-failed", "r.jsonl"]);
    other.expect_code(2).expect_said("record 1 is another one than in the job log");
}

#[test]
fn enough_is_enough() {
    let module = Module::new("def f(x):\n    if x % 2: raise ValueError(x)\n    return x\n");
    let failed = module.map("f", &["--range", "1:5000", "--max-failures", "3", "--records", "r.jsonl"]);
    let out = lines(failed.expect_code(3));
    assert_eq!(out.len(), 5000, "each record has its line");
    let cancelled = kinds(&out).iter().filter(|kind| *kind == "!cancelled").count();
    assert!(cancelled > 4000, "{cancelled} of 5000 were cancelled");
    assert_eq!(module.records("r.jsonl").iter().filter(|record| record["status"] == "cancelled").count(), cancelled);
    let won = module.map("f", &["--range", "1:5000", "--stop-on-success"]);
    let out = kinds(&lines(won.expect_code(0)));
    assert_eq!(out.iter().filter(|kind| !kind.starts_with('!')).count(), 1, "one success is wanted");
}

#[test]
fn a_batch_is_full_and_only_its_guilty_record_fails() {
    let module = Module::new(
        "import os\n\
         def size(xs): return [len(xs)] * len(xs)\n\
         def poison(xs):\n    if 13 in xs: raise ValueError('poison')\n    return [len(xs)] * len(xs)\n\
         def deadly(xs):\n    if 13 in xs: os._exit(4)\n    return xs\n\
         def short(xs): return xs[:-1]\n\
         def text(xs): return 'x' * len(xs)\n",
    );
    let map = |ranks, function, words: &[&str]| module.map_on(ranks, function, &[&["--batch", "8"], words].concat());
    for ranks in [1, 2, 4] {
        let sizes: Vec<u64> = lines(map(ranks, "size", &["--range", "1:2000", "--threads", "1"]).expect_code(0))
            .iter()
            .map(|size| size.as_u64().expect("a number"))
            .collect();
        assert!(sizes.iter().all(|&size| size <= 8), "{sizes:?}");
        let full = sizes.iter().filter(|&&size| size == 8).count();
        assert_eq!(full, 2000, "all batches are full");
    }
    let poison = kinds(&lines(map(2, "poison", &["--range", "1:40"]).expect_code(3).expect_said("ValueError: poison")));
    assert_eq!(poison.iter().filter(|kind| kind.starts_with('!')).collect::<Vec<_>>(), ["!exception"]);
    assert_eq!(poison[12], "!exception");
    let deadly = kinds(&lines(map(2, "deadly", &["--range", "1:40"]).expect_code(3)));
    let expected: Vec<_> = (1..=40).map(|x| if x == 13 { "!crash".into() } else { format!("{x}") }).collect();
    assert_eq!(deadly, expected);
    for function in ["short", "text"] {
        let wrong = kinds(&lines(map(2, function, &["--range", "1:20"]).expect_code(3)));
        assert!(wrong.iter().all(|kind| kind == "!batch"), "{function}: {wrong:?}");
    }
}

/// Kills the spawn helper, the parent of the worker, in the first attempt of these records.
const HELPER_KILLER: &str = "\
import os, signal, time
def f(x):
    if x in (7, 31) and os.environ['RANKPOOL_ATTEMPT'] == '1':
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(100)
    return x
def starts(x):
    return x
if os.path.exists('kill'):
    os.remove('kill')
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(100)
";

#[test]
fn a_killed_spawn_helper_costs_the_records_at_work_and_nothing_else() {
    let module = Module::new(HELPER_KILLER);
    let words = ["--range", "1:60", "--threads", "2", "--records", "r"];
    let run = module.map("f", &words);
    run.expect_code(3).expect_said("the worker was ended together with the spawn helper");
    let records = module.records("r");
    assert_eq!(records.len(), 60);
    let lost = records.iter().filter(|record| record["status"] == "lost").count();
    assert!(records[6]["status"] == "lost" && records[30]["status"] == "lost" && lost <= 8, "{}", run.stderr);
    assert_eq!(records.iter().filter(|record| record["status"] == "ok").count(), 60 - lost);
    let all: String = (1..=60).map(|number| format!("{number}\n")).collect();
    let run = module.map("f", &[&words[..], &["--retries", "2", "--retry-pause", "0s"]].concat());
    assert_eq!(run.expect_code(0).out(), all);
    // One that is killed while its only worker starts costs nobody anything.
    module.files.with("kill", "");
    let run = module.map_on(1, "starts", &["--range", "1:60", "--threads", "1"]);
    assert_eq!(run.expect_code(0).out(), all);
    assert!(!module.files.path("kill").exists());
}

#[test]
fn a_killed_spawn_helper_costs_a_worker_program_the_records_at_work() {
    let module = Module::new("");
    let script =
        "while read x; do if test $x = 5 && ! test -e k; then touch k; kill -9 $PPID; sleep 100; fi; echo $x; done";
    let run = module.shell(&["--range", "1:20", "--retries", "1", "--retry-pause", "0s"], script);
    let all: String = (1..=20).map(|number| format!("{number}\n")).collect();
    assert_eq!(run.expect_code(0).out(), all);
}
