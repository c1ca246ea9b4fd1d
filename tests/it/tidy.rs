//! Reads the sources and checks the rules of the architecture that no lint can express: which module may use which. (The other
//! rules are in `[lints]` in Cargo.toml and in clippy.toml.)

use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path below the crate's root, and its lines without comments.
struct Source {
    path: String,
    lines: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// All files below a folder of the crate.
fn sources(folder: &str) -> Vec<Source> {
    let mut files = Vec::new();
    rust_files(&root().join(folder), &mut files);
    let source = |file: &PathBuf| {
        let path = file.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(file).expect("sources are UTF-8");
        Source { path, lines: text.lines().map(|line| without_comment(line).to_string()).collect() }
    };
    let sources: Vec<_> = files.iter().map(source).collect();
    assert!(!sources.is_empty(), "no sources below {folder}");
    sources
}

/// Returns a line without its comment; comment signs inside a string do not count.
fn without_comment(line: &str) -> &str {
    let bytes = line.as_bytes();
    let mut in_string = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' if at == 0 || bytes[at - 1] != b'\'' => in_string = !in_string,
            b'/' if !in_string && bytes.get(at + 1) == Some(&b'/') => return &line[..at],
            _ => {}
        }
        at += 1;
    }
    line
}

/// Returns whether a line names this crate in a path (`mpi::`, `use mpi`) that is not below another path (`transport::mpi`).
fn contains_path(line: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        if before.ends_with(is_word) || after.starts_with(is_word) {
            return false;
        }
        // `::mpi` alone names the crate, too; after another name it is a module of our own.
        let below = before.strip_suffix("::").is_some_and(|before| before.ends_with(is_word));
        let imported = before.trim_start().trim_start_matches("pub ").trim_start().trim_end() == "use";
        !below && (after.starts_with("::") || imported)
    })
}

