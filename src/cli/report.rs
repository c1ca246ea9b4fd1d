//! `rankpool report`: what a journal or a job log says about a run, as a page, as text, or as a row for each job.

use std::borrow::Cow;

use super::args::{Form, ReportArgs};
use super::config::Config;
use crate::console;
use crate::journal::job::text_of;
use crate::journal::{JournalError, Spec};
use crate::launch::{self, ExitCode};
use crate::output::{Identity, OutputError, Target, Writer};
use crate::report::facts::{Commands, Facts, NamedJob, members};
use crate::report::{html, rows, text};
use crate::template::{Fields, JobNumbers, Template, Words};

pub(super) fn run(config: &Config, args: &ReportArgs) -> ExitCode {
    if !launch::is_first() {
        return ExitCode::Success;
    }
    let target = &config.batch().output;
    match write(target, args) {
        Ok(()) => ExitCode::Success,
        Err(Refused::Journal(error)) => {
            console::eprint_error(advised(&error));
            if matches!(error, JournalError::Io { .. }) { ExitCode::Failure } else { ExitCode::Usage }
        }
        Err(Refused::Usage(message)) => {
            console::eprint_error(message);
            ExitCode::Usage
        }
        // A reader that has gone away is not an error.
        Err(Refused::Output(error)) if error.is_closed() => ExitCode::Success,
        Err(Refused::Output(error)) => {
            console::eprint_error(error);
            ExitCode::Failure
        }
    }
}

/// Why there is no report.
enum Refused {
    Journal(JournalError),
    Output(OutputError),
    Usage(String),
}

/// Returns the message about a file that cannot be read.
fn advised(error: &JournalError) -> String {
    match error {
        JournalError::NotAJournal(path) => format!(
            "{} is neither a journal nor a job log: give a file that a run has written with --journal FILE or --records FILE",
            path.display()
        ),
        JournalError::Io { path, source } => {
            format!("cannot read {}: {}", path.display(), console::reason(source))
        }
        other => other.to_string(),
    }
}

fn write(target: &Target, args: &ReportArgs) -> Result<(), Refused> {
    if let Target::File(path) = target {
        if Identity::of(path).is_same(&Identity::of(&args.file)) {
            let name = path.display();
            return Err(Refused::Usage(format!(
                "--output would overwrite {name}, which the report is made of: give another name"
            )));
        }
    }
    let form = args.form.form(matches!(target, Target::File(_)));
    let facts = match form {
        Form::Html | Form::Text => Some(Facts::read(&args.file, &Again).map_err(Refused::Journal)?),
        Form::Csv | Form::Json => None,
    };
    let rows = match form {
        Form::Html | Form::Text => None,
        Form::Csv | Form::Json => Some(rows::Rows::open(&args.file).map_err(Refused::Journal)?),
    };
    // The output is opened when the file was found to be one that can be read.
    let mut writer = Writer::open(target).map_err(Refused::Output)?;
    let write = |writer: &mut Writer, bytes: &[u8]| writer.write_all(bytes).map_err(Refused::Output);
    match (form, facts, rows) {
        (Form::Html, Some(facts), _) => write(&mut writer, html::page(&facts).as_bytes())?,
        (Form::Text, Some(facts), _) => write(&mut writer, text::text(&facts).as_bytes())?,
        (_, _, Some(rows)) => {
            let mut failure = None;
            let mut take = |bytes: &[u8]| {
                failure = write(&mut writer, bytes).err();
                failure.is_none()
            };
            let written = if form == Form::Csv { rows.csv(&mut take) } else { rows.json(&mut take) };
            written.map_err(Refused::Journal)?;
            failure.map_or(Ok(()), Err)?;
        }
        _ => {}
    }
    writer.finish().map_err(Refused::Output)
}

/// The commands that run jobs again, from what the journal has of the run.
struct Again;

