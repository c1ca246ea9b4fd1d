//! External commands: what a record makes of the words that were typed.

pub(crate) mod template;
