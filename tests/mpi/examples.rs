//! The examples, on real ranks.

use std::process::Command;

use crate::{example, mpiexec, run};

pub const TRIALS: &[(&str, fn())] = &[
    ("every_example_prints_the_same_for_every_number_of_ranks", every_example_prints_the_same),
    ("a_program_that_uses_the_library_runs_a_batch_of_commands", a_program_runs_commands),
];

const RANKS: [u32; 3] = [1, 2, 5];

fn every_example_prints_the_same() {
    for name in ["quickstart", "parzen", "captured_state", "as_completed"] {
        let expected = run(Command::new(example(name)).env("RANKPOOL_LOCAL", "1")).expect_code(0).stdout.clone();
        assert!(!expected.is_empty(), "{name} prints nothing");
        for ranks in RANKS {
            let printed = run(&mut mpiexec(ranks, &example(name)));
            assert!(printed.expect_code(0).stdout == expected, "{name} with {ranks} ranks prints {}", printed.out());
        }
    }
}

fn a_program_runs_commands() {
    for ranks in RANKS {
        let run = run(&mut mpiexec(ranks, &example("command_batch")));
        let squares = [1, 2, 3, 5, 6].map(|x| format!("the square of {x} is {}\n", x * x)).concat();
        assert_eq!(run.expect_code(0).out(), squares + "5 succeeded, 1 failed\n");
    }
}
