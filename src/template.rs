//! What a record makes of the words that were typed: replacement in a command, its stdin, folder, environment and tag.
//!
//! | placeholder | stands for |
//! |---|---|
//! | `{}` | the record |
//! | `{.}` `{/}` `{//}` `{/.}` | without its extension, its last part, its folder, its last part without extension |
//! | `{name}` | the value of a column or key |
//! | `{2}` | the second value; if the record has no such position, a column called `2` |
//! | `{name.}` `{2/}` `{2//}` … | as above, of that value; a column that is really called `name.` wins |
//! | `{#}` `{%}` | the job's number, the slot it runs in |
//! | `{{` and its `}}` | `{` and `}` |
//!
//! `{}` always counts. Other braces are placeholders only if what is between them can be a name: it begins with a letter or
//! `_` and goes on with letters, digits, `_`, `-` and `.`, or is a number from 1. Such a one that the record does not have
//! is an error. Whatever else can be between braces (`{a b}`, `{1..5}`) is replaced if a column is really called so, and
//! otherwise stays, as do JSON (`{"x":1}`), awk (`{print $1}`) and all braces behind a dollar sign (`${HOME}`). `}}` is one
//! brace only where it closes a `{{`, so that nested JSON stays as it is.
//!
//! A command without placeholders gets nothing appended, unlike with xargs and GNU parallel: `--range 1:100 -- ./simulate`
//! runs it a hundred times, and a forgotten `{}` is seen at the first look at `--dry-run`.
//!
//! The room is in two halves. The driver parses the words once and binds them to each record; only the values that the
//! words use travel. The rank fills them in. Nothing is started here.

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

/// How many of a record's names an error lists.
const SHOWN_NAMES: usize = 20;

/// What replacement asks of a record.
pub trait Fields {
    /// The whole record.
    fn text(&self) -> Cow<'_, str>;
    /// The value of a column or key.
    fn named(&self, name: &str) -> Option<Cow<'_, str>>;
    /// The value at a position, from 1.
    fn at(&self, position: usize) -> Option<Cow<'_, str>>;
    /// Its column names or keys, for the message that one is not there.
    fn names(&self) -> Vec<String>;
    /// Where it begins, as `jobs.csv:17`.
    fn place(&self) -> Option<String> {
        None
    }
}

/// What was typed.
#[derive(Clone, Debug, Default)]
pub struct Words<'a> {
    /// The command and its arguments.
    pub command: &'a [String],
    /// Whether the command is a script for `/bin/sh`: its words joined by blanks.
    pub shell: bool,
    /// What the command reads.
    pub stdin: Option<&'a str>,
    /// Where it runs.
    pub cwd: Option<&'a str>,
    /// `NAME=VALUE`, with placeholders in the value.
    pub env: &'a [String],
    /// What stands before each line of its output.
    pub tag: Option<&'a str>,
}

/// Why the words make no template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is nothing to run.
    #[error("no command to run; write it behind `--`, as in `rankpool run --input files.txt -- gzip {{}}`")]
    NoCommand,
    /// A word for the environment that is none.
    #[error("'{0}' sets no variable; write NAME=VALUE")]
    Variable(String),
    /// No system call takes it.
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
    /// A script gives a value to another interpreter as a part of its code.
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
    #[error("{}no column, key or position '{name}' for {{{name}}} ({}); if the braces are meant as they are, write {{{{{name}}}}}",
        before(.place), there_is(.names))]
    Missing {
        /// Where the record begins.
        place: Option<String>,
        /// What is between the braces.
        name: String,
        /// The names that are there.
        names: Vec<String>,
    },
    /// No system call takes it.
    #[error("{}the value of {{{name}}} contains a zero byte, which no program can be given as an argument; \
        `--stdin {{{name}}}` can pass it on", before(.place))]
    Nul {
        /// Where the record begins.
        place: Option<String>,
        /// What is between the braces.
        name: String,
    },
}

fn before(place: &Option<String>) -> String {
    place.as_ref().map_or_else(String::new, |place| format!("{place}: "))
}

