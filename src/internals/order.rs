//! Results that arrive in any order and leave in the order of their jobs, for the benches: those of a map, and outputs of a batch.

use std::ops::Range;

use super::wire;
use crate::engine::exchange::Delivery;
use crate::engine::wire::Lists;
use crate::output::{DEFAULT_MEMORY, Ordered, OutputError, OutputOrder};
use crate::pool::{Event, Order};

/// Results of a map, chunk by chunk, as the master delivers them. The result of a job is its number.
pub struct Deliveries(Vec<Delivery>);

impl Deliveries {
    /// Makes a delivery of the results of each chunk.
    pub fn of(chunks: &[Range<u64>]) -> Deliveries {
        let delivery = |jobs: &Range<u64>| {
            let (frames, lists) = wire::frames(jobs.clone().collect());
            let (count, lists, packet_bytes) = (jobs.end - jobs.start, Lists::new(lists), frames.len());
            Delivery::Done { first: jobs.start, count, frames, lists, packet_bytes }
        };
        Deliveries(chunks.iter().map(delivery).collect())
    }

    /// Takes all deliveries, and calls `each` with each result as soon as its turn has come.
    ///
    /// # Panics
    /// If one is garbled.
    pub fn in_order(self, mut each: impl FnMut(u64)) {
        let mut order = Order::<u64>::new(false);
        for delivery in self.0 {
            order.put(Event::from(delivery));
            while let Some(result) = order.take() {
                each(result.expect("a result"));
            }
        }
    }
}

/// Takes the outputs of a batch's jobs, and calls `each` with each output as soon as its turn has come. Each comes with its place.
///
/// # Panics
/// If an output cannot be kept: they are larger than the memory for them, and the disk is full.
pub fn outputs_in_order(outputs: Vec<(u64, Vec<u8>)>, each: impl FnMut(&[u8])) {
    in_order(each, outputs, |ordered, (place, output)| ordered.settle(place, output, &[], &[]));
}

/// As [`outputs_in_order`], with the outputs of consecutive jobs one behind the other: the first place, the number of jobs, and
/// the outputs.
///
/// # Panics
/// As [`outputs_in_order`].
pub fn runs_in_order(runs: Vec<(u64, u64, Vec<u8>)>, each: impl FnMut(&[u8])) {
    in_order(each, runs, |ordered, (first, count, outputs)| ordered.settle_run(first, count, outputs));
}

fn in_order<T>(
    mut each: impl FnMut(&[u8]),
    settled: Vec<T>,
    settle: impl Fn(&mut Ordered, T) -> Result<(), OutputError>,
) {
    let mut ordered = Ordered::new(OutputOrder::Places, DEFAULT_MEMORY);
    for one in settled {
        settle(&mut ordered, one).expect("it can be kept");
        let given = ordered.drain(&mut |_, _, output| {
            each(output);
            Ok(())
        });
        given.expect("it can be read");
    }
}
