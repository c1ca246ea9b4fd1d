//! The tables of single jobs: the failed ones and the slowest ones, each with the command that runs it again.

use super::Page;
use crate::console::words::{count, counted, seconds};
use crate::report::facts::{Facts, NamedJob, status_name};

/// The jobs of a table that are shown at once.
const SHOWN: usize = 8;

/// Failed jobs: how many for which reason, the first ones, and how to run them again; and retries.
pub(super) fn failed(facts: &Facts, page: &mut Page) -> bool {
    let retries = facts.retries;
    if retries.jobs > 0 {
        page.paragraph(&format!(
            "{} had more than one attempt, and {} of them succeeded: {} beyond the first, at most {} for a job.",
            counted(retries.jobs, "job"),
            count(retries.succeeded),
            counted(retries.attempts, "attempt"),
            retries.most
        ));
    }
    for (host, rank, after) in facts.lost_ranks().into_iter().take(20) {
        page.paragraph(&format!(
            "Rank {rank} on {host} was lost after {}; its jobs were given to others.",
            seconds(after)
        ));
    }
    if facts.reasons.is_empty() {
        return retries.jobs > 0 || !facts.lost_ranks().is_empty();
    }
    page.html("<div class=\"scroll\"><table><caption>Why jobs failed</caption><thead><tr><th scope=\"col\" class=\"n\">jobs</th>");
    page.html("<th scope=\"col\">status</th><th scope=\"col\">message, and the end of standard error of the first job</th><th scope=\"col\" class=\"n\">first job</th></tr></thead><tbody>");
    for reason in &facts.reasons {
        page.html("<tr><td class=\"n\">")
            .text(&count(reason.jobs))
            .html("</td><td class=\"bad\">")
            .text(status_name(reason.status));
        page.html("</td><td class=\"wide\">").text(&reason.message);
        if let Some(stderr) = &reason.stderr {
            page.html("<pre class=\"stderr\">").text(stderr).html("</pre>");
        }
        page.html("</td><td class=\"n\">");
        page.text(&reason.first.to_string()).html("</td></tr>");
    }
    page.html("</tbody></table></div>\n");
    if let Some(command) = &facts.failed_again {
        page.paragraph("All failed jobs are run again by:");
        page.html("<pre tabindex=\"0\">").text(command).html("</pre>\n");
    } else {
        page.html("<p>To run all failed jobs again, add <code>").text(&facts.again_options());
        page.html("</code> to the command of the run, which is not in the file.</p>\n");
    }
    let shown = facts.failed.len() as u64;
    let all = facts.counts.all_failed();
    let caption = if shown < all {
        format!("The first {shown} of {}", counted(all, "failed job"))
    } else {
        counted(all, "failed job")
    };
    table(&(caption + &in_folder(facts)), &facts.failed, page);
    true
}

/// Returns where the commands of single jobs are to be run, if that is known.
fn in_folder(facts: &Facts) -> String {
    let folder = facts.last_run().and_then(|run| run.about.folder.as_deref());
    folder.map_or_else(String::new, |folder| format!(". Their commands are for the folder {folder}"))
}

/// The slowest jobs.
pub(super) fn slowest(facts: &Facts, page: &mut Page) -> bool {
    table(&format!("Jobs by the time of their last attempt{}", in_folder(facts)), &facts.slowest, page);
    !facts.slowest.is_empty()
}

/// Writes a table of jobs; those behind the first ones are shown when they are asked for.
fn table(caption: &str, jobs: &[NamedJob], page: &mut Page) {
    let (first, more) = jobs.split_at(jobs.len().min(SHOWN));
    rows(caption, first, page);
    if !more.is_empty() {
        page.html("<details><summary>").text(&format!("{} more", more.len())).html("</summary>");
        rows("", more, page);
        page.html("</details>\n");
    }
}

fn rows(caption: &str, jobs: &[NamedJob], page: &mut Page) {
    page.html("<div class=\"scroll\"><table><caption>")
        .text(caption)
        .html("</caption><thead><tr><th scope=\"col\" class=\"n\">job</th>");
    page.html("<th scope=\"col\">status</th><th scope=\"col\" class=\"n\">time</th><th scope=\"col\" class=\"n\">attempts</th>");
    page.html("<th scope=\"col\">where</th><th scope=\"col\">record, error, and the command that runs it again</th></tr></thead><tbody>");
    for job in jobs {
        let is_bad = job.status != crate::journal::Status::Ok;
        page.html("<tr><th scope=\"row\" class=\"n\">").text(&job.number.to_string()).html("</th><td");
        page.html(if is_bad { " class=\"bad\">" } else { ">" })
            .text(status_name(job.status))
            .html("</td><td class=\"n\">");
        page.text(&job.seconds.map_or_else(|| "–".into(), seconds)).html("</td><td class=\"n\">");
        page.text(&job.attempts.map_or_else(|| "–".into(), |attempts| attempts.to_string())).html("</td><td>");
        page.text(&job.place()).html("</td><td class=\"wide\">");
        if !job.shown_input.is_empty() {
            page.html("<code>").text(&job.shown_input).html("</code>");
        }
        if let Some(message) = &job.message {
            page.html("<p class=\"bad-text\">").text(message).html("</p>");
        }
        if let Some(line) = job.last_words() {
            page.html("<pre class=\"stderr\">").text(line).html("</pre>");
        }
        if let Some(command) = &job.command {
            page.html("<pre tabindex=\"0\">").text(command).html("</pre>");
        }
        page.html("</td></tr>\n");
    }
    page.html("</tbody></table></div>\n");
}
