//! A report as a page.

use super::facts::Facts;

pub(crate) fn page(facts: &Facts) -> String {
    super::text::text(facts)
}
