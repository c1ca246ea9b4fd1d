//! The axes of lines and histograms: their scales, labels and grid.

use std::error::Error;
use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, VPos};

use super::svg::{Area, label, log_points};
use super::{Axis, Ink, Unit};

/// A linear or a logarithmic scale.
pub(super) trait Scale:
    AsRangedCoord<Value = f64, CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>>
{
}

impl<S> Scale for S where S: AsRangedCoord<Value = f64, CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>> {}

/// Returns a logarithmic scale with at most this number of labels.
pub(super) fn log(range: &Range<f64>, unit: Unit, most: usize) -> impl Scale + use<> {
    range.clone().log_scale().with_key_points(log_points(range, unit, most))
}

/// Both axes of a chart.
pub(super) struct Axes<'c> {
    pub x: &'c Axis,
    pub y: &'c Axis,
    /// The room above them, in px.
    pub above: u32,
    /// The most labels of a linear scale of x.
    pub x_labels: usize,
    /// Whether the grid has lines at the labels of x, too.
    pub has_x_grid: bool,
}

/// A chart with its axes, in which marks are drawn.
pub(super) type Drawing<'a, 'b, X, Y> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<<X as AsRangedCoord>::CoordDescType, <Y as AsRangedCoord>::CoordDescType>,
>;

impl Axes<'_> {
    /// Draws them with these scales.
    ///
    /// # Errors
    /// Those of the crate that draws.
    pub(super) fn draw<'a, 'b, X: Scale, Y: Scale>(
        &self,
        area: &'a Area<'b>,
        x: X,
        y: Y,
    ) -> Result<Drawing<'a, 'b, X, Y>, Box<dyn Error>> {
        let mut chart = ChartBuilder::on(area)
            .margin_top(self.above)
            .margin_left(8)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d(x, y)?;
        let (x_format, y_format) = (|value: &f64| self.x.unit.format(*value), |value: &f64| self.y.unit.format(*value));
        let mut mesh = chart.configure_mesh();
        if !self.has_x_grid {
            mesh.disable_x_mesh();
        }
        mesh.x_labels(self.x_labels)
            .y_labels(5)
            .light_line_style(Ink::Grid.fill(0.0))
            .bold_line_style(Ink::Grid.line(1))
            .axis_style(Ink::Grid.line(1))
            .label_style(label(Ink::Faint, HPos::Left, VPos::Center))
            .axis_desc_style(label(Ink::Text, HPos::Center, VPos::Center))
            .x_label_formatter(&x_format)
            .y_label_formatter(&y_format)
            .x_desc(self.x.label.clone())
            .y_desc(self.y.label.clone())
            .draw()?;
        drop(mesh);
        Ok(chart)
    }
}
