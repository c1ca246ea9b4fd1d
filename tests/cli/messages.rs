//! What rankpool itself says: nothing in it has power over a terminal, and it is not endless.

use std::fs;
use std::process::{Command, Stdio};

use crate::{Files, LIMIT, support};

/// A program under a terminal, as `script` makes one; what it writes to it.
fn on_a_terminal(words: &[&str]) -> Option<String> {
    let quoted: Vec<_> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    let line = format!("{} {}", env!("CARGO_BIN_EXE_rankpool"), quoted.join(" "));
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn no_message_carries_escape_sequences_to_the_terminal() {
    let files = Files::new();
    let evil = "\u{1b}]0;evil\u{7}\u{1b}[31mred\u{9b}2J\u{202e}\r";
    let input = files.with("in\u{1b}[31m.jsonl", format!("{}\n{{\n", serde_json::to_string(evil).expect("JSON")));
    let worker = format!("read x; printf '%s\\n' '{}'; read x", serde_json::json!({ "error": evil }));
    let python = files.with("m.py", "def f(x): raise ValueError(x)\n");
    let python = format!("{python}:f");
    let missing = format!("/no/{evil}");
    for words in [
        &["run", "-i", &input, "--", "true"][..],
        &["run", "-i", &input, "--skip-bad", "--", "{}"],
        &["run", "-i", &missing, "--", "true"],
        &["run", "--args", "x", "-o", &missing, "--", "true"],
        &["run", "--args", "x", "--cwd", &missing, "--", "true"],
        &["run", "--args", evil, "--", "{}"],
        &["run", "--args", "x", "--", &missing],
        &["run", "--args", "x", "--timeout", evil, "--", "true"],
        &["run", evil],
        &[evil],
        &["kernel", evil],
        &["kernel", "square", "-i", &missing],
        &["map", "--args", evil, "--python", &python],
        &["map", "--args", "x", "--", "sh", "-c", &worker],
        &["map", "--args", "x", "--python", &format!("{missing}:f")],
        &["map", "--args", "x", "--", &missing],
    ] {
        let words: Vec<&str> = ["--local", "1"].iter().chain(words).copied().collect();
        let run = support::run(Command::new(env!("CARGO_BIN_EXE_rankpool")).args(&words), LIMIT);
        assert!(run.stderr.len() > 10, "{words:?}");
        let is_obeyed = |text: &str| text.chars().any(|it| (it.is_control() && it != '\n') || it == '\u{202e}');
        assert!(!is_obeyed(&run.stderr), "{words:?}: {:?}", run.stderr);
    }
    let dry = ["--local", "1", "run", "--dry-run", "--args", evil, "--", "echo", "{}"];
    if let Some(shown) = on_a_terminal(&dry) {
        assert!(!shown.contains(['\u{1b}', '\u{9b}', '\u{202e}']) && shown.contains("\\u{1b}"), "{shown:?}");
    }
    // Elsewhere it is what a shell would run.
    let run = support::run(Command::new(env!("CARGO_BIN_EXE_rankpool")).args(dry), LIMIT);
    assert!(run.expect_code(0).out().contains(evil));
}

#[test]
fn a_worker_s_endless_message_is_cut() {
    let files = Files::new();
    let module = files.with("m.py", "class Odd(Exception): pass\ndef f(x):\n    raise ValueError('x' * 3_000_000)\n");
    let worker = "while read x; do printf '{\"error\":{\"message\":\"'; head -c 3000000 /dev/zero | tr '\\0' y; \
                  printf '\",\"kind\":\"'; head -c 3000 /dev/zero | tr '\\0' k; printf '\"}}\\n'; done";
    let python = format!("{module}:f");
    for words in [&["--python", &python][..], &["--", "sh", "-c", worker]] {
        let records = files.path("records").display().to_string();
        let words: Vec<&str> =
            ["--local", "1", "map", "--range", "1:3", "--records", &records].iter().chain(words).copied().collect();
        let run = support::run(Command::new(env!("CARGO_BIN_EXE_rankpool")).args(&words), LIMIT);
        run.expect_code(3).expect_said("…");
        let lengths = [run.out().len(), run.stderr.len(), fs::read(&records).expect("they are there").len()];
        assert!(lengths.iter().all(|length| (3000..300_000).contains(length)), "{lengths:?}");
    }
}
