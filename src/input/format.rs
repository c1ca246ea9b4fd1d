//! The formats of input files, and how the format of a file is found.

use std::path::Path;

/// The format of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One record on each line, any UTF-8 text. Lines of nothing but blanks are skipped.
    Lines,
    /// Comma-separated values (RFC 4180), UTF-8. The first line names the columns. Empty lines are skipped.
    Csv,
    /// Tab-separated values, UTF-8, otherwise like CSV. Quotes have no meaning.
    Tsv,
    /// One JSON value on each line, UTF-8. Empty lines are skipped.
    JsonLines,
}

impl Format {
    /// Returns the format of a file name's ending, in small or capital letters: `.csv`; `.tsv`; `.jsonl`, `.ndjson` and `.json`; `.txt`,
    /// `.list` and `.lst` for lines.
    pub fn from_ending(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" | "list" | "lst" => Some(Format::Lines),
            "csv" => Some(Format::Csv),
            "tsv" => Some(Format::Tsv),
            "jsonl" | "ndjson" | "json" => Some(Format::JsonLines),
            _ => None,
        }
    }

    /// Returns the format of a text by its beginning. Column names never look like the beginning of an array, object or number.
    pub(super) fn from_beginning(text: &[u8]) -> Format {
        match text.trim_ascii_start().first() {
            Some(b'{' | b'[' | b'-' | b'0'..=b'9') => Format::JsonLines,
            _ => Format::Csv,
        }
    }
}

/// How files are to be read, as far as the user has set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The format. Without it the file's ending decides.
    pub format: Option<Format>,
    /// The format of standard input and of files with an unknown ending. Without it the first byte that is not blank decides
    /// between JSON Lines and CSV.
    pub fallback: Option<Format>,
    /// Whether the first line names the columns. Without it: yes in CSV and TSV, unless it holds nothing but numbers, which
    /// is an error; no in lines. JSON Lines ignores it.
    pub header: Option<bool>,
    /// The records of lines end in NUL, not in a newline.
    pub null: bool,
}

impl Layout {
    /// Returns the format of a file, if it is known without reading it.
    pub fn format_of(&self, path: Option<&Path>) -> Option<Format> {
        let lines = self.null.then_some(Format::Lines);
        self.format.or(lines).or_else(|| path.and_then(Format::from_ending)).or(self.fallback)
    }

    pub(super) fn guess(&self, beginning: &[u8]) -> Format {
        match self.header {
            // JSON has no header, so a setting for it means a table.
            Some(_) => Format::Csv,
            None => Format::from_beginning(beginning),
        }
    }
}

impl From<Format> for Layout {
    fn from(format: Format) -> Layout {
        Layout { format: Some(format), ..Layout::default() }
    }
}
