//! Surplus lines, and the answers that are doubtful because of them.

use super::*;

/// Answers ten times the record, and writes surplus lines for some.
fn shifting(surplus: &str) -> String {
    format!("while read -r x; do {surplus}; echo $((x * 10)); done")
}

/// A worker, and the checks of its processes.
fn judged(script: &str) -> (Worker, Arc<Mutex<Vec<AnswerCheck>>>) {
    let verdicts: Arc<Mutex<Vec<AnswerCheck>>> = Arc::default();
    let (worker, _) = shell_with(script, |options| {
        let verdicts = verdicts.clone();
        options.on_check = Arc::new(move |verdict| verdicts.lock().expect("no thread panics with it").push(verdict));
    });
    (worker, verdicts)
}

fn doubtful(verdicts: &Mutex<Vec<AnswerCheck>>) -> usize {
    let verdicts = verdicts.lock().expect("no thread panics with it");
    verdicts.iter().filter(|verdict| matches!(verdict, AnswerCheck::Doubtful(_))).count()
}

#[test]
fn the_record_that_makes_a_line_too_much_fails_and_no_answer_is_shifted() {
    for surplus_records in [vec![1], vec![3], vec![40], vec![1, 2, 17], vec![2, 17, 39], vec![39, 40]] {
        let cases: Vec<_> = surplus_records.iter().map(u32::to_string).collect();
        let script = shifting(&format!("case $x in {}) echo $x;; esac", cases.join("|")));
        let list = answered(&mut shell(&script), list(1..=40));
        for (answer, x) in list.short().iter().zip(1..) {
            let expected = if surplus_records.contains(&x) { "!surplus".to_string() } else { (x * 10).to_string() };
            assert_eq!(*answer, expected, "record {x} of {surplus_records:?}");
        }
    }
}

#[test]
fn a_line_too_much_that_comes_once_is_asked_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("mark").display().to_string();
    let script = shifting(&format!("[ $x = 3 ] && ! [ -e {mark} ] && {{ echo $x; touch {mark}; }}"));
    let list = answered(&mut shell(&script), list(1..=40));
    assert_eq!(list.short(), (1..=40).map(|x| (x * 10).to_string()).collect::<Vec<_>>());
}

#[test]
fn a_surplus_line_behind_the_last_answer_is_noticed_at_the_end_of_the_process() {
    for last in ["echo 5", "echo 5; echo 6", "echo done", "echo", "printf 5", "sleep 0.3; printf 5"] {
        let (mut worker, verdicts) = judged(&format!("while read -r x; do echo $x; done; {last}"));
        assert_eq!(answered(&mut worker, list(0..20)).short().len(), 20);
        assert_eq!(doubtful(&verdicts), 0, "{last}");
        worker.close();
        assert_eq!(doubtful(&verdicts), 1, "{last}");
    }
    let (mut worker, verdicts) = judged("while read -r x; do echo $x; done");
    answered(&mut worker, list(0..20));
    worker.close();
    assert_eq!(*verdicts.lock().expect("no thread panics with it"), [AnswerCheck::Passed]);
}

#[test]
fn a_line_that_comes_late_is_found_out_before_the_next_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("fifo").display().to_string();
    // The answers are shifted, and the last record is answered only at the end of the input.
    let script = format!("mkfifo {fifo}; while read -r x; do echo 1; [ $x = 5 ] && read -r y < {fifo}; echo 2; done");
    let script = script.replace("echo 1;", "[ $x = 5 ] && echo 1;");
    let (mut worker, verdicts) = judged(&script);
    let first = answered(&mut worker, list(1..=5));
    assert_eq!((first.short().len(), doubtful(&verdicts)), (5, 0));
    fs::write(&fifo, "go on\n").expect("a reader");
    let mut connection = worker.connection.take().expect("a process");
    assert!(connection.writes_until(std::time::Instant::now() + Duration::from_secs(60)));
    worker.connection = Some(connection);
    let second = answered(&mut worker, list(1..=3));
    assert_eq!(second.short(), ["2", "2", "2"]);
    assert_eq!(doubtful(&verdicts), 1);
}

