//! Measures parts of rankpool by themselves: the encoding of messages, the scheduler, the ledger of a batch, the order of results,
//! and the journal.
//!
//! `cargo bench --no-default-features --features program --bench parts [-- NAME]` measures those whose names contain `NAME`, such as
//! `wire` or `schedule/1024`; with `-- --test` each is only run once. CONTRIBUTING.md says how to compare two versions.

mod journal;
mod ledger;
mod order;
mod schedule;
mod wire;

use std::time::Duration;

use criterion::Criterion;

/// Built without optimisation they are only run once (`cargo test --bench parts`), with less to do.
const LESS: u64 = if cfg!(debug_assertions) { 100 } else { 1 };

fn main() {
    let (warm_up, measured) = (Duration::from_millis(500), Duration::from_secs(2));
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(30)
        .warm_up_time(warm_up)
        .measurement_time(measured)
        .configure_from_args();
    wire::benches(&mut criterion);
    schedule::benches(&mut criterion);
    ledger::benches(&mut criterion);
    order::benches(&mut criterion);
    journal::benches(&mut criterion);
    criterion.final_summary();
}
