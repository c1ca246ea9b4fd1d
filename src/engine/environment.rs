//! Environment variables as options.

use std::num::NonZeroU32;

/// Returns an environment variable if it is set and not empty.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the number in an environment variable, if the variable is set. An error if it is not a number from 1.
pub(crate) fn number_from(
    environment: impl Fn(&str) -> Option<String>,
    name: &str,
) -> Result<Option<NonZeroU32>, String> {
    let Some(text) = environment(name) else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(format!("{name}={text} in the environment is not a number from 1")),
    }
}
