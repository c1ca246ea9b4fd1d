//! One reader of records for each format of a file.

pub(super) mod csv;
pub(super) mod json_lines;
pub(super) mod lines;
pub(super) mod rows;
pub(super) mod table;
