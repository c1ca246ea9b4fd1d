//! The processes of `rankpool map`: how they are started, what they see, and why there are none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::map_support::{Module, kinds, lines};
use crate::support::{self, Finished};
use crate::{Files, LIMIT};

/// What cannot work says so at once.
const SOON: Duration = Duration::from_secs(200);

#[test]
fn a_function_sees_its_job_and_its_place() {
    let names = "JOB ATTEMPT SEED RANK SLOT";
    let module = Module::new(&format!(
        "import os, time\ndef f(x):\n    time.sleep(x % 3 * 0.001)\n    \
         return [int(os.environ['RANKPOOL_' + name]) for name in '{names}'.split()] + [os.getpid()]\n"
    ));
    // Of so few jobs at once some threads have none, and may not take the processes of others when they have one.
    for (ranks, threads, window) in [(2, "2", "64"), (1, "4", "3")] {
        let words = ["--range", "11:210", "--threads", threads, "--window", window, "--chunk", "1", "--records", "r"];
        let out = lines(module.map_on(ranks, "f", &words).expect_code(0));
        let mut slots = std::collections::HashMap::new();
        for ((line, record), number) in out.iter().zip(&module.records("r")).zip(1..) {
            assert_eq!((line[0].as_u64(), line[1].as_u64()), (Some(number), Some(1)));
            assert_eq!((&line[3], &line[4]), (&record["rank"], &record["slot"]), "record {number}");
            let pid = slots.entry(line[4].as_u64()).or_insert(line[5].clone());
            assert_eq!(*pid, line[5], "no two processes have the same slot");
        }
        assert!(slots.len() > 1, "{slots:?}");
    }
    let seeds = |words: &[&str]| -> Vec<_> {
        let run = module.map_on(1, "f", &[&["--range", "1:5"], words].concat());
        lines(run.expect_code(0)).iter().map(|line| line[2].to_string()).collect()
    };
    assert_eq!(seeds(&["--seed", "1"]), seeds(&["--seed", "1"]));
    assert_ne!(seeds(&["--seed", "1"]), seeds(&[]));
}

#[test]
fn the_setup_is_called_once_in_each_process() {
    let module = Module::new(
        "import os\ncalls = []\ndef load(): calls.append(os.getpid())\ndef f(x): return [calls, os.getpid()]\n",
    );
    let out = lines(module.map("f", &["--setup", "load", "--range", "1:50"]).expect_code(0));
    assert!(out.iter().all(|line| line[0] == serde_json::json!([line[1]])), "{out:?}");
}

#[test]
fn processes_that_leak_are_replaced() {
    let module = Module::new("import os\ndef f(x): return os.getpid()\ndef many(xs): return [os.getpid()] * len(xs)\n");
    for (function, words) in [("f", vec![]), ("many", vec!["--batch", "2"])] {
        let words = [&["--range", "1:12", "--threads", "1", "--max-worker-jobs", "4"][..], &words].concat();
        let out = lines(module.map_on(1, function, &words).expect_code(0));
        let mut uses = std::collections::HashMap::new();
        out.iter().for_each(|pid| *uses.entry(pid.to_string()).or_insert(0) += 1);
        assert!(uses.len() >= 3 && uses.values().all(|&jobs| jobs <= 4), "{uses:?}");
    }
}

#[test]
fn folder_and_environment_are_the_workers() {
    let module = Module::new("");
    fs::create_dir(module.files.path("sub")).expect("a folder");
    fs::create_dir(module.files.path("sub/pack")).expect("a folder");
    let text = "import os\nimport helper\ndef f(x): return [os.path.basename(os.getcwd()), os.environ.get('GREETING'), \
                os.environ.get('OMP_NUM_THREADS')]\n";
    module.files.with("sub/g.py", text);
    module.files.with("sub/helper.py", "");
    module.files.with("sub/pack/__init__.py", "");
    module.files.with("sub/pack/mod.py", text);
    module.files.with("sub/w.sh", "#!/bin/sh\nwhile read -r x; do echo \"\\\"${PWD##*/}\\\"\"; done\n");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(module.files.path("sub/w.sh"), executable).expect("its own file");
    for target in ["g.py:f", "./g.py:f", "g:f", "pack.mod:f", "pack/../g.py:f"] {
        let words = ["map", "-q", "--python", target, "--cwd", "sub", "--env", "GREETING=a=b c", "--args", "1"];
        let run = support::run(&mut module.program(2, &words), LIMIT);
        assert_eq!(run.expect_code(0).out(), "[\"sub\",\"a=b c\",null]\n", "{target}");
    }
    let threads = |words: &[&str]| {
        let all = ["map", "-q", "--python", "g:f", "--cwd", "sub", "--args", "1", "--job-cpus", "3"];
        lines(support::run(&mut module.program(1, &[&all[..], words].concat()), LIMIT).expect_code(0))[0][2].clone()
    };
    assert_eq!(threads(&[]), "3");
    assert_eq!(threads(&["--env", "OMP_NUM_THREADS=7"]), "7");
    let words = ["map", "-q", "--cwd", "sub", "--args", "1", "--", "./w.sh"];
    assert_eq!(support::run(&mut module.program(2, &words), LIMIT).expect_code(0).out(), "\"sub\"\n");
    assert_eq!(module.files.names(), ["m.py", "sub"]);
    let left: Vec<_> = fs::read_dir(module.files.path("sub")).expect("a folder").flatten().collect();
    assert_eq!(left.len(), 4, "no __pycache__: {left:?}");
    assert_eq!(fs::read_dir(module.files.path("sub/pack")).expect("a folder").count(), 2);
}

