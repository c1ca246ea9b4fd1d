//! Python functions: how they are found, called, and how they fail.

use std::time::Instant;

use std::path::{Path, PathBuf};

use super::*;
use crate::process::worker::prestarted;

#[test]
fn twenty_thousand_quick_calls_are_answered_in_order() {
    let list = module("def double(x):\n    return 2 * x\n").map("double", 0..20_000);
    assert!(list.short().iter().zip(0..).all(|(answer, n)| *answer == (2 * n).to_string()));
}

#[test]
fn the_file_is_imported_under_its_name_and_its_main_part_is_not_run() {
    let module = module(
        "import sys, helper\nif __name__ == '__main__':\n    raise SystemExit('the main part')\n\
         class Model:\n    @staticmethod\n    def predict(x):\n        \
         return [__name__, sys.modules['model'].Model is Model, helper.VALUE, sys.argv[0].endswith('model.py'), x]\n",
    );
    fs::write(module.folder.path().join("helper.py"), "VALUE = 7\n").expect("a file");
    assert_eq!(module.map("Model.predict", [1]).short(), [r#"["model",true,7,true,1]"#]);
    let mut names: Vec<_> = fs::read_dir(module.folder.path())
        .expect("it is there")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["helper.py", "model.py"], "nothing is left there");
}

#[test]
fn a_module_can_be_named_with_dots() {
    let call = PythonCall { target: "os.path:basename".to_string(), ..PythonCall::default() };
    assert_eq!(answered(&mut worker(&call, |_| {}), list(["\"a/b\""])).short(), ["\"b\""]);
}

#[test]
fn the_setup_is_called_once_before_the_first_record() {
    let text = "calls = []\ndef setup():\n    calls.append(1)\ndef f(x):\n    return len(calls)\n";
    let module = module(text);
    let call = PythonCall { setup: Some("setup".to_string()), ..module.call("f") };
    assert_eq!(answered(&mut worker(&call, |_| {}), list(0..3)).short(), ["1", "1", "1"]);
}

#[test]
fn a_function_that_can_never_be_called_ends_the_run() {
    for (text, function, said) in [
        ("def f(x: return x\n", "f", "SyntaxError"),
        ("import no_such_module_here\n", "f", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("def g(x):\n    return x\nclass C: pass\n", "f", "has no f; its functions are: g"),
        ("f = 5\n", "f", "f in "),
        ("import os\nos._exit(3)\n", "f", "exit code 3 before it was ready"),
        ("import sys\nsys.exit('no licence')\n", "f", "sys.exit('no licence')"),
        ("1 / 0\n", "f", "ZeroDivisionError"),
    ] {
        let (failure, list) = no_start(&mut module(text).worker(function), 0..50);
        assert!(failure.message.contains(said), "{text}: {}", failure.message);
        assert_eq!(list.answers.len(), 0);
    }
    let module = module("def setup():\n    raise OSError('no model')\ndef f(x):\n    return x\n");
    let call = PythonCall { setup: Some("setup".to_string()), ..module.call("f") };
    let (failure, _) = no_start(&mut worker(&call, |_| {}), 0..5);
    assert_eq!(failure.message, "OSError: no model");
    let traceback = failure.traceback.expect("it says where");
    assert!(traceback.contains("model.py\", line 2, in setup") && !traceback.contains("<rankpool>"), "{traceback}");
}

#[test]
fn an_exception_is_the_failure_of_its_record_and_says_where() {
    let text = "def deep(x):\n    return 1 / x\ndef f(x):\n    try:\n        return deep(x)\n    \
                except ZeroDivisionError as error:\n        raise ValueError('no zero') from error\n";
    let list = module(text).map("f", [1, 0, 1]);
    assert_eq!(list.short(), ["1.0", "!exception", "1.0"]);
    let failure = list.failure(1);
    assert_eq!(failure.message, "ValueError: no zero");
    let traceback = failure.traceback.as_deref().expect("it says where");
    assert!(traceback.contains("in deep") && traceback.contains("direct cause"), "{traceback}");
    assert!(traceback.starts_with("Traceback") && !traceback.contains("<rankpool>"), "{traceback}");
}

#[test]
fn every_way_out_of_a_function_is_a_failure_and_the_worker_goes_on() {
    let text = "import sys, os\n\
        class Mute(Exception):\n    def __str__(self): raise self\n\
        def f(x):\n    \
            if x == 1: sys.exit(4)\n    if x == 2: raise KeyboardInterrupt\n    if x == 3: f(x)\n    \
            if x == 4: raise MemoryError\n    if x == 5: raise Mute\n    if x == 6: raise GeneratorExit\n    \
            if x == 7: raise ValueError('\\ud800' + 'x' * 1000000)\n    if x == 8: 1 / 0\n    return os.getpid()\n";
    let list = module(text).map("f", 0..10);
    let short = list.short();
    assert_eq!(short[1..3], ["!exit", "!exception"]);
    assert!(short[3..9].iter().all(|answer| answer == "!exception"), "{short:?}");
    assert_eq!(short[0], short[9], "it is the same process");
    assert_eq!(list.failure(1).message, "the function ended Python: sys.exit(4)");
    assert!(list.failure(3).message.starts_with("RecursionError"));
    assert!(list.failure(5).message.contains("Mute"));
    assert!(list.failure(7).message.len() < 50_000);
}

#[test]
fn printed_text_is_not_an_answer_and_standard_input_is_empty() {
    let text = "import os, subprocess, sys\nprint('import')\nos.write(1, b'{}\\n')\n\
        def f(x):\n    print('x' * 50)\n    os.write(1, b'1\\n')\n    sys.stdout.flush()\n    \
        os.system('echo noise')\n    subprocess.run(['cat'])\n    return [x, sys.stdin.read()]\n\
        def g(x):\n    return input()\n";
    let module = module(text);
    assert_eq!(module.map("f", 0..3).short(), ["[0,\"\"]", "[1,\"\"]", "[2,\"\"]"]);
    assert_eq!(module.map("g", [0]).failure(0).message, "EOFError: EOF when reading a line");
}

#[test]
fn each_record_has_its_environment() {
    let text = "import os\ndef f(x):\n    names = ['RANKPOOL_JOB', 'RANKPOOL_ATTEMPT', 'RANKPOOL_SEED']\n    \
        mine = [os.environ[name] for name in names]\n    \
        return [mine, os.popen('echo $RANKPOOL_JOB $RANKPOOL_ATTEMPT $RANKPOOL_SEED').read().split() == mine, dict(os.environ) != {}]\n";
    let module = module(text);
    for exe in pythons() {
        let call = PythonCall { exe: Some(exe), ..module.call("f") };
        let list = answered(&mut worker(&call, |_| {}), list(0..12));
        assert_eq!(list.short()[11], r#"[["11","1","1011"],true,true]"#);
        assert_eq!(list.short()[0], r#"[["0","1","1000"],true,true]"#);
    }
}

#[test]
fn star_unpacks_lists_and_objects() {
    let module = module("def f(a, b=10):\n    return a - b\n");
    let call = PythonCall { star: true, ..module.call("f") };
    let list = answered(&mut worker(&call, |_| {}), list(["[1, 2]", r#"{"b": 1, "a": 5}"#, "[3]", "7", "[1, 2, 3]"]));
    assert_eq!(list.short(), ["-1", "4", "-7", "!exception", "!exception"]);
    assert!(list.failure(3).message.contains("--star needs a list or an object"), "{}", list.failure(3).message);
}

#[test]
fn async_functions_and_generators_have_results() {
    let text = "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x\n\
        def g(x):\n    yield x\n    yield 1 / x\n\
        async def h(x):\n    yield x\n";
    let module = module(text);
    assert_eq!(module.map("f", 0..2).short(), ["0", "1"]);
    assert_eq!(module.map("g", 0..2).short(), ["!exception", "[1,1.0]"]);
    assert_eq!(module.map("h", 0..2).short(), ["[0]", "[1]"]);
}

#[test]
fn functions_may_fork() {
    let text = "import multiprocessing, os, sys\n\
        def f(x):\n    with multiprocessing.get_context('fork').Pool(2) as pool:\n        return pool.map(abs, [x, -x])\n\
        def g(x):\n    if os.fork() == 0:\n        return 'the child'\n    os.wait()\n    return x\n";
    let module = module(text);
    assert_eq!(module.map("f", 1..4).short(), ["[1,1]", "[2,2]", "[3,3]"]);
    assert_eq!(module.map("g", 1..4).short(), ["1", "2", "3"]);
}

const BATCH: &str = "import os\ncalls = 0\n\
    def f(xs):\n    global calls\n    calls += 1\n    if 13 in xs: raise ValueError('thirteen')\n    return [[x, calls] for x in xs]\n\
    def ends(xs):\n    if 13 in xs: os._exit(3)\n    xs[:] = [-x for x in xs]\n    return xs\n\
    def sums(xs):\n    return [sum(xs)]\n\
    def text(xs):\n    return 'x' * len(xs)\n\
    def lazy(xs):\n    return (x for x in xs)\n\
    def odd(xs):\n    return [object() if x == 2 else x for x in xs]\n\
    class Array:\n    def __init__(self, xs): self.xs = xs\n    def __len__(self): return len(self.xs)\n    def tolist(self): return self.xs\n\
    def array(xs):\n    return Array(xs)\n";

#[test]
fn a_batch_is_one_call() {
    let list = answered(&mut module(BATCH).batches("f", 4), list(0..10));
    let calls: Vec<_> = list.short().iter().map(|answer| answer.split_once(',').expect("two").1.to_string()).collect();
    assert_eq!(calls, ["1]", "1]", "1]", "1]", "2]", "2]", "2]", "2]", "3]", "3]"]);
}

#[test]
fn only_the_guilty_record_of_a_batch_fails() {
    let module = module(BATCH);
    for (function, kind) in [("f", "!exception"), ("ends", "!crash")] {
        let list = answered(&mut module.batches(function, 8), list(0..40));
        for (at, answer) in list.short().iter().enumerate() {
            assert_eq!(answer == kind, at == 13, "{at}: {answer}");
        }
        assert_eq!(list.answers.len(), 40);
    }
    let list = answered(&mut module.batches("odd", 4), list(0..6));
    assert_eq!(list.short(), ["0", "1", "!encode", "3", "4", "5"]);
}

#[test]
fn a_batch_may_return_lists_and_similar_types() {
    let module = module(BATCH);
    for function in ["lazy", "array"] {
        assert_eq!(answered(&mut module.batches(function, 4), list(0..6)).short(), ["0", "1", "2", "3", "4", "5"]);
    }
    for (function, said) in
        [("sums", "one result for each record, not 1 for 3"), ("text", "must return a list, not str")]
    {
        let list = answered(&mut module.batches(function, 3), list(0..6));
        assert!(list.short().iter().all(|answer| answer == "!batch"), "{:?}", list.short());
        assert!(list.failure(0).message.contains(said), "{}", list.failure(0).message);
    }
}

#[test]
fn a_batch_that_takes_too_long_is_tried_record_by_record() {
    let text = "import time\ndef f(xs):\n    time.sleep(max(xs))\n    return xs\n";
    let module = module(text);
    let call = PythonCall { batch: NonZeroUsize::new(4), ..module.call("f") };
    let mut worker = worker(&call, |options| options.timeout = Some(Duration::from_secs(2)));
    assert_eq!(answered(&mut worker, list([0, 100, 0, 0, 0])).short(), ["0", "!timeout", "0", "0", "0"]);
}

#[test]
fn a_prepared_process_that_says_no_line_is_given_up() {
    start_helper();
    let first_line = |script: &str| {
        let args = vec!["-c".to_string(), script.to_string()];
        let program = Program { name: "sh".to_string(), args, ..Program::default() };
        prestarted::start(&program, b"", 1);
        let line = prestarted::first_line(&program, Instant::now() + Duration::from_secs(60));
        (line, prestarted::take(&program, &[]).is_some())
    };
    let since = Instant::now();
    assert_eq!(first_line("exec cat /dev/zero"), (None, false));
    assert_eq!(first_line("exit 1"), (None, false));
    assert!(since.elapsed() < Duration::from_secs(50), "neither is waited for");
    assert_eq!(first_line("echo v3 9 0; exec cat"), (Some("v3 9 0".to_string()), true));
}

#[test]
fn processes_that_were_prepared_become_the_workers_that_they_are_greeted_as() {
    start_helper();
    let module = module(
        "import os\nplace = os.environ['RANKPOOL_RANK'] + os.environ['RANKPOOL_SLOT']\n\
         open(f'{__file__}.{place}', 'x').write(str(os.getpid()))\n\
         def f(x): return [place, os.getpid()]\n",
    );
    let call = module.call("f");
    let program = call.program();
    prestarted::start(&program, &call.preamble(), 2);
    let deadline = Instant::now() + Duration::from_secs(60);
    let version = prestarted::first_line(&program, deadline).expect("it says which Python it is");
    assert!(version.starts_with("v3 "), "{version}");
    prestarted::assign(&program, call.assignment(7, 1));
    prestarted::assign(&program, call.assignment(7, 2));
    // They import before a worker uses them.
    let pid_of = |place: &str| loop {
        let pid = fs::read_to_string(module.folder.path().join(format!("model.py.{place}"))).unwrap_or_default();
        if !pid.is_empty() {
            return pid;
        }
        assert!(Instant::now() < deadline, "{place} has not imported");
        std::thread::sleep(Duration::from_millis(1));
    };
    let prepared = [pid_of("72"), pid_of("71")];
    let answer = |slot| {
        let mut worker = worker(&call, |options| options.assignment = call.assignment(7, slot));
        answered(&mut worker, list([0])).short().remove(0)
    };
    assert_eq!(answer(2), format!("[\"72\",{}]", prepared[0]));
    assert_eq!(answer(1), format!("[\"71\",{}]", prepared[1]));
    assert!(answer(3).starts_with("[\"73\","), "there are no more, so that one is started");
    assert!(prestarted::take(&program, &[]).is_none());
}

/// The values of the function of the next test, and the expected results.
const VALUES: &str = "\
def f(x):
    if x == 1: return {1, 2}
    if x == 2: return b'\\xff'
    if x == 3: return 1 / 0
    if x == 4: return (y for y in 'ab')
    if x == 5: return object()
    if x == 6: raise ImportError('no')
    async def later(): return x
    return later() if x == 7 else [x]
";

/// Returns all modules that a Python has loaded after the function of `VALUES`, and all of its standard library.
fn module_names(exe: &str) -> Vec<String> {
    let text = format!(
        "import sys\n{VALUES}\ndef names(x):\n    return sorted({{name.partition('.')[0] for name in sys.modules}})\n\
         def all_names(x):\n    return sorted(getattr(sys, 'stdlib_module_names', names(x)))\n\
         def g(x):\n    return all_names(x) + names(x) if x == 9 else f(x)\n"
    );
    let module = module(&text);
    let call = PythonCall { exe: Some(exe.to_string()), ..module.call("g") };
    let list = answered(&mut worker(&call, |_| {}), list(1..=9));
    let names: Vec<String> = serde_json::from_str(&list.short()[8]).expect("names");
    assert!(names.len() > 59);
    // A module of this name in rankpool itself is not imported.
    names.into_iter().filter(|name| !["__main__", "model"].contains(&name.as_str())).collect()
}

/// Writes a module of each of these names into a folder; an import of one leaves a mark in the file that this returns.
fn shadow(folder: &Path, names: &[String]) -> PathBuf {
    let mark = folder.join("mark");
    for name in names {
        let text = format!("open({:?}, 'a').write(__name__ + ' ')\nraise ImportError('a stranger')\n", mark.display());
        fs::write(folder.join(format!("{name}.py")), text).expect("a file");
    }
    mark
}

fn in_folder(call: &PythonCall, folder: &Path) -> Worker {
    start_helper();
    let (mut options, _) = options(call.protocol());
    options.preamble = call.preamble();
    options.assignment = call.assignment(0, 1);
    let mut program = call.program();
    program.cwd = Some(folder.to_path_buf());
    Worker::new(program, options, None)
}

const EXPECTED: [&str; 8] = ["[1,2]", "\"/w==\"", "!exception", "[\"a\",\"b\"]", "!encode", "!exception", "7", "[8]"];

#[test]
fn the_current_folder_does_not_shadow_pythons_modules() {
    for exe in pythons() {
        let folder = tempfile::tempdir().expect("a folder");
        let mark = shadow(folder.path(), &module_names(&exe));
        let module = module(VALUES);
        let call = PythonCall { exe: Some(exe.clone()), ..module.call("f") };
        let list = answered(&mut in_folder(&call, folder.path()), list(1..=8));
        let imported = fs::read_to_string(mark).unwrap_or_default();
        assert_eq!((list.short(), &*imported), (EXPECTED.map(String::from).to_vec(), ""), "{exe}");
        let traceback = list.failure(2).traceback.as_deref().unwrap_or_default();
        assert!(traceback.ends_with("ZeroDivisionError: division by zero\n"), "{traceback:?}");
    }
}

#[test]
fn files_beside_the_function_s_are_the_function_s_and_not_ours() {
    for exe in pythons() {
        for target in ["model.py:f", "model:f"] {
            let names = module_names(&exe);
            let module = module(VALUES);
            // Without asyncio there are no async functions.
            let mark = shadow(module.folder.path(), &names);
            let call = PythonCall { exe: Some(exe.clone()), target: target.to_string(), ..PythonCall::default() };
            let list = answered(&mut in_folder(&call, module.folder.path()), list([1, 2, 3, 4, 5, 6, 8]));
            let imported = fs::read_to_string(mark).unwrap_or_default();
            let mut expected = EXPECTED.map(String::from).to_vec();
            expected.remove(6);
            assert_eq!((list.short(), &*imported), (expected, ""), "{exe} {target}");
            let traceback = list.failure(2).traceback.as_deref().unwrap_or_default();
            assert!(traceback.ends_with("ZeroDivisionError: division by zero\n"), "{traceback:?}");
        }
    }
}

#[test]
fn a_file_beside_the_function_s_is_imported_as_plain_python_does() {
    for exe in pythons() {
        for name in ["json", "token", "traceback", "ctypes", "uuid", "base64", "struct"] {
            let module = module(&format!("import {name}\ndef f(x):\n    return {name}.mine\n"));
            fs::write(module.folder.path().join(format!("{name}.py")), "mine = 5\n").expect("a file");
            fs::write(module.folder.path().join("plain.py"), format!("import {name}; print({name}.mine)"))
                .expect("a file");
            let plain = std::process::Command::new(&exe).arg(module.folder.path().join("plain.py")).output();
            if plain.expect("Python").stdout != b"5\n" {
                // It is loaded before any file is run.
                assert!(!["json", "token", "uuid"].contains(&name), "{exe} {name}");
                continue;
            }
            let call = PythonCall { exe: Some(exe.clone()), ..module.call("f") };
            assert_eq!(answered(&mut worker(&call, |_| {}), list([1])).short(), ["5"], "{exe} {name}");
        }
    }
}

#[test]
fn settings_in_pythons_environment_change_no_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let startup = folder.path().join("startup.py");
    let mark = folder.path().join("mark");
    fs::write(&startup, format!("open({:?}, 'w').close()\n", mark.display())).expect("a file");
    fs::write(folder.path().join("helper.py"), "value = 5\n").expect("a file");
    let startup = startup.display().to_string();
    let path = folder.path().display().to_string();
    let text = format!(
        "{VALUES}\nimport os, subprocess, sys\n\
         def job(x):\n    \
             assert __debug__ or sys.flags.optimize\n    \
             mine = [os.environ['RANKPOOL_' + name] for name in ('JOB', 'ATTEMPT', 'SEED')]\n    \
             child = subprocess.run(['sh', '-c', 'echo $RANKPOOL_JOB $RANKPOOL_ATTEMPT $RANKPOOL_SEED'],\n        \
                 stdout=subprocess.PIPE, check=True)\n    \
             left = os.environ.get('PYTHONSAFEPATH'), os.environ.get('PYTHONINSPECT')\n    \
             print('noise')\n    \
             return child.stdout.decode().split() == mine and 'rankpool' not in left and '' not in left\n\
         def g(x):\n    return job(x) if x == 8 else f(x)\n"
    );
    let module = module(&text);
    let mut expected = EXPECTED.map(String::from);
    expected[7] = "true".to_string();
    for (name, value) in [
        ("PYTHONOPTIMIZE", "1"),
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONSAFEPATH", "1"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONDEVMODE", "1"),
        ("PYTHONWARNINGS", "error"),
        ("PYTHONIOENCODING", "latin-1:strict"),
        ("PYTHONUTF8", "1"),
        ("PYTHONNOUSERSITE", "1"),
        ("PYTHONSTARTUP", &startup),
        ("PYTHONINSPECT", "1"),
        ("PYTHONPATH", &path),
        ("PYTHONFAULTHANDLER", "1"),
        ("PYTHONTRACEMALLOC", "1"),
        ("PYTHONMALLOC", "debug"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONCOERCECLOCALE", "0"),
        ("LC_ALL", "C"),
    ] {
        let exes = if name == "PYTHONOPTIMIZE" { pythons() } else { vec!["python3".to_string()] };
        for exe in exes {
            let call = PythonCall { exe: Some(exe.clone()), ..module.call("g") };
            let mut worker = worker(&call, |_| {});
            worker.program.env.push((name.to_string(), value.to_string()));
            let list = answered(&mut worker, list(1..=8));
            assert_eq!(list.short(), expected, "{exe} {name}={value}");
            worker.close();
            assert!(!mark.exists(), "{exe} {name}={value}");
        }
    }
}

#[test]
fn the_shim_does_nothing_in_an_assertion() {
    for text in [include_str!("../../python/shim.py"), include_str!("../../python/shim_json.py")] {
        assert!(!text.lines().any(|line| line.trim_start().starts_with("assert")));
    }
}
