//! A Gantt chart: what happened in each row over time.

use plotters::chart::ChartBuilder;
use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};

use super::svg::{Area, CHARACTER_PX, Drawn, fitted, label, range};
use super::{Axis, Caption, Chart, Ink};

const WIDTH: u32 = 900;
const ROW: u32 = 16;
const GAP: i32 = 2;
const AXIS: u32 = 44;
const LABELS: f64 = 220.0;

/// Something that went on in a row for a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub row: usize,
    pub from: f64,
    pub to: f64,
    pub ink: Ink,
    /// How opaque it is, from 0 to 1.
    pub strength: f64,
    /// The part of the row's height that it takes, from below, from 0 to 1.
    pub height: f64,
}

/// A Gantt chart.
#[derive(Debug, Clone)]
pub(crate) struct Gantt {
    pub caption: Caption,
    pub x: Axis,
    /// The time that is shown.
    pub range: (f64, f64),
    /// The labels of the rows, from above.
    pub rows: Vec<String>,
    pub marks: Vec<Mark>,
}

impl Chart for Gantt {
    fn caption(&self) -> &Caption {
        &self.caption
    }

    fn size(&self) -> (u32, u32) {
        (WIDTH, self.rows.len().max(1) as u32 * ROW + AXIS + 8)
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let longest = self.rows.iter().map(|row| row.chars().count()).max().unwrap_or(0) as f64;
        let labels = (longest * CHARACTER_PX + 14.0).clamp(60.0, LABELS);
        let rows = self.rows.len().max(1) as f64;
        let x = range([self.range.0, self.range.1].into_iter(), false, false);
        let mut chart = ChartBuilder::on(area)
            .margin_top(4)
            .margin_right(24)
            .x_label_area_size(AXIS)
            .y_label_area_size(labels as u32)
            .build_cartesian_2d(x.clone(), rows..0.0)?;
        let format = |value: &f64| self.x.unit.format(*value);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .y_labels(0)
            .x_labels(8)
            .light_line_style(Ink::Grid.fill(0.0))
            .bold_line_style(Ink::Grid.line(1))
            .axis_style(Ink::Grid.line(1))
            .label_style(label(Ink::Faint, HPos::Left, VPos::Center))
            .axis_desc_style(label(Ink::Text, HPos::Center, VPos::Center))
            .x_label_formatter(&format)
            .x_desc(self.x.label.clone())
            .draw()?;
        for (row, name) in self.rows.iter().enumerate() {
            let (left, middle) = chart.backend_coord(&(x.start, row as f64 + 0.5));
            let style = label(Ink::Text, HPos::Right, VPos::Center);
            area.draw(&Text::new(fitted(name, labels - 12.0), (left - 6, middle), style))?;
        }
        for mark in
            self.marks.iter().filter(|mark| mark.row < self.rows.len() && mark.from.is_finite() && mark.to.is_finite())
        {
            let (left, top) = chart.backend_coord(&(mark.from.clamp(x.start, x.end), mark.row as f64));
            let (right, bottom) = chart.backend_coord(&(mark.to.clamp(x.start, x.end), mark.row as f64 + 1.0));
            // What is too short to be seen is one pixel wide.
            let least = if mark.ink == Ink::Failed { 2 } else { 1 };
            let right = if right - left > 3 { right - 1 } else { right.max(left + least) };
            let (top, bottom) = (top + GAP / 2, bottom - GAP / 2);
            let height = (f64::from(bottom - top) * mark.height.clamp(0.0, 1.0)).ceil() as i32;
            let ends = [(left, bottom - height), (right, bottom)];
            area.draw(&Rectangle::new(ends, mark.ink.fill(mark.strength)))?;
        }
        Ok(())
    }
}
