//! The checks before anything starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::process::tests::start_helper;

fn call(target: &str) -> PythonCall {
    PythonCall { target: target.to_string(), ..PythonCall::default() }
}

#[test]
fn what_was_typed_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("my model.py");
    fs::write(&file, "def f(x): pass\n").expect("a file");
    let file = file.display();
    let check = |target: &str| call(target).check(None);
    assert_eq!(check(&format!("{file}:f")), Ok(()));
    assert_eq!(check(&format!("{file}:Class.method")), Ok(()));
    assert_eq!(call("my model.py:f").check(Some(folder.path())), Ok(()));
    assert_eq!(check("os.path:basename"), Ok(()));
    for wrong in
        ["model.py", "model.py:", ":f", "model.py:f()", "a b:f", "model.py:f:", "os..path:f", "model.py:1f", ""]
    {
        let message = check(wrong).expect_err(wrong);
        let needs = "--python needs FILE.py:FUNCTION or package.module:FUNCTION";
        assert_eq!(message, format!("{needs}, not '{wrong}'"));
    }
    assert_eq!(check("no/such/model.py:f").expect_err("missing"), "no such file: no/such/model.py");
    assert_eq!(check("model.py:f").expect_err("missing"), "no such file: model.py");
    let folder = format!("{}/", folder.path().display());
    assert_eq!(
        check(&format!("{folder}:f")).expect_err("a folder"),
        format!("{folder} is a folder, not a Python file")
    );
    let setup = PythonCall { setup: Some("load()".to_string()), ..call("os:getcwd") };
    assert_eq!(setup.check(None).expect_err("a call"), "--setup needs the name of a function in os, not 'load()'");
    let both = PythonCall { star: true, batch: NonZeroUsize::new(2), ..call("os:getcwd") };
    assert!(both.check(None).expect_err("both").contains("exclude each other"));
}

#[test]
fn the_interpreter_is_asked_for_its_version() {
    start_helper();
    let asked = |call: PythonCall| call.check_interpreter(&call.program());
    let version = asked(call("os:getcwd")).expect("python3 is there");
    assert!(version.starts_with("3."), "{version}");
    let with = |exe: &str| asked(PythonCall { exe: Some(exe.to_string()), ..call("os:getcwd") });
    let message = with("no-such-python").expect_err("it is not there");
    assert!(message.contains("no-such-python") && message.contains("--python-exe"), "{message}");
    let message = with("sh").expect_err("it is none");
    assert!(message.starts_with("sh is not a working Python: "), "{message}");
    let folder = tempfile::tempdir().expect("a folder");
    let old = folder.path().join("python3");
    fs::write(&old, "#!/bin/sh\nprintf '3 6 15'\n").expect("a file");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).expect("its own file");
    let old = old.display().to_string();
    let message = with(&old).expect_err("it is old");
    assert!(message.starts_with(&format!("{old} is Python 3.6.15, but 3.9 or newer is needed")), "{message}");
}

#[test]
fn the_worker_s_command_shows_the_function() {
    let call = PythonCall { setup: Some("load".to_string()), batch: NonZeroUsize::new(8), ..call("model.py:f") };
    let program = call.program();
    assert_eq!(program.name, "python3");
    assert_eq!(program.args[2..], ["model.py:f", "batch", "load"]);
    assert!(program.args[1].len() < 650, "it is short enough for a list of processes");
    assert_eq!(call.protocol(), Protocol::Python { batch: 8 });
}
