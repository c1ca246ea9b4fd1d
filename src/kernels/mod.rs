//! The built-in functions, each a plain public Rust function that `rankpool kernel NAME` calls through the same
//! `pool.map` and `pool.map_with` that users call.
//!
//! A function of one argument is called by `pool.map(f, xs)`; one that takes a context first, by
//! `pool.map_with(context, xs, f)`, which sends the context once to each rank. All inputs, contexts and results are serde
//! types that formats like bincode can encode.
//!
//! This module decides what is computed and in which order it is summed, so that results do not depend on the number of
//! ranks. Reading jobs (`input`), distributing them (`pool`) and printing results (`output`) is left to others. A job that has no
//! result (√−1, a cube that does not fit) panics with a message that names its input; the pool turns that into one failed job.

pub mod arithmetic;
pub(crate) mod convert;
#[cfg(test)]
mod on_the_wire;
pub mod pace;
pub mod parzen;
pub mod rand_string;
pub mod slow_fn;

pub use crate::input::Number;
pub use arithmetic::{Sum, Summands, cube, power, power_of_pair, sqrt, square, sum};
pub use pace::{nop, sleep, sleep_square, spin};
pub use parzen::{Density, Parzen, ParzenError, parzen};
pub use rand_string::{RandString, rand_string};
pub use slow_fn::{SLOW_FN_MALLOC_POINTS, SLOW_FN_POINTS, slow_fn, slow_fn_malloc};

/// One row of the list of built-in functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
}

/// Every built-in function, in the order in which help texts show them.
pub const ALL: &[Kernel] = &[
    Kernel { name: "square", summary: "x², exact for every 64-bit integer" },
    Kernel { name: "cube", summary: "x³, exact while it fits 128 bits" },
    Kernel { name: "sqrt", summary: "the square root of x" },
    Kernel { name: "power", summary: "x to the power y, with y sent once to each rank, or in pairs (x, y)" },
    Kernel { name: "sum", summary: "{\"param1\": a, \"param2\": b} gives {\"sum\": a+b}" },
    Kernel { name: "rand-string", summary: "a random alphanumeric string, the same for any number of ranks" },
    Kernel { name: "sleep-square", summary: "sleeps, then x²" },
    Kernel { name: "slow-fn", summary: "a polynomial averaged over a grid, compute-bound" },
    Kernel { name: "slow-fn-malloc", summary: "the same with a fresh array for every operation, memory-bound" },
    Kernel { name: "parzen", summary: "Parzen-window density of shared samples at a point, one job for each width" },
    Kernel { name: "nop", summary: "returns the job's index: measures the pool itself" },
    Kernel { name: "spin", summary: "computes for a given time, then returns the job's index" },
    Kernel { name: "sleep", summary: "sleeps for a given time, then returns the job's index" },
];

/// Returns the built-in function of that name.
pub fn find(name: &str) -> Option<&'static Kernel> {
    ALL.iter().find(|kernel| kernel.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_found_by_its_name_and_listed_once() {
        for kernel in ALL {
            assert_eq!(find(kernel.name), Some(kernel));
            assert!(!kernel.summary.contains('\n'));
        }
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|kernel| kernel.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(find("squares"), None);
    }
}
