use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// A record of a table.
struct Row {
    text: String,
    columns: Vec<(String, String)>,
}

impl Fields for Row {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.text)
    }

    fn named(&self, name: &str) -> Option<Cow<'_, str>> {
        self.columns.iter().find(|(column, _)| column == name).map(|(_, value)| Cow::Borrowed(value.as_str()))
    }

    fn at(&self, position: usize) -> Option<Cow<'_, str>> {
        self.columns.get(position.checked_sub(1)?).map(|(_, value)| Cow::Borrowed(value.as_str()))
    }

    fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(column, _)| column.clone()).collect()
    }

    fn place(&self) -> Option<String> {
        Some("jobs.csv:17".to_owned())
    }
}

fn row(text: &str, columns: &[(&str, &str)]) -> Row {
    let columns = columns.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Row { text: text.to_owned(), columns }
}

fn line(text: &str) -> Row {
    row(text, &[])
}

const PLACE: JobNumbers = JobNumbers { number: 12, slot: 3 };

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn template(words: &[&str]) -> Template {
    Template::parse(&Words { command: &strings(words), ..Words::default() }).unwrap()
}

fn filled(word: &str, record: &Row) -> String {
    let template = template(&["program", word]);
    template.fill(&template.bind(record).unwrap(), &PLACE).command.remove(1)
}

#[track_caller]
fn assert_filled(record: &Row, expected: &[(&str, &str)]) {
    for (word, expected) in expected {
        assert_eq!(filled(word, record), *expected, "{word}");
    }
}

fn refusal(word: &str, record: &Row) -> String {
    template(&["program", word]).bind(record).unwrap_err().to_string()
}

#[test]
fn every_placeholder_stands_for_its_part_of_the_record() {
    assert_filled(
        &line("data/a.tar.gz"),
        &[
            ("{}", "data/a.tar.gz"),
            ("{.}", "data/a.tar"),
            ("{/}", "a.tar.gz"),
            ("{//}", "data"),
            ("{/.}", "a.tar"),
            ("out/{#}-{%}/{/.}.txt", "out/12-3/a.tar.txt"),
            ("{}{}", "data/a.tar.gzdata/a.tar.gz"),
            ("", ""),
            ("plain", "plain"),
        ],
    );
}

#[test]
fn columns_are_replaced_by_name_and_by_position() {
    let record = row("x", &[("temp", "1.5"), ("file", "a/b.c"), ("ünï", "u"), ("with-dash.dot", "d"), ("_", "low")]);
    assert_filled(
        &record,
        &[
            ("--t={temp}", "--t=1.5"),
            ("{1}/{2}", "1.5/a/b.c"),
            ("{file.} {file/} {file//} {file/.}", "a/b b.c a b"),
            ("{2.} {2/} {2//} {2/.}", "a/b b.c a b"),
            ("{ünï}{with-dash.dot}{_}", "udlow"),
        ],
    );
}

#[test]
fn a_column_that_is_really_called_so_wins() {
    let record =
        row("x", &[("a", "dir/f.txt"), ("a.", "dot"), ("a/", "slash"), ("7", "seven"), ("1", "one"), ("2/", "p")]);
    assert_filled(&record, &[("{a.} {a/} {a//} {7}", "dot slash dir seven")]);
    // A position wins over a column whose name is that number, but not over one whose name is the number and a suffix.
    assert_filled(&record, &[("{1}", "dir/f.txt"), ("{2/}", "p")]);
}

#[test]
fn braces_that_are_no_placeholders_stay_as_they_are() {
    let record = row("r", &[("x", "5"), ("y", "6")]);
    for word in [
        "{a b}",
        "{\"x\":1}",
        "{print $1}",
        "${HOME}",
        "${x}",
        "{0}",
        "{01}",
        "{-1}",
        "{1..5}",
        "{x,y}",
        "{",
        "}",
        "}}",
        "{x",
        "x}",
        "{\n}",
        "{ x }",
        "{=x=}",
        "{##}",
        "{\"a\":{\"b\":1}}",
        "{'x'}",
        "{+1}",
        "{99999999999999999999999}",
        "a}b{c",
        "{$x}",
        "{x y;}",
    ] {
        assert_eq!(filled(word, &record), word);
    }
}

