//! A report as one HTML page, which needs no network, no script and no other file.
//!
//! All text goes through [`Page`], which escapes it. The number of elements does not depend on the number of jobs.

mod charts;
mod jobs;
#[cfg(test)]
mod tests;

use super::facts::{Classes, Facts};
use crate::chart::{self, Chart, escaped};
use crate::console::words::{count, number, percent, seconds};

const STYLE: &str = include_str!("style.css");
/// The most rows of a table of classes.
const MOST_CLASSES: usize = 64;

/// HTML that is being written.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// Adds HTML that is a part of this program.
    pub(super) fn html(&mut self, html: &str) -> &mut Self {
        self.0.push_str(html);
        self
    }

    /// Adds text of any origin.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.push_str(&escaped(text));
        self
    }

    fn section(&mut self, id: &str, title: &str) {
        self.html("<h2 id=\"").text(id).html("\">").text(title).html("</h2>\n");
    }

    fn paragraph(&mut self, text: &str) {
        self.html("<p>").text(text).html("</p>\n");
    }

    /// Adds a chart with a sentence under it.
    fn figure(&mut self, chart: &impl Chart, caption: &str) {
        self.html("<figure>").html(&chart.to_inline());
        self.html("<figcaption>").text(caption).html("</figcaption></figure>\n");
    }
}

/// Returns the page.
pub(crate) fn page(facts: &Facts) -> String {
    let name = facts.path.file_name().map_or_else(|| facts.path.to_string_lossy(), |name| name.to_string_lossy());
    let mut page = Page::default();
    // No other host may be asked, whatever the texts of jobs are.
    page.html(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>",
    );
    page.text(&format!("{name}: report of a run of rankpool")).html("</title>\n<style>");
    page.html(STYLE).html(&chart::style()).html("</style>\n</head>\n<body>\n");
    let mut body = Page::default();
    let sections = sections(facts, &mut body);
    page.html("<a class=\"skip\" href=\"#summary\">Skip to the summary</a>\n<header><h1>").text(&name).html("</h1>\n");
    page.html("<p class=\"lead\">").text(&lead(facts)).html("</p>\n<nav aria-label=\"Sections\"><ul>");
    for (id, title) in sections {
        page.html("<li><a href=\"#").text(id).html("\">").text(title).html("</a></li>");
    }
    page.html("</ul></nav></header>\n<main>\n").html(&body.0).html("</main>\n<footer>");
    page.text(&format!(
        "Made by rankpool {} from {}. Jobs are counted by their last attempt.",
        env!("CARGO_PKG_VERSION"),
        facts.path.display()
    ));
    page.html("</footer>\n</body>\n</html>\n");
    page.0
}

/// Returns one sentence on what happened.
fn lead(facts: &Facts) -> String {
    let (run, failed) = (facts.counts.run(), facts.counts.all_failed());
    if run == 0 {
        return "No job has been settled.".into();
    }
    let time = facts.wall().map_or_else(String::new, |wall| format!(" in {}", seconds(wall)));
    let place = facts.slots.map_or_else(String::new, |slots| {
        let (slots, ranks, hosts) = (slots.count, slots.ranks, slots.hosts);
        format!(" on {} of {} and {}", count_of(slots, "slot"), count_of(ranks, "rank"), count_of(hosts, "host"))
    });
    let outcome = match failed {
        0 => "all succeeded".into(),
        failed => format!("{} failed", count(failed)),
    };
    format!("{}{time}{place}; {outcome}.", count_of(run, "job"))
}

fn count_of(value: u64, noun: &str) -> String {
    crate::console::words::counted(value, noun)
}

type Section = (&'static str, &'static str, fn(&Facts, &mut Page) -> bool);

/// The sections of a page; each is left out if there is nothing to say.
const SECTIONS: [Section; 11] = [
    ("summary", "Summary", summary),
    ("notes", "Notes", notes),
    ("course", "Over time", charts::course),
    ("ranks", "Ranks and slots", charts::lanes),
    ("times", "Times of jobs", charts::times),
    ("classes", "Time by class", classes),
    ("phases", "Phases", charts::phases),
    ("memory", "Memory", charts::memory),
    ("failed", "Failed jobs and retries", jobs::failed),
    ("slowest", "Slowest jobs", jobs::slowest),
    ("missing", "Not in the file", missing),
];