/// Fails unless the run ends soon, with these words and with hardly any line.
#[track_caller]
fn refused(module: &Module, code: i32, said: &[&str], words: &[&str]) {
    let since = Instant::now();
    let all = [&["map", "-q", "--range", "1:100000", "--output", "out.jsonl"], words].concat();
    let run = support::run(&mut module.program(2, &all), LIMIT);
    run.expect_code(code);
    said.iter().for_each(|said| {
        run.expect_said(said);
    });
    assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());
    assert!(run.stderr.lines().count() < 30, "{}", run.stderr);
    let partial = fs::read_to_string(module.files.path("out.jsonl.partial")).unwrap_or_default();
    assert!(partial.lines().count() < 30, "{partial}");
    assert!(!module.files.path("out.jsonl").exists());
    let _ = fs::remove_file(module.files.path("out.jsonl.partial"));
}

#[test]
fn without_a_function_the_run_ends_with_the_reason() {
    let module = Module::new("def f(x): return x\nvalue = 3\n");
    module.files.with("syntax.py", "def f(: pass\n");
    module.files.with("imports.py", "import sys\nfrom not_there import g\n");
    module.files.with("exits.py", "import os\nos._exit(5)\n");
    module.files.with("setup.py", "def load(): return 1 / 0\ndef f(x): return x\n");
    let python = |code, said: &[&str], target: &str, more: &[&str]| {
        refused(&module, code, said, &[&["--python", target], more].concat());
    };
    let host = support::run(&mut module.program(1, &["info", "--json"]), LIMIT).out();
    let host: serde_json::Value = serde_json::from_str(&host).expect("JSON");
    let host = host["ranks"][0]["host"].as_str().unwrap_or_default();
    python(2, &[": no such file: nope.py", host], "nope.py:f", &[]);
    python(2, &["--python needs FILE.py:FUNCTION"], "m.py", &[]);
    python(2, &["no such directory: nowhere, which --cwd names"], "m.py:f", &["--cwd", "nowhere"]);
    python(2, &["m.py has no g; its functions are: f", host], "m.py:g", &[]);
    python(2, &["value in m.py is not a function but of type int"], "m.py:value", &[]);
    python(2, &["SyntaxError", "syntax.py\", line 1"], "syntax.py:f", &[]);
    python(2, &["ModuleNotFoundError: No module named 'not_there'", "imports.py\", line 2"], "imports.py:f", &[]);
    python(2, &["exits.py:f ended with exit code 5 before it was ready"], "exits.py:f", &[]);
    python(2, &["ZeroDivisionError", "line 1, in load"], "setup.py:f", &["--setup", "load"]);
    python(2, &["has no nope"], "setup.py:f", &["--setup", "nope"]);
    python(2, &["no such program: no-python", "--python-exe"], "m.py:f", &["--python-exe", "no-python"]);
    python(2, &["sh is not a working Python"], "m.py:f", &["--python-exe", "sh"]);
    python(2, &["No module named 'pack'"], "pack.mod:f", &[]);
    assert_eq!(module.files.names(), ["exits.py", "imports.py", "m.py", "setup.py", "syntax.py"]);
}