#[test]
fn doubled_braces_are_braces() {
    let record = row("r", &[("x", "5")]);
    assert_filled(
        &record,
        &[
            ("{{x}}", "{x}"),
            ("{{}}", "{}"),
            ("{{{x}}}", "{5}"),
            ("{\"a\":{x}}", "{\"a\":5}"),
            ("{{\"a\":{x}}}", "{\"a\":5}"),
            ("{\"a\":{{}}}", "{\"a\":{}}"),
            ("${{x}}", "${x}"),
            ("{{", "{"),
            ("{{{{x}}}}", "{{x}}"),
            ("{\"a\":{\"b\":{x}}}", "{\"a\":{\"b\":5}}"),
            // `{}` is always a placeholder.
            ("{\"a\":{}}", "{\"a\":r}"),
            ("${}", "$r"),
        ],
    );
}

#[test]
fn odd_names_are_replaced_if_a_column_is_really_called_so() {
    let record = row("r", &[("a b", "1"), ("temp (C)", "2"), ("-", "3"), ("dir (in)", "a/b.c")]);
    assert_filled(&record, &[("{a b}{temp (C)}{-}{dir (in)/.}", "123b"), ("{a  b} {temp (F)}", "{a  b} {temp (F)}")]);
}

#[test]
fn a_name_that_the_record_does_not_have_is_an_error_that_tells_the_names_and_how_to_write_braces() {
    assert_eq!(
        refusal("{tmep}", &row("x", &[("temp", "1"), ("p", "2")])),
        "jobs.csv:17: no column, key or position 'tmep' for {tmep} (available: temp, p); to keep the braces as they are, \
         write {{tmep}}"
    );
    assert!(refusal("{3/}", &row("x", &[("a", "1")])).contains("'3/' for {3/} (available: a)"));
    assert!(refusal("{print}", &line("x")).contains("the record has no names; {} is the whole record"));
    let many: Vec<(String, String)> = (0..1000).map(|i| (format!("c{i}"), String::new())).collect();
    let message = refusal("{x}", &Row { text: String::new(), columns: many });
    assert!(message.contains("c19, and more") && message.len() < 400, "{message}");
}

#[test]
fn paths_are_taken_apart_as_gnu_parallel_does() {
    // Path, {.}, {/}, {//}, {/.}: the results of GNU parallel's own expressions in Perl.
    for (path, no_extension, base, folder, base_no_extension) in [
        ("foo", "foo", "foo", ".", "foo"),
        ("foo.", "foo.", "foo.", ".", "foo."),
        ("foo.tar.gz", "foo.tar", "foo.tar.gz", ".", "foo.tar"),
        ("foo..", "foo..", "foo..", ".", "foo.."),
        ("foo..c", "foo.", "foo..c", ".", "foo."),
        (".bashrc", "", ".bashrc", ".", ""),
        ("a/.bashrc", "a/", ".bashrc", "a", ""),
        ("a.b/c", "a.b/c", "c", "a.b", "c"),
        ("a.b/c.d", "a.b/c", "c.d", "a.b", "c"),
        ("/foo", "/foo", "foo", "/", "foo"),
        ("/", "/", "", "/", ""),
        ("//", "//", "", "/", ""),
        ("", "", "", ".", ""),
        ("a/", "a/", "", ".", ""),
        ("a/b/", "a/b/", "", "a", ""),
        ("a.x/", "a.x/", "", ".", ""),
        ("a//b", "a//b", "b", "a", "b"),
        ("//x", "//x", "x", "/", "x"),
        ("///a//b//", "///a//b//", "", "///a", ""),
        ("/foo/", "/foo/", "", "/", ""),
        ("..", "..", "..", ".", ".."),
        ("a/.", "a/.", ".", "a", "."),
        ("./x.y", "./x", "x.y", ".", "x"),
        ("ä/ö.ü", "ä/ö", "ö.ü", "ä", "ö"),
    ] {
        let expected = format!("{no_extension}|{base}|{folder}|{base_no_extension}");
        assert_eq!(filled("{.}|{/}|{//}|{/.}", &line(path)), expected, "{path}");
    }
}

#[test]
fn only_values_that_are_used_travel_each_of_them_once() {
    let record = row("text", &[("a", "1"), ("b", "2"), ("c", "3")]);
    let command = strings(&["program", "{a}{a}", "{a}-{c}", "{#}"]);
    let words = Words { command: &command, stdin: Some("{c}"), ..Words::default() };
    let template = Template::parse(&words).unwrap();
    assert_eq!(template.bind(&record).unwrap(), Values(vec![Some("1".to_owned()), Some("3".to_owned())]));
}

