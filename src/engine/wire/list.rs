//! Large lists of numbers, and texts, that are results: they travel beside the packet, as they are.
//!
//! A value that is encoded is copied into a packet, and copied again when it is decoded. With a hundred megabytes that takes longer
//! than the way between two processes of a host. So a result that is a large list stays where its job has made it, is sent from there, and
//! arrives in memory that becomes the driver's list. Its frame in the packet has its place among the lists of the packet.

use std::any::{Any, TypeId};
use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use super::{CodecError, encode_value};
use crate::engine::memory;

/// Lists of at least this many bytes are not encoded: two messages then cost less than two copies.
pub(crate) const LARGE: usize = 256 << 10;

macro_rules! lists {
    ($($kind:ident $element:ty),+ $(,)?) => {
        /// A list of numbers. Texts and byte strings are lists of bytes.
        #[derive(Debug, PartialEq)]
        pub(crate) enum List {
            $(
                #[doc = concat!("A list of `", stringify!($element), "`.")]
                $kind(Vec<$element>),
            )+
        }

        /// The types of the elements of a [`List`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum ListKind {
            $(
                #[doc = concat!("`", stringify!($element), "`.")]
                $kind,
            )+
        }

        impl ListKind {
            #[cfg(any(feature = "mpi", test))]
            pub(crate) const ALL: &[ListKind] = &[$(ListKind::$kind),+];

            /// Returns the size of an element in bytes.
            pub(crate) fn size(self) -> usize {
                match self {
                    $(ListKind::$kind => size_of::<$element>()),+
                }
            }

            /// Returns an empty list with room for this many elements.
            pub(crate) fn with_capacity(self, elements: usize) -> List {
                match self {
                    $(ListKind::$kind => List::$kind(memory::vec_with_capacity(elements))),+
                }
            }
        }

        impl List {
            pub(crate) fn kind(&self) -> ListKind {
                match self {
                    $(List::$kind(_) => ListKind::$kind),+
                }
            }

            /// Returns the size of all elements in bytes.
            pub(crate) fn bytes(&self) -> usize {
                match self {
                    $(List::$kind(list) => mem::size_of_val(list.as_slice())),+
                }
            }

            /// Appends a list with elements of the same type; returns whether it is one.
            pub(crate) fn append(&mut self, other: &List) -> bool {
                match (self, other) {
                    $((List::$kind(list), List::$kind(other)) => {
                        memory::reserve(list, other.len());
                        list.extend_from_slice(other);
                        true
                    })+
                    _ => false,
                }
            }

            /// Appends the encoding that the value has in a packet.
            pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                match self {
                    $(List::$kind(list) => encode_value(list, out)),+
                }
            }

            /// Returns a value that is a large list as one; other values are returned as they are.
            pub(crate) fn from_value<T: 'static>(value: T) -> Result<List, T> {
                if !is_list::<T>() || length_of(&value).is_none_or(|bytes| bytes < LARGE) {
                    return Err(value);
                }
                let mut place = Some(value);
                let any: &mut dyn Any = &mut place;
                let list = None
                    $(
                        .or_else(|| take::<Vec<$element>>(any).map(List::$kind))
                        .or_else(|| take::<Box<[$element]>>(any).map(|list| List::$kind(list.into_vec())))
                    )+
                    .or_else(|| take::<String>(any).map(|text| List::U8(text.into_bytes())))
                    .or_else(|| take::<Bytes>(any).map(|bytes| List::U8(bytes.into())));
                match (list, place) {
                    (Some(list), _) => Ok(list),
                    (None, Some(value)) => Err(value),
                    (None, None) => unreachable!("what was taken is a list"),
                }
            }

            /// Returns the value that was made a list. The elements are copied only if something else shares them.
            pub(crate) fn into_value<T: 'static>(list: Arc<List>) -> Result<T, CodecError> {
                let list = Arc::try_unwrap(list).unwrap_or_else(|shared| shared.copy());
                let mut place: Option<T> = None;
                let any: &mut dyn Any = &mut place;
                match list {
                    List::U8(bytes) if any.is::<Option<String>>() => {
                        let text = String::from_utf8(bytes);
                        put(any, text.map_err(|_| CodecError::garbled("a text is not UTF-8"))?);
                    }
                    List::U8(bytes) if any.is::<Option<Bytes>>() => put(any, Bytes::from(bytes)),
                    $(
                        List::$kind(list) if any.is::<Option<Box<[$element]>>>() => put(any, list.into_boxed_slice()),
                        List::$kind(list) => put(any, list),
                    )+
                }
                place.ok_or_else(|| CodecError::garbled("a list has elements of another type"))
            }
        }

        /// The memory of a list, for a transport that knows addresses.
        #[cfg(any(feature = "mpi", test))]
        impl List {
            /// Returns the address of the first element.
            pub(crate) fn address(&self) -> *const u8 {
                match self {
                    $(List::$kind(list) => list.as_ptr().cast()),+
                }
            }

            /// Returns the address of the first element, to write there.
            pub(crate) fn address_mut(&mut self) -> *mut u8 {
                match self {
                    $(List::$kind(list) => list.as_mut_ptr().cast()),+
                }
            }

            /// Declares that the list has this many elements.
            ///
            /// # Safety
            /// It has room for them, and they are written before they are read.
            #[expect(unsafe_code, reason = "the caller writes the elements through their address")]
            pub(crate) unsafe fn set_len(&mut self, elements: usize) {
                match self {
                    // SAFETY: the caller's promise.
                    $(List::$kind(list) => unsafe { list.set_len(elements) }),+
                }
            }
        }

        /// Whether values of this type are lists. The compiler knows the answer for each type, so that jobs with other results spend
        /// no time here.
        fn is_list<T: 'static>() -> bool {
            let list = TypeId::of::<T>();
            list == TypeId::of::<String>()
                || list == TypeId::of::<Bytes>()
                $(|| list == TypeId::of::<Vec<$element>>() || list == TypeId::of::<Box<[$element]>>())+
        }

        /// Returns the size in bytes of a value that is a list.
        fn length_of<T: 'static>(value: &T) -> Option<usize> {
            let any: &dyn Any = value;
            None
                $(
                    .or_else(|| any.downcast_ref::<Vec<$element>>().map(|list| mem::size_of_val(list.as_slice())))
                    .or_else(|| any.downcast_ref::<Box<[$element]>>().map(|list| mem::size_of_val(&**list)))
                )+
                .or_else(|| any.downcast_ref::<String>().map(String::len))
                .or_else(|| any.downcast_ref::<Bytes>().map(Bytes::len))
        }
    };
}

