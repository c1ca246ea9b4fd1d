//! What the input options mean together: where the records of a run come from.

use super::args::{FormatArg, InputArgs};
use crate::input::{Format, Inputs, Layout, Source, Sweep};

impl InputArgs {
    /// Whether it was said where records come from.
    pub(super) fn has_source(&self) -> bool {
        !self.sources().is_empty()
    }

    /// `--count`, if there is nothing that it could count but jobs.
    pub(super) fn take_lone_count(&mut self) -> Option<u64> {
        if self.has_source() { None } else { self.count.take() }
    }

    /// The records that the options ask for; `None` if there are no such options. `fallback` is the format of standard input
    /// and of files whose ending says nothing; without it their first byte decides between CSV and JSON Lines.
    ///
    /// # Errors
    /// A sentence, if options contradict each other or are about nothing.
    pub(super) fn resolve(self, seed: u64, fallback: Option<Format>) -> Result<Option<Inputs>, String> {
        if self.count.is_some() && self.sample.is_empty() {
            return Err("--count says how many samples: it needs at least one --sample".into());
        }
        match self.sources()[..] {
            [] => {
                return match self.options_of_files().or(self.options_of_records()) {
                    Some(option) => Err(format!(
                        "{option} says something about records, but not where they come from: it needs --input, --args, \
                         --range, --grid or --sample"
                    )),
                    None => Ok(None),
                };
            }
            ["--input"] => {}
            [source] => {
                if let Some(option) = self.options_of_files() {
                    return Err(format!("{option} says how files are read: it needs --input, not {source}"));
                }
            }
            [one, other, ..] => {
                return Err(format!(
                    "{one} and {other} cannot be combined: all records of a run come from one of them"
                ));
            }
        }
        let (skip, take, skip_bad) = (self.skip, self.take, self.skip_bad);
        let inputs = if let Some(range) = self.range {
            Inputs::range(range)
        } else if !self.args.is_empty() {
            Inputs::words(self.args)
        } else if !self.input.is_empty() {
            self.files(fallback)?
        } else {
            Inputs::sweep(Sweep::new(self.grid, self.sample, self.count, seed)?)
        };
        let inputs = inputs.skip(skip.unwrap_or(0)).skip_bad(skip_bad);
        Ok(Some(match take {
            Some(take) => inputs.take(take),
            None => inputs,
        }))
    }

    fn files(self, fallback: Option<Format>) -> Result<Inputs, String> {
        let format = self.format.map(|format| match format {
            FormatArg::Lines => Format::Lines,
            FormatArg::Csv => Format::Csv,
            FormatArg::Tsv => Format::Tsv,
            FormatArg::Jsonl => Format::JsonLines,
        });
        if self.null && format.is_some_and(|format| format != Format::Lines) {
            return Err("--null says how lines end: it goes with --format lines".into());
        }
        let header = if self.no_header { Some(false) } else { self.header.then_some(true) };
        let layout = Layout { format, fallback, header, null: self.null };
        let sources: Vec<Source> = self.input.into_iter().map(Source::new).collect();
        if sources.iter().filter(|source| **source == Source::Stdin).count() > 1 {
            return Err("standard input can be read only once: `--input -` is given twice".into());
        }
        let json = sources.iter().find(|source| layout.format_of(source.path()) == Some(Format::JsonLines));
        if let (Some(has_header), Some(json)) = (header, json) {
            let option = if has_header { "--header" } else { "--no-header" };
            return Err(format!("{option} is about tables and lines, and {} is JSON Lines", json.name()));
        }
        Ok(Inputs::files(sources, layout))
    }

    /// Where records come from: one option for each kind of source.
    fn sources(&self) -> Vec<&'static str> {
        let sweep = if self.grid.is_empty() { "--sample" } else { "--grid" };
        named([
            (!self.input.is_empty(), "--input"),
            (!self.args.is_empty(), "--args"),
            (self.range.is_some(), "--range"),
            (!self.grid.is_empty() || !self.sample.is_empty(), sweep),
        ])
        .collect()
    }

    fn options_of_files(&self) -> Option<&'static str> {
        let options = [
            (self.format.is_some(), "--format"),
            (self.null, "--null"),
            (self.header, "--header"),
            (self.no_header, "--no-header"),
        ];
        named(options).next()
    }

    fn options_of_records(&self) -> Option<&'static str> {
        let options = [(self.skip.is_some(), "--skip"), (self.take.is_some(), "--take"), (self.skip_bad, "--skip-bad")];
        named(options).next()
    }
}

/// The names of those options that are given.
fn named<const N: usize>(options: [(bool, &'static str); N]) -> impl Iterator<Item = &'static str> {
    options.into_iter().filter(|(is_given, _)| *is_given).map(|(_, name)| name)
}