#[test]
fn a_command_without_placeholders_gets_nothing_appended() {
    let template = template(&["./simulate", "--fast"]);
    let values = template.bind(&line("17")).unwrap();
    assert_eq!(values, Values(Vec::new()));
    assert_eq!(template.fill(&values, &PLACE).command, ["./simulate", "--fast"]);
}

#[test]
fn stdin_folder_environment_and_tag_have_the_same_placeholders() {
    let (command, env) = (strings(&["cat"]), strings(&["A={}", "B=x={name}=y", "C="]));
    let words = Words {
        command: &command,
        shell: false,
        stdin: Some("{}\n"),
        cwd: Some("runs/{#}"),
        env: &env,
        tag: Some("{name/}:{%}"),
    };
    let template = Template::parse(&words).unwrap();
    let filled = template.fill(&template.bind(&row("r", &[("name", "a/b")])).unwrap(), &PLACE);
    let expected = Filled {
        command: strings(&["cat"]),
        stdin: Some("r\n".to_owned()),
        cwd: Some("runs/12".to_owned()),
        env: [("A", "r"), ("B", "x=a/b=y"), ("C", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        tag: Some("b:3".to_owned()),
    };
    assert_eq!(filled, expected);
}

#[test]
fn words_that_make_no_template_are_refused() {
    let parse = |command: &[&str], env: &[&str]| {
        let (command, env) = (strings(command), strings(env));
        Template::parse(&Words { command: &command, env: &env, ..Words::default() }).unwrap_err().to_string()
    };
    assert_eq!(
        parse(&[], &[]),
        "no command to run; write it behind `--`, as in `rankpool run --input files.txt -- gzip {}`"
    );
    assert_eq!(parse(&[""], &[]), parse(&[], &[]));
    assert_eq!(parse(&["x"], &["HOME"]), "'HOME' does not set a variable; write NAME=VALUE");
    assert_eq!(parse(&["x"], &["=1"]), "'=1' does not set a variable; write NAME=VALUE");
    assert!(parse(&["x", "a\0b"], &[]).contains("zero byte"));
}

#[test]
fn a_zero_byte_can_be_read_by_a_command_but_not_be_its_argument() {
    let record = line("a\0b");
    assert_eq!(
        refusal("{}", &record),
        "jobs.csv:17: the value of {} contains a zero byte, which no program can be given as an argument; `--stdin {}` can \
         pass it on"
    );
    let command = strings(&["cat"]);
    let template = Template::parse(&Words { command: &command, stdin: Some("{}"), ..Words::default() }).unwrap();
    assert_eq!(template.fill(&template.bind(&record).unwrap(), &PLACE).stdin.as_deref(), Some("a\0b"));
}

#[test]
fn the_program_is_known_beforehand_unless_it_depends_on_the_record() {
    assert_eq!(template(&["gzip", "{}"]).program(), Some("gzip"));
    assert_eq!(template(&["bin/{name}", "{}"]).program(), None);
    assert_eq!(script("gzip {}").program(), Some("/bin/sh"));
}

#[test]
fn values_that_do_not_fit_the_template_do_no_harm() {
    assert_eq!(template(&["x", "{}{a}"]).fill(&Values::default(), &PLACE).command, ["x", "{}{a}"]);
    assert_eq!(script("echo {} {#}").fill(&Values::default(), &PLACE).command.len(), 3);
}

#[test]
fn a_template_and_its_values_cross_ranks() {
    let template = script("a {} '{x}' {#}");
    let json = serde_json::to_string(&template).unwrap();
    assert_eq!(serde_json::from_str::<Template>(&json).unwrap(), template);
    let values = template.bind(&row("r", &[("x", "1")])).unwrap();
    let json = serde_json::to_string(&values).unwrap();
    assert_eq!(serde_json::from_str::<Values>(&json).unwrap(), values);
}

fn parse_script(text: &str) -> Result<Template, TemplateError> {
    Template::parse(&Words { command: &strings(&[text]), shell: true, ..Words::default() })
}

fn script(text: &str) -> Template {
    parse_script(text).unwrap()
}

fn run(command: &[String]) -> Vec<u8> {
    let mut child = Command::new(&command[0]);
    let output = child.args(&command[1..]).stdin(Stdio::null()).env("SET", "a b").output().unwrap();
    assert!(output.stderr.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

const BASH: &str = "/bin/bash";

/// Runs a script in a real shell; returns the words that it prints with a zero byte behind each.
fn words_of(text: &str, record: &Row) -> Vec<String> {
    let template = script(text);
    let filled = template.fill(&template.bind(record).unwrap(), &PLACE);
    let output = run(&filled.command);
    // The line that is shown does the same.
    assert_eq!(run(&strings(&["/bin/sh", "-c", &filled.shown()])), output, "{}", filled.shown());
    // So does another shell, if it is installed.
    if Path::new(BASH).exists() {
        assert_eq!(run(&strings(&[BASH, "--posix", "-c", &filled.command[2]])), output, "{}", filled.command[2]);
    }
    let text = String::from_utf8(output).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// Values that would break out of careless quoting.
const NASTY: &[&str] = &[
    "",
    "plain",
    "two words",
    " ",
    "'",
    "\"",
    "\\",
    "$HOME",
    "`id`",
    "$(id)",
    "*",
    "?",
    "[a-z]*",
    "~",
    "-n",
    "--",
    "#c",
    "a\nb",
    "\n",
    "'\"'\"'",
    "a\\",
    "\\'",
    "!!",
    "&& echo",
    "; echo",
    "| cat",
    "> f",
    "<<EOF",
    "{}",
    "${SET}",
    "$'x'",
    "\t",
    "é",
    "%s",
    "$((1+1))",
    "a'b\"c`d$e\\f",
    "EOF",
    ")",
    "}",
    "\r\n",
    "1",
    "if",
];

#[test]
fn a_value_is_one_word_in_any_quotes() {
    for value in NASTY {
        let words = words_of(
            "printf '%s\\0' {} \"{}\" '{}' x{}y \"x{}y\" 'x{}y' {}{} \"$SET{}\" \"$(printf %s. \"{}\" '{}' {})\" \
             \"`printf %s. \"{}\"`\" \"${SET:+{}}\" ${NONE:-{}}",
            &line(value),
        );
        let (v, around) = (value.to_string(), format!("x{value}y"));
        let (twice, set, dotted) = (format!("{v}{v}"), format!("a b{v}"), format!("{v}."));
        let all = dotted.repeat(3);
        let expected = [&v, &v, &v, &around, &around, &around, &twice, &set, &all, &dotted, &v, &v];
        assert_eq!(words.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn values_behind_comments_in_subshells_and_in_other_corners_are_one_word_each() {
    for value in NASTY {
        for text in [
            "# it's {}\nprintf '%s\\0' {}",
            "(printf '%s\\0' {})",
            "{ printf '%s\\0' {}; }",
            "x={}; printf '%s\\0' \"$x\"",
            "if true; then printf '%s\\0' {}; fi",
            "for x in {}; do printf '%s\\0' \"$x\"; done",
            "f() { printf '%s\\0' {}; }; f other",
            "case x in (y) ;; x) printf '%s\\0' {} ;; esac",
            "printf %s\\\\0 {}",
            "echo $((1 + 2)) '(' \"it's\" >&2 2>/dev/null 1>/dev/null; printf '%s\\0' {}",
            "set -eu; printf '%s\\0' {}",
            "a=${SET#\"a'\"}; printf '%s\\0' {}",
            "a=\"${SET:-it's}\"; printf '%s\\0' {}",
            "printf '%s\\0' {} # it's a comment",
            "echo a#'b' >/dev/null; printf '%s\\0' {}",
        ] {
            assert_eq!(words_of(text, &line(value)), [*value], "{text}");
        }
    }
}

#[test]
fn the_typed_text_is_a_script() {
    let record = row("r", &[("n", "3")]);
    assert_eq!(
        words_of("printf '%s\\0' $SET \"$SET\" ${SET} {n} $(({n} + 1)) {#}-{%}", &record)[..6],
        ["a", "b", "a b", "a", "b", "3"]
    );
    assert_eq!(words_of("echo {n} | tr 3 4 | tr '\\n' '\\0'", &record), ["4"]);
    assert_eq!(words_of("printf '%s\\0' {#} \"{%}\"", &record), ["12", "3"]);
    // Braces that stay as they are belong to the shell.
    assert_eq!(words_of("printf '%s\\0' {a b} '{print $1}'", &record), ["{a", "b}", "{print $1}"]);
    assert_eq!(words_of("printf '%s\\0' {{n}}", &record), ["{n}"]);
}

#[test]
fn a_script_s_words_are_joined_by_blanks() {
    let command = strings(&["printf '%s,'", "{}", "'a  b'"]);
    let template = Template::parse(&Words { command: &command, shell: true, ..Words::default() }).unwrap();
    let filled = template.fill(&template.bind(&line("x y")).unwrap(), &PLACE);
    assert_eq!(run(&filled.command), b"x y,a  b,");
}

#[test]
fn a_record_alone_is_the_script() {
    for text in ["{}", " {} "] {
        let template = script(text);
        let filled = template.fill(&template.bind(&line("echo $((1 + 1)) | cat")).unwrap(), &PLACE);
        assert_eq!(filled.command, ["/bin/sh", "-c", "echo $((1 + 1)) | cat"]);
        assert_eq!(filled.shown(), "echo $((1 + 1)) | cat");
        assert_eq!(run(&filled.command), b"2\n");
    }
    let template = script("{}");
    let filled = template.fill(&template.bind(&line("-e echo")).unwrap(), &PLACE);
    assert_eq!(filled.command[2], " -e echo");
}

#[test]
fn a_placeholder_that_can_have_no_value_in_a_script_is_refused() {
    for (text, expected) in [
        ("echo \\{}", "{} cannot stand behind a backslash in a script; leave out the backslash"),
        ("echo \"\\{}\"", "{} cannot stand behind a backslash"),
        ("echo ${}", "{} cannot stand behind a dollar sign in a script; write \\$ for the sign itself"),
        (
            "cat <<EOF\n{name}\nEOF",
            "{name} cannot stand in or behind a here-document in a script; give the command its input",
        ),
        ("cat <<-'EOF'\n{#}\nEOF", "{#} cannot stand in or behind a here-document"),
    ] {
        let message = parse_script(text).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{text}: {message}");
    }
    // These only look like code.
    for text in
        ["echo '\\'{}", "echo \\\\{}", "echo $$-{}", "echo '$'{}", "echo \\${}", "echo $((1 << 2))\n{}", "cat <<EOF {}"]
    {
        assert!(parse_script(text).is_ok(), "{text}");
    }
}

#[test]
fn a_command_is_shown_as_a_line_that_a_shell_runs_as_it_is() {
    let job = Filled {
        command: strings(&["printf", "%s,%s,%s", "a b", "it's", "$HOME"]),
        stdin: Some("in put".to_owned()),
        cwd: Some("/".to_owned()),
        env: vec![("A".to_owned(), "1 2".to_owned())],
        tag: None,
    };
    assert_eq!(job.shown(), "(cd -- / && printf %s 'in put' | env 'A=1 2' printf '%s,%s,%s' 'a b' \"it's\" '$HOME')");
    let job = Filled { command: strings(&["printf", "%s\\n", "", "*", "-n", "a=b"]), ..Filled::default() };
    assert_eq!(run(&strings(&["/bin/sh", "-c", &job.shown()])), b"\n*\n-n\na=b\n");
    let job = Filled {
        command: strings(&["sh", "-c", "cat; pwd; echo $A"]),
        stdin: Some("x\n".to_owned()),
        cwd: Some("/".to_owned()),
        env: vec![("A".to_owned(), "1 2".to_owned())],
        tag: None,
    };
    assert_eq!(run(&strings(&["/bin/sh", "-c", &job.shown()])), b"x\n/\n1 2\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_value_gets_out_of_its_quotes(value in "[ -~\n\té'\"$`\\\\]{0,40}") {
        let words = words_of(
            "printf '%s\\0' {} \"{}\" '{}' \"$(printf %s. {})\" 'a '{}' b' \"x'{}'\" 'x\"{}\"'",
            &line(&value),
        );
        let (dotted, apart) = (format!("{value}."), format!("a {value} b"));
        let (single, double) = (format!("x'{value}'"), format!("x\"{value}\""));
        prop_assert_eq!(words.iter().collect::<Vec<_>>(), [&value, &value, &value, &dotted, &apart, &single, &double]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_without_braces_stays_as_it_is(text in "[^{}\0]*") {
        prop_assert_eq!(filled(&text, &line("r")), text);
    }

    #[test]
    fn no_words_make_it_panic(text in "[{}a1./#%$'\"`\\\\()<\n ]{0,30}", shell: bool) {
        let command = [text];
        if let Ok(template) = Template::parse(&Words { command: &command, shell, ..Words::default() }) {
            if let Ok(values) = template.bind(&line("r")) {
                template.fill(&values, &PLACE);
            }
        }
    }

    #[test]
    fn doubling_every_brace_of_a_name_gives_the_braces(name in "[a-z_][a-z0-9_.-]{0,10}") {
        prop_assert_eq!(filled(&format!("{{{{{name}}}}}"), &line("r")), format!("{{{name}}}"));
    }
}

#[test]
fn a_value_in_code_for_another_interpreter_is_refused_wherever_it_stands() {
    for (text, reader) in [
        ("sh -c 'echo {}'", "sh -c"),
        ("sh -c \"echo {}\"", "sh -c"),
        ("sh -c \"echo '{}'\"", "sh -c"),
        ("sh -c 'echo '{}", "sh -c"),
        ("sh -c \"$(basename {})\"x", "sh -c"),
        ("/bin/bash -euo pipefail -c 'wc {name}'", "bash -c"),
        ("bash -o pipefail -lc 'wc {}' | sort", "bash -c"),
        ("cd /tmp && X=1 sh -c 'wc {}'", "sh -c"),
        ("ls | xargs -n1 sh -c 'grep {} $0'", "sh -c"),
        ("find . -exec sh -c 'grep {2} $0' \\;", "sh -c"),
        ("env A=1 sh -c 'wc {}'; true", "sh -c"),
        ("sudo -u me sh -c 'wc {}'", "sh -c"),
        ("(sh -c 'wc {}')", "sh -c"),
        ("x=$(sh -c 'wc {}')", "sh -c"),
        ("x=`sh -c 'wc {}'`", "sh -c"),
        ("echo \"$(sh -c 'wc {}')\"", "sh -c"),
        ("if true\nthen sh -c 'wc {/.}'\nfi", "sh -c"),
        ("su - me -c 'wc {}'", "su -c"),
        ("eval \"wc {}\"", "eval"),
        ("eval wc {}", "eval"),
        ("timeout 5 ssh -p 22 host wc {}", "ssh"),
        ("ssh host 'wc {}'", "ssh"),
        ("ssh me@{1} 'wc {2}'", "ssh"),
        ("python3 -c 'print(\"{}\")'", "python3 -c"),
        ("python3.11 -u -c'print({})'", "python3.11 -c"),
        ("perl -ne 'print if /{}/' file", "perl -ne"),
        ("ruby -I lib -e 'puts \"{}\"'", "ruby -e"),
        ("node --eval 'f({})'", "node --eval"),
        ("Rscript -e 'print({})'", "Rscript -e"),
        ("awk -F, '{print $1, \"{}\"}' file", "awk"),
    ] {
        match parse_script(text) {
            Err(TemplateError::Code { reader: found, advice, .. }) => {
                assert!(found == reader && !advice.is_empty(), "{text}: {found}")
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let said = parse_script("sh -c 'cat {1} {2}'").expect_err("it is code").to_string();
    assert!(
        said.starts_with("{2} would be read as code by the script's own `sh -c`") && said.contains("sh -c 'wc -l"),
        "{said}"
    );
}

#[test]
fn a_value_that_another_interpreter_is_given_as_an_argument_may_stand() {
    for text in [
        "sh -c 'wc \"$1\"' _ {}",
        "sh -c {}",
        "eval {}",
        "eval \"{}\"",
        "sh ./script.sh -c 'x{}'",
        "sh script {}",
        "ssh {} uptime",
        "ssh -p 22 me@{}",
        "python3 -c 'import sys; print(sys.argv[1])' {}",
        "python3 model.py -c 'a={}'",
        "perl -ne 'print if /x/' {}",
        "awk -v x={} 'BEGIN { print x }'",
        "awk '{ print $1 }' {}",
        "awk -f program.awk x{}",
        "echo 'sh -c' {}",
        "sh -c 'echo hello'; echo 'file {}'",
        "sh -c 'echo hello' | grep 'file {}' && echo x{}",
        "sh -c 'echo {#} {%}'",
        "# sh -c 'echo {}'\necho {}",
        "gzip -c {} > out/{/.}.gz",
        "grep -e 'x{}' perl",
    ] {
        assert!(parse_script(text).is_ok(), "{text}: {:?}", parse_script(text));
    }
}