#[test]
fn any_python_that_is_new_enough_will_do() {
    let module = Module::new("import sys\ndef f(x): return list(sys.version_info[:2])\n");
    let home = std::env::var("HOME").unwrap_or_default();
    let versions = Path::new(&home).join(".pyenv/versions");
    for (version, good) in [("2.7", false), ("3.8", false), ("3.9", true), ("3.13", true)] {
        let entries = fs::read_dir(&versions).into_iter().flatten().flatten();
        let Some(entry) =
            entries.into_iter().find(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{version}.")))
        else {
            continue;
        };
        let exe = entry.path().join("bin/python").display().to_string();
        if good {
            let run = module.map("f", &["--python-exe", &exe, "--args", "1"]);
            assert_eq!(run.expect_code(0).out(), format!("[{}]\n", version.replace('.', ",")));
        } else {
            let words = ["--python", "m.py:f", "--python-exe", &exe];
            refused(&module, 2, &[&format!("is Python {version}."), "3.9 or newer is needed"], &words);
        }
    }
}

#[test]
fn a_program_that_is_no_worker_ends_the_run() {
    let module = Module::new("");
    module.files.with("plain", "echo\n");
    module.files.with("binary", "\0\0\0\0");
    fs::set_permissions(module.files.path("binary"), fs::Permissions::from_mode(0o755)).expect("its own file");
    refused(&module, 2, &[": no such program: ./nope"], &["--", "./nope"]);
    refused(&module, 2, &["no such program: no-such-worker"], &["--", "no-such-worker"]);
    refused(&module, 2, &["permission denied: ./plain"], &["--", "./plain"]);
    refused(&module, 2, &["no such directory: nowhere, which --cwd names"], &["--cwd", "nowhere", "--", "cat"]);
    refused(&module, 1, &["./binary"], &["--", "./binary"]);
    refused(&module, 1, &["sh ended with exit code 4 without any answer, 3 times"], &["--", "sh", "-c", "exit 4"]);
    refused(&module, 1, &["echo wrote \"hello\", which is not JSON"], &["--", "echo", "hello"]);
}

#[test]
fn what_only_python_understands_is_refused_with_a_worker() {
    let module = Module::new("");
    for words in [&["--star"][..], &["--batch", "2"], &["--setup", "load"], &["--python-exe", "python3"]] {
        refused(&module, 2, &[words[0], "cannot be used with"], &[words, &["--", "cat"]].concat());
    }
    refused(&module, 2, &["--python", "cannot be used with"], &["--python", "m.py:f", "--", "cat"]);
    refused(
        &module,
        2,
        &["--batch", "--star", "cannot be used with"],
        &["--python", "m.py:f", "--star", "--batch", "2"],
    );
    refused(&module, 2, &["--python <FILE.py:FUNCTION>"], &["--star"]);
}

/// The examples of workers in README.md: that in sh, and that in Python.
fn examples() -> [String; 2] {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("there is a README");
    let section = readme.split("### A worker of your own").nth(1).expect("the section").split("\n### ").next();
    let block = |language: &str| {
        let code = section.and_then(|section| section.split(&format!("```{language}\n")).nth(1));
        code.and_then(|code| code.split("```").next()).expect("an example").to_string()
    };
    [block("sh"), block("python")]
}

#[test]
fn the_workers_of_the_readme_do_what_they_say() {
    let files = Files::new();
    let [shell, python] = examples();
    let (shell, python) = (files.with("worker.sh", shell), files.with("worker.py", python));
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).expect("its own file");
    let run = |worker: &[&str], words: &[&str]| -> Finished {
        support::run(&mut crate::command(&[&["map", "-q"], words, &["--"], worker].concat()), LIMIT)
    };
    let lengths = run(&[&shell], &["--args", "ab", "a\\nb c", "1"]);
    assert_eq!(lengths.expect_code(0).out(), "{\"length\": 4}\n{\"length\": 9}\n{\"length\": 1}\n");
    let squares = run(&["python3", &python], &["--range", "1:500"]);
    let expected: String = (1..=500).map(|x| format!("{}\n", x * x)).collect();
    assert_eq!(squares.expect_code(0).out(), expected);
    let mixed = run(&["python3", &python], &["--args", "1", "2", "x", "4"]);
    assert_eq!(kinds(&lines(mixed.expect_code(3))), ["1", "4", "!crash", "16"]);
}

#[test]
fn workers_may_end_hang_and_talk_nonsense() {
    let module = Module::new("");
    let expected = |bad: &str| ["1", "2", bad, "4", "5", "6"].map(String::from);
    for (script, kind) in [
        ("exit 7", "!crash"),
        ("exit 0", "!crash"),
        ("kill -9 $$", "!crash"),
        ("sleep 100", "!timeout"),
        ("echo not json; continue", "!garbage"),
        ("echo; continue", "!garbage"),
        ("echo '{\"error\":\"bad record\"}'; continue", "!error"),
        ("echo '{\"error\":{\"message\":\"bad\",\"kind\":\"mine\"}}'; continue", "!mine"),
        ("head -c 70000000 /dev/zero; echo; continue", "!garbage"),
        ("exec >&-; sleep 100", "!crash"),
    ] {
        let script = format!("while read -r x; do [ $x = 3 ] && {{ {script}; }}; echo $x; done");
        // Only the one that is to take too long has little time.
        let timeout = if kind == "!timeout" { "3s" } else { "200s" };
        let words = ["--range", "1:6", "--timeout", timeout, "--kill-after", "100ms", "--records", "r.jsonl"];
        let run = module.shell(&words, &script);
        assert_eq!(kinds(&lines(run.expect_code(3))), expected(kind), "{script}");
        assert_eq!(module.records("r.jsonl").iter().filter(|record| record["status"] == "ok").count(), 5);
    }
    let once = module.shell(&["--range", "1:30"], "read -r x; echo $x");
    assert_eq!(once.expect_code(0).out(), (1..=30).map(|x| format!("{x}\n")).collect::<String>());
    let never = module.shell(&["--range", "1:3", "--timeout", "100ms"], "while read -r x; do :; done");
    assert_eq!(kinds(&lines(never.expect_code(3))), ["!timeout"; 3]);
}