fn there_is(names: &[String]) -> String {
    match names.len() {
        0 => "the record has no names; {} is the whole record".to_owned(),
        count if count > SHOWN_NAMES => format!("there is: {}, and more", names[..SHOWN_NAMES].join(", ")),
        _ => format!("there is: {}", names.join(", ")),
    }
}

/// One piece of a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Part {
    /// As it was typed, with the doubled braces undone.
    Text(String),
    /// The value at this index.
    Field(u32),
    Number,
    Slot,
}

type Word = Vec<Part>;

/// What a placeholder asks of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Field {
    /// What is between the braces.
    name: String,
    base: Base,
    part: PathPart,
    /// Whether it is an error that the record has no such value.
    must_be: bool,
    /// Whether it is used where no zero byte can be.
    in_words: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Base {
    Record,
    Position(usize),
    Name(String),
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Run {
    Program(Vec<Word>),
    /// What `/bin/sh` reads. Each part comes with the quotes that are open where it stands.
    Script(Vec<(Quotes, Part)>),
    /// The record is the script.
    Record(Word),
}

/// Words with placeholders, ready to be bound to records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    run: Run,
    stdin: Option<Word>,
    cwd: Option<Word>,
    env: Vec<(String, Word)>,
    tag: Option<Word>,
    fields: Vec<Field>,
}

/// The values of one record that a template uses. A `None` is a pair of braces that stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values(Vec<Option<String>>);

/// Where a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The job's number, from 1.
    pub number: u64,
    /// The slot it runs in, from 1.
    pub slot: u64,
}

/// What a job runs, with nothing left to replace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// What it reads.
    pub stdin: Option<String>,
    /// Where it runs.
    pub cwd: Option<String>,
    /// What is added to its environment.
    pub env: Vec<(String, String)>,
    /// What stands before each line of its output.
    pub tag: Option<String>,
}

impl Template {
    /// Reads the words, once.
    ///
    /// # Errors
    /// If there is no command, or a placeholder stands where no value can stand safely.
    pub fn parse(words: &Words<'_>) -> Result<Template, TemplateError> {
        parse::template(words)
    }

    /// The values of this record that the words use.
    ///
    /// # Errors
    /// If the record does not have one, or one cannot be given to a program.
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

    /// The program that is run for every record, if its name does not depend on the record: it can be looked for before
    /// anything starts.
    pub fn program(&self) -> Option<&str> {
        match &self.run {
            Run::Program(words) => match words.first().map(Vec::as_slice) {
                Some([Part::Text(program)]) => Some(program),
                _ => None,
            },
            Run::Script(_) | Run::Record(_) => Some(shell::SHELL),
        }
    }

    /// The words for one job.
    pub fn fill(&self, values: &Values, place: &Place) -> Filled {
        let filler = Filler { fields: &self.fields, values: &values.0, place };
        let word = |word: &Word| filler.word(word);
        let command = match &self.run {
            Run::Program(words) => words.iter().map(word).collect(),
            Run::Script(script) => shell::command(filler.script(script)),
            Run::Record(record) => shell::command(filler.word(record)),
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
        // A column that is really called so wins over the part of another's value.
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
    place: &'a Place,
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

    /// The value of a placeholder; `None` for text, and for braces that stay as they are.
    fn value(&self, part: &Part) -> Option<Cow<'_, str>> {
        match part {
            Part::Text(_) => None,
            Part::Field(index) => self.values.get(*index as usize)?.as_deref().map(Cow::Borrowed),
            Part::Number => Some(self.place.number.to_string().into()),
            Part::Slot => Some(self.place.slot.to_string().into()),
        }
    }

    /// A part as it was typed.
    fn typed<'p>(&self, part: &'p Part) -> Cow<'p, str> {
        match part {
            Part::Text(text) => Cow::Borrowed(text),
            Part::Field(index) => {
                let name = self.fields.get(*index as usize).map_or("", |field| &field.name);
                format!("{{{name}}}").into()
            }
            Part::Number => "{#}".into(),
            Part::Slot => "{%}".into(),
        }
    }
}

impl Filled {
    /// The job as a line that a shell runs as it is.
    pub fn shown(&self) -> String {
        shell::line(self)
    }
}