impl Commands for Again {
    fn failed_jobs(&self, facts: &Facts) -> Option<String> {
        let command = facts.last_run()?.about.command.as_deref()?;
        let words = shlex::split(command)?;
        // The first one is an option of ours; words of the job's command or of a script stand behind it.
        let at = words.iter().position(|word| word == "--journal" || word.starts_with("--journal="))?;
        let has = |option: &str| words.iter().take_while(|word| *word != "--").any(|word| word == option);
        let mut new = words[..at].to_vec();
        new.extend(["--resume", "--retry-failed"].into_iter().filter(|option| !has(option)).map(str::to_string));
        new.extend_from_slice(&words[at..]);
        let command = shlex::try_join(new.iter().map(String::as_str)).ok()?;
        let folder = facts.last_run().and_then(|run| run.about.folder.as_deref());
        Some(folder.map_or(command.clone(), |folder| format!("cd {} && {command}", quoted(folder))))
    }

    fn job(&self, facts: &Facts, job: &NamedJob) -> Option<String> {
        let input = job.input.as_deref()?;
        let value = |name: &str| value_of(&facts.spec, name);
        if let Some(command) = value("command") {
            return filled(&facts.spec, command, job.number, input);
        }
        // A Python function, or another worker, gets the record as a line of JSON.
        let mut words: Vec<String> = vec!["rankpool".into(), "map".into(), "--input".into(), "-".into()];
        words.extend(["--format", "jsonl"].map(str::to_string));
        for option in ["--python", "--setup", "--cwd"] {
            words.extend(value(option).into_iter().flat_map(|value| [option.to_string(), value.to_string()]));
        }
        words.extend(
            ["--star", "--text", "--worker-ids"]
                .iter()
                .filter(|option| value(option).is_some())
                .map(ToString::to_string),
        );
        match (value("--python"), value("worker")) {
            (Some(_), _) => {}
            (None, Some(worker)) => {
                words.push("--".into());
                words.extend(shlex::split(worker)?);
            }
            (None, None) => return None,
        }
        let command = shlex::try_join(words.iter().map(String::as_str)).ok()?;
        Some(format!("echo {} | {command}", quoted(input)))
    }
}

fn value_of<'s>(spec: &'s Spec, name: &str) -> Option<&'s str> {
    spec.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
}

fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| text.to_string(), Cow::into_owned)
}

/// Returns the command of a job with its values filled in, quoted for a shell.
fn filled(spec: &Spec, command: &str, number: u64, input: &str) -> Option<String> {
    let (command, env) = (shlex::split(command)?, shlex::split(value_of(spec, "--env").unwrap_or_default())?);
    let words = Words {
        command: &command,
        shell: value_of(spec, "--shell").is_some(),
        stdin: value_of(spec, "--stdin"),
        cwd: value_of(spec, "--cwd"),
        env: &env,
        tag: None,
    };
    let template = Template::parse(&words).ok()?;
    let values = template.bind(&Recorded(serde_json::from_str(input).ok()?)).ok()?;
    Some(template.fill(&values, &JobNumbers { number, slot: 1 }).shown())
}

/// A record as an entry has it.
struct Recorded<'a>(&'a serde_json::value::RawValue);

impl Fields for Recorded<'_> {
    fn text(&self) -> Cow<'_, str> {
        text_of(self.0)
    }

    fn named(&self, name: &str) -> Option<Cow<'_, str>> {
        members(self.0).into_iter().find(|(of, _)| of == name && !of.is_empty()).map(|(_, value)| text_of(value))
    }

    fn at(&self, position: usize) -> Option<Cow<'_, str>> {
        let at = position.checked_sub(1)?;
        if let Ok(list) = serde_json::from_str::<Vec<&serde_json::value::RawValue>>(self.0.get()) {
            return list.get(at).map(|value| text_of(value));
        }
        members(self.0).get(at).map(|(_, value)| text_of(value))
    }

    fn names(&self) -> Vec<String> {
        members(self.0).into_iter().map(|(name, _)| name).filter(|name| !name.is_empty()).collect()
    }
}
