//! Chunks of inputs and of results as messages between the master and a rank, for the benches.

use bytes::Bytes;

use crate::engine::exchange::{BlockBuilder, Delivery};
use crate::engine::func::Value;
use crate::engine::schedule::{ChunkId, MapId};
use crate::engine::wire::{self, Frame, Frames, List, Lists, Packet, ToMaster, ToRank};
use crate::pool::{Event, encode_input};

/// Encodes inputs, block after block, as the driver and the master do.
#[derive(Default)]
pub struct Inputs {
    block: BlockBuilder,
}

impl Inputs {
    /// Returns the packet with a chunk of jobs that have these inputs.
    ///
    /// # Panics
    /// If one cannot be encoded.
    pub fn encode<I: Value>(&mut self, inputs: &[I]) -> Bytes {
        inputs.iter().for_each(|input| self.block.push(|out| encode_input(input, out)));
        // It is kept until the jobs are settled, so the message does not get its memory.
        let block = self.block.take();
        let frames = block.frames(0..block.count());
        let (chunk, map, bytes) = (ChunkId(1), MapId(1), frames.len() as u64);
        let mut packet = Packet::default();
        packet.push_with(ToRank::Chunk { chunk, map, first: 0, count: block.count(), attempt: 1, bytes }, [frames]);
        packet.take().expect("a message").packet
    }
}

/// Decodes the inputs of a chunk as a rank does, and calls `each` with them.
///
/// # Panics
/// If they are garbled.
pub fn decode_inputs<I: Value>(packet: Bytes, mut each: impl FnMut(I)) {
    for (head, payload) in wire::open::<ToRank>(packet).expect("a message") {
        let ToRank::Chunk { count, .. } = head else { continue };
        let mut frames = Frames::new(&payload);
        for _ in 0..count {
            let Ok(Frame::Value(input)) = frames.next() else { panic!("an input is missing") };
            each(wire::decode_value(input).expect("an input"));
        }
    }
}

/// A rank's message with the results of a chunk.
pub struct Results(wire::Message);

impl Results {
    /// Encodes results as a rank does.
    ///
    /// # Panics
    /// If one cannot be encoded.
    pub fn encode<O: Value>(results: Vec<O>) -> Results {
        let (count, failed) = (results.len() as u32, Vec::new());
        let (frames, lists) = frames(results);
        let (chunk, bytes, number) = (ChunkId(1), frames.len() as u64, lists.len() as u32);
        let mut packet = Packet::default();
        packet.push_with(
            ToMaster::Finished {
                chunk,
                count,
                wall_ns: 1,
                useful_ns: 1,
                failed,
                failed_results: 0,
                bytes,
                lists: number,
            },
            [frames],
        );
        packet.push_lists(lists);
        Results(packet.take().expect("a message"))
    }

    /// Decodes the results as the master and the driver do, and calls `each` with them.
    ///
    /// # Panics
    /// If they are garbled.
    pub fn decode<O: Value>(self, mut each: impl FnMut(O)) {
        let wire::Message { packet, lists } = self.0;
        let (packet_bytes, mut lists) = (packet.len(), lists.into_iter());
        for (head, frames) in wire::open::<ToMaster>(packet).expect("a message") {
            let ToMaster::Finished { count, lists: number, .. } = head else { continue };
            let lists = Lists::new(lists.by_ref().take(number as usize));
            let delivery = Delivery::Done { first: 0, count: count.into(), frames, lists, packet_bytes };
            let Event::Done(results) = Event::from(delivery) else { continue };
            results.for_each(|result| each(result.expect("a result")));
        }
    }
}

/// Returns the frames of results, and those that are large lists.
pub(super) fn frames<O: Value>(results: Vec<O>) -> (Bytes, Vec<List>) {
    let (mut frames, mut lists) = (Vec::new(), Vec::new());
    for result in results {
        match List::from_value(result) {
            Ok(list) => {
                wire::push_list(&mut frames, lists.len() as u64);
                lists.push(list);
            }
            Err(value) => {
                wire::push_value(&mut frames, |out| wire::encode_value(&value, out)).expect("a value");
            }
        }
    }
    (frames.into(), lists)
}