/// Returns whether a file contains unit tests only.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Returns the lines that break a rule, of all files except those that `may`.
fn offenders(sources: &[Source], may: impl Fn(&str) -> bool, breaks: impl Fn(&str) -> bool) -> Vec<String> {
    let mut offenders = Vec::new();
    for source in sources.iter().filter(|source| !may(&source.path)) {
        for (number, line) in (1..).zip(&source.lines) {
            if breaks(line) {
                offenders.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    offenders
}

#[track_caller]
fn assert_none(offenders: Vec<String>, rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

#[test]
fn the_eyes_of_these_tests_are_good() {
    assert_eq!(without_comment("let x = 1; // mpi::"), "let x = 1; ");
    assert_eq!(without_comment(r#"let x = "http://"; y"#), r#"let x = "http://"; y"#);
    for names in ["use mpi::ffi;", "mpi::init()", "use ::mpi::topology;", "let x = ::mpi::init();", "use mpi as other;"]
    {
        assert!(contains_path(names, "mpi"), "{names}");
    }
    for other in
        ["use crate::transport::mpi::Mpi;", "pub(crate) mod mpi;", "my_mpi::x", "feature = \"mpi\"", "mpi_x::y"]
    {
        assert!(!contains_path(other, "mpi"), "{other}");
    }
}

#[test]
fn only_the_transport_knows_mpi() {
    let may = |path: &str| path == "src/engine/transport/mpi.rs";
    // `mpi::Mpi` is our own type, imported with `use super::mpi`.
    let breaks = |line: &str| contains_path(&line.replace("mpi::Mpi", ""), "mpi");
    assert_none(offenders(&sources("src"), may, breaks), "the crate `mpi` is used outside of the transport");
}

#[test]
fn only_the_worker_knows_rayon() {
    let may = |path: &str| path == "src/engine/rank.rs" || path.starts_with("src/engine/rank/");
    assert_none(
        offenders(&sources("src"), may, |line| contains_path(line, "rayon") || contains_path(line, "rayon_core")),
        "only the worker has compute threads",
    );
}

#[test]
fn only_the_command_line_knows_clap() {
    let may = |path: &str| path.starts_with("src/cli/");
    for name in ["clap", "clap_complete", "clap_mangen"] {
        assert_none(offenders(&sources("src"), may, |line| contains_path(line, name)), "only cli/ reads arguments");
    }
}

#[test]
fn only_the_wire_and_the_journal_know_the_binary_format() {
    let may = |path: &str| ["src/engine/wire", "src/journal"].iter().any(|room| path.starts_with(room));
    assert_none(
        offenders(&sources("src"), may, |line| contains_path(line, "bincode")),
        "bincode is behind wire and journal",
    );
}

#[test]
fn the_scheduler_uses_no_other_module() {
    // A lint forbids clocks, I/O and unordered containers (clippy.toml).
    let may = |path: &str| path.starts_with("src/engine/schedule/sim") || is_test_file(path);
    let breaks = |line: &str| line.contains("crate::") && !line.contains("crate::engine::schedule");
    assert_none(offenders(&sources("src/engine/schedule"), may, breaks), "the scheduler uses no other module");
    let lints = sources("src/engine/schedule").into_iter().find(|source| source.path.ends_with("schedule/mod.rs"));
    let lints = lints.expect("it is there").lines.join("\n");
    assert!(lints.contains("#![deny(clippy::disallowed_methods, clippy::disallowed_types"), "the scheduler is pure");
}

#[test]
fn nothing_imports_the_command_line() {
    let may = |path: &str| path.starts_with("src/cli/") || path == "src/main.rs";
    let breaks = |line: &str| {
        // `client` is another module.
        ["crate::cli", "super::cli", "rankpool::cli"].iter().any(|path| {
            let mut after = line.match_indices(path).map(|(at, _)| line[at + path.len()..].chars().next());
            after.any(|next| next.is_none_or(|next| !next.is_alphanumeric() && next != '_'))
        })
    };
    assert_none(offenders(&sources("src"), may, breaks), "nothing but main imports cli");
}

/// Returns the rooms of the crate from the top to the bottom, as the architecture page has them.
fn rooms() -> Vec<String> {
    let page = fs::read_to_string(root().join("src/architecture.md")).expect("the page is there");
    page.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_string).collect()
}

/// Returns the rooms that a line of code names in paths of the crate.
fn rooms_named<'r>(line: &'r str, rooms: &'r [String]) -> impl Iterator<Item = usize> + 'r {
    let names = line.match_indices("crate::").map(|(at, path)| &line[at + path.len()..]);
    names.filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        rooms.iter().position(|room| *room == rest[..end])
    })
}

#[test]
fn imports_go_down_the_rooms() {
    let rooms = rooms();
    assert_eq!(rooms_named("use crate::engine::stop; crate::clients::it(crate::cli::run)", &rooms).count(), 2);
    let mut upward = Vec::new();
    for source in sources("src").into_iter().filter(|source| !is_test_file(&source.path)) {
        let name = source.path.trim_start_matches("src/").split('/').next().unwrap_or_default().trim_end_matches(".rs");
        let Some(own) = rooms.iter().position(|room| room == name) else { continue };
        let code = source.lines.iter().take_while(|line| line.trim() != "mod tests {");
        for (number, line) in (1..).zip(code) {
            if rooms_named(line, &rooms).any(|room| room < own) {
                upward.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none(upward, "a room imports from those below it in src/architecture.md");
    let page = fs::read_to_string(root().join("src/lib.rs")).expect("it is there");
    let listed = page.lines().filter_map(|line| line.strip_prefix("//! | `")?.split_once('`')).map(|(room, _)| room);
    let listed: Vec<_> = listed.filter(|name| rooms.iter().any(|room| room == name)).collect();
    let rooms: Vec<_> = rooms.iter().filter(|room| *room != "guide").collect();
    assert_eq!(listed, rooms, "the first page has the rooms in another order");
}

#[test]
fn the_scheduler_s_orders_are_carried_out_in_one_place() {
    let mut sources = sources("src");
    sources.retain(|source| !source.path.starts_with("src/engine/schedule/"));
    let matched: Vec<_> = sources
        .iter()
        .filter(|source| source.lines.iter().any(|line| line.contains("Action::")))
        .map(|source| &source.path)
        .collect();
    assert_eq!(matched, ["src/engine/master.rs"]);
    let master = sources.iter().find(|source| source.path == "src/engine/master.rs").expect("it is there");
    let arms = master.lines.iter().filter(|line| line.contains("Action::Assign")).count();
    assert_eq!(arms, 1, "one `match` on `Action`");
}

#[test]
fn files_are_no_longer_than_500_lines() {
    // Test files are lists of tests and may be long.
    let long = |source: &&Source| source.lines.len() > 500 && !is_test_file(&source.path);
    let sources = sources("src");
    let long: Vec<_> =
        sources.iter().filter(long).map(|source| format!("{}: {}", source.path, source.lines.len())).collect();
    assert_none(long, "a file over 500 lines is usually two things");
}

#[test]
fn every_module_begins_with_a_doc() {
    let mut silent = Vec::new();
    for source in sources("src").into_iter().filter(|source| !is_test_file(&source.path)) {
        let text = fs::read_to_string(root().join(&source.path)).expect("it was there");
        if !text.trim().is_empty() && !text.starts_with("//!") {
            silent.push(source.path);
        }
    }
    assert_none(silent, "a module begins with a sentence on what it decides");
}

#[test]
fn no_path_of_a_user_s_machine_is_written_down() {
    let machine = |line: &str| ["/home/", "/root/"].iter().any(|path| line.contains(path));
    for folder in ["src", "tests", "examples", "benches"] {
        let this = |path: &str| path == "tests/it/tidy.rs";
        assert_none(offenders(&sources(folder), this, machine), "a path that other machines do not have");
    }
}

#[test]
fn the_architecture_page_has_the_first_sentence_of_every_file() {
    let page = fs::read_to_string(root().join("src/architecture.md")).expect("the page is there");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    let mut expected = Vec::new();
    for file in &files {
        let path = file.strip_prefix(root().join("src")).expect("below src").to_string_lossy().replace('\\', "/");
        if path.contains("tests") || path == "lib.rs" || path == "main.rs" {
            continue;
        }
        let text = fs::read_to_string(file).expect("sources are UTF-8");
        let doc = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
        let paragraph = doc.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        let sentence = paragraph.split_once(". ").map_or(paragraph.clone(), |(sentence, _)| format!("{sentence}."));
        expected.push(format!("| `{path}` | {sentence} |"));
    }
    let missing = expected.iter().filter(|row| !rows.contains(&row.as_str())).cloned().collect();
    assert_none(missing, "src/architecture.md lacks these rows");
    assert_eq!(rows.len(), expected.len(), "src/architecture.md has rows of files that are gone");
}
