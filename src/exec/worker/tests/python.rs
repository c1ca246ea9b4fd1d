//! Python functions.

use super::*;

#[test]
fn twenty_thousand_quick_calls_are_answered_in_order() {
    let list = module("def double(x):\n    return 2 * x\n").map("double", 0..20_000);
    assert!(list.short().iter().zip(0..).all(|(answer, n)| *answer == (2 * n).to_string()));
}
