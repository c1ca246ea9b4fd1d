//! The trait of functions that can cross ranks.

/// A function that can cross ranks: one that captures nothing. It is implemented for all such functions.
///
/// A closure that captures values that are not `Copy`, or cannot be used from several threads, does not implement it. A closure
/// that captures only `Copy` values does, and is refused by `cargo build` when its code is generated: no trait expresses that a
/// closure captures nothing.
#[diagnostic::on_unimplemented(
    message = "this function captures variables and cannot cross ranks",
    label = "it captures a value that is not `Copy`, or not for several threads",
    note = "pass what it captures as the context of `map_with` or `submit_with`, or make it on each rank with `map_init`"
)]
pub trait CrossesRanks: Copy + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<F: Copy + Send + Sync + 'static> CrossesRanks for F {}
