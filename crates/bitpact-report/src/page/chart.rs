//! Charts of the page: plotters draws them as SVG, in colours that the page's style sheet decides.
//!
//! plotters knows numbers of colours and whole pixels only. So a chart is drawn at twice its size, each colour stands
//! for one of the style sheet's ([`Ink`]), and both are put right in the text of the SVG.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use serde_json::json;

use crate::ReportError;

/// Pixels of the drawing for one of the page.
const SCALE: u32 = 2;

/// A colour of the style sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// Text and axes.
    Text,
    /// Lines of the grid.
    Grid,
    /// One of the colours that tell runs or measures apart, by its number.
    Series(u8),
    /// The colour of a layer, from 0, the image's side, to [`Ink::DEPTHS`] - 1.
    Depth(u8),
    /// A clip value.
    Clip,
    /// A level of codes.
    Level,
}

impl Ink {
    /// Colours that tell runs apart.
    pub(super) const SERIES: u8 = 6;
    /// Colours of layers.
    pub(super) const DEPTHS: u8 = 12;

    /// The colour of place `i` of `n` on the way from the image to the output.
    pub(super) fn depth(i: usize, n: usize) -> Self {
        let last = f64::from(Self::DEPTHS - 1);
        Self::Depth((last * i as f64 / (n.max(2) - 1) as f64).round() as u8)
    }

    /// The number by which plotters knows it.
    fn rgb(self) -> RGBColor {
        match self {
            Self::Text => RGBColor(1, 0, 0),
            Self::Grid => RGBColor(1, 0, 1),
            Self::Clip => RGBColor(1, 0, 2),
            Self::Level => RGBColor(1, 0, 3),
            Self::Series(i) => RGBColor(1, 1, i % Self::SERIES),
            Self::Depth(i) => RGBColor(1, 2, i.min(Self::DEPTHS - 1)),
        }
    }

    /// Its name in the style sheet.
    pub(super) fn css(self) -> String {
        match self {
            Self::Text => "var(--ink-2)".to_owned(),
            Self::Grid => "var(--grid)".to_owned(),
            Self::Clip => "var(--clip)".to_owned(),
            Self::Level => "var(--level)".to_owned(),
            Self::Series(i) => format!("var(--s{})", i % Self::SERIES),
            Self::Depth(i) => format!("var(--d{})", i.min(Self::DEPTHS - 1)),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        [Self::Text, Self::Grid, Self::Clip, Self::Level]
            .into_iter()
            .chain((0..Self::SERIES).map(Self::Series))
            .chain((0..Self::DEPTHS).map(Self::Depth))
    }
}

/// A line of a chart.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) ink: Ink,
    pub(super) points: Vec<(f64, f64)>,
    /// Whether the points stand alone, as dots.
    pub(super) dots: bool,
}

/// Lines over a common axis.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) lines: Vec<Line>,
    /// Whether y is logarithmic, where its values are above 0 and far apart.
    pub(super) log_y: bool,
    /// The same of x.
    pub(super) log_x: bool,
    /// Values that the y axis shows whatever the lines hold.
    pub(super) floor: Option<f64>,
}

/// An SVG with what the page's script needs to find a point under the pointer.
pub(super) struct Drawn {
    pub(super) svg: String,
    pub(super) data: String,
}

/// Size of a chart of lines, in pixels of the page.
const SIZE: (u32, u32) = (520, 300);
/// Size of a histogram.
const SMALL: (u32, u32) = (340, 150);

