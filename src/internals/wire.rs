//! Chunks of inputs and of results as messages between the master and a rank, for the benches.

use bytes::Bytes;

use crate::engine::exchange::{BlockBuilder, Delivery};
use crate::engine::func::Value;
use crate::engine::schedule::{ChunkId, MapId};
use crate::engine::wire::{self, Frame, Frames, Head, Packet, ToMaster, ToRank};
use crate::pool::{Event, encode_input};

/// Encodes inputs, block after block, as the driver and the master do.
#[derive(Default)]
pub struct Inputs {
    block: BlockBuilder,
}

impl Inputs {
    /// Returns the message with a chunk of jobs that have these inputs.
    pub fn encode<I: Value>(&mut self, inputs: &[I]) -> Bytes {
        inputs.iter().for_each(|input| self.block.push(|out| encode_input(input, out)));
        // It is kept until the jobs are settled, so the message does not get its memory.
        let block = self.block.take();
        let frames = block.frames(0..block.count());
        let (chunk, map, bytes) = (ChunkId(1), MapId(1), frames.len() as u64);
        packet(ToRank::Chunk { chunk, map, first: 0, count: block.count(), attempt: 1, bytes }, frames)
    }
}

/// Decodes the inputs of a chunk as a rank does, and calls `each` with them.
///
/// # Panics
/// If they are garbled.
pub fn decode_inputs<I: Value>(message: Bytes, mut each: impl FnMut(I)) {
    for (head, payload) in wire::open::<ToRank>(message).expect("a message") {
        let ToRank::Chunk { count, .. } = head else { continue };
        let mut frames = Frames::new(&payload);
        for _ in 0..count {
            let Ok(Frame::Value(input)) = frames.next() else { panic!("an input is missing") };
            each(wire::decode_value(input).expect("an input"));
        }
    }
}

/// Returns a rank's message with these results of a chunk.
///
/// # Panics
/// If one cannot be encoded.
pub fn encode_results<O: Value>(results: &[O]) -> Bytes {
    let frames = frames(results);
    let (chunk, count, bytes) = (ChunkId(1), results.len() as u32, frames.len() as u64);
    let (failed, failed_results) = (Vec::new(), 0);
    packet(ToMaster::Finished { chunk, count, wall_ns: 1, useful_ns: 1, failed, failed_results, bytes }, frames)
}

/// Decodes the results of a chunk as the master and the driver do, and calls `each` with them.
///
/// # Panics
/// If they are garbled.
pub fn decode_results<O: Value>(message: Bytes, mut each: impl FnMut(O)) {
    let packet_bytes = message.len();
    for (head, frames) in wire::open::<ToMaster>(message).expect("a message") {
        let ToMaster::Finished { count, .. } = head else { continue };
        let delivery = Delivery::Done { first: 0, count: count.into(), frames, packet_bytes };
        let Event::Done(results) = Event::from(delivery) else { continue };
        results.for_each(|result| each(result.expect("a result")));
    }
}

/// Returns the frames of results, as a rank writes them while its jobs run.
pub(super) fn frames<O: Value>(results: &[O]) -> Bytes {
    let mut frames = Vec::new();
    for result in results {
        wire::push_value(&mut frames, |out| wire::encode_value(result, out)).expect("a value");
    }
    frames.into()
}

fn packet<H: Head>(head: H, payload: Bytes) -> Bytes {
    let mut packet = Packet::default();
    packet.push_with(head, [payload]);
    packet.take().expect("a message")
}
