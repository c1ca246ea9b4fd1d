//! Three replacements for captured variables: the context of a map, a broadcast value, and a state that each thread makes.
//!
//! `mpiexec -n 4 target/release/examples/captured_state`

use rankpool::JobError;

fn main() -> rankpool::ExitCode {
    rankpool::launch(|pool| {
        // Sent to each rank once, with the map.
        let exponent = 2.5;
        let powers: Vec<f64> =
            pool.map_with(exponent, (0..5).map(f64::from), |y, x| x.powf(*y)).collect::<Result<_, _>>()?;
        println!("powers: {powers:.3?}");

        // Sent to each rank once, for any number of maps.
        let primes = pool.broadcast(vec![2_u64, 3, 5, 7, 11, 13])?;
        let divisors: Vec<Vec<u64>> = pool
            .map_with(primes.clone(), 90..93, |primes, n: u64| primes.iter().copied().filter(|p| n % p == 0).collect())
            .collect::<Result<_, JobError>>()?;
        println!("prime divisors: {divisors:?}");
        let products: Vec<u64> =
            pool.map_with(primes, 1..4, |primes, k: usize| primes[..k].iter().product()).collect::<Result<_, _>>()?;
        println!("products: {products:?}");

        // Never sent: each thread makes it when it first needs it.
        let table = || (0..100_u64).map(|x| x * x).collect::<Vec<_>>();
        let squares: Vec<u64> = pool.map_init(table, 7..10, |table, x: usize| table[x]).collect::<Result<_, _>>()?;
        println!("squares: {squares:?}");
        Ok(())
    })
}
