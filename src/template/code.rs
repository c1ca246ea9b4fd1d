//! Finds placeholders in code that a script passes to another interpreter: `sh -c 'wc {}'`, `ssh host wc {}`.
//!
//! The script's own shell never reads a value as code. The other interpreter does, because the value is a part of its program. So
//! such a placeholder is refused, unless it is all of the code: then the records are meant to be programs.

use super::Piece;

/// A placeholder in code for another interpreter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The interpreter, as `sh -c`.
    pub reader: String,
    /// How to pass the value instead.
    pub advice: &'static str,
}

const AS_ARGUMENT: &str = "pass it as an argument: sh -c 'wc -l < \"$1\"' _ {}";
const AS_PYTHON_ARGUMENT: &str = "pass it as an argument: python3 -c 'import sys; print(sys.argv[1])' {}";
const AS_ITEM: &str = "pass it as an argument behind the code, which finds it in its list of arguments";
const AS_VARIABLE: &str = "pass it as a variable: awk -v x={} 'BEGIN { print x }'";
const AS_INPUT: &str = "pass it as input: --stdin {}, and code that reads it: ssh HOST 'read -r x; wc -l < \"$x\"'";
const WITHOUT: &str = "leave out that command: the rest of the line can stand in the script itself";

const SHELLS: [&str; 13] =
    ["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "yash", "fish", "csh", "tcsh", "rbash", "posh"];
/// Programs that run the argument of `-c` in a shell.
const RUNNERS: [&str; 4] = ["su", "runuser", "script", "flock"];
/// Interpreters, each with the letters of the options whose argument is code.
const LANGUAGES: [(&str, &str); 11] = [
    ("python", "c"),
    ("pypy", "c"),
    ("perl", "eE"),
    ("ruby", "e"),
    ("node", "ep"),
    ("php", "rBRE"),
    ("lua", "e"),
    ("Rscript", "e"),
    ("julia", "eE"),
    ("octave", "l"),
    ("guile", "c"),
];
const AWKS: [&str; 5] = ["awk", "gawk", "mawk", "nawk", "original-awk"];
/// Words that may stand before a command's name.
const BEFORE: [&str; 29] = [
    "if", "then", "elif", "else", "while", "until", "do", "!", "{", "time", "exec", "command", "builtin", "env",
    "sudo", "doas", "nohup", "nice", "ionice", "timeout", "setsid", "stdbuf", "xargs", "srun", "taskset", "numactl",
    "chrt", "sshpass", "flock",
];
/// Options of ssh that have an argument.
const OF_SSH: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// A word of a command, without its quotes.
#[derive(Debug, Default)]
struct Word {
    text: String,
    /// Number of placeholders in it, and the index of the last one.
    values: usize,
    last: usize,
}

impl Word {
    /// Whether it mixes values with other text.
    fn is_mixed(&self) -> bool {
        self.values > 1 || (self.values == 1 && !self.text.trim().is_empty())
    }

    fn is_option(&self) -> bool {
        self.values == 0 && self.text.len() > 1 && self.text.starts_with(['-', '+'])
    }

    /// Returns the program's name without its folder.
    fn name(&self) -> &str {
        if self.values > 0 { "" } else { self.text.rsplit('/').next().unwrap_or_default() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// A list of commands: the script itself, or the contents of `$( )` or `` ` ` ``.
struct Level {
    words: Vec<Word>,
    word: Option<Word>,
    quote: Quote,
    /// The character that ends it.
    end: Option<char>,
    /// The index of the last value in it.
    value: Option<usize>,
}

impl Level {
    fn new(end: Option<char>) -> Level {
        Level { words: Vec::new(), word: None, quote: Quote::None, end, value: None }
    }

    fn push(&mut self, character: char) {
        self.word.get_or_insert_default().text.push(character);
    }

    fn value(&mut self, at: usize) {
        let word = self.word.get_or_insert_default();
        word.values += 1;
        word.last = at;
        self.value = Some(at);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }
}

#[derive(Default)]
struct Reader {
    levels: Vec<Level>,
    is_escaped: bool,
    is_dollar: bool,
    is_comment: bool,
    finding: Option<(usize, Finding)>,
}

/// Returns the first placeholder of a script in code for another interpreter. `is_value`: whether a piece stands for a value of a
/// record.
pub(super) fn find<'p>(
    parts: impl Iterator<Item = &'p Piece>,
    is_value: impl Fn(&Piece) -> bool,
) -> Option<(usize, Finding)> {
    let mut reader = Reader { levels: vec![Level::new(None)], ..Reader::default() };
    for (at, part) in parts.enumerate() {
        match part {
            Piece::Text(text) => text.chars().for_each(|character| reader.step(character)),
            part if is_value(part) => reader.value(at),
            // Numbers of rankpool's own, and braces that mostly stay.
            _ => reader.step('0'),
        }
    }
    while !reader.levels.is_empty() {
        reader.leave();
    }
    reader.finding
}

impl Reader {
    fn value(&mut self, at: usize) {
        (self.is_escaped, self.is_dollar) = (false, false);
        if let Some(level) = self.levels.last_mut().filter(|_| !self.is_comment) {
            level.value(at);
        }
    }

    fn step(&mut self, character: char) {
        let is_dollar = std::mem::take(&mut self.is_dollar);
        let Some(level) = self.levels.last_mut() else { return };
        if self.is_comment {
            self.is_comment = character != '\n';
            return;
        }
        if std::mem::take(&mut self.is_escaped) {
            return level.push(character);
        }
        match (level.quote, character) {
            (Quote::Single, '\'') | (Quote::Double, '"') => level.quote = Quote::None,
            (Quote::Single, _) => level.push(character),
            (_, '\\') => self.is_escaped = true,
            (_, '(') if is_dollar => self.levels.push(Level::new(Some(')'))),
            (_, '`') if level.end == Some('`') => self.leave(),
            (_, '`') => self.levels.push(Level::new(Some('`'))),
            (Quote::Double, _) => {
                self.is_dollar = character == '$';
                level.push(character);
            }
            (Quote::None, _) => self.unquoted(character),
        }
    }

    fn unquoted(&mut self, character: char) {
        let Some(level) = self.levels.last_mut() else { return };
        match character {
            '\'' | '"' => {
                level.quote = if character == '"' { Quote::Double } else { Quote::Single };
                level.word.get_or_insert_default();
            }
            ' ' | '\t' | '<' | '>' => level.end_word(),
            '\n' | ';' | '&' | '|' => self.end_command(),
            '(' => {
                self.end_command();
                self.levels.push(Level::new(Some(')')));
            }
            ')' if level.end == Some(')') => self.leave(),
            ')' => self.end_command(),
            '#' if level.word.is_none() => self.is_comment = true,
            _ => {
                self.is_dollar = character == '$';
                level.push(character);
            }
        }
    }

    fn end_command(&mut self) {
        let Some(level) = self.levels.last_mut() else { return };
        level.end_word();
        let words = std::mem::take(&mut level.words);
        let last = words.iter().filter(|word| word.values > 0).map(|word| word.last).max();
        self.finding = self.finding.take().or_else(|| last.zip(check(&words)));
    }

    /// Ends a list of commands. Its output becomes a part of the word in which it stands.
    fn leave(&mut self) {
        self.end_command();
        let left = self.levels.pop();
        if let (Some(left), Some(level)) = (left, self.levels.last_mut()) {
            if let Some(at) = left.value {
                level.value(at);
            }
        }
    }
}

/// Checks whether a command passes code with a value in it to an interpreter.
fn check(words: &[Word]) -> Option<Finding> {
    words.iter().enumerate().find_map(|(at, word)| {
        let (name, rest) = (word.name(), &words[at + 1..]);
        let found = |what: &str, advice| Some(Finding { reader: format!("{name}{what}"), advice });
        let is_command = words[..at].iter().all(is_before);
        let language = LANGUAGES.iter().find(|(language, _)| is_version_of(name, language));
        if SHELLS.contains(&name) {
            shell_code(rest).filter(|code| code.is_mixed()).and_then(|_| found(" -c", AS_ARGUMENT))
        } else if RUNNERS.contains(&name) {
            let code = rest.iter().position(|word| is_short(word, "c") || word.text == "--command");
            let attached = rest.iter().any(|word| word.text.starts_with("--command=") && word.is_mixed());
            let is_code = code.and_then(|at| rest.get(at + 1)).is_some_and(Word::is_mixed) || attached;
            is_code.then(|| found(" -c", AS_ARGUMENT)).flatten()
        } else if let Some((_, options)) = language {
            let advice = if *options == "c" { AS_PYTHON_ARGUMENT } else { AS_ITEM };
            language_code(rest, options).and_then(|option| found(&format!(" {option}"), advice))
        } else if AWKS.contains(&name) {
            awk_code(rest).filter(|code| code.is_mixed()).and_then(|_| found("", AS_VARIABLE))
        } else if ["eval", "watch"].contains(&name) && is_command {
            is_joined(rest).then(|| found("", WITHOUT)).flatten()
        } else if ["ssh", "rsh", "slogin"].contains(&name) && is_command {
            is_joined(behind_host(rest)).then(|| found("", AS_INPUT)).flatten()
        } else {
            None
        }
    })
}

/// Whether a value is a part of the code that is made of these words, joined by blanks.
fn is_joined(words: &[Word]) -> bool {
    words.iter().any(|word| word.values > 0) && (words.len() > 1 || words.iter().any(Word::is_mixed))
}

/// Whether a command's name may follow this word.
fn is_before(word: &Word) -> bool {
    let is_assignment = word.text.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
    });
    let is_number = word.text.starts_with(|first: char| first.is_ascii_digit());
    is_assignment || word.is_option() || is_number || BEFORE.contains(&word.name())
}

/// Whether it is a group of one-letter options with one of these letters.
fn is_short(word: &Word, letters: &str) -> bool {
    word.is_option() && !word.text.starts_with("--") && word.text[1..].contains(|letter| letters.contains(letter))
}

/// Returns the code among the arguments of a shell.
fn shell_code(words: &[Word]) -> Option<&Word> {
    let mut words = words.iter();
    let mut is_code = false;
    while let Some(word) = words.next() {
        match &*word.text {
            "--rcfile" | "--init-file" if word.values == 0 => drop(words.next()),
            text if word.is_option() => {
                is_code |= is_short(word, "c");
                // The next word names an option of the shell.
                if !text.starts_with("--") && text.ends_with(['o', 'O']) {
                    words.next();
                }
            }
            // Without `-c` it is a file.
            _ => return Some(word).filter(|_| is_code),
        }
    }
    None
}

fn is_version_of(name: &str, language: &str) -> bool {
    let is_version =
        |rest: &str| rest.chars().all(|character| character.is_ascii_digit() || matches!(character, '.' | 'w'));
    name.strip_prefix(language).is_some_and(is_version) || (name == "nodejs" && language == "node")
}

/// Returns the option whose argument is code with a value in it.
fn language_code(words: &[Word], options: &str) -> Option<String> {
    let mut has_argument = false;
    for (at, word) in words.iter().enumerate() {
        if !word.text.starts_with('-') {
            if std::mem::take(&mut has_argument) {
                continue;
            }
            // A file and its arguments.
            return None;
        }
        has_argument = ["-I", "-M", "-W", "-X", "-r", "-d", "-l", "-m"].contains(&&*word.text);
        let is_long = ["--eval", "--print", "--run"].iter().any(|long| word.text.starts_with(long));
        let letters = word.text[1..].split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
        if is_long || letters.contains(|letter| options.contains(letter)) {
            if word.is_mixed() || words.get(at + 1).is_some_and(Word::is_mixed) {
                return Some(if is_long { "--eval".into() } else { format!("-{}", up_to(letters, options)) });
            }
            if options == "c" {
                // The rest are arguments of the code.
                return None;
            }
            has_argument = true;
        }
    }
    None
}

/// Returns the beginning of a text up to the first of these letters.
fn up_to<'t>(text: &'t str, letters: &str) -> &'t str {
    let end = text.find(|letter| letters.contains(letter)).map_or(text.len(), |at| at + 1);
    &text[..end]
}

/// Returns the program among the arguments of awk.
fn awk_code(words: &[Word]) -> Option<&Word> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match &*word.text {
            "-f" | "--file" if word.values == 0 => return None,
            "-v" | "-F" | "--assign" | "--field-separator" if word.values == 0 => drop(words.next()),
            "-e" | "--source" if word.values == 0 => return words.next(),
            text if text.starts_with('-') && text.len() > 1 => {}
            _ => return Some(word),
        }
    }
    None
}

/// Returns the words that ssh runs on the other host.
fn behind_host(words: &[Word]) -> &[Word] {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if !word.is_option() {
            return &words[at + 1..];
        }
        let has_argument = word.text.len() == 2 && OF_SSH.contains(&word.text[1..]);
        at += 1 + usize::from(has_argument);
    }
    &[]
}
