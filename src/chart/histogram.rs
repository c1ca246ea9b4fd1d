//! A histogram: how many values are in each of consecutive ranges, mostly on a logarithmic axis.

use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};

use super::axes::{Axes, Scale, log};
use super::svg::{Area, Drawn, label, range};
use super::{Axis, Caption, Chart, Ink, Reference};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 260;

/// The values from `from` to `to`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub from: f64,
    pub to: f64,
    pub count: u64,
}

/// A histogram. The references are dashed lines at values of x.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    pub caption: Caption,
    pub x: Axis,
    pub y: Axis,
    pub columns: Vec<Column>,
    pub references: Vec<Reference>,
}

impl Chart for Histogram {
    fn caption(&self) -> &Caption {
        &self.caption
    }

    fn size(&self) -> (u32, u32) {
        (WIDTH, HEIGHT)
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let x = range(self.columns.iter().flat_map(|column| [column.from, column.to]), self.x.is_log, false);
        match self.x.is_log {
            true => self.draw_in(area, log(&x, self.x.unit, 12), &x),
            false => self.draw_in(area, x.clone(), &x),
        }
    }
}

impl Histogram {
    fn draw_in(&self, area: &Area<'_>, x: impl Scale, shown: &std::ops::Range<f64>) -> Drawn {
        let most = self.columns.iter().map(|column| column.count).max().unwrap_or(0).max(1) as f64;
        let above = 22 + 16 * (self.references.len() as u32).saturating_sub(1);
        let axes = Axes { x: &self.x, y: &self.y, above, x_labels: 10, has_x_grid: false };
        let mut chart = axes.draw(area, x, 0.0..most * 1.05)?;
        let columns = self.columns.iter().filter(|column| column.count > 0);
        let bars: Vec<_> = columns
            .map(|column| {
                let (low, high) = (column.from.max(shown.start), column.to.min(shown.end));
                Rectangle::new([(low, 0.0), (high, column.count as f64)], Ink::Main.fill(0.9))
            })
            .collect();
        chart.draw_series(bars)?;
        for (row, reference) in self.references.iter().enumerate() {
            if !(shown.start..=shown.end).contains(&reference.value) {
                continue;
            }
            let step = most * 1.05 / 24.0;
            let dashes = (0..12).map(|dash| {
                let from = f64::from(dash) * 2.0 * step;
                PathElement::new([(reference.value, from), (reference.value, from + step)], Ink::Reference.line(2))
            });
            chart.draw_series(dashes)?;
            let (x, _) = chart.backend_coord(&(reference.value, 0.0));
            let side = if x > WIDTH as i32 / 2 { HPos::Right } else { HPos::Left };
            let text = format!("{}: {}", reference.label, self.x.unit.format(reference.value));
            area.draw(&Text::new(text, (x, 4 + 16 * row as i32), label(Ink::Reference, side, VPos::Top)))?;
        }
        Ok(())
    }
}
