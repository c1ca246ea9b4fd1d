//! Arguments, folder and variables of commands, and commands that cannot be started.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// Writes an executable file with this text.
fn script(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file for the test");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn arguments_arrive_as_they_are() {
    let odd = ["", " ", "a b", "new\nline", "\"", "'", "$HOME", "*", "-n", "--", "\\", "é", "{}", "`id`", "#", "~"];
    let mut program = shell("for a; do printf '%s\\0' \"$a\"; done");
    program.args.push("sh".into());
    program.args.extend(odd.map(String::from));
    let arrived = String::from_utf8(output(&program, None)).expect("they are UTF-8");
    assert_eq!(arrived.split_terminator('\0').collect::<Vec<_>>(), odd);
}

#[test]
fn a_program_sees_the_name_it_was_called_by() {
    assert_eq!(output(&shell("echo $0"), None), b"sh\n");
    let named = Program { arg0: Some("other".into()), ..shell("echo $0") };
    assert_eq!(output(&named, None), b"other\n");
}

#[test]
fn a_command_has_its_folder_and_its_variables() {
    let folder = tempfile::tempdir().expect("a directory for the test");
    let real = fs::canonicalize(folder.path()).expect("it is there");
    script(folder.path(), "here", "#!/bin/sh\necho \"$A$B\"\npwd -P\n");
    let variables = [("A", "one"), ("B", "x"), ("B", "=two\n")].map(|(name, value)| (name.into(), value.into()));
    let program = Program { cwd: Some(real.clone()), env: variables.to_vec(), ..program(&["./here"]) };
    let text = String::from_utf8(output(&program, None)).expect("it is UTF-8");
    assert_eq!(text, format!("one=two\n\n{}\n", real.display()));
}

#[test]
fn many_long_arguments_arrive() {
    let long = "x".repeat(100_000);
    let mut program = shell("echo ${#1} ${#2} ${#3}");
    program.args.extend(["sh".into(), long.clone(), long.clone(), long]);
    assert_eq!(output(&program, None), b"100000 100000 100000\n");
}

#[test]
fn too_long_arguments_are_reported() {
    for count in [300_000, 20_000_000] {
        let mut program = program(&["true"]);
        program.args.push("x".repeat(count));
        let why = why_not(&program);
        assert!(why.starts_with("argument list too long: true"), "{why}");
    }
    assert!(output(&program(&["true"]), None).is_empty(), "others are still started");
}

#[test]
fn a_command_that_cannot_be_started_is_explained() {
    let folder = tempfile::tempdir().expect("a directory for the test");
    script(folder.path(), "empty-line", "\necho no interpreter\n");
    script(folder.path(), "no-such-interpreter", "#!/no/such/interpreter -x\n");
    script(folder.path(), "carriage-return", "#!/bin/sh\r\necho\r\n");
    fs::write(folder.path().join("plain"), "echo").expect("a file for the test");
    let why = |name: &str| why_not(&Program { cwd: Some(folder.path().into()), ..program(&[name]) });
    for (program, start) in [
        ("no-such-program", "no such program: no-such-program"),
        ("./missing", "no such program: ./missing"),
        ("./plain", "permission denied: ./plain (is it executable? chmod +x)"),
        ("./empty-line", "exec format error: ./empty-line (does the script begin with #!/bin/sh ?"),
        ("./no-such-interpreter", "./no-such-interpreter: its first line names an interpreter that does not exist"),
        ("./carriage-return", "./carriage-return: its first line names an interpreter that does not exist: /bin/sh\\r"),
        ("/", "not a program: / is a directory"),
    ] {
        let why = why(program);
        assert!(why.starts_with(start), "{why}");
    }
}

#[test]
fn a_folder_that_does_not_exist_is_reported() {
    let why = why_not(&Program { cwd: Some("/no/such/folder".into()), ..program(&["true"]) });
    assert_eq!(why, "cwd: no such directory: /no/such/folder");
    let why = why_not(&Program { cwd: Some("/dev/null".into()), ..program(&["true"]) });
    assert_eq!(why, "cwd: not a directory: /dev/null");
}

#[test]
fn values_that_no_program_can_receive_are_refused() {
    assert!(why_not(&program(&["true", "a\0b"])).contains("NUL"));
    let variable = |name: &str| vec![(name.to_string(), "x".to_string())];
    assert!(
        why_not(&Program { env: variable("a=b"), ..program(&["true"]) }).contains("'a=b' is not a valid variable name")
    );
    let folder = std::ffi::OsStr::from_bytes(b"/tmp/\xff");
    assert!(why_not(&Program { cwd: Some(folder.into()), ..program(&["true"]) }).contains("not UTF-8"));
    assert!(why_not(&Program { env: variable(""), ..program(&["true"]) }).contains("'' is not a valid variable name"));
}

#[test]
fn signals_have_their_usual_effect_on_commands() {
    for (name, number) in [("HUP", 1), ("INT", 2), ("TERM", 15), ("USR1", 10), ("PIPE", 13), ("KILL", 9)] {
        assert_eq!(
            finish(&shell(&format!("kill -{name} $$; echo lives")), None).0.reason,
            EndReason::Signalled(number)
        );
    }
    let text = output(&program(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]), None);
    let text = String::from_utf8(text).expect("it is UTF-8");
    let sets: Vec<_> = text.lines().filter_map(|line| u64::from_str_radix(line.split_once('\t')?.1, 16).ok()).collect();
    // glibc leaves its own two signals, 32 and 33, ignored in processes that it spawns.
    assert!(sets.len() == 2 && sets.iter().all(|set| set & 0x7fff_ffff == 0), "{text}");
}

#[test]
fn a_command_is_alone_in_its_group_and_has_no_terminal() {
    let group = output(&shell("echo $$; cut -d' ' -f5 /proc/self/stat; cut -d' ' -f7 /proc/self/stat"), None);
    let numbers = pids(&group);
    assert_eq!(numbers[0], numbers[1], "the shell leads the group");
    assert_eq!(numbers[2], 0, "no terminal");
}
