//! Templates: placeholders in a command, its stdin, folder, environment and tag, replaced by values of a record.
//!
//! | placeholder | stands for |
//! |---|---|
//! | `{}` | the record |
//! | `{.}` `{/}` `{//}` `{/.}` | without its extension, its last part, its folder, its last part without extension |
//! | `{name}` | the value of a column or key |
//! | `{2}` | the second value; if the record has no such position, a column called `2` |
//! | `{name.}` `{2/}` `{2//}` … | as above, of that value; a column with the name `name.` wins |
//! | `{#}` `{%}` | the job's number, the slot it runs in |
//! | `{{` and its `}}` | `{` and `}` |
//!
//! `{}` is always a placeholder. Other braces are placeholders only if the text between them can be a name: a letter or `_`,
//! then letters, digits, `_`, `-` and `.`, or a number from 1. If the record does not have such a value, that is an error. Any
//! other text between braces (`{a b}`, `{1..5}`) is replaced if a column has that name, and otherwise stays, as do JSON
//! (`{"x":1}`), awk (`{print $1}`) and all braces behind a dollar sign (`${HOME}`). `}}` is one brace only where it closes a
//! `{{`, so that nested JSON stays as it is.
//!
//! A command without placeholders gets nothing appended, unlike with xargs and GNU parallel: `--range 1:100 -- ./simulate`
//! runs it a hundred times, and `--dry-run` shows a forgotten `{}` at once.
//!
//! The driver parses the words once and binds them to each record; only the values that the words use travel to the ranks,
//! which fill them in. Nothing is started here.

mod code;
mod parse;
mod path;
mod shell;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use path::PathPart;
use shell::Quotes;

/// Most names of a record that an error lists.
const SHOWN_NAMES: usize = 20;

/// Access to the values of a record.
pub trait Fields {
    /// Returns the whole record.
    fn text(&self) -> Cow<'_, str>;
    /// Returns the value of a column or key.
    fn named(&self, name: &str) -> Option<Cow<'_, str>>;
    /// Returns the value at a position, from 1.
    fn at(&self, position: usize) -> Option<Cow<'_, str>>;
    /// Returns its column names or keys, for the message about a missing one.
    fn names(&self) -> Vec<String>;
    /// Returns where it begins, as `jobs.csv:17`.
    fn place(&self) -> Option<String> {
        None
    }
}

/// The words to parse, as typed.
#[derive(Clone, Debug, Default)]
pub struct Words<'a> {
    /// The command and its arguments.
    pub command: &'a [String],
    /// Whether the command is a script for `/bin/sh`: its words joined by blanks.
    pub shell: bool,
    /// The command's standard input.
    pub stdin: Option<&'a str>,
    /// The folder where it runs.
    pub cwd: Option<&'a str>,
    /// `NAME=VALUE`, with placeholders in the value.
    pub env: &'a [String],
    /// The prefix of each line of its output.
    pub tag: Option<&'a str>,
}

/// Why the words cannot be parsed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is nothing to run.
    #[error("no command to run; write it behind `--`, as in `rankpool run --input files.txt -- gzip {{}}`")]
    NoCommand,
    /// A word for the environment is not `NAME=VALUE`.
    #[error("'{0}' does not set a variable; write NAME=VALUE")]
    Variable(String),
    /// A word contains a zero byte.
    #[error("a word of the command contains a zero byte, which no program can be given")]
    Nul,
    /// A place in a script where a value cannot stand safely.
    #[error("{placeholder} cannot stand {place} in a script; {advice}")]
    Shell {
        /// As it was typed.
        placeholder: String,
        /// Where it stands, as `behind a backslash`.
        place: &'static str,
        /// What to write instead.
        advice: &'static str,
    },
    /// A script passes a value to another interpreter as a part of its code.
    #[error(
        "{placeholder} would be read as code by the script's own `{reader}`, whatever quotes are around it; {advice}"
    )]
    Code {
        /// As it was typed.
        placeholder: String,
        /// The other interpreter.
        reader: String,
        /// What to write instead.
        advice: &'static str,
    },
}