/// Writes all sections, and returns the identifiers and titles of those that are there.
fn sections(facts: &Facts, page: &mut Page) -> Vec<(&'static str, &'static str)> {
    let mut there = Vec::new();
    for (id, title, write) in SECTIONS {
        let mut section = Page::default();
        if write(facts, &mut section) {
            page.html("<section aria-labelledby=\"").text(id).html("\">\n");
            page.section(id, title);
            page.html(&section.0).html("</section>\n");
            there.push((id, title));
        }
    }
    there
}

fn summary(facts: &Facts, page: &mut Page) -> bool {
    page.html("<ul class=\"tiles\">");
    let mut tile = |class: &str, value: String, name: &str| {
        page.html("<li class=\"")
            .text(class)
            .html("\"><b>")
            .text(&value)
            .html("</b><span>")
            .text(name)
            .html("</span></li>");
    };
    tile("", count(facts.counts.run()), "jobs");
    let failed = facts.counts.all_failed();
    tile(if failed > 0 { "bad" } else { "good" }, count(failed), "failed");
    if let Some(wall) = facts.wall() {
        tile("", seconds(wall), "from the start to the end of the last job");
        if wall > 0.0 {
            tile("", format!("{}/s", number(facts.counts.run() as f64 / wall)), "jobs in a second");
        }
    }
    if let Some(slots) = facts.slots {
        tile("", percent(slots.time.busy()), "of the slots' time in jobs");
    }
    if facts.times.count() > 0 {
        tile("", seconds(facts.times.quantile(0.5) as f64 / 1e9), "median time of a job");
    }
    let lost = facts.lost_ranks().len();
    if lost > 0 {
        tile("bad", count(lost as u64), "lost ranks");
    }
    page.html("</ul>\n<dl>");
    // What the tiles say is not said again.
    for (name, value) in facts.summary().into_iter().filter(|(name, _)| !matches!(*name, "time" | "throughput")) {
        let is_code = matches!(name, "command" | "folder" | "output");
        page.html("<dt>").text(name).html(if is_code { "</dt><dd><code tabindex=\"0\">" } else { "</dt><dd>" });
        page.text(&value).html(if is_code { "</code></dd>" } else { "</dd>" });
    }
    page.html("</dl>\n");
    true
}

fn notes(facts: &Facts, page: &mut Page) -> bool {
    page.html("<ul class=\"notes\">");
    for note in &facts.notes {
        page.html("<li>");
        if let Some(line) = &note.line {
            page.html("<code class=\"line\">").text(line).html("</code><br>");
        }
        page.text(&note.text).html("</li>\n");
    }
    page.html("</ul>\n");
    !facts.notes.is_empty()
}

fn missing(facts: &Facts, page: &mut Page) -> bool {
    page.html("<ul class=\"missing\">");
    for sentence in &facts.missing {
        page.html("<li>").text(sentence).html("</li>\n");
    }
    page.html("</ul>\n");
    !facts.missing.is_empty()
}

fn classes(facts: &Facts, page: &mut Page) -> bool {
    let all: Vec<&Classes> = facts
        .by_name
        .iter()
        .chain(std::iter::once(&facts.by_host))
        .filter(|classes| classes.classes.len() > 1)
        .collect();
    for classes in &all {
        page.html("<h3>").text(&format!("By {}", classes.name)).html("</h3>\n");
        charts::classes(facts, classes, page);
        class_table(facts, classes, page);
    }
    !all.is_empty()
}

fn class_table(facts: &Facts, classes: &Classes, page: &mut Page) {
    let (shown, all) = charts::shown(classes, facts.times.mean(), MOST_CLASSES);
    page.html("<details><summary>Table</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\">");
    page.text(&classes.name).html("</th>");
    for name in ["jobs", "failed", "mean", "median", "95 % within", "longest", "in all"] {
        page.html("<th scope=\"col\" class=\"n\">").text(name).html("</th>");
    }
    page.html("</tr></thead><tbody>");
    for class in &shown {
        let times = &class.times;
        let quantile = |share| seconds(times.quantile(share) as f64 / 1e9);
        page.html("<tr><th scope=\"row\">").text(&class.value).html("</th>");
        for value in [
            count(class.jobs),
            count(class.failed),
            seconds(times.mean() / 1e9),
            quantile(0.5),
            quantile(0.95),
            seconds(times.most() as f64 / 1e9),
            seconds(times.sum() / 1e9),
        ] {
            page.html("<td class=\"n\">").text(&value).html("</td>");
        }
        page.html("</tr>");
    }
    page.html("</tbody></table></div>");
    let more = all - shown.len();
    if more > 0 {
        page.paragraph(&format!("{} more are not shown; --csv has all jobs.", count(more as u64)));
    }
    page.html("</details>\n");
}
