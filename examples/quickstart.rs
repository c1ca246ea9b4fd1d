//! Ten lines of rankpool: a map over all ranks, and a future.
//!
//! `mpiexec -n 4 target/release/examples/quickstart`

fn square(x: u64) -> u64 {
    x * x
}

fn main() -> rankpool::ExitCode {
    rankpool::launch(|pool| {
        let squares: Vec<u64> = pool.map(square, 0..10).collect::<Result<_, _>>()?;
        println!("{squares:?}");

        let future = pool.submit(square, 12);
        println!("12 squared is {}", future.wait()?);
        Ok(())
    })
}
