//! Lines over a linear or a logarithmic axis.

use plotters::element::{PathElement, Polygon, Text};
use plotters::style::text_anchor::{HPos, VPos};

use super::axes::{Axes, Scale, log};
use super::svg::{Area, CHARACTER_PX, Drawn, label, range};
use super::{Axis, Caption, Chart, Ink, Reference};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 240;

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub name: String,
    pub ink: Ink,
    pub points: Vec<(f64, f64)>,
    /// Whether the area below it is filled.
    pub is_filled: bool,
    pub is_dashed: bool,
}

/// Lines in one chart. A legend is drawn if there are several.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub caption: Caption,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// Dashed lines across the chart, at values of y.
    pub references: Vec<Reference>,
}

impl Chart for Lines {
    fn caption(&self) -> &Caption {
        &self.caption
    }

    fn size(&self) -> (u32, u32) {
        (WIDTH, HEIGHT)
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = range(points().map(|point| point.0), self.x.is_log, false);
        let ys = points().map(|point| point.1).chain(self.references.iter().map(|reference| reference.value));
        let y = range(ys, self.y.is_log, true);
        // A little room above the highest value.
        let y = if self.y.is_log {
            y.start..y.end * 1.2
        } else {
            y.start..y.end + (y.end - y.start) * if self.references.is_empty() { 0.06 } else { 0.2 }
        };
        let ranges = (x.clone(), y.clone());
        match (self.x.is_log, self.y.is_log) {
            (false, false) => self.draw_in(area, x, y, &ranges),
            (true, false) => self.draw_in(area, log(&x, self.x.unit, 10), y, &ranges),
            (false, true) => self.draw_in(area, x, log(&y, self.y.unit, 6), &ranges),
            (true, true) => self.draw_in(area, log(&x, self.x.unit, 10), log(&y, self.y.unit, 6), &ranges),
        }
    }
}

type Ranges = (std::ops::Range<f64>, std::ops::Range<f64>);

impl Lines {
    fn draw_in(&self, area: &Area<'_>, x: impl Scale, y: impl Scale, ranges: &Ranges) -> Drawn {
        let above = if self.series.len() > 1 { 24 } else { 8 };
        let axes = Axes { x: &self.x, y: &self.y, above, x_labels: 8, has_x_grid: true };
        let mut chart = axes.draw(area, x, y)?;
        let ((left, right), base) = ((ranges.0.start, ranges.0.end), ranges.1.start);
        // The crate cannot place points far outside of the axes.
        let is_shown = |(x, y): &&(f64, f64)| {
            (ranges.0.start..=ranges.0.end).contains(x) && (ranges.1.start..=ranges.1.end).contains(y)
        };
        for series in &self.series {
            let points: Vec<_> = series.points.iter().filter(is_shown).copied().collect();
            let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
            if series.is_filled {
                let mut outline = points.clone();
                outline.extend([(last.0, base), (first.0, base)]);
                chart.draw_series([Polygon::new(outline, series.ink.fill(0.25))])?;
            }
            let style = series.ink.line(2);
            if series.is_dashed {
                chart.draw_series(points.chunks(2).map(|pair| PathElement::new(pair.to_vec(), style)))?;
            } else {
                chart.draw_series([PathElement::new(points, style)])?;
            }
        }
        for reference in
            self.references.iter().filter(|reference| (ranges.1.start..=ranges.1.end).contains(&reference.value))
        {
            let (from, y) = chart.backend_coord(&(left, reference.value));
            let (to, _) = chart.backend_coord(&(right, reference.value));
            for x in (from..to).step_by(10) {
                area.draw(&PathElement::new([(x, y), ((x + 6).min(to), y)], Ink::Reference.line(2)))?;
            }
            let style = label(Ink::Reference, HPos::Right, VPos::Bottom);
            let text = format!("{}: {}", reference.label, self.y.unit.format(reference.value));
            chart.draw_series([Text::new(text, (right, reference.value), style)])?;
        }
        self.legend(area)
    }

    fn legend(&self, area: &Area<'_>) -> Drawn {
        let mut x = 90;
        for series in self.series.iter().filter(|_| self.series.len() > 1) {
            area.draw(&PathElement::new([(x, 12), (x + 22, 12)], series.ink.line(3)))?;
            area.draw(&Text::new(series.name.clone(), (x + 28, 12), label(Ink::Text, HPos::Left, VPos::Center)))?;
            x += 52 + (series.name.chars().count() as f64 * CHARACTER_PX) as i32;
        }
        Ok(())
    }
}
