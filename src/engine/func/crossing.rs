//! Which functions can cross ranks, as far as types tell.

/// A function that may cross ranks: one that captures nothing. You never implement it.
///
/// What captures values that are not `Copy`, or cannot be used from several threads, is refused where it is handed over. What
/// captures only `Copy` values passes this, and is refused when code is made of it, by `cargo build`: no trait says whether a
/// closure is empty.
#[diagnostic::on_unimplemented(
    message = "this function captures variables and cannot cross ranks",
    label = "it captures a value that is not `Copy`, or not for several threads",
    note = "pass what it captures as the context of `map_with` or `submit_with`, or make it on each rank with `map_init`"
)]
pub trait CrossesRanks: Copy + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<F: Copy + Send + Sync + 'static> CrossesRanks for F {}
