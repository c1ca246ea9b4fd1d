//! Puts values into a script so that the shell never reads them as code, and shows a job as a line of a script.
//!
//! No value is pasted into the text that was typed. The script begins with assignments of quoted values to variables, and each
//! placeholder becomes a reference to its variable:
//!
//! ```text
//! gzip -c {} > "out/{/.}.gz"        as it was typed
//! rankpool_1='my data.txt'; rankpool_2='my data'; gzip -c "${rankpool_1}" > "out/${rankpool_2}.gz"
//! ```
//!
//! So whatever a value contains, the shell never takes it for a command, not even in a here-document, a comment or behind an odd
//! quote, where quoting in place would be wrong. The quotes that are open at a placeholder ([`Track`]) only decide how the
//! reference is written, so that the value stays one word. A value in code for a second interpreter (`eval`, `sh -c "… {}"`, `ssh`)
//! is refused where that is visible (`code`). As dangerous as in any script are values that get there in other ways, and, where
//! `/bin/sh` is bash, values in arithmetic (`$(( ))`).

use serde::{Deserialize, Serialize};

use super::{Filled, Filler, Piece};

/// The shell that runs the scripts.
pub(super) const SHELL: &str = "/bin/sh";

/// The quotes that are open at a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Quotes {
    None,
    Single,
    Double,
}

/// A construct of the shell that is open. The outermost one, a command, has no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// `'…'`
    Single,
    /// `"…"`
    Double,
    /// `# …` up to the end of the line
    Comment,
    /// `$(…)` or `(…)`
    Parentheses,
    /// `` `…` ``
    Backquotes,
    /// `${…}`
    Braces,
    /// The inner parentheses of `$((…))`
    Arithmetic,
}

/// Tracks the quotes of a script.
#[derive(Debug)]
pub(super) struct Track {
    frames: Vec<Frame>,
    /// The character before is an unescaped backslash.
    is_escaped: bool,
    /// The character before is an unescaped dollar sign.
    is_dollar: bool,
    /// The two characters before are `$(`.
    is_substitution: bool,
    /// A `#` would begin a comment here.
    is_word_start: bool,
    /// Number of `<` before this character.
    less: usize,
    here: Here,
}

/// Where the first here-document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    None,
    /// It begins below this line.
    Below,
    /// It has begun.
    Begun,
}

impl Default for Track {
    fn default() -> Track {
        Track {
            frames: Vec::new(),
            is_escaped: false,
            is_dollar: false,
            is_substitution: false,
            is_word_start: true,
            less: 0,
            here: Here::None,
        }
    }
}

impl Track {
    /// Goes on over a text.
    pub(super) fn text(&mut self, text: &str) {
        for character in text.chars() {
            self.step(character);
        }
    }

    /// Returns the quotes that are open.
    pub(super) fn quotes(&self) -> Quotes {
        // A `${…}` has the quotes around it.
        match self.frames.iter().rev().find(|frame| **frame != Frame::Braces) {
            Some(Frame::Single) => Quotes::Single,
            Some(Frame::Double | Frame::Arithmetic) => Quotes::Double,
            Some(Frame::Comment | Frame::Parentheses | Frame::Backquotes | Frame::Braces) | None => Quotes::None,
        }
    }

    /// Goes on over a placeholder; returns the quotes that are open there.
    ///
    /// # Errors
    /// If a value cannot stand here: a description of the place, and what to do.
    pub(super) fn placeholder(&mut self) -> Result<Quotes, (&'static str, &'static str)> {
        if self.is_escaped {
            return Err(("behind a backslash", "leave out the backslash: values are quoted automatically"));
        }
        if self.is_dollar {
            return Err(("behind a dollar sign", "write \\$ for the sign itself"));
        }
        if self.here == Here::Begun {
            return Err(("in or behind a here-document", "give the command its input with --stdin"));
        }
        if self.less == 2 {
            self.here = Here::Below;
        }
        (self.less, self.is_word_start, self.is_substitution) = (0, false, false);
        Ok(self.quotes())
    }

