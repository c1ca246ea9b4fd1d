//! Several charts below each other in one file, with lines of text.

use super::svg::{escaped, file_style, fitted};
use super::{Caption, Chart};

/// The width of a chart, in px.
const WIDTH: u32 = 900;
const MARGIN: u32 = 16;
const TITLE: u32 = 34;
const LINE: u32 = 20;

/// A file that is being put together.
#[derive(Debug)]
pub(crate) struct Sheet {
    caption: Caption,
    marks: String,
    height: u32,
}

impl Sheet {
    pub(crate) fn new(caption: Caption) -> Sheet {
        Sheet { caption, marks: String::new(), height: MARGIN }
    }

    /// Adds a chart with its title above it.
    pub(crate) fn chart(mut self, chart: &impl Chart) -> Sheet {
        let title = escaped(&fitted(&chart.caption().title, f64::from(WIDTH)));
        let top = self.height + TITLE;
        self.marks +=
            &format!("<text class=\"title\" x=\"{MARGIN}\" y=\"{}\" fill=\"#1F2328\">{title}</text>", top - 12);
        self.marks += &format!("<g transform=\"translate({MARGIN},{top})\">{}</g>", chart.to_inline());
        self.height = top + chart.size().1;
        self
    }

    /// Adds a line of text.
    pub(crate) fn line(mut self, text: &str) -> Sheet {
        self.height += LINE;
        let text = escaped(&fitted(text, f64::from(WIDTH)));
        self.marks += &format!("<text x=\"{MARGIN}\" y=\"{}\" fill=\"#57606A\">{text}</text>", self.height);
        self
    }

    pub(crate) fn to_svg(&self) -> String {
        let (width, height) = (WIDTH + 2 * MARGIN, self.height + MARGIN);
        let (title, description) = (escaped(&self.caption.title), escaped(&self.caption.description));
        format!(
            "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}. {description}\"><title>{title}</title>\
             <desc>{description}</desc><style>{}.chart .title{{font-size:16px;font-weight:600}}</style>{}</svg>\n",
            file_style(),
            self.marks
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::{Bar, Bars, Unit};

    #[test]
    fn charts_and_lines_stand_below_each_other_in_one_document() {
        let bars = |title: &str| Bars {
            caption: Caption::new(title, ""),
            unit: Unit::Seconds,
            bars: vec![Bar::new("1", 2.0)],
            reference: None,
        };
        let svg = Sheet::new(Caption::new("Both <of> them", ""))
            .chart(&bars("First"))
            .chart(&bars("Second"))
            .line("a machine & its CPUs")
            .to_svg();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert_eq!((svg.matches("<svg").count(), svg.matches("</svg>").count()), (3, 3));
        assert!(svg.contains("Both &lt;of&gt; them") && svg.contains("a machine &amp; its CPUs"));
        assert!(svg.find("First").expect("there") < svg.find("Second").expect("there"));
    }
}
