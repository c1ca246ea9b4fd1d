//! The batch program `rankpool`: everything is in the library's `cli`.

fn main() -> rankpool::ExitCode {
    rankpool::cli::run()
}
