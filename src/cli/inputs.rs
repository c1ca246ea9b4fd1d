//! Resolves the options about records: the source of the records of a run.

use super::args::{FormatArg, InputArgs};
use crate::input::{Format, Inputs, Layout, Source, Sweep};

impl InputArgs {
    /// Whether an option names a source of records.
    pub(super) fn has_source(&self) -> bool {
        !self.sources().is_empty()
    }

    /// Takes `--count` if there is no source of records, so that it is the number of jobs.
    pub(super) fn take_lone_count(&mut self) -> Option<u64> {
        if self.has_source() { None } else { self.count.take() }
    }

    /// Returns the records that the options describe; `None` if there are no such options. `fallback` is the format of standard
    /// input and of files with an unknown ending; without it their first byte decides between CSV and JSON Lines.
    ///
    /// # Errors
    /// A sentence, if options contradict each other or have no effect.
    pub(super) fn resolve(self, seed: u64, fallback: Option<Format>) -> Result<Option<Inputs>, String> {
        if self.count.is_some() && self.sample.is_empty() {
            return Err("--count sets the number of samples, so it needs at least one --sample".into());
        }
        match self.sources()[..] {
            [] => {
                return match self.options_of_files().or(self.options_of_records()) {
                    Some(option) => Err(format!(
                        "{option} has no effect without a source of records: add --input, --args, --range, --grid or --sample"
                    )),
                    None => Ok(None),
                };
            }
            ["--input"] => {}
            [source] => {
                if let Some(option) = self.options_of_files() {
                    return Err(format!("{option} is about files: it needs --input, not {source}"));
                }
            }
            [one, other, ..] => {
                return Err(format!("{one} and {other} cannot be combined: all records of a run have one source"));
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
            return Err("--null is about lines: it needs --format lines".into());
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
            return Err(format!("{option} is about tables and lines, but {} is JSON Lines", json.name()));
        }
        Ok(Inputs::files(sources, layout))
    }

    /// Returns an option for each kind of source that is given.
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

/// Returns the names of the options that are given.
fn named<const N: usize>(options: [(bool, &'static str); N]) -> impl Iterator<Item = &'static str> {
    options.into_iter().filter(|(is_given, _)| *is_given).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::args::{self, KernelArgs, TaskArgs};
    use super::*;

    /// Resolves the options behind `kernel square`.
    fn inputs_with(line: &str, fallback: Option<Format>) -> Result<Option<Inputs>, String> {
        let words = ["rankpool", "kernel", "square"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        let args = args::parse(words).map_err(|error| error.to_string())?;
        match args.task {
            TaskArgs::Kernel(kernel) => match kernel.kernel {
                KernelArgs::Square(input) => input.resolve(args.run.seed, fallback),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn texts(line: &str) -> Vec<String> {
        let inputs = inputs_with(line, None).unwrap().unwrap();
        inputs.open().map(|(_, record)| record.unwrap().text().into_owned()).collect()
    }

    #[track_caller]
    fn refused(line: &str, message: &str) {
        let error = inputs_with(line, Some(Format::Lines)).unwrap_err();
        assert!(error.contains(message), "{line}: {error}");
    }

    #[test]
    fn without_input_options_there_are_no_inputs() {
        assert!(inputs_with("--seed 3", None).unwrap().is_none());
    }

    #[test]
    fn words_end_at_the_next_option() {
        assert_eq!(texts("--args 1 -2 x --skip 1"), ["-2", "x"]);
        assert_eq!(texts("--take 2 --args a b c"), ["a", "b"]);
        assert_eq!(texts("--args=a --args b"), ["a", "b"]);
    }

    #[test]
    fn numbers_may_begin_with_a_minus() {
        assert_eq!(texts("--range -1:1"), ["-1", "0", "1"]);
        assert_eq!(texts("--range 1:-1:-1 --take 2"), ["1", "0"]);
    }

    #[test]
    fn grids_and_samples_are_combined_and_depend_on_the_seed() {
        assert_eq!(texts("--grid a=1,2 --grid b=x,y --skip 1"), ["1,y", "2,x", "2,y"]);
        assert_eq!(texts("--grid a=1,2 --sample x=0:0 --count 2"), ["1,0", "1,0", "2,0", "2,0"]);
        let drawn = texts("--sample x=-1.0:1.0 --count 5");
        assert_eq!((drawn.len(), &drawn), (5, &texts("--sample x=-1.0:1.0 --count 5 --seed 0")));
        assert_ne!(drawn, texts("--sample x=-1.0:1.0 --count 5 --seed 1"));
    }

    #[test]
    fn sources_of_two_kinds_cannot_be_mixed() {
        refused("--input f --range 1:3", "--input and --range cannot be combined");
        refused("--args a b --grid x=1", "--args and --grid cannot be combined");
        refused("--range 1:3 --sample x=0:1 --count 3", "--range and --sample cannot be combined");
        refused("--input - --input f --input -", "`--input -` is given twice");
    }

    #[test]
    fn options_without_effect_are_refused() {
        refused("--count 3", "--count sets the number of samples, so it needs at least one --sample");
        refused("--count 3 --grid a=1", "--count sets the number of samples");
        refused("--sample x=0:1", "--sample needs --count N");
        for option in ["--skip 1", "--take 1", "--skip-bad", "--format csv", "--null", "--header", "--no-header"] {
            let name = option.split(' ').next().unwrap_or_default();
            refused(option, &format!("{name} has no effect without a source of records: add --input"));
        }
        refused("--range 1:3 --null", "--null is about files: it needs --input, not --range");
        refused("--grid a=1 --format csv", "--format is about files: it needs --input, not --grid");
        refused("--input f --format csv --null", "--null is about lines: it needs --format lines");
        refused("--input f --header --no-header", "cannot be used with");
        refused(
            "--input f.csv --input g.jsonl --no-header",
            "--no-header is about tables and lines, but g.jsonl is JSON Lines",
        );
    }

    #[test]
    fn wrong_values_are_refused_with_a_sentence() {
        refused("--range 5:1", "invalid value '5:1' for '--range <START:END[:STEP]>': from 5 to 1 it goes down");
        refused("--grid a", "not of the form NAME=V1,V2,…");
        refused("--grid a=1 --grid a=2", "the name 'a' is given twice");
        refused("--sample a=2:1 --count 1", "2 is above 1");
        refused("--input f --format xml", "[possible values: lines, csv, tsv, jsonl]");
        refused("--input f --take -1", "unexpected argument '-1'");
        refused("--args", "a value is required for '--args <WORD>...'");
    }
}