    fn step(&mut self, character: char) {
        let is_dollar = std::mem::take(&mut self.is_dollar);
        let is_substitution = std::mem::take(&mut self.is_substitution);
        let less = std::mem::take(&mut self.less);
        if std::mem::take(&mut self.is_escaped) {
            self.is_word_start = false;
            return;
        }
        match self.frames.last() {
            Some(Frame::Single) => {
                if character == '\'' {
                    self.frames.pop();
                }
                return;
            }
            Some(Frame::Comment) if character != '\n' => return,
            Some(Frame::Comment) => {
                self.frames.pop();
            }
            _ => {}
        }
        let is_command = matches!(self.frames.last(), None | Some(Frame::Parentheses | Frame::Backquotes));
        if less == 2 && character != '<' && is_command {
            self.here = Here::Below;
        }
        match character {
            '\\' => self.is_escaped = true,
            '$' => self.is_dollar = !is_dollar,
            '(' if is_dollar => {
                self.frames.push(Frame::Parentheses);
                self.is_substitution = true;
            }
            '(' if is_substitution => self.frames.push(Frame::Arithmetic),
            '{' if is_dollar => self.frames.push(Frame::Braces),
            '<' if is_command => self.less = less + 1,
            '#' if is_command && self.is_word_start => self.frames.push(Frame::Comment),
            '\n' if self.here == Here::Below => self.here = Here::Begun,
            '"' | '\'' | '`' | '(' | ')' | '}' => self.bracket(character, is_command),
            _ => {}
        }
        self.is_word_start = character.is_ascii_whitespace() || matches!(character, ';' | '&' | '|' | '(' | ')' | '`');
    }

    /// Goes on over a character that opens or closes a construct.
    fn bracket(&mut self, character: char, is_command: bool) {
        let top = self.frames.last().copied();
        match (character, top) {
            ('"', Some(Frame::Double))
            | (')', Some(Frame::Parentheses | Frame::Arithmetic))
            | ('}', Some(Frame::Braces)) => {
                self.frames.pop();
            }
            ('"', _) if top != Some(Frame::Arithmetic) => self.frames.push(Frame::Double),
            // Between double quotes it has no meaning.
            ('\'', _) if self.quotes() == Quotes::None => self.frames.push(Frame::Single),
            ('`', _) => match self.frames.iter().rposition(|frame| *frame == Frame::Backquotes) {
                Some(at) => self.frames.truncate(at),
                None => self.frames.push(Frame::Backquotes),
            },
            ('(', _) if is_command => self.frames.push(Frame::Parentheses),
            ('(', Some(Frame::Arithmetic)) => self.frames.push(Frame::Arithmetic),
            _ => {}
        }
    }
}

impl Filler<'_> {
    /// Returns the script with its assignments.
    pub(super) fn script(&self, script: &[(Quotes, Piece)]) -> String {
        let mut assignments = String::new();
        let mut body = String::new();
        let mut assigned = Vec::new();
        for (quotes, part) in script {
            let Some(value) = self.value(part) else {
                body.push_str(&self.typed(part));
                continue;
            };
            let name = match part {
                Piece::Field(index) => format!("rankpool_{}", u64::from(*index) + 1),
                Piece::Slot => "rankpool_slot".to_owned(),
                Piece::Number | Piece::Text(_) => "rankpool_number".to_owned(),
            };
            body.push_str(&match quotes {
                Quotes::None => format!("\"${{{name}}}\""),
                Quotes::Single => format!("'\"${{{name}}}\"'"),
                Quotes::Double => format!("${{{name}}}"),
            });
            if !assigned.contains(&part) {
                assigned.push(part);
                assignments.push_str(&format!("{name}={}; ", quoted(&value)));
            }
        }
        assignments + &body
    }
}

/// Returns the command that runs a script.
pub(super) fn command(script: String) -> Vec<String> {
    // With a blank in front the shell does not take it for an option.
    let script = if script.starts_with(['-', '+']) { format!(" {script}") } else { script };
    vec![SHELL.to_owned(), "-c".to_owned(), script]
}

/// Quotes a text as one word of a script.
fn quoted(text: &str) -> String {
    // Zero bytes were refused before, and cannot be passed to a shell.
    let text = text.replace('\0', "");
    shlex::try_quote(&text).map_or_else(|_| "''".to_owned(), |quoted| quoted.into_owned())
}

/// Returns a job as a line that can be pasted into a shell.
pub(super) fn line(job: &Filled) -> String {
    if let Some(folder) = &job.cwd {
        // The next line starts from where this one did.
        let there = line(&Filled { cwd: None, ..job.clone() });
        return format!("(cd -- {} && {there})", quoted(folder));
    }
    let mut line = String::new();
    if let Some(text) = &job.stdin {
        line.push_str(&format!("printf %s {} | ", quoted(text)));
    }
    let is_script = matches!(job.command.as_slice(), [shell, flag, _] if shell == SHELL && flag == "-c");
    let is_alone = job.stdin.is_none() && job.env.is_empty();
    if let ([_, _, script], true) = (job.command.as_slice(), is_script && is_alone) {
        return script.clone();
    }
    let mut words = Vec::new();
    if !job.env.is_empty() {
        words.push("env".to_owned());
        words.extend(job.env.iter().map(|(name, value)| quoted(&format!("{name}={value}"))));
    }
    words.extend(job.command.iter().map(|word| quoted(word)));
    line + &words.join(" ")
}
