//! The table of all kills, by target and launcher.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::processes::Target;
use crate::task::Task;
use crate::trial::Cost;

const HEAD: &str = "\
| killed | launcher | in | kills | outputs that differ | jobs lost | saved jobs run again | finished jobs run again | the oldest of these, s | running jobs run again | jobs charged with a failure |
|---|---|---|---|---|---|---|---|---|---|---|
";

/// By what was killed, and under which launcher.
#[derive(Default)]
pub struct Table(BTreeMap<(Target, &'static str), Row>);

#[derive(Default)]
struct Row {
    /// The number of kills in each task.
    tasks: BTreeMap<Task, u32>,
    cost: Cost,
}

impl Table {
    pub fn add(&mut self, target: Target, launcher: &'static str, task: Task, cost: &Cost) {
        let Row { tasks, cost: sum } = self.0.entry((target, launcher)).or_default();
        *tasks.entry(task).or_default() += cost.kills;
        sum.kills += cost.kills;
        sum.differing += cost.differing;
        sum.lost += cost.lost;
        sum.saved_again += cost.saved_again;
        sum.finished_again += cost.finished_again;
        sum.running_again += cost.running_again;
        sum.charged += cost.charged;
        sum.oldest = sum.oldest.max(cost.oldest);
    }

    pub fn kills(&self) -> u32 {
        self.0.values().map(|row| row.cost.kills).sum()
    }

    fn rows(&self) -> Vec<(String, String)> {
        let row = |(target, launcher): &(Target, &'static str), Row { tasks, cost }: &Row| {
            let tasks: Vec<_> = tasks.iter().map(|(task, kills)| format!("{} {kills}", task.name())).collect();
            let Cost { kills, differing, lost, saved_again, finished_again, running_again, oldest, charged } = cost;
            let cells = format!(
                "| {} | {kills} | {differing} | {lost} | {saved_again} | {finished_again} | {oldest:.2} | {running_again} | {charged} |\n",
                tasks.join(", ")
            );
            (format!("| {} | {launcher} ", target.name()), cells)
        };
        self.0.iter().map(|(key, of)| row(key, of)).collect()
    }

    /// Replaces the table in a text, or adds it.
    pub fn put_into(&self, text: &str) -> String {
        let is_row = |line: &&str| line.starts_with("| ") || line.starts_with("|---");
        let start = text.find("| killed | launcher |").unwrap_or(text.len());
        let (before, rest) = text.split_at(start);
        let earlier: String = rest.split_inclusive('\n').take_while(is_row).collect();
        format!("{before}{}{}", self.markdown(&earlier), &rest[earlier.len()..])
    }

    /// The table as Markdown, with the rows of other launchers that `earlier` has.
    pub fn markdown(&self, earlier: &str) -> String {
        let mut rows = self.rows();
        let ours: Vec<&'static str> = self.0.keys().map(|(_, launcher)| *launcher).collect();
        for line in earlier.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| killed")) {
            let cells: Vec<&str> = line.split(" | ").collect();
            if cells.len() > 2 && !ours.contains(&cells[1]) {
                let start = format!("{} | {} ", cells[0], cells[1]);
                rows.push((start, format!("| {}\n", cells[2..].join(" | "))));
            }
        }
        rows.sort();
        let mut text = HEAD.to_string();
        for (start, cells) in rows {
            let _ = write!(text, "{start}{cells}");
        }
        text
    }
}
