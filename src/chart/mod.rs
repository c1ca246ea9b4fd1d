//! Charts as SVG, for pages and for files: bars, lines, histograms and Gantt charts.
//!
//! Each chart is a plain struct with a `caption`; [`Chart::to_svg`] makes a file of it, and [`Chart::to_inline`] a part of an HTML
//! page whose style sheet contains [`style`]. The colours are told apart by people who are colour-blind, and change where a reader
//! prefers a dark page. The number of marks is that of the values given: callers sum up what would be too many.
//!
//! ```ignore
//! let svg = Bars {
//!     caption: Caption::new("Time of the sweep", "Four ranks take 1.3 s, one takes 4.9 s."),
//!     unit: Unit::Seconds,
//!     bars: vec![Bar::new("4 ranks", 1.3).with_note("3.8×"), Bar::new("1 rank", 4.9)],
//!     reference: Some(Reference::new("serial", 4.9)),
//! }
//! .to_svg();
//! ```

mod axes;
mod bars;
mod gantt;
mod histogram;
mod lines;
mod sheet;
mod svg;
#[cfg(test)]
mod tests;

use crate::console::words;

pub(crate) use bars::{Bar, Bars};
pub(crate) use gantt::{Gantt, Mark};
pub(crate) use histogram::{Column, Histogram};
pub(crate) use lines::{Lines, Series};
pub(crate) use sheet::Sheet;
pub(crate) use svg::{escaped, style};

/// What a chart shows, for people who do not see it, and for the tooltip of the whole chart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caption {
    pub title: String,
    pub description: String,
}

impl Caption {
    pub(crate) fn new(title: impl Into<String>, description: impl Into<String>) -> Caption {
        Caption { title: title.into(), description: description.into() }
    }
}

/// A chart.
pub(crate) trait Chart {
    /// Returns its caption.
    fn caption(&self) -> &Caption;

    /// Returns its width and height in px.
    fn size(&self) -> (u32, u32);

    /// Draws it.
    ///
    /// # Errors
    /// None of the drawing into memory; those of the crate that draws.
    fn draw(&self, area: &svg::Area<'_>) -> svg::Drawn;

    /// Returns it as a file.
    #[cfg_attr(not(test), expect(dead_code, reason = "for benchmarks that write their pictures"))]
    fn to_svg(&self) -> String
    where
        Self: Sized,
    {
        svg::draw(self, true)
    }

    /// Returns it as a part of a page.
    fn to_inline(&self) -> String
    where
        Self: Sized,
    {
        svg::draw(self, false)
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Count,
    /// From 0 to 1.
    Part,
}

impl Unit {
    pub(crate) fn format(self, value: f64) -> String {
        match self {
            Unit::Seconds => words::seconds(value),
            Unit::Bytes => words::bytes(value),
            Unit::Count => words::number(value),
            Unit::Part => words::percent(value),
        }
    }
}

/// An axis. `is_log`: its scale is logarithmic, and only values above 0 are shown.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub label: String,
    pub unit: Unit,
    pub is_log: bool,
}

impl Axis {
    pub(crate) fn new(label: impl Into<String>, unit: Unit) -> Axis {
        Axis { label: label.into(), unit, is_log: false }
    }

    pub(crate) fn log(self) -> Axis {
        Axis { is_log: true, ..self }
    }
}

/// A dashed line at a value, with a label.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub label: String,
    pub value: f64,
}

impl Reference {
    pub(crate) fn new(label: impl Into<String>, value: f64) -> Reference {
        Reference { label: label.into(), value }
    }
}

/// A colour, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// What a chart is about.
    Main,
    /// A second quantity.
    Second,
    /// A third quantity.
    Third,
    /// What has failed.
    Failed,
    /// What waits or is idle.
    Idle,
    /// A dashed line to compare with.
    Reference,
    Text,
    Faint,
    Grid,
}

/// Red, green and blue.
type Rgb = (u8, u8, u8);

/// The colours of each ink on a light and on a dark page.
const INKS: [(Ink, Rgb, Rgb); 9] = [
    (Ink::Main, (0x00, 0x72, 0xB2), (0x4F, 0xA9, 0xE0)),
    (Ink::Second, (0x00, 0x9E, 0x73), (0x3C, 0xC7, 0x9B)),
    (Ink::Third, (0xA0, 0x62, 0xA8), (0xCF, 0x9A, 0xD6)),
    (Ink::Failed, (0xD5, 0x5E, 0x00), (0xFF, 0x8A, 0x3D)),
    (Ink::Idle, (0xB4, 0xBD, 0xC7), (0x50, 0x5A, 0x66)),
    (Ink::Reference, (0x8A, 0x6A, 0x00), (0xF0, 0xC4, 0x4C)),
    (Ink::Text, (0x1F, 0x23, 0x28), (0xE6, 0xED, 0xF3)),
    (Ink::Faint, (0x57, 0x60, 0x6A), (0xA3, 0xAD, 0xB8)),
    (Ink::Grid, (0xDD, 0xE2, 0xE8), (0x2E, 0x36, 0x40)),
];