impl Chart {
    /// The chart, where there is a point to draw.
    pub(super) fn draw(&self) -> Result<Option<Drawn>, ReportError> {
        let points = || self.lines.iter().flat_map(|line| &line.points).filter(|p| p.0.is_finite() && p.1.is_finite());
        if points().next().is_none() {
            return Ok(None);
        }
        let ends = |of: fn(&(f64, f64)) -> f64| {
            points().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let ((left, right), (mut low, mut high)) = (ends(|p| p.0), ends(|p| p.1));
        if let Some(floor) = self.floor {
            (low, high) = (low.min(floor), high.max(floor));
        }
        if high - low <= 1e-9 * high.abs() {
            let side = if high == 0.0 { 1.0 } else { 0.1 * high.abs() };
            (low, high) = (if low == 0.0 { low } else { low - side }, high + side);
        }
        // Within a factor of twenty a logarithmic axis would have one number or two.
        let is_wide = |low: f64, high: f64| low > 0.0 && high > 20.0 * low;
        let (log_x, log_y) = (self.log_x && is_wide(left, right), self.log_y && is_wide(low, high));
        let x = match (log_x, right > left) {
            (true, _) => left / 1.2..right * 1.2,
            (false, true) if self.lines.iter().all(|line| line.dots || line.points.len() == 1) => {
                let side = 0.08 * (right - left);
                left - side..right + side
            }
            (false, true) => left..right,
            (false, false) => left - 0.5..right + 0.5,
        };
        let margin = 0.06 * (high - low);
        let y = match log_y {
            true => low / 1.1..high * 1.1,
            false => (if self.floor == Some(low) { low } else { low - margin })..high + margin,
        };
        let (mut svg, frame) = match (log_x, log_y) {
            (false, false) => self.drawn(x.clone(), y.clone()),
            (false, true) => self.drawn(x.clone(), y.clone().log_scale()),
            (true, false) => self.drawn(x.clone().log_scale(), y.clone()),
            (true, true) => self.drawn(x.clone().log_scale(), y.clone().log_scale()),
        }
        .map_err(|message| ReportError::Drawing { message })?;
        restyle(&mut svg, SIZE);
        let round = |v: f64| format!("{v:.6e}").parse::<f64>().unwrap_or(v);
        let lines: Vec<_> = self
            .lines
            .iter()
            .filter(|line| !line.points.is_empty())
            .map(|line| {
                let points: Vec<_> = line.points.iter().map(|&(x, y)| [round(x), round(y)]).collect();
                json!({ "name": line.name, "ink": line.ink.css(), "points": points })
            })
            .collect();
        let data = json!({
            "frame": frame, "x": [x.start, x.end], "y": [y.start, y.end], "log": [log_x, log_y],
            "labels": [self.x, self.y], "lines": lines,
        });
        Ok(Some(Drawn { svg, data: data.to_string() }))
    }

    fn drawn<X, Y>(&self, x: X, y: Y) -> Result<(String, [f64; 4]), String>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let told = |e: &dyn std::fmt::Display| e.to_string();
        let mut svg = String::new();
        let frame;
        {
            let root = SVGBackend::with_string(&mut svg, (SIZE.0 * SCALE, SIZE.1 * SCALE)).into_drawing_area();
            let mut chart = ChartBuilder::on(&root)
                .margin(8 * SCALE)
                .x_label_area_size(42 * SCALE)
                .y_label_area_size(62 * SCALE)
                .build_cartesian_2d(x, y)
                .map_err(|e| told(&e))?;
            let font = ("sans-serif", 16 * SCALE).into_font().color(&Ink::Text.rgb());
            let mut mesh = chart.configure_mesh();
            mesh.x_desc(&self.x).y_desc(&self.y).x_labels(6).y_labels(5);
            mesh.disable_x_mesh()
                .max_light_lines(0)
                .light_line_style(Ink::Grid.rgb().mix(0.5))
                .bold_line_style(Ink::Grid.rgb().stroke_width(SCALE));
            mesh.axis_style(Ink::Grid.rgb().stroke_width(SCALE));
            mesh.label_style(font.clone()).axis_desc_style(font);
            mesh.x_label_formatter(&|v| short(*v)).y_label_formatter(&|v| short(*v));
            mesh.draw().map_err(|e| told(&e))?;
            let (xs, ys) = chart.plotting_area().get_pixel_range();
            frame = [xs.start, ys.start, xs.end, ys.end].map(|v| f64::from(v) / f64::from(SCALE));
            for line in &self.lines {
                let points = line.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite());
                let style = line.ink.rgb().stroke_width(2 * SCALE);
                if line.dots || line.points.len() == 1 {
                    let dots = points.map(|point| Circle::new(point, 4 * SCALE, line.ink.rgb().filled()));
                    chart.draw_series(dots).map_err(|e| told(&e))?;
                } else {
                    chart.draw_series(LineSeries::new(points, style)).map_err(|e| told(&e))?;
                }
            }
            root.present().map_err(|e| told(&e))?;
        }
        Ok((svg, frame))
    }
}

/// Bars over equal intervals, with lines across.
#[derive(Debug, Clone)]
pub(super) struct Bars<'a> {
    pub(super) x: &'a str,
    /// Ends of the axis.
    pub(super) range: (f64, f64),
    /// Heights of the bars, from left to right; the largest fills the chart.
    pub(super) heights: &'a [f64],
    pub(super) ink: Ink,
    /// Upright lines behind the bars.
    pub(super) levels: &'a [f64],
    /// Upright lines in front of them.
    pub(super) clips: &'a [f64],
}

