//! The broadcast values of a rank, each decoded when it is first used.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::engine::wire;

/// A broadcast value.
enum Broadcast {
    /// It was not used yet.
    Encoded(Bytes),
    Decoded(Arc<dyn Any + Send + Sync>),
}

/// The broadcast values of a rank, by their numbers.
#[derive(Default)]
pub(super) struct Broadcasts(Mutex<HashMap<u64, Arc<Mutex<Broadcast>>>>);

impl Broadcasts {
    pub(super) fn insert(&self, number: u64, bytes: Bytes) {
        let value = Arc::new(Mutex::new(Broadcast::Encoded(bytes)));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, value);
    }

    /// Forgets a value. Jobs that have got it may keep it.
    pub(super) fn remove(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Whether there is a value with this number: it was not forgotten.
    #[cfg(feature = "program")]
    pub(super) fn knows(&self, number: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&number)
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
        // Threads that need it at the same time wait: decoding may take much memory.
        let mut broadcast = broadcast.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match &*broadcast {
            Broadcast::Decoded(value) => value.clone(),
            Broadcast::Encoded(bytes) => {
                let value: Arc<dyn Any + Send + Sync> = Arc::new(read(bytes).map_err(|error| error.to_string())?);
                *broadcast = Broadcast::Decoded(value.clone());
                value
            }
        };
        value.downcast::<T>().map_err(|_| format!("broadcast value {number} is of another type"))
    }
}