/// Why a record does not fit the template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The record has no such value.
    #[error("{}no column, key or position '{name}' for {{{name}}} ({}); to keep the braces as they are, write {{{{{name}}}}}",
        before(.place), available(.names))]
    Missing {
        /// Where the record begins.
        place: Option<String>,
        /// The text between the braces.
        name: String,
        /// The names that the record has.
        names: Vec<String>,
    },
    /// A value contains a zero byte.
    #[error("{}the value of {{{name}}} contains a zero byte, which no program can be given as an argument; \
        `--stdin {{{name}}}` can pass it on", before(.place))]
    Nul {
        /// Where the record begins.
        place: Option<String>,
        /// The text between the braces.
        name: String,
    },
}

fn before(place: &Option<String>) -> String {
    place.as_ref().map_or_else(String::new, |place| format!("{place}: "))
}

fn available(names: &[String]) -> String {
    match names.len() {
        0 => "the record has no names; {} is the whole record".to_owned(),
        count if count > SHOWN_NAMES => format!("available: {}, and more", names[..SHOWN_NAMES].join(", ")),
        _ => format!("available: {}", names.join(", ")),
    }
}

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Piece {
    /// Text as typed, with doubled braces replaced by single ones.
    Text(String),
    /// The value at this index.
    Field(u32),
    Number,
    Slot,
}

type Word = Vec<Piece>;

/// The value of a record that a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Field {
    /// The text between the braces.
    name: String,
    base: Base,
    part: PathPart,
    /// Whether a record without such a value is an error.
    must_be: bool,
    /// Whether it is used where zero bytes are not allowed.
    in_words: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Base {
    Record,
    Position(usize),
    Name(String),
}

/// The command of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum TemplateCommand {
    Program(Vec<Word>),
    /// A script for `/bin/sh`. Each piece comes with the quotes that are open at its place.
    Script(Vec<(Quotes, Piece)>),
    /// The record is the script.
    Record(Word),
}

/// Words with placeholders, ready to be bound to records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    run: TemplateCommand,
    stdin: Option<Word>,
    cwd: Option<Word>,
    env: Vec<(String, Word)>,
    tag: Option<Word>,
    fields: Vec<Field>,
}

/// The values of one record that a template uses. `None`: a pair of braces that stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values(Vec<Option<String>>);

/// The numbers of a job that placeholders stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobNumbers {
    /// The job's number, from 1.
    pub number: u64,
    /// The slot it runs in, from 1.
    pub slot: u64,
}

/// The words for one job, with all placeholders replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Its standard input.
    pub stdin: Option<String>,
    /// The folder where it runs.
    pub cwd: Option<String>,
    /// Variables added to its environment.
    pub env: Vec<(String, String)>,
    /// The prefix of each line of its output.
    pub tag: Option<String>,
}

impl Template {
    /// Parses the words.
    ///
    /// # Errors
    /// If there is no command, or a placeholder stands where a value cannot stand safely.
    pub fn parse(words: &Words<'_>) -> Result<Template, TemplateError> {
        parse::template(words)
    }

    /// Returns the values of this record that the words use.
    ///
    /// # Errors
    /// If the record does not have one, or one cannot be passed to a program.
    pub fn bind(&self, record: &(impl Fields + ?Sized)) -> Result<Values, BindError> {
        let values = self.fields.iter().map(|field| {
            let value = field.of(record);
            match &value {
                None if field.must_be => {
                    Err(BindError::Missing { place: record.place(), name: field.name.clone(), names: record.names() })
                }
                Some(value) if field.in_words && value.contains('\0') => {
                    Err(BindError::Nul { place: record.place(), name: field.name.clone() })
                }
                None | Some(_) => Ok(value),
            }
        });
        values.collect::<Result<_, _>>().map(Values)
    }

