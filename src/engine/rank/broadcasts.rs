//! The broadcast values of a rank, each decoded when it is first used.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use crate::engine::wire;

/// A broadcast value: encoded, and decoded once it was used.
#[derive(Default)]
struct Broadcast {
    bytes: Bytes,
    value: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// The broadcast values of a rank, by their numbers.
#[derive(Default)]
pub(super) struct Broadcasts(Mutex<HashMap<u64, Arc<Broadcast>>>);

impl Broadcasts {
    pub(super) fn insert(&self, number: u64, bytes: Bytes) {
        let value = Arc::new(Broadcast { bytes, value: OnceLock::new() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, value);
    }

    /// Returns the value with this number, decoded by `read` at the first call.
    ///
    /// # Errors
    /// If there is no such value, it cannot be decoded, or it is of another type.
    pub(super) fn get<T: Any + Send + Sync>(
        &self,
        number: u64,
        read: impl FnOnce(&[u8]) -> Result<T, wire::CodecError>,
    ) -> Result<Arc<T>, String> {
        let broadcast = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        let broadcast = broadcast.ok_or_else(|| format!("there is no broadcast value {number} on this rank"))?;
        if broadcast.value.get().is_none() {
            // Two threads may decode it at the same time; one of the results is kept.
            let value: Arc<dyn Any + Send + Sync> =
                Arc::new(read(&broadcast.bytes).map_err(|error| error.to_string())?);
            let _ = broadcast.value.set(value);
        }
        let value = broadcast.value.get().cloned().ok_or("a broadcast value was not kept")?;
        value.downcast::<T>().map_err(|_| format!("broadcast value {number} is of another type"))
    }
}
