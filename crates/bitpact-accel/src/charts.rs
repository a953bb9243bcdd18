//! SVG charts: area against bits, throughput against bits, a roofline with the layers on it. The same numbers give the
//! same bytes.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
pub use plotters::prelude::SeriesLabelPosition;
use plotters::prelude::*;

use crate::area::PairArea;
use crate::estimate::roofline_point;
use crate::paper::{self, Study};
use crate::{AccelError, AreaTable, Device, Estimate, Widths};

const SIZE: (u32, u32) = (760, 480);
/// Okabe and Ito's colours, which people who see few colours can tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A line, or crosses without one. Crosses have the colour of the line before them, and so has a line without a name.
#[derive(Debug, Clone)]
pub struct Series {
    /// Name of the series in the legend; a series with an empty name is left out of the legend.
    pub name: String,
    /// Points of the line as pairs of x and y.
    pub points: Vec<(f64, f64)>,
    /// True where a line joins the points of the series, false where they stand alone.
    pub line: bool,
}

/// Relative area of a multiply-accumulate unit against bits, both operands alike: synthesized, and the paper's.
///
/// # Errors
/// The drawing library fails.
pub fn area(table: &AreaTable) -> Result<String, AccelError> {
    let same = |bits: u8| Widths::same(bits).expect("1 to 16");
    let there = AreaTable::widths().filter_map(|bits| table.get(same(bits)));
    let relative = |row: &PairArea| row.mac_transistors as f64 / table.mac(same(2));
    let points = there.map(|row| (f64::from(row.weight_bits), relative(row))).collect();
    let series = [
        Series { name: "unit, synthesized".to_owned(), points, line: true },
        Series {
            name: "PACT paper, figure 6(b)".to_owned(),
            points: paper::BITS.map(f64::from).into_iter().zip(paper::AREA).collect(),
            line: false,
        },
    ];
    let labels = ["Area of a multiply-accumulate unit", "bits of both operands", "area over that of 2 bits"];
    draw("area", labels, (0.0..17.0).step(1.0), 0.0..16.0, &series, (17, SeriesLabelPosition::LowerRight))
}

/// Images a second against bits, a line for each bandwidth, the paper's points beside it.
///
/// # Errors
/// The drawing library fails.
pub fn throughput(study: &Study) -> Result<String, AccelError> {
    let mut series = Vec::new();
    for (j, bandwidth) in paper::BANDWIDTHS.into_iter().enumerate() {
        let name = bandwidth.map_or("unlimited".to_owned(), |gbps| format!("{gbps} GB/s"));
        let points =
            |values: &[[f64; 3]; 4]| paper::BITS.iter().zip(values).map(|(&b, v)| (f64::from(b), v[j])).collect();
        series.push(Series { name: name.clone(), points: points(&study.throughput), line: true });
        if study.network == "resnet50-v1" {
            series.push(Series { name: format!("{name}, paper"), points: points(&paper::THROUGHPUT), line: false });
        }
    }
    let most =
        study.throughput.iter().flatten().chain(paper::THROUGHPUT.iter().flatten()).fold(0.0f64, |m, &v| m.max(v));
    let title = format!("{} on the PACT paper's accelerator", study.network);
    let labels = [title.as_str(), "bits of both operands", "images a second"];
    draw("throughput", labels, (1.0..17.0).step(1.0), 0.0..most * 1.05, &series, (17, SeriesLabelPosition::UpperRight))
}

