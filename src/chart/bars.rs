//! Horizontal bars with a label at the left, the value beside each, and a dashed line to compare with.

use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};

use super::svg::{Area, CHARACTER_PX, Drawn, fitted, label};
use super::{Caption, Chart, Ink, Reference, Unit};

const WIDTH: u32 = 900;
const ROW: i32 = 26;
const BAR: i32 = 16;
/// The labels take at most this part of the width.
const LABELS: f64 = 0.35;
/// The values and notes beside the bars.
const VALUES: i32 = 250;
const TOP: i32 = 8;
const BELOW: i32 = 26;

/// A bar of one or more parts.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub label: String,
    pub parts: Vec<(Ink, f64)>,
    /// A text behind the value, such as a speed-up.
    pub note: String,
}

impl Bar {
    pub(crate) fn new(label: impl Into<String>, value: f64) -> Bar {
        Bar { label: label.into(), parts: vec![(Ink::Main, value)], note: String::new() }
    }

    pub(crate) fn with_note(self, note: impl Into<String>) -> Bar {
        Bar { note: note.into(), ..self }
    }

    fn value(&self) -> f64 {
        self.parts.iter().map(|(_, value)| value.max(0.0)).filter(|value| value.is_finite()).sum()
    }
}

/// Horizontal bars.
#[derive(Debug, Clone)]
pub(crate) struct Bars {
    pub caption: Caption,
    pub unit: Unit,
    pub bars: Vec<Bar>,
    pub reference: Option<Reference>,
}

impl Chart for Bars {
    fn caption(&self) -> &Caption {
        &self.caption
    }

    fn size(&self) -> (u32, u32) {
        let below = if self.reference.is_some() { BELOW } else { TOP };
        (WIDTH, (TOP + below + ROW * self.bars.len().max(1) as i32) as u32)
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let longest = self.bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0) as f64;
        let labels = (longest * CHARACTER_PX + 18.0).min(f64::from(WIDTH) * LABELS);
        let (left, right) = (labels as i32, WIDTH as i32 - VALUES);
        let reference = self.reference.as_ref().filter(|reference| reference.value.is_finite());
        let values = self.bars.iter().map(Bar::value).chain(reference.map(|reference| reference.value));
        let most = values.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let x_of = |value: f64| left + ((value / most).clamp(0.0, 1.0) * f64::from(right - left)).round() as i32;
        if let Some(reference) = reference {
            let (x, bottom) = (x_of(reference.value), TOP + ROW * self.bars.len() as i32 + 4);
            dashes(area, (x, TOP), bottom)?;
            let text = format!("{}: {}", reference.label, self.unit.format(reference.value));
            let side = if x > WIDTH as i32 / 2 { HPos::Right } else { HPos::Left };
            area.draw(&Text::new(fitted(&text, 400.0), (x, bottom + 2), label(Ink::Reference, side, VPos::Top)))?;
        }
        for (row, bar) in self.bars.iter().enumerate() {
            let (top, middle) = (TOP + row as i32 * ROW + (ROW - BAR) / 2, TOP + row as i32 * ROW + ROW / 2);
            let name = fitted(&bar.label, labels - 12.0);
            area.draw(&Text::new(name, (left - 8, middle), label(Ink::Text, HPos::Right, VPos::Center)))?;
            let mut from = 0.0;
            for (ink, value) in bar.parts.iter().filter(|(_, value)| *value > 0.0 && value.is_finite()) {
                let ends = [(x_of(from), top), (x_of(from + value).max(x_of(from) + 1), top + BAR)];
                area.draw(&Rectangle::new(ends, ink.fill(1.0)))?;
                from += value;
            }
            let separator = if bar.note.is_empty() { "" } else { ", " };
            let text = format!("{}{separator}{}", self.unit.format(bar.value()), bar.note);
            // The dashed line must not cross the texts.
            let x = if reference.is_some() { right } else { x_of(from) } + 10;
            let style = label(Ink::Faint, HPos::Left, VPos::Center);
            area.draw(&Text::new(fitted(&text, f64::from(WIDTH as i32 - x)), (x, middle), style))?;
        }
        Ok(())
    }
}

/// Draws a dashed line downwards.
fn dashes(area: &Area<'_>, (x, top): (i32, i32), bottom: i32) -> Drawn {
    let mut y = top;
    while y < bottom {
        area.draw(&PathElement::new([(x, y), (x, (y + 6).min(bottom))], Ink::Reference.line(2)))?;
        y += 10;
    }
    Ok(())
}
