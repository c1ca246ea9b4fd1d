//! From a drawing to SVG: labels for screen readers, colours for light and dark pages, no more bytes than needed.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea, RGBAColor, RGBColor, SVGBackend, ShapeStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, TextStyle};

use super::{Caption, Chart, INKS, Ink, Rgb, Unit};

/// Where a chart is drawn.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// The outcome of drawing.
pub(crate) type Drawn = Result<(), Box<dyn Error>>;

/// The size of labels in px. The crate multiplies sizes by 1.24.
pub(super) const TEXT_PX: f64 = 13.0 * 1.24;
/// About the width of a character of a label in px.
pub(super) const CHARACTER_PX: f64 = 7.7;
/// The same for texts of many characters.
const MEAN_PX: f64 = 6.8;

impl Ink {
    fn colours(self) -> (Rgb, Rgb) {
        INKS.iter()
            .find(|(ink, ..)| *ink == self)
            .map_or(((0, 0, 0), (255, 255, 255)), |(_, light, dark)| (*light, *dark))
    }

    pub(super) fn colour(self) -> RGBColor {
        let ((red, green, blue), _) = self.colours();
        RGBColor(red, green, blue)
    }

    /// Returns the style of a filled mark; `strength` from 0 to 1 is how opaque it is.
    pub(super) fn fill(self, strength: f64) -> ShapeStyle {
        // Few different values, so that the file has few bytes.
        let alpha = (strength.clamp(0.0, 1.0) * 20.0).round() / 20.0;
        RGBAColor(self.colour().0, self.colour().1, self.colour().2, alpha).filled()
    }

    pub(super) fn line(self, width: u32) -> ShapeStyle {
        self.colour().stroke_width(width)
    }
}

/// Returns the style of a label that stands at this position of its point.
pub(super) fn label(ink: Ink, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", TEXT_PX).into_font()).pos(Pos::new(horizontal, vertical));
    style.color = ink.colour().to_backend_color();
    style
}

/// Returns a chart as SVG; `is_file`: with its own style and background.
pub(super) fn draw(chart: &impl Chart, is_file: bool) -> String {
    let mut drawn = String::new();
    let size = chart.size();
    {
        let area = SVGBackend::with_string(&mut drawn, size).into_drawing_area();
        // What could not be drawn is not there; drawing into memory does not fail.
        let _ = chart.draw(&area);
        let _ = area.present();
    }
    dressed(&drawn, size, chart.caption(), is_file)
}

/// Returns the drawing with a head of our own.
fn dressed(drawn: &str, (width, height): (u32, u32), caption: &Caption, is_file: bool) -> String {
    // The crate escapes quotes in texts, so these are attributes.
    let marks = drawn.split_once('>').map_or("", |(_, marks)| marks);
    let marks = marks
        .replace(" opacity=\"1\"", "")
        .replace(" stroke=\"none\"", "")
        .replace(" font-family=\"sans-serif\"", "")
        .replace(" font-size=\"13\"", "")
        .replace("\">\n", "\">")
        .replace("\n</text>", "</text>");
    let (title, description) = (escaped(&caption.title), escaped(&caption.description));
    let style = if is_file { format!("<style>{}</style>", file_style()) } else { String::new() };
    format!(
        "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{title}. {description}\"><title>{title}</title><desc>{description}</desc>\
         {style}{marks}"
    )
}

const FILE_STYLE: &str = "svg{background:#fff}@media(prefers-color-scheme:dark){svg{background:#0d1117}}";

/// Returns the rules for a file of its own.
pub(super) fn file_style() -> String {
    style() + FILE_STYLE
}

/// Returns the rules for charts in a style sheet.
pub(crate) fn style() -> String {
    let hex = |(red, green, blue): Rgb| format!("#{red:02X}{green:02X}{blue:02X}");
    let mut text = String::from(
        ".chart{max-width:100%;height:auto;display:block;--halo:#fff}.chart text{font:13px system-ui,sans-serif;stroke:var(--halo);\
         stroke-width:4px;paint-order:stroke;stroke-linejoin:round}",
    );
    text.push_str("@media(prefers-color-scheme:dark){.chart{--halo:#0d1117}");
    for (_, light, dark) in INKS {
        let (light, dark) = (hex(light), hex(dark));
        for attribute in ["fill", "stroke"] {
            text.push_str(&format!(".chart [{attribute}=\"{light}\"]{{{attribute}:{dark}}}"));
        }
    }
    text.push('}');
    text
}