lists! {
    U8 u8, U16 u16, U32 u32, U64 u64, Usize usize,
    I8 i8, I16 i16, I32 i32, I64 i64, Isize isize,
    F32 f32, F64 f64,
}

impl List {
    fn copy(&self) -> List {
        let mut copy = self.kind().with_capacity(self.bytes() / self.kind().size());
        copy.append(self);
        copy
    }
}

/// Takes the value out of a place, if it has this type.
fn take<V: 'static>(place: &mut dyn Any) -> Option<V> {
    place.downcast_mut::<Option<V>>().and_then(Option::take)
}

/// Puts a value into a place for values of this type; leaves one for others empty.
fn put<V: 'static>(place: &mut dyn Any, value: V) {
    if let Some(place) = place.downcast_mut::<Option<V>>() {
        *place = Some(value);
    }
}

/// The large lists among the results of a chunk. A frame has the place of its list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists(Vec<Option<Arc<List>>>);

impl Lists {
    pub(crate) fn new(lists: impl IntoIterator<Item = List>) -> Lists {
        Lists(lists.into_iter().map(|list| Some(Arc::new(list))).collect())
    }

    /// Returns the size of all lists in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().flatten().map(|list| list.bytes()).sum()
    }

    /// Returns the list with this place, and leaves its place empty.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn take(&mut self, place: u64) -> Result<Arc<List>, CodecError> {
        let slot = usize::try_from(place).ok().and_then(|place| self.0.get_mut(place));
        slot.and_then(Option::take).ok_or_else(|| CodecError::garbled("a list is missing"))
    }

    /// Moves the lists with these places to lists of their own, which have the same places.
    pub(crate) fn split(&mut self, places: impl IntoIterator<Item = u64>) -> Lists {
        let mut split = Lists::default();
        for place in places {
            if let Ok(list) = self.take(place) {
                let place = place as usize;
                split.0.resize(split.0.len().max(place + 1), None);
                split.0[place] = Some(list);
            }
        }
        split
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wire::decode_value;

    const LENGTH: usize = LARGE;

    fn crosses<T: Clone + PartialEq + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned + 'static>(
        value: &T,
    ) {
        let list = Arc::new(List::from_value(value.clone()).expect("it is a large list"));
        let mut encoded = Vec::new();
        list.encode(&mut encoded).unwrap();
        assert!(decode_value::<T>(&encoded).unwrap() == *value, "its encoding is that of the value");
        let address = list.address();
        let shared = List::into_value::<T>(list.clone()).unwrap();
        assert!(shared == *value);
        assert_eq!(list.address(), address);
        assert!(List::into_value::<T>(list).unwrap() == *value);
    }

    #[test]
    fn large_lists_of_all_kinds_are_the_same_afterwards() {
        crosses(&vec![7_u8; LENGTH]);
        crosses(&vec![-7_i64; LENGTH]);
        crosses(&vec![usize::MAX; LENGTH]);
        crosses(&vec![0.5_f32; LENGTH]);
        crosses(&vec![-0.5_f64; LENGTH]);
        crosses(&vec![300_u16; LENGTH].into_boxed_slice());
        crosses(&"é".repeat(LENGTH));
    }

    #[test]
    fn other_values_and_small_lists_stay_as_they_are() {
        assert_eq!(List::from_value(5_u32), Err(5));
        assert_eq!(List::from_value(vec![1.0_f64; 3]), Err(vec![1.0; 3]));
        assert_eq!(List::from_value((1, vec![1.0_f64; LENGTH])).map_err(|(one, _)| one), Err(1));
        assert!(List::from_value(vec![String::new(); LENGTH]).is_err());
        assert!(List::from_value(Bytes::from(vec![1; LENGTH])).is_ok());
    }

    #[test]
    fn the_memory_of_a_list_is_that_of_the_value_unless_it_is_shared() {
        let value = vec![1_u64; LENGTH];
        let address = value.as_ptr();
        let list = Arc::new(List::from_value(value).unwrap());
        let copy: Vec<u64> = List::into_value(list.clone()).unwrap();
        assert_ne!(copy.as_ptr(), address);
        let same: Vec<u64> = List::into_value(list).unwrap();
        assert_eq!(same.as_ptr(), address);
    }

    #[test]
    fn a_list_of_other_elements_or_a_text_that_is_none_is_an_error() {
        let list = |byte| Arc::new(List::U8(vec![byte; 10]));
        assert!(List::into_value::<Vec<i8>>(list(1)).is_err());
        assert!(List::into_value::<u64>(list(1)).is_err());
        assert!(List::into_value::<String>(list(0xff)).is_err());
        assert!(List::into_value::<String>(list(b'a')).is_ok());
        assert_eq!(List::into_value::<Bytes>(list(1)).unwrap().len(), 10);
    }

    #[test]
    fn each_list_is_found_once_at_its_place() {
        let mut lists = Lists::new((0..4).map(|byte| List::U8(vec![byte; 1000])));
        assert_eq!(lists.bytes(), 4000);
        let mut split = lists.split([3, 1, 9]);
        assert_eq!((lists.bytes(), split.bytes()), (2000, 2000));
        assert_eq!(*split.take(1).unwrap(), List::U8(vec![1; 1000]));
        assert!(split.take(1).is_err() && split.take(0).is_err() && split.take(u64::MAX).is_err());
        assert_eq!(*lists.take(2).unwrap(), List::U8(vec![2; 1000]));
        assert!(lists.take(3).is_err());
    }

    #[test]
    fn parts_of_a_list_are_put_together() {
        for &kind in ListKind::ALL {
            let mut whole = kind.with_capacity(0);
            let mut part = kind.with_capacity(3);
            // SAFETY: zeros are valid numbers of each kind, and there is room for three.
            #[expect(unsafe_code, reason = "as a transport fills a list")]
            unsafe {
                part.address_mut().write_bytes(0, 3 * kind.size());
                part.set_len(3);
            }
            assert!(whole.append(&part) && whole.append(&part));
            assert_eq!((whole.bytes(), whole.kind()), (6 * kind.size(), kind));
        }
        assert!(!List::U8(Vec::new()).append(&List::I8(vec![1])));
    }
}