/// Attainable multiply-adds a second against multiply-adds per external byte, with every layer on it; those that move
/// nothing stand at the right edge.
///
/// # Errors
/// The drawing library fails.
pub fn roofline(device: &Device, network: &str, estimate: &Estimate) -> Result<String, AccelError> {
    let points: Vec<(f64, f64)> =
        estimate.layers.iter().filter_map(roofline_point).map(|(x, y)| (x, y / 1e9)).collect();
    let peak = device.peak_macs_per_s() / 1e9;
    let range = |of: fn(&(f64, f64)) -> f64, with: &[f64]| {
        let all = || points.iter().map(of).chain(with.iter().copied());
        let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        10f64.powf(least.log10().floor())..10f64.powf(most.log10().ceil())
    };
    let knee = device.bandwidth_gbps.map_or(1.0, |gbps| peak / gbps);
    let x = range(|p| p.0, &[knee * 0.5, knee * 20.0]);
    let rates = estimate.layers.iter().filter(|l| l.macs > 0).map(|l| l.macs as f64 / l.time_s / 1e9);
    let y = range(|p| p.1, &[rates.fold(peak * 0.05, f64::min), peak * 1.01]);
    let roof: Vec<(f64, f64)> = [x.start, knee.clamp(x.start, x.end), x.end]
        .map(|at| (at, device.bandwidth_gbps.map_or(peak, |gbps| peak.min(gbps * at))))
        .into();
    let on_chip = estimate.layers.iter().filter(|l| l.macs > 0 && l.weight_bytes + l.activation_bytes == 0);
    let on_chip = on_chip.map(|l| (x.end, l.macs as f64 / l.time_s / 1e9)).collect();
    let series = [
        Series { name: format!("roof of {}", device.name), points: roof, line: true },
        Series { name: "layers that move something".to_owned(), points, line: false },
        Series { name: "layers wholly on chip, at the right edge".to_owned(), points: on_chip, line: false },
    ];
    let title = format!("{network} on {}, batch {}", device.name, estimate.batch);
    let labels = [title.as_str(), "multiply-adds per external byte", "billion multiply-adds a second"];
    draw("roofline", labels, x.clone().log_scale(), y.log_scale(), &series, (10, SeriesLabelPosition::LowerMiddle))
}

/// An SVG chart of `series`, with a title and names of the axes, about `x_labels` numbers along x and the legend at
/// `legend`.
///
/// # Errors
/// The drawing library fails.
pub fn draw<X, Y>(
    chart: &'static str,
    [title, x_label, y_label]: [&str; 3],
    x: X,
    y: Y,
    series: &[Series],
    (x_labels, legend): (usize, SeriesLabelPosition),
) -> Result<String, AccelError>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    draw_into(&mut svg, [title, x_label, y_label], x, y, series, (x_labels, legend))
        .map_err(|message| AccelError::Chart { chart, message })?;
    Ok(svg)
}

fn draw_into<X, Y>(
    svg: &mut String,
    [title, x_label, y_label]: [&str; 3],
    x: X,
    y: Y,
    series: &[Series],
    (x_labels, legend): (usize, SeriesLabelPosition),
) -> Result<(), String>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let told = |e: &dyn std::fmt::Display| e.to_string();
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|e| told(&e))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)
        .map_err(|e| told(&e))?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(x_label).y_desc(y_label).x_labels(x_labels).light_line_style(WHITE);
    mesh.x_label_formatter(&|v| short(*v)).y_label_formatter(&|v| short(*v));
    mesh.draw().map_err(|e| told(&e))?;
    let one_line = series.iter().filter(|s| s.line && !s.name.is_empty()).count() == 1;
    let (mut lines, mut points) = (0, 0);
    for one in series {
        // Points take the colour of the line before them.
        lines += usize::from(one.line && !one.name.is_empty());
        let colour = COLOURS[lines.saturating_sub(1).min(COLOURS.len() - 1)];
        if one.line {
            // A line of one point would not be seen.
            let dots = if one.points.len() == 1 { 3 } else { 0 };
            let line = LineSeries::new(one.points.iter().copied(), colour.stroke_width(2)).point_size(dots);
            let drawn = chart.draw_series(line).map_err(|e| told(&e))?;
            if one.name.is_empty() {
                continue;
            }
            drawn
                .label(&one.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        } else {
            // Where one line has several sets of points, they have colours of their own.
            points += 1;
            let colour = if one_line { COLOURS[points.min(COLOURS.len() - 1)] } else { colour };
            let crosses = one.points.iter().map(|&point| Cross::new(point, 4, colour.stroke_width(2)));
            let drawn = chart.draw_series(crosses).map_err(|e| told(&e))?;
            if one.name.is_empty() {
                continue;
            }
            drawn.label(&one.name).legend(move |(x, y)| Cross::new((x + 9, y), 4, colour.stroke_width(2)));
        }
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .position(legend)
        .draw()
        .map_err(|e| told(&e))?;
    root.present().map_err(|e| told(&e))
}

/// A number of an axis without zeros that say nothing.
fn short(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-3 { format!("{}", (value * 1e4).round() / 1e4) } else { format!("{value:e}") }
}
