//! Broadcast values, of which every rank has a copy.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};

use crate::engine::{rank, wire};

/// A value that was [broadcast](crate::Pool::broadcast): it travels as a number and is read through `Deref`, in jobs on any
/// rank and on the driver's side.
pub struct Shared<T> {
    number: u64,
    value: Arc<T>,
}

impl<T> Shared<T> {
    pub(super) fn new(number: u64, value: T) -> Self {
        Shared { number, value: Arc::new(value) }
    }

    #[cfg(feature = "program")]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the value, which this rank may share with others that hold it.
    #[cfg(feature = "program")]
    pub(crate) fn into_value(self) -> Arc<T> {
        self.value
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared { number: self.number, value: self.value.clone() }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.value).finish()
    }
}

impl<T> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.number.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned + Send + Sync + 'static> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        let value = rank::broadcast_value(number, wire::decode_value::<T>).map_err(de::Error::custom)?;
        Ok(Shared { number, value })
    }
}
