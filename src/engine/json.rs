//! Values that cross ranks as JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned, ser};

/// A wrapper for values that cross ranks as JSON, for types that need a self-describing format.
///
/// Values travel in a binary encoding that contains neither names nor types. It cannot carry `serde_json::Value`,
/// enums with `#[serde(untagged)]` or `#[serde(tag = "…")]`, structs with `#[serde(flatten)]`, or structs in which
/// `#[serde(skip_serializing_if = "…")]` leaves out a field. In this wrapper they can be inputs, results, contexts and
/// broadcast values, alone or as parts of others.
///
/// Values that JSON cannot represent fail or change on the way: a NaN or an infinity becomes `null`, and the keys of maps must be
/// strings, numbers or the like. JSON also takes longer than the binary encoding.
///
/// ```
/// use rankpool::Json;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(untagged)]
/// enum Setting {
///     Number(f64),
///     Name(String),
/// }
///
/// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
/// let settings = [Json(Setting::Number(0.5)), Json(Setting::Name("fast".into()))];
/// let texts: Vec<String> = pool
///     .map(
///         |Json(setting): Json<Setting>| match setting {
///             Setting::Number(number) => format!("number {number}"),
///             Setting::Name(name) => format!("name {name}"),
///         },
///         settings,
///     )
///     .collect::<Result<_, _>>()?;
/// assert_eq!(texts, ["number 0.5", "name fast"]);
/// # Ok(()) });
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json<T>(pub T);

impl<T> From<T> for Json<T> {
    fn from(value: T) -> Self {
        Json(value)
    }
}

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        let json = serde_json::to_vec(&self.0).map_err(ser::Error::custom)?;
        serializer.serialize_bytes(&json)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Json<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return T::deserialize(deserializer).map(Json);
        }
        let json = serde_bytes::ByteBuf::deserialize(deserializer)?;
        serde_json::from_slice(&json).map(Json).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
