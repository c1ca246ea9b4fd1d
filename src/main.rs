//! The batch program `rankpool`: everything is in the library's `cli`.

fn main() -> std::process::ExitCode {
    rankpool::cli::run()
}
