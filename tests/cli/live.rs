//! The live view and the trace of a run: the status file, `rankpool top`, the status page, `--trace`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::journal_faults::with_mounts;
use crate::support::{self, Finished};
use crate::{Files, LIMIT, json, run_batch};

const PROGRAM: &str = env!("CARGO_BIN_EXE_rankpool");

/// Starts `rankpool` with these words and its messages piped, in the directory of the test.
fn start(files: &Files, words: &str) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["--local", "2", "--threads", "1"]).args(words.split_whitespace()).current_dir(files.0.path());
    support::start(&mut command)
}

fn top(files: &Files, name: &str) -> Finished {
    support::run(Command::new(PROGRAM).args(["top", name]).current_dir(files.0.path()), LIMIT)
}

/// Waits until the status has what is asked for, and returns it.
#[track_caller]
fn wait_for(path: &Path, is_there: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        // A reader finds a whole status at any time.
        let status = path.exists().then(|| json(path));
        if let Some(status) = status.filter(&is_there) {
            return status;
        }
        assert!(Instant::now() < deadline, "there is no such status in {}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_status_file_says_what_runs_and_at_last_how_it_ended() {
    let files = Files::new();
    files.with("go", "");
    let script = "while [ -e go ]; do sleep 0.05; done";
    let mut command = Command::new(PROGRAM);
    command.args([
        "run",
        "--local",
        "2",
        "--threads",
        "1",
        "--status",
        "s.json",
        "--retries",
        "0",
        "--args",
        "a\u{e9}",
        "b",
        "c",
    ]);
    let run = support::start(command.args(["--", "sh", "-c", script]).current_dir(files.0.path()));
    let path = files.path("s.json");
    let names = |status: &Value| -> Vec<String> {
        let ranks = status["ranks"].as_array().cloned().unwrap_or_default();
        ranks.iter().filter_map(|rank| Some(rank["slowest"]["input"].as_str()?.to_string())).collect()
    };
    let status = wait_for(&path, |status| names(status).len() == 2 && status["ranks"][0]["busy"].as_f64() > Some(0.5));
    assert_eq!((&status["schema"], &status["version"]), (&"rankpool-status".into(), &1.into()));
    assert_eq!((&status["state"], &status["jobs"], &status["settled"]), (&"running".into(), &3.into(), &0.into()));
    assert_eq!((status["exit_code"].is_null(), status["seconds_left"].is_null()), (true, true));
    let mut running = names(&status);
    running.sort();
    assert_eq!(running, ["\"a\u{e9}\"", "\"b\""]);
    let shown = top(&files, "s.json");
    let out = shown.expect_code(0).out();
    assert!(out.starts_with("run: running for ") && out.contains("0 of 3 jobs (0 %), 0 failed"), "{out}");
    assert!(out.contains("job 1 for ") && out.contains(": \"a\u{e9}\""), "{out}");
    fs::remove_file(files.path("go")).expect("it is there");
    support::finish(run, LIMIT).expect_code(0);
    let last = json(&path);
    assert_eq!((&last["state"], &last["exit_code"], &last["settled"]), (&"ended".into(), &0.into(), &3.into()));
    assert!(top(&files, "s.json").expect_code(0).out().contains("with exit code 0"));
    assert_eq!(files.names(), ["s.json"], "nothing else is left");
}

#[test]
fn a_status_that_cannot_be_written_is_a_warning_and_the_run_goes_on() {
    let files = Files::new();
    fs::create_dir(files.path("d")).expect("a folder");
    files.with("go", "");
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--local", "1", "--threads", "1", "-o", "o", "--status", "d/s.json", "--args", "a", "--"]);
    command.args(["sh", "-c", "while [ -e go ]; do sleep 0.05; done; echo done"]).current_dir(files.0.path());
    let mut run = support::start(&mut command);
    wait_for(&files.path("d/s.json"), |_| true);
    fs::remove_dir_all(files.path("d")).expect("it is there");
    // Several statuses cannot be written before the run ends.
    std::thread::sleep(Duration::from_secs(5));
    assert!(run.try_wait().expect("a child").is_none(), "it goes on");
    fs::remove_file(files.path("go")).expect("it is there");
    let finished = support::finish(run, LIMIT);
    finished
        .expect_code(0)
        .expect_said("the status could not be written to d/s.json: No such file or directory; the run goes on");
    assert_eq!(finished.stderr.matches("the status could not be written").count(), 1, "{}", finished.stderr);
    assert_eq!(fs::read_to_string(files.path("o")).expect("the output"), "done\n");
}

#[test]
fn a_full_disk_costs_statuses_and_nothing_else() {
    let files = Files::new();
    fs::create_dir(files.path("small")).expect("a folder");
    let script = "mount -t tmpfs -o size=16k none small 2>mounted || exit 77
        $R run --local 1 --threads 1 -o o --status small/s.json --args a -- sh -c 'cat /dev/zero >small/rest; sleep 5' 2>said
        echo $?; cat said; ls small";
    let Some(finished) = with_mounts(&files, script) else { return };
    let out = finished.out();
    assert!(out.contains("the status could not be written to small/s.json: No space left on device"), "{out}");
    assert!(!out.contains("s.json.partial"), "nothing is left: {out}");
    assert_eq!(out.lines().next(), Some("0"), "{out}");
}

#[test]
fn what_cannot_be_a_status_file_is_refused_before_any_job() {
    let files = Files::new();
    files.with("in", "x\n");
    for (option, message) in [
        ("--status nowhere/s.json", "the status could not be written to nowhere/s.json"),
        ("--status /dev/null", "it is not a regular file"),
        ("--status in", "--status would overwrite the input in"),
        ("--status x --summary x", "cannot both be written to"),
        ("--trace nowhere/t.json", "nowhere/t.json"),
        ("--serve-status 999999", "neither a port"),
        ("--serve-status localhost", "neither a port"),
        ("--serve-status 192.0.2.1:80", "--serve-status 192.0.2.1:80: "),
    ] {
        let words: Vec<&str> = option.split(' ').chain(["--input", "in", "--", "sh", "-c", "echo >>ran"]).collect();
        run_batch(&files, &words).expect_code(2).expect_said(message);
    }
    assert!(!files.path("ran").exists() && Path::new("/dev/null").metadata().is_ok_and(|null| !null.is_file()));
}

#[test]
fn top_says_what_is_wrong_with_a_file() {
    let files = Files::new();
    files.with("other", "{\"schema\":\"x\"}");
    files.with("later", "{\"schema\":\"rankpool-status\",\"version\":99}");
    files.with("escape", "\x1b[31m");
    for (name, message) in [
        ("none", "none: No such file or directory"),
        (".", ".: it is not a regular file"),
        ("other", "other: it is not a status file of rankpool"),
        ("later", "later: its format has version 99"),
        ("escape", "escape: it is not a status file"),
    ] {
        top(&files, name).expect_code(2).expect_said(message);
    }
}

#[test]
fn a_killed_run_leaves_a_status_that_top_calls_stale() {
    let files = Files::new();
    let mut run = start(&files, "run --status s.json --args a -- sleep 1000");
    wait_for(&files.path("s.json"), |status| !status["ranks"][0]["slowest"].is_null());
    support::signal(&run, Signal::SIGKILL);
    support::wait(&mut run, LIMIT).expect("it was killed");
    // Its own time stamp tells, because it was written on this host.
    let text = fs::read_to_string(files.path("s.json")).expect("the status");
    let mut status: Value = serde_json::from_str(&text).expect("JSON");
    status["written_unix"] = (status["written_unix"].as_f64().expect("a number") - 100.0).into();
    files.with("s.json", status.to_string());
    let out = top(&files, "s.json").expect_code(0).out();
    assert!(out.contains("STALE: written 10") && out.contains("by this host's clock"), "{out}");
    status["host"] = "elsewhere".into();
    files.with("s.json", status.to_string());
    let out = top(&files, "s.json").expect_code(0).out();
    assert!(!out.contains("STALE") && out.contains("by the clock of elsewhere"), "{out}");
}

/// Asks a status page for a path.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the page is served");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_status_page_is_served_to_this_host_and_does_not_keep_the_run_from_ending() {
    let files = Files::new();
    files.with("go", "");
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--local", "1", "--threads", "1", "-o", "o", "--serve-status", "0", "--args", "<b>", "--"]);
    command.args(["sh", "-c", "while [ -e go ]; do sleep 0.05; done"]).current_dir(files.0.path());
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = std::io::BufReader::new(run.stderr.take().expect("it is piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).expect("a message");
    let address = line.trim().strip_prefix("rankpool: the status of the run is at http://").expect("the address");
    let address = address.trim_end_matches('/').to_string();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let page = get(&address, "/");
    assert!(
        page.starts_with("HTTP/1.1 200 OK") && page.contains("http-equiv=\"refresh\"") && !page.contains("<b>"),
        "{page}"
    );
    assert!(get(&address, "/metrics").contains("\nrankpool_jobs 1\n"));
    let body = get(&address, "/status.json");
    let body = body.split("\r\n\r\n").nth(1).expect("a body");
    assert_eq!(serde_json::from_str::<Value>(body).expect("JSON")["schema"], "rankpool-status");
    // Connections that say nothing, or too much, do not matter.
    let silent: Vec<_> = (0..40).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    let mut endless = TcpStream::connect(&address).expect("it is served");
    let _ = endless.write_all(&vec![b'x'; 1 << 20]);
    fs::remove_file(files.path("go")).expect("it is there");
    let begin = Instant::now();
    assert!(support::wait(&mut run, LIMIT).expect("it ends").success());
    assert!(begin.elapsed() < Duration::from_secs(60), "open connections did not keep it");
    drop((silent, endless));
    assert_eq!(files.names(), ["o"]);
}

/// The events of jobs in a trace, after a check that none of a slot overlap.
#[track_caller]
fn trace_events(path: &Path) -> Vec<Value> {
    let trace = json(path);
    let all = trace["traceEvents"].as_array().expect("a list").clone();
    let events: Vec<Value> = all.into_iter().filter(|event| event["ph"] == "X").collect();
    let mut ends: BTreeMap<String, f64> = BTreeMap::new();
    for event in &events {
        let (start, dur) = (event["ts"].as_f64().expect("a time"), event["dur"].as_f64().expect("a time"));
        let before = ends.insert(event["tid"].to_string(), start + dur).unwrap_or(0.0);
        assert!(start >= before - 1e-6, "{event} begins before {before}");
    }
    events
}

#[test]
fn a_trace_has_every_attempt_on_its_slot() {
    let files = Files::new();
    let words = ["--threads", "2", "--trace", "t.json", "--retries", "1", "--retry-pause", "0s", "--range", "1:9"];
    let command = ["--", "sh", "-c", "sleep 0.02; [ {} != 5 ]"];
    run_batch(&files, &[&words[..], &command].concat()).expect_code(3);
    let events = trace_events(&files.path("t.json"));
    assert_eq!(events.len(), 10, "nine jobs, one of which was tried twice");
    let failed: Vec<_> = events.iter().filter(|event| event["cat"] == "failed").collect();
    assert_eq!(failed.len(), 2);
    for event in failed {
        assert_eq!(
            (&event["name"], &event["args"]["job"], &event["args"]["input"]),
            (&"job 5".into(), &5.into(), &"5".into())
        );
        assert!(event["dur"].as_f64() >= Some(20_000.0), "in µs: {event}");
    }
    assert_eq!(files.names(), ["t.json"]);
}

#[test]
fn a_trace_of_many_jobs_stays_small_and_says_so() {
    let files = Files::new();
    let words =
        ["kernel", "--local", "2", "--threads", "1", "nop", "--jobs", "300000", "-o", "/dev/null", "--trace", "t.json"];
    let finished = support::run(Command::new(PROGRAM).args(words).current_dir(files.0.path()), LIMIT);
    finished.expect_code(0).expect_said("the trace t.json: 300000 attempts are more than 200000 events");
    let events = trace_events(&files.path("t.json"));
    assert!(events.len() <= 200_000, "{}", events.len());
    let attempts: u64 = events.iter().filter_map(|event| event["args"]["attempts"].as_u64()).sum();
    assert_eq!(attempts, 300_000);
    assert!(json(&files.path("t.json"))["otherData"]["bin_us"].as_f64() > Some(0.0));
}

/// Answers SQL as Perfetto's trace processor does, with the tables that the queries use.
const TABLES: &str = r#"
import json, re, sqlite3, sys
trace, text = json.load(open(sys.argv[1])), open(sys.argv[2]).read()
base = sqlite3.connect(":memory:")
base.execute("CREATE TABLE slice(id, ts, dur, track_id, name, category, arg_set_id)")
base.execute("CREATE TABLE thread_track(id, utid)")
base.execute("CREATE TABLE thread(utid, upid, tid, name)")
base.execute("CREATE TABLE process(upid, pid, name)")
arguments = []
base.create_function("EXTRACT_ARG", 2, lambda at, key: arguments[at].get(key.removeprefix("args.")))
for event in trace["traceEvents"]:
    args = event["args"]
    if event["name"] == "process_name":
        base.execute("INSERT INTO process VALUES(?,?,?)", (event["pid"], event["pid"], args["name"]))
    elif event["name"] == "thread_name":
        base.execute("INSERT INTO thread VALUES(?,?,?,?)", (event["tid"], event["pid"], event["tid"], args["name"]))
        base.execute("INSERT INTO thread_track VALUES(?,?)", (event["tid"], event["tid"]))
    else:
        row = (len(arguments), int(event["ts"] * 1000), int(event["dur"] * 1000), event["tid"], event["name"], event["cat"], len(arguments))
        base.execute("INSERT INTO slice VALUES(?,?,?,?,?,?,?)", row)
        arguments.append(args)
for query in re.findall(r"```sql\n(.*?)```", text, re.S):
    cursor = base.execute(query)
    print(json.dumps([dict(zip([column[0] for column in cursor.description], row)) for row in cursor]))
"#;

#[test]
fn the_queries_of_the_documentation_answer_what_they_say() {
    let files = Files::new();
    let words = ["--threads", "1", "--trace", "t.json", "--args", "0.01", "0.5", "0.02", "0.03", "--", "sleep", "{}"];
    run_batch(&files, &words).expect_code(0);
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/trace.md");
    let mut python = Command::new("python3");
    let answers = support::run(python.args(["-c", TABLES, "t.json", docs]).current_dir(files.0.path()), LIMIT);
    let answers: Vec<Value> =
        answers.expect_code(0).out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [slowest, idle, gaps, ends] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((&slowest[0]["job"], &slowest[0]["input"]), (&"job 2".into(), &"0.5".into()));
    assert!(
        slowest[0]["seconds"].as_f64() >= Some(0.5) && slowest[0]["rank"].as_str().unwrap().contains(" on "),
        "{slowest}"
    );
    assert!(idle.as_array().unwrap().len() == 2 && idle[0]["idle"].as_f64() > Some(0.2), "{idle}");
    assert!(idle[1]["idle"].as_f64() < Some(0.5), "{idle}");
    assert!(gaps[0]["seconds"].as_f64() > Some(0.0), "{gaps}");
    assert!(ends[0]["seconds_before_the_end"].as_f64() > Some(0.1), "{ends}");
}