#[test]
fn after_one_line_too_much_each_answer_waits_for_the_end_of_its_process() {
    let (mut worker, verdicts) = judged("while read -r x; do echo $$; done; [ $x = 3 ] && echo 5");
    answered(&mut worker, list(1..=3));
    let pid = answered(&mut worker, list(1..=2)).short()[0].clone();
    assert_eq!(doubtful(&verdicts), 0);
    worker.close();
    let (mut worker, verdicts) = judged("while read -r x; do echo $$; done; echo 5");
    answered(&mut worker, list(1..=3));
    worker.close();
    assert_eq!(doubtful(&verdicts), 1);
    let rest = answered_or_not(&mut worker, 1..=3);
    assert!(rest.iter().all(|answer| answer == "!surplus"), "{rest:?} {pid}");
}

fn answered_or_not(worker: &mut Worker, records: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut list = list(records);
    let _ = worker.answer(&mut list);
    list.short()
}

#[test]
fn a_worker_that_answers_too_few_is_no_reason_to_doubt() {
    let (mut worker, verdicts) = judged("while read -r x; do [ $x = 7 ] && exit 3; echo $x; done");
    let list = answered(&mut worker, list(1..=20));
    assert_eq!(list.short()[5..8], ["6", "!crash", "8"]);
    worker.close();
    assert_eq!(doubtful(&verdicts), 0);
}

#[test]
fn processes_that_are_replaced_are_listened_to_to_their_end() {
    let (worker, verdicts) = judged("n=0; while read -r x; do n=$((n + 1)); echo $x; done; [ $n = 4 ] && echo 5");
    let mut worker = worker;
    worker.options.max_jobs = NonZeroU64::new(4);
    let list = answered(&mut worker, list(0..10));
    // Every full process lies at its end; halves of them do not.
    assert_eq!(list.short(), (0..10).map(|x| x.to_string()).collect::<Vec<_>>());
    assert!(doubtful(&verdicts) >= 1);
}

#[test]
fn an_answer_says_which_record_it_is_for_if_it_is_asked_to() {
    let numbered = |script: &str| shell_with(script, |options| options.protocol = Protocol::Numbered);
    let wrong = "while read -r x; do id=${x#*: }; id=${id%%,*}; r=${x##* }; r=${r%\\}}; SAY; done";
    let say = |text: &str| wrong.replace("SAY", text);
    let right = "echo \"{\\\"id\\\": $id, \\\"result\\\": $((r * 10))}\"";
    let list_of = |script: &str| answered(&mut numbered(script).0, list(1..=6)).short();
    assert_eq!(list_of(&say(right)), ["10", "20", "30", "40", "50", "60"]);
    let expected = |bad: &str| ["10", "20", bad, "40", "50", "60"].map(String::from);
    for (third, kind) in [
        ("echo $r", "!garbage"),
        ("echo '{\"id\": 17, \"result\": 1}'", "!garbage"),
        ("echo '{\"id\": 2, \"result\": 1, \"more\": 2}'", "!garbage"),
        ("echo '{\"id\": 2}'", "!garbage"),
        ("echo '{\"id\": 2, \"result\": 1, \"error\": \"x\"}'", "!garbage"),
        ("echo '{\"result\": 1}'", "!garbage"),
        ("echo '{\"id\": 2, \"error\": \"x\"}'; continue", "!error"),
        ("echo '{\"id\": 2, \"error\": {\"message\": \"x\", \"kind\": \"mine\"}}'; continue", "!mine"),
        ("echo '{\"id\": 2, \"result\": null}'; continue", "null"),
    ] {
        let script = say(&format!("[ $r = 3 ] && {{ {third}; }}; {right}"));
        assert_eq!(list_of(&script), expected(kind), "{third}");
    }
    // The record behind an answer that comes twice is not to blame.
    assert_eq!(list_of(&say(&format!("{right}; [ $r = 3 ] && {right}"))), expected("30"));
}
