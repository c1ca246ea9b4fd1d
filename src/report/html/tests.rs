use std::fs;
use std::path::Path;

use super::page;
use crate::report::facts::{Commands, Facts, NamedJob};
use crate::report::text::text;

const HOSTILE: &str =
    "</td></table><script>alert(1)</script><img src=x onerror=alert(1)> \u{1b}]0;title\u{7} \u{202e}gpj \" ' & {{x}}";

/// Commands that are hostile themselves.
struct Hostile;

impl Commands for Hostile {
    fn failed_jobs(&self, _: &Facts) -> Option<String> {
        Some(format!("echo {HOSTILE}"))
    }

    fn job(&self, _: &Facts, job: &NamedJob) -> Option<String> {
        job.input.as_ref().map(|input| format!("echo {input}"))
    }
}

fn hostile_log(path: &Path) {
    let mut log = String::new();
    for number in 1..=60 {
        let entry = serde_json::json!({
            "number": number, "input": {HOSTILE: HOSTILE, "seed": number % 3}, "status": if number % 2 == 0 { "failed" } else { "ok" },
            "attempts": 2, "host": format!("{HOSTILE}{}", number % 2), "rank": number % 3, "slot": 1, "start": "2026-01-01T00:00:00.000Z",
            "seconds": number, "message": HOSTILE, "max_rss": number * 1_000_000,
        });
        log += &format!("{entry}\n");
    }
    fs::write(path, log).expect("it is written");
}

#[test]
fn foreign_text_is_never_markup_and_never_reaches_a_terminal_raw() {
    let folder = tempfile::tempdir().expect("there is a folder");
    let path = folder.path().join("<i>jobs.jsonl");
    hostile_log(&path);
    let facts = Facts::read(&path, &Hostile).expect("it is a job log");
    let page = page(&facts);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "it is shown");
    for bad in ["<script", "<img", "<i>", "\u{1b}", "\u{7}", "\u{202e}"] {
        assert!(!page.contains(bad), "{bad:?}");
    }
    // Attributes end where they should.
    assert!(!page.split('<').skip(1).any(|tag| tag.split('>').next().is_some_and(|tag| tag.contains("onerror"))));
    let text = text(&facts);
    assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text}");
}

#[test]
fn a_page_asks_for_nothing_and_runs_nothing() {
    let folder = tempfile::tempdir().expect("there is a folder");
    let path = folder.path().join("jobs.jsonl");
    hostile_log(&path);
    let page = page(&Facts::read(&path, &Hostile).expect("it is a job log"));
    let links = page.replace("http://www.w3.org/2000/svg", "");
    for bad in ["http:", "https:", "<script", "@import", "url(", " on", "srcset", "<iframe", "<object"] {
        let found = links.split('<').skip(1).any(|tag| tag.split('>').next().is_some_and(|tag| tag.contains(bad)));
        assert!(!found || bad == " on", "{bad}");
    }
    assert!(
        page.contains("default-src 'none'")
            && page.contains("<html lang=\"en\">")
            && page.contains("color-scheme:light dark")
    );
    for id in
        ["summary", "notes", "course", "ranks", "times", "classes", "phases", "memory", "failed", "slowest", "missing"]
    {
        assert!(page.contains(&format!("<h2 id=\"{id}\">")) && page.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\"").count());
    for element in ["section", "table", "details", "ul", "dl", "figure", "pre", "div"] {
        let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn a_file_without_jobs_is_a_page_that_says_so() {
    let folder = tempfile::tempdir().expect("there is a folder");
    let path = folder.path().join("empty");
    fs::write(&path, "").expect("it is written");
    let facts = Facts::read(&path, &Hostile).expect("it is an empty journal");
    let page = page(&facts);
    assert!(page.contains("No job has been settled.") && !page.contains("<svg"), "{page}");
    assert!(text(&facts).contains("jobs: none has been settled"));
}
