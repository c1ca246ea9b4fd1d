//! Any program that reads a line and answers a line.

use super::*;

const ECHO: &str = "while read -r line; do echo \"$line\"; done";

#[test]
fn an_echo_answers_every_record_in_order() {
    let list = answered(&mut shell(ECHO), list(0..300));
    assert_eq!(list.short(), (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
}
