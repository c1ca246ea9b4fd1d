//! Input and output of commands.

use super::*;

#[test]
fn standard_output_and_standard_error_are_kept_apart() {
    let (end, stdout, stderr) = finish(&shell("echo out; echo err >&2; exit 7"), None);
    assert_eq!((end.reason, &*stdout, &*stderr), (EndReason::Exited(7), &b"out\n"[..], &b"err\n"[..]));
}

#[test]
fn any_bytes_go_through() {
    assert_eq!(output(&program(&["printf", "\\377\\376\\000x"]), None), b"\xff\xfe\0x");
    assert_eq!(output(&program(&["cat"]), Some(b"\xff\0\n")), b"\xff\0\n");
}

#[test]
fn output_comes_in_pieces_while_the_command_runs() {
    start_helper();
    let folder = tempfile::tempdir().expect("a directory for the test");
    let answer = folder.path().join("answer");
    // The command ends after its first line was read.
    let script = format!("echo question; while [ ! -e {} ]; do sleep 0.01; done; echo end", answer.display());
    let mut text = Vec::new();
    let end = run(&shell(&script), None, &LIMITS, None, &mut |_, bytes| {
        text.extend_from_slice(bytes);
        std::fs::write(&answer, "").expect("a file for the test");
    });
    assert_eq!(end.expect("the helper is there").reason, EndReason::Exited(0));
    assert_eq!(text, b"question\nend\n");
}

#[test]
fn without_input_there_is_an_empty_one() {
    assert_eq!(output(&program(&["wc", "-c"]), None), b"0\n");
    assert_eq!(output(&program(&["wc", "-c"]), Some(b"")), b"0\n");
}

#[test]
fn long_input_is_fed_while_output_is_read() {
    let input: Vec<u8> = (0..10_000_000u32).map(|number| (number % 251) as u8).collect();
    assert!(output(&program(&["cat"]), Some(&input)) == input, "10 MB come back as they went");
    assert_eq!(output(&program(&["wc", "-c"]), Some(&input)), b"10000000\n");
}

#[test]
fn a_command_need_not_read_its_input() {
    let input = vec![b'x'; 10_000_000];
    assert!(output(&program(&["true"]), Some(&input)).is_empty());
    assert_eq!(output(&program(&["head", "-c", "5"]), Some(&input)), b"xxxxx");
    assert_eq!(output(&shell("exec <&-; echo closed; sleep 0.1"), Some(&input)), b"closed\n");
    assert_eq!(output(&shell("sleep 0.1; head -c 3"), Some(&input)), b"xxx");
}

#[test]
fn who_keeps_the_output_open_is_not_waited_for() {
    let since = Instant::now();
    let text = output(&shell("sleep 1000 & echo $!; sh -c 'sleep 1001 & echo $!'; exit 0"), None);
    assert!(since.elapsed() < LONG / 2);
    assert_eq!(pids(&text).len(), 2);
    until_gone(&pids(&text));
}

#[test]
fn who_has_left_the_group_and_keeps_writing_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a directory for the test");
    let file = folder.path().join("started");
    let writer = format!("echo $$; : > {}; while :; do echo; sleep 0.01; done", file.display());
    let script = format!("setsid sh -c '{writer}' & while [ ! -e {} ]; do sleep 0.01; done", file.display());
    let pids = pids(&output(&shell(&script), None));
    assert_eq!(pids.len(), 1);
    // Its output is closed, which ends it.
    until_gone(&pids);
}

#[test]
fn a_command_that_closes_its_outputs_goes_on() {
    let folder = tempfile::tempdir().expect("a directory for the test");
    let file = folder.path().join("done");
    let program = shell(&format!("exec >&- 2>&-; sleep 0.1; : > {}; exit 4", file.display()));
    assert_eq!(finish(&program, None).0.reason, EndReason::Exited(4));
    assert!(file.exists());
}
