//! A status as a page of HTML that refreshes itself. It needs no script and nothing from elsewhere.

use std::fmt::Write;
use std::time::Duration;

use super::status::{State, Status};
use super::table::{Order, Table, rank_cells};

/// The most ranks that the page shows, the worst first.
const MOST: usize = 1000;
/// The page is loaded again after this time, in s.
const REFRESH: u64 = 3;

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem;max-width:72rem}\
progress{width:100%;height:1rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #8884}th:nth-child(2),td:nth-child(2),\
th:last-child,td:last-child{text-align:left;overflow-wrap:anywhere}.bad{color:#b01c1c;font-weight:600}small{opacity:.75}\
@media(prefers-color-scheme:dark){.bad{color:#ff8a80}}";

/// Returns the page of a status.
pub(super) fn of(status: &Status) -> String {
    let Table { head, .. } = Table::new(status, Order::Worst);
    let mut html = String::with_capacity(4096 + 256 * status.ranks.len().min(MOST));
    let title = escaped(&head.first().cloned().unwrap_or_default());
    html += "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">";
    if status.state != State::Ended {
        // Writing to a string cannot fail.
        let _ = write!(html, "<meta http-equiv=\"refresh\" content=\"{REFRESH}\">");
    }
    let _ = write!(
        html,
        "<meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n"
    );
    if let Some(total) = status.jobs.filter(|total| *total > 0) {
        let settled = status.settled;
        let _ = writeln!(
            html,
            "<progress max=\"{total}\" value=\"{settled}\" aria-label=\"jobs that are settled\"></progress>"
        );
    }
    for line in head.iter().skip(1) {
        let _ = writeln!(html, "<p>{}</p>", escaped(line));
    }
    html += "<table><thead><tr><th>rank<th>host<th>threads<th>busy<th>jobs/s<th>jobs<th>failed<th>slowest running job</tr></thead><tbody>\n";
    let ranks = Order::Worst.sorted(status);
    for rank in ranks.iter().take(MOST) {
        let is_bad = rank.lost_seconds.is_some();
        html += if is_bad { "<tr class=\"bad\">" } else { "<tr>" };
        for cell in rank_cells(rank) {
            let _ = write!(html, "<td>{}", escaped(&cell));
        }
        html += "</tr>\n";
    }
    html += "</tbody></table>\n";
    if ranks.len() > MOST {
        let _ = writeln!(html, "<p>and {} more ranks: /status.json has all of them</p>", ranks.len() - MOST);
    }
    let written = escaped(&status.written);
    let _ = writeln!(
        html,
        "<p><small>{written}, by the clock of {}; anew every {} s. <a href=\"/status.json\">JSON</a>, \
         <a href=\"/metrics\">Prometheus</a></small></p></body></html>",
        escaped(&status.host),
        Duration::from_secs(REFRESH).as_secs()
    );
    html
}

/// Returns text that is shown as it is, and is neither an element nor a control character.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in crate::console::in_one_line(text).chars() {
        match character {
            '&' => shown += "&amp;",
            '<' => shown += "&lt;",
            '>' => shown += "&gt;",
            '"' => shown += "&quot;",
            '\'' => shown += "&#39;",
            other => shown.push(other),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::example;
    use super::*;

    #[test]
    fn foreign_text_is_no_element_of_the_page() {
        let mut status = example(2);
        status.name = "<script>alert(1)</script>".into();
        status.ranks[1].slowest.as_mut().unwrap().input = Some("\"<img src=x onerror='a'>\x1b\"".into());
        let html = of(&status);
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains('\x1b'), "{html}");
        assert!(html.contains("&lt;script&gt;"), "{html}");
    }

    #[test]
    fn a_page_has_a_bound_and_an_end() {
        let mut status = example(3000);
        let html = of(&status);
        assert_eq!(html.matches("<tr>").count(), MOST + 1);
        assert!(html.contains("and 2000 more ranks") && html.contains("http-equiv=\"refresh\""));
        assert!(html.len() < 400 * MOST, "{}", html.len());
        status.state = State::Ended;
        assert!(!of(&status).contains("http-equiv=\"refresh\""), "what has ended does not change");
    }
}