impl Bars<'_> {
    pub(super) fn draw(&self) -> Result<String, ReportError> {
        let mut svg = self.drawn().map_err(|message| ReportError::Drawing { message })?;
        restyle(&mut svg, SMALL);
        Ok(svg)
    }

    fn drawn(&self) -> Result<String, String> {
        let told = |e: &dyn std::fmt::Display| e.to_string();
        let mut svg = String::new();
        {
            let most = self.heights.iter().copied().fold(0.0, f64::max).max(1e-12);
            let (left, right) = self.range;
            let root = SVGBackend::with_string(&mut svg, (SMALL.0 * SCALE, SMALL.1 * SCALE)).into_drawing_area();
            let mut chart = ChartBuilder::on(&root)
                .margin(6 * SCALE)
                .x_label_area_size(40 * SCALE)
                .build_cartesian_2d(left..right, 0.0..1.05 * most)
                .map_err(|e| told(&e))?;
            let font = ("sans-serif", 15 * SCALE).into_font().color(&Ink::Text.rgb());
            let mut mesh = chart.configure_mesh();
            mesh.disable_mesh().disable_y_axis().x_desc(self.x).x_labels(6);
            mesh.axis_style(Ink::Grid.rgb().stroke_width(SCALE)).label_style(font.clone()).axis_desc_style(font);
            mesh.x_label_formatter(&|v| short(*v));
            mesh.draw().map_err(|e| told(&e))?;
            let upright = |at: f64, ink: Ink, width: u32| {
                PathElement::new([(at, 0.0), (at, 1.05 * most)], ink.rgb().stroke_width(width * SCALE))
            };
            let inside = |at: &&f64| (left..=right).contains(*at);
            let levels = self.levels.iter().filter(inside).map(|&at| upright(at, Ink::Level, 1));
            chart.draw_series(levels).map_err(|e| told(&e))?;
            let width = (right - left) / self.heights.len().max(1) as f64;
            let bars = self.heights.iter().enumerate().filter(|(_, height)| **height > 0.0).map(|(i, &height)| {
                let from = left + width * i as f64;
                // Half a hundredth of the height is the least that can be seen.
                let height = height.max(0.005 * most);
                Rectangle::new([(from + 0.06 * width, 0.0), (from + 0.94 * width, height)], self.ink.rgb().filled())
            });
            chart.draw_series(bars).map_err(|e| told(&e))?;
            let clips = self.clips.iter().filter(inside).map(|&at| upright(at, Ink::Clip, 2));
            chart.draw_series(clips).map_err(|e| told(&e))?;
            root.present().map_err(|e| told(&e))?;
        }
        Ok(svg)
    }
}

/// Gives an SVG of plotters the colours of the style sheet and a size that the page decides.
fn restyle(svg: &mut String, (width, height): (u32, u32)) {
    for ink in Ink::all() {
        let RGBColor(r, g, b) = ink.rgb();
        *svg = svg.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), &format!("\"{}\"", ink.css()));
    }
    for needless in [" opacity=\"1\"", " font-family=\"sans-serif\"", "\n"] {
        *svg = svg.replace(needless, if needless == "\n" { " " } else { "" });
    }
    let body = svg.find('>').map_or("", |end| &svg[end + 1..]);
    let (w, h) = (width * SCALE, height * SCALE);
    *svg = format!("<svg viewBox=\"0 0 {w} {h}\" class=\"w{width}\" aria-hidden=\"true\">{body}");
}

/// A number of an axis without digits that say nothing.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.0e}"),
        _ => format!("{}", (value * 1e4).round() / 1e4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: Vec<(f64, f64)>) -> Chart {
        let lines = vec![Line { name: "a \"run\"".to_owned(), ink: Ink::Series(1), points, dots: false }];
        Chart { x: "epoch".to_owned(), y: "loss".to_owned(), lines, log_y: false, log_x: false, floor: None }
    }

    #[test]
    fn charts_have_colours_of_the_style_sheet_only_and_their_own_numbers() {
        let drawn = line(vec![(1.0, 2.25), (2.0, 1.5), (3.0, f64::NAN)]).draw().unwrap().unwrap();
        assert!(drawn.svg.contains("var(--s1)") && drawn.svg.contains("var(--grid)"), "{}", drawn.svg);
        assert!(!drawn.svg.contains("#0"), "{}", drawn.svg);
        let data: serde_json::Value = serde_json::from_str(&drawn.data).unwrap();
        assert_eq!(data["lines"][0]["points"][0], json!([1.0, 2.25]));
        assert_eq!(data["lines"][0]["name"], "a \"run\"");
    }

    #[test]
    fn nothing_is_drawn_of_nothing_and_something_of_one_point_or_equal_ones() {
        assert!(line(Vec::new()).draw().unwrap().is_none());
        assert!(line(vec![(f64::NAN, 1.0)]).draw().unwrap().is_none());
        for points in [vec![(3.0, 0.0)], vec![(1.0, 5.0), (2.0, 5.0)], vec![(1.0, 1e30), (2.0, 1e-30)]] {
            for log_y in [false, true] {
                let chart = Chart { log_y, ..line(points.clone()) };
                assert!(chart.draw().unwrap().is_some(), "{points:?}");
            }
        }
    }

    #[test]
    fn bars_show_levels_and_clip_values_inside_the_axis() {
        let bars = |clips: &[f64]| {
            let bars = Bars {
                x: "x",
                range: (0.0, 4.0),
                heights: &[1.0, 0.0, 3.0],
                ink: Ink::Depth(3),
                levels: &[1.0],
                clips,
            };
            bars.draw().unwrap()
        };
        let svg = bars(&[2.0, 9.0]);
        assert_eq!(svg.matches("var(--clip)").count(), 1);
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("var(--level)") && !bars(&[]).contains("var(--clip)"));
    }
}