/// Escapes a text for XML and HTML, in a text and in a quoted attribute. Control characters are shown as such.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in crate::console::escaped(text).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Returns a text that is at most about this wide, in one line, without control characters.
pub(super) fn fitted(text: &str, px: f64) -> String {
    let most = (px / MEAN_PX).max(3.0) as usize;
    let text = crate::console::in_one_line(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Returns where a logarithmic axis has labels: at powers of ten, or at 1, 2 and 5 times such, whatever gives enough of them.
pub(super) fn log_points(range: &std::ops::Range<f64>, unit: Unit, most: usize) -> Vec<f64> {
    if unit == Unit::Bytes {
        return binary_points(range, most);
    }
    if unit == Unit::Seconds && range.end > 120.0 {
        return time_points(range, most);
    }
    let (low, high) = (range.start.log10().floor() as i32, range.end.log10().ceil() as i32);
    let points = |steps: &[f64], every: i32| -> Vec<f64> {
        let powers = (low..=high).filter(|power| power.rem_euclid(every) == 0);
        let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        all.filter(|point| (range.start * 0.999..=range.end * 1.001).contains(point)).collect()
    };
    let fine = [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    let steps: [&[f64]; 4] = [&fine, &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0], &[1.0, 2.0, 5.0], &[1.0]];
    let coarse = steps.into_iter().map(|steps| points(steps, 1)).find(|points| points.len() <= most);
    coarse.unwrap_or_else(|| points(&[1.0], (high - low) / most.max(1) as i32 + 1))
}

/// Returns the labels of an axis of times that reaches beyond some minutes: round numbers of seconds, minutes, hours and days.
fn time_points(range: &std::ops::Range<f64>, most: usize) -> Vec<f64> {
    const FINE: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];
    const LONG: [f64; 10] =
        [600.0, 1200.0, 3600.0, 7200.0, 18_000.0, 43_200.0, 86_400.0, 172_800.0, 432_000.0, 864_000.0];
    const COARSE: [f64; 9] = [1e-9, 1e-6, 1e-3, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0];
    let is_in = |point: &f64| (range.start * 0.999..=range.end * 1.001).contains(point);
    let short = (-9..0).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)));
    let points: Vec<_> = short.chain(FINE).chain(LONG).filter(is_in).collect();
    if points.len() <= most {
        points
    } else {
        COARSE.into_iter().chain([36_000.0, 86_400.0, 864_000.0]).filter(is_in).collect()
    }
}

/// Returns the labels of an axis of bytes: powers of two, or simple multiples of them.
fn binary_points(range: &std::ops::Range<f64>, most: usize) -> Vec<f64> {
    let (low, high) = (range.start.log2().floor() as i32, range.end.log2().ceil() as i32);
    let points = |steps: &[f64], every: i32| -> Vec<f64> {
        let powers = (low..=high).filter(|power| power.rem_euclid(every) == 0);
        let all = powers.flat_map(|power| steps.iter().map(move |step| step * 2f64.powi(power)));
        all.filter(|point| (range.start * 0.999..=range.end * 1.001).contains(point)).collect()
    };
    let fine = [1.0, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875];
    let steps: [&[f64]; 4] = [&fine, &[1.0, 1.25, 1.5, 1.75], &[1.0, 1.5], &[1.0]];
    let found = steps.into_iter().map(|steps| points(steps, 1)).find(|points| points.len() <= most);
    found.unwrap_or_else(|| points(&[1.0], (high - low) / most.max(1) as i32 + 1))
}

/// Returns a range with these ends in which something can be drawn, for a linear or a logarithmic axis.
pub(super) fn range(values: impl Iterator<Item = f64>, is_log: bool, from_zero: bool) -> std::ops::Range<f64> {
    let is_shown = |value: &f64| value.is_finite() && value.abs() < 1e300 && (!is_log || *value > 1e-300);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(is_shown) {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        return if is_log { 1.0..10.0 } else { 0.0..1.0 };
    }
    if is_log {
        return if high / low < 1.5 { low / 1.5..high * 1.5 } else { low..high };
    }
    let low = if from_zero { low.min(0.0) } else { low };
    if high - low < high.abs() * 1e-9 || high <= low { low..low + low.abs().max(1.0) } else { low..high }
}