    /// Returns the program if its name does not depend on the record, so that it can be looked for before anything starts.
    pub fn program(&self) -> Option<&str> {
        match &self.run {
            TemplateCommand::Program(words) => match words.first().map(Vec::as_slice) {
                Some([Piece::Text(program)]) => Some(program),
                _ => None,
            },
            TemplateCommand::Script(_) | TemplateCommand::Record(_) => Some(shell::SHELL),
        }
    }

    /// Whether a word contains the job's number.
    pub(crate) fn uses_number(&self) -> bool {
        let in_word = |word: &Word| word.contains(&Piece::Number);
        let in_command = match &self.run {
            TemplateCommand::Program(words) => words.iter().any(in_word),
            TemplateCommand::Script(script) => script.iter().any(|(_, piece)| *piece == Piece::Number),
            TemplateCommand::Record(record) => in_word(record),
        };
        let others = self.stdin.iter().chain(&self.cwd).chain(&self.tag).chain(self.env.iter().map(|(_, word)| word));
        in_command || others.into_iter().any(in_word)
    }

    /// Returns the words for one job.
    pub fn fill(&self, values: &Values, numbers: &JobNumbers) -> Filled {
        let filler = Filler { fields: &self.fields, values: &values.0, numbers };
        let word = |word: &Word| filler.word(word);
        let command = match &self.run {
            TemplateCommand::Program(words) => words.iter().map(word).collect(),
            TemplateCommand::Script(script) => shell::command(filler.script(script)),
            TemplateCommand::Record(record) => shell::command(filler.word(record)),
        };
        Filled {
            command,
            stdin: self.stdin.as_ref().map(word),
            cwd: self.cwd.as_ref().map(word),
            env: self.env.iter().map(|(name, value)| (name.clone(), filler.word(value))).collect(),
            tag: self.tag.as_ref().map(word),
        }
    }
}

impl Field {
    fn of(&self, record: &(impl Fields + ?Sized)) -> Option<String> {
        // A column with exactly this name wins over a part of another column's value.
        if self.part != PathPart::Whole && !matches!(self.base, Base::Record) {
            if let Some(value) = record.named(&self.name) {
                return Some(value.into_owned());
            }
        }
        let value = match &self.base {
            Base::Record => Some(record.text()),
            Base::Name(name) => record.named(name),
            Base::Position(position) => record.at(*position).or_else(|| record.named(&position.to_string())),
        };
        Some(self.part.of(value?))
    }
}

/// Puts the values of one job into words.
struct Filler<'a> {
    fields: &'a [Field],
    values: &'a [Option<String>],
    numbers: &'a JobNumbers,
}

impl Filler<'_> {
    fn word(&self, word: &Word) -> String {
        let mut filled = String::new();
        for part in word {
            match (part, self.value(part)) {
                (_, Some(value)) => filled.push_str(&value),
                (part, None) => filled.push_str(&self.typed(part)),
            }
        }
        filled
    }

    /// Returns the value of a placeholder; `None` for text, and for braces that stay as they are.
    fn value(&self, part: &Piece) -> Option<Cow<'_, str>> {
        match part {
            Piece::Text(_) => None,
            Piece::Field(index) => self.values.get(*index as usize)?.as_deref().map(Cow::Borrowed),
            Piece::Number => Some(self.numbers.number.to_string().into()),
            Piece::Slot => Some(self.numbers.slot.to_string().into()),
        }
    }

    /// Returns a piece as it was typed.
    fn typed<'p>(&self, part: &'p Piece) -> Cow<'p, str> {
        match part {
            Piece::Text(text) => Cow::Borrowed(text),
            Piece::Field(index) => {
                let name = self.fields.get(*index as usize).map_or("", |field| &field.name);
                format!("{{{name}}}").into()
            }
            Piece::Number => "{#}".into(),
            Piece::Slot => "{%}".into(),
        }
    }
}

impl Filled {
    /// Returns the job as a line that can be pasted into a shell.
    pub fn shown(&self) -> String {
        shell::line(self)
    }
}
