//! Records that are computed instead of read: ranges, sweeps, equally spaced values.

pub(super) mod range;
pub(super) mod span;
pub(super) mod sweep;
