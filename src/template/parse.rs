//! Finds the placeholders in the words of a command.

use super::code;
use super::path::PathPart;
use super::shell::Track;
use super::{Base, Field, Piece, Template, TemplateCommand, TemplateError, Word, Words};

pub(super) fn template(words: &Words<'_>) -> Result<Template, TemplateError> {
    if words.command.first().is_none_or(String::is_empty) {
        return Err(TemplateError::NoCommand);
    }
    let mut parser = Parser::default();
    let run = if words.shell {
        let script = words.command.join(" ");
        if script.trim() == "{}" {
            TemplateCommand::Record(parser.word(script.trim(), true)?)
        } else {
            parser.script(&script)?
        }
    } else {
        TemplateCommand::Program(words.command.iter().map(|word| parser.word(word, true)).collect::<Result<_, _>>()?)
    };
    let cwd = words.cwd.map(|folder| parser.word(folder, true)).transpose()?;
    let env = words.env.iter().map(|word| parser.variable(word)).collect::<Result<_, _>>()?;
    let stdin = words.stdin.map(|text| parser.word(text, false)).transpose()?;
    let tag = words.tag.map(|text| parser.word(text, false)).transpose()?;
    Ok(Template { run, stdin, cwd, env, tag, fields: parser.fields })
}

#[derive(Default)]
struct Parser {
    fields: Vec<Field>,
}

impl Parser {
    fn variable(&mut self, word: &str) -> Result<(String, Word), TemplateError> {
        match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), self.word(value, true)?)),
            _ => Err(TemplateError::Variable(word.to_owned())),
        }
    }

    fn script(&mut self, text: &str) -> Result<TemplateCommand, TemplateError> {
        let mut track = Track::default();
        let mut script = Vec::new();
        for part in self.word(text, true)? {
            let quotes = match &part {
                Piece::Text(text) => {
                    track.text(text);
                    track.quotes()
                }
                placeholder => {
                    let quotes = track.placeholder().map_err(|(place, advice)| TemplateError::Shell {
                        placeholder: self.typed(placeholder),
                        place,
                        advice,
                    })?;
                    // The shell reads braces that stay as they are.
                    if let Piece::Field(index) = placeholder {
                        if !self.fields[*index as usize].must_be {
                            track.text(&self.typed(placeholder));
                        }
                    }
                    quotes
                }
            };
            script.push((quotes, part));
        }
        if let Some((at, finding)) = code::find(script.iter().map(|(_, part)| part), |part| self.is_value(part)) {
            let placeholder = script.get(at).map_or_else(String::new, |(_, part)| self.typed(part));
            let code::Finding { reader, advice } = finding;
            return Err(TemplateError::Code { placeholder, reader, advice });
        }
        Ok(TemplateCommand::Script(script))
    }

    /// Whether it certainly becomes a value of a record.
    fn is_value(&self, part: &Piece) -> bool {
        matches!(part, Piece::Field(index) if self.fields[*index as usize].must_be)
    }

    fn typed(&self, placeholder: &Piece) -> String {
        match placeholder {
            Piece::Field(index) => format!("{{{}}}", self.fields[*index as usize].name),
            Piece::Number => "{#}".to_owned(),
            Piece::Slot => "{%}".to_owned(),
            Piece::Text(text) => text.clone(),
        }
    }

    /// Parses a word. `in_words`: it becomes an argument or the like, where zero bytes are not allowed.
    fn word(&mut self, typed: &str, in_words: bool) -> Result<Word, TemplateError> {
        if in_words && typed.contains('\0') {
            return Err(TemplateError::Nul);
        }
        let mut word = Word::new();
        let mut text = String::new();
        let mut doubled = 0;
        let mut rest = typed;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{") {
                doubled += 1;
                text.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}").filter(|_| doubled > 0) {
                doubled -= 1;
                text.push('}');
                rest = after;
            } else if let Some((part, after)) = self.placeholder(rest, text.ends_with('$'), in_words) {
                if !text.is_empty() {
                    word.push(Piece::Text(std::mem::take(&mut text)));
                }
                word.push(part);
                rest = after;
            } else {
                text.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
        text.push_str(rest);
        // An empty word has one piece, too.
        if !text.is_empty() || word.is_empty() {
            word.push(Piece::Text(text));
        }
        Ok(word)
    }

    /// Parses a placeholder at the beginning of `rest`; returns it and the text after it. `is_variable`: a dollar sign is before it.
    fn placeholder<'a>(&mut self, rest: &'a str, is_variable: bool, in_words: bool) -> Option<(Piece, &'a str)> {
        let inside = rest.strip_prefix('{')?;
        let (name, after) = inside.split_at(inside.find(['{', '}'])?);
        let after = after.strip_prefix('}')?;
        if is_variable && !name.is_empty() {
            return None;
        }
        let part = match name {
            "#" => Piece::Number,
            "%" => Piece::Slot,
            _ => Piece::Field(self.field(name, in_words)?),
        };
        Some((part, after))
    }

    /// Returns the index of a field, which is added if it is new; `None` if the name cannot be that of a field.
    fn field(&mut self, name: &str, in_words: bool) -> Option<u32> {
        let index = match self.fields.iter().position(|field| field.name == name) {
            Some(index) => index,
            None => {
                let (base, part) = PathPart::split(name);
                let position = base.parse().ok().filter(|position| *position > 0 && !base.starts_with(['0', '+']));
                let (base, must_be) = match position {
                    _ if base.is_empty() => (Base::Record, true),
                    Some(position) => (Base::Position(position), true),
                    None if is_name(base) => (Base::Name(base.to_owned()), true),
                    None if name.chars().any(is_code) => return None,
                    None => (Base::Name(base.to_owned()), false),
                };
                self.fields.push(Field { name: name.to_owned(), base, part, must_be, in_words });
                self.fields.len() - 1
            }
        };
        self.fields[index].in_words |= in_words;
        u32::try_from(index).ok()
    }
}

/// Whether the text has the form of a column's name.
fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || matches!(character, '_' | '-' | '.'))
}

/// Whether braces around this character are code or data, never a placeholder.
fn is_code(character: char) -> bool {
    character.is_control() || matches!(character, '"' | '\'' | '`' | '\\' | '$' | ';' | '<' | '>' | '|' | '&')
}
