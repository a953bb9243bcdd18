//! The dashboard in the room there is: the head, two charts, the clip values, the layers, what is to be warned of.

use bitpact_train::{EpochRecord, LayerStatistics, Metric};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, BorderType, Chart, Dataset, GraphType, LineGauge, Paragraph, Row, Table, Wrap};

use super::{Dashboard, duration};

const ACCENT: Color = Color::Cyan;
const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
/// Colours of the layers from the image to the output.
const DEPTHS: [u8; 8] = [63, 99, 135, 170, 205, 209, 214, 220];
/// Clipping of more than this share stands out.
const MUCH: f64 = 0.3;

/// Points over epochs.
struct Curve {
    points: Vec<(f64, f64)>,
    colour: Color,
}

impl Dashboard {
    /// Draws the run into all of `frame`.
    pub fn draw(&self, frame: &mut Frame) {
        let area = frame.area();
        let warnings = self.records.warnings.len().min(100) as u16;
        let told = if warnings == 0 || area.height < 12 { 0 } else { (warnings + 2).min((area.height / 5).max(3)) };
        let [head, gauge, upper, lower, told, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(4),
            Constraint::Fill(5),
            Constraint::Length(told),
            Constraint::Length(1),
        ])
        .areas(area);
        self.head(frame, head);
        self.gauge(frame, gauge);
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(upper);
        self.losses(frame, left);
        self.metrics(frame, right);
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(lower);
        self.alphas(frame, left);
        self.layers(frame, right);
        if told.height > 0 {
            self.warnings(frame, told);
        }
        let keys = Line::from(vec![
            Span::styled(" q", Style::new().fg(ACCENT)),
            Span::raw(if self.live.is_some() { " leaves, the run goes on   " } else { " leaves   " }),
            Span::styled("up, down", Style::new().fg(ACCENT)),
            Span::raw(" layers"),
        ]);
        frame.render_widget(Paragraph::new(keys).style(QUIET), foot);
    }

    fn head(&self, frame: &mut Frame, area: Rect) {
        let mut spans = vec![
            Span::styled(format!(" {}", self.name), Style::new().fg(ACCENT).add_modifier(Modifier::BOLD)),
            Span::raw(format!("  {} {}", self.what, self.bits)),
        ];
        if let Some(last) = self.records.epochs.last() {
            let best = self.records.epochs.iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap_or(last);
            spans.push(Span::styled(format!("  {}", shown(last)), Style::new().add_modifier(Modifier::BOLD)));
            spans.push(Span::styled(format!("  best {} in {}", shown(best), best.epoch), QUIET));
        }
        frame.render_widget(Paragraph::new(Line::from(spans)), area);
    }

    fn gauge(&self, frame: &mut Frame, area: Rect) {
        let done = self.records.epochs.last().map_or(0, |last| last.epoch);
        let total = self.epochs.map_or("?".to_owned(), |epochs| epochs.to_string());
        let under_way = self.live.as_ref().filter(|_| !self.is_finished());
        let part = under_way.map_or(0.0, |live| live.done);
        let mut words = vec![match under_way {
            Some(live) => format!(" epoch {} of {total}", live.epoch.max(1)),
            None => format!(" {done} of {total} epochs"),
        }];
        match under_way.and_then(|live| live.evaluating) {
            Some(share) => words.push(format!("evaluating {:.0} %", 100.0 * share)),
            None => words.extend(under_way.map(|live| format!("{:.0} %", 100.0 * live.done))),
        }
        if let Some(loss) = under_way.and_then(|live| live.loss) {
            words.push(format!("loss {loss:.4}"));
        }
        let speed =
            under_way.and_then(|live| live.images_per_s).or(self.records.epochs.last().map(|last| last.images_per_s));
        words.extend(speed.map(|speed| format!("{speed:.0} images/s")));
        if self.is_finished() {
            words.push("finished".to_owned());
        } else {
            words.extend(self.seconds_left().map(|seconds| format!("{} left", duration(seconds))));
            if let Some(silent) = self.silent.map(|silent| silent.as_secs_f64())
                && self.epoch_seconds().is_some_and(|usual| silent > 3.0 * usual + 10.0)
            {
                words.push(format!("no epoch for {}", duration(silent)));
            }
        }
        let ratio = self.epochs.map_or(0.0, |epochs| (f64::from(done) + part) / f64::from(epochs.max(1)));
        let gauge = LineGauge::default()
            .ratio(ratio.clamp(0.0, 1.0))
            .label(words.join("  "))
            .filled_style(Style::new().fg(ACCENT))
            .unfilled_style(QUIET);
        frame.render_widget(gauge, area);
    }

    fn losses(&self, frame: &mut Frame, area: Rect) {
        let mut points: Vec<(f64, f64)> = self.points(|epoch| Some(epoch.loss));
        if let Some((live, loss)) = self.live.as_ref().and_then(|live| Some((live, live.loss?))) {
            points.push((f64::from(live.epoch.max(1) - 1) + live.done, loss));
        }
        let title = points.last().map_or("loss".to_owned(), |p| format!("loss {:.4}", p.1));
        let curve = Curve { points, colour: Color::LightYellow };
        self.chart(frame, area, &title, &[curve], false);
    }

    fn metrics(&self, frame: &mut Frame, area: Rect) {
        let of_classes = self.records.epochs.last().is_none_or(|last| last.metrics().is_empty());
        let (title, curves) = if of_classes {
            let percent = |top1: Option<f64>| top1.map(|top1| 100.0 * top1);
            let tested = self.points(|epoch| percent(epoch.integer_top1.or(epoch.simulated_top1)));
            let curves = vec![
                Curve { points: self.points(|epoch| percent(Some(epoch.train_top1))), colour: Color::DarkGray },
                Curve { points: tested, colour: Color::LightGreen },
            ];
            ("top-1, % (grey: in training)".to_owned(), curves)
        } else {
            let points = self.points(|epoch| epoch.metrics().first().map(|metric| metric.value));
            let name =
                self.records.epochs.last().and_then(|e| e.metrics().first()).map_or(String::new(), |m| m.name.clone());
            (name, vec![Curve { points, colour: Color::LightGreen }])
        };
        self.chart(frame, area, &title, &curves, false);
    }

    fn alphas(&self, frame: &mut Frame, area: Rect) {
        let layers = self.layers_now();
        let n = layers.len();
        let curve = |(i, layer): (usize, &LayerStatistics)| Curve {
            points: self.points(|epoch| {
                let own = epoch.layers.get(i).filter(|own| own.name == layer.name);
                own.or_else(|| epoch.layers.iter().find(|own| own.name == layer.name)).map(|own| f64::from(own.alpha))
            }),
            colour: depth(i, n),
        };
        let curves: Vec<Curve> = layers.iter().enumerate().map(curve).collect();
        self.chart(frame, area, "alpha of every layer", &curves, true);
    }

    fn points(&self, of: impl Fn(&EpochRecord) -> Option<f64>) -> Vec<(f64, f64)> {
        let points = self.records.epochs.iter().filter_map(|epoch| Some((f64::from(epoch.epoch), of(epoch)?)));
        points.filter(|p| p.1.is_finite()).collect()
    }

    fn chart(&self, frame: &mut Frame, area: Rect, title: &str, curves: &[Curve], from_zero: bool) {
        let block = Block::bordered().border_type(BorderType::Rounded).border_style(QUIET).title(format!(" {title} "));
        let all = || curves.iter().flat_map(|curve| &curve.points);
        if all().next().is_none() {
            let text = Paragraph::new("no epoch is done yet").style(QUIET).block(block);
            return frame.render_widget(text, area);
        }
        let ends = |of: fn(&(f64, f64)) -> f64| {
            all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let ((left, mut right), (mut low, mut high)) = (ends(|p| p.0), ends(|p| p.1));
        if right <= left {
            right = left + 1.0;
        }
        if from_zero {
            low = low.min(0.0);
        }
        if high - low < 1e-9 * high.abs().max(1e-9) {
            (low, high) = (low - 0.5 * low.abs().max(1e-3), high + 0.5 * high.abs().max(1e-3));
        }
        let datasets = curves.iter().map(|curve| {
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(if curve.points.len() == 1 { GraphType::Scatter } else { GraphType::Line })
                .style(Style::new().fg(curve.colour))
                .data(&curve.points)
        });
        let x = Axis::default().bounds([left, right]).labels([number(left), number(right)]).style(QUIET);
        let y = Axis::default().bounds([low, high]).labels([number(low), number(high)]).style(QUIET);
        frame.render_widget(Chart::new(datasets.collect()).block(block).x_axis(x).y_axis(y), area);
    }

    fn layers_now(&self) -> &[LayerStatistics] {
        let layers = self.records.epochs.iter().rev().map(|epoch| &epoch.layers[..]);
        layers.into_iter().find(|layers| !layers.is_empty()).unwrap_or(&[])
    }

    fn layers(&self, frame: &mut Frame, area: Rect) {
        let layers = self.layers_now();
        let room = usize::from(area.height.saturating_sub(3));
        let from = self.scroll.min(layers.len().saturating_sub(room));
        let title = match layers.len() > room {
            true => format!(" layers {} to {} of {} ", from + 1, (from + room).min(layers.len()), layers.len()),
            false => " layers ".to_owned(),
        };
        let block = Block::bordered().border_type(BorderType::Rounded).border_style(QUIET).title(title);
        let is_wide = area.width >= 70;
        let row = |(i, layer): (usize, &LayerStatistics)| {
            let clipped = Span::styled(
                format!("{:>6.2}", 100.0 * layer.clipped),
                if layer.clipped > MUCH { Style::new().fg(Color::LightRed) } else { Style::new() },
            );
            let used = layer.occupancy.iter().filter(|&&share| share > 0.0).count();
            let mut cells: Vec<Line> = vec![
                Line::from(Span::styled(layer.name.clone(), Style::new().fg(depth(i, layers.len())))),
                Line::from(format!("{:>8.3}", layer.alpha)),
                Line::from(clipped),
                Line::from(format!("{:>5.1}", 100.0 * layer.zero)),
            ];
            if is_wide {
                cells.push(Line::from(format!("{used:>3}/{}", layer.occupancy.len())));
                cells.push(Line::from(bars(&layer.occupancy)));
            }
            Row::new(cells)
        };
        let rows: Vec<Row> = layers.iter().enumerate().skip(from).take(room).map(row).collect();
        let mut widths = vec![Constraint::Fill(1), Constraint::Length(8), Constraint::Length(6), Constraint::Length(5)];
        let mut head = vec!["", "   alpha", " clip%", "zero%"];
        if is_wide {
            widths.extend([Constraint::Length(8), Constraint::Length(16)]);
            head.extend(["levels", "shares"]);
        }
        let table = Table::new(rows, widths).header(Row::new(head).style(QUIET)).block(block);
        frame.render_widget(table, area);
    }

    fn warnings(&self, frame: &mut Frame, area: Rect) {
        let block = Block::bordered()
            .border_type(BorderType::Rounded)
            .border_style(Style::new().fg(Color::Yellow))
            .title(format!(" {} warnings, the last one first ", self.records.warnings.len()));
        let line = |w: &bitpact_train::WarningRecord| {
            Line::from(vec![Span::styled(format!("{:>4} ", w.epoch), QUIET), Span::raw(w.message.clone())])
        };
        let lines: Vec<Line> = self.records.warnings.iter().rev().map(line).collect();
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(block), area);
    }
}

/// The colour of layer `i` of `n`.
fn depth(i: usize, n: usize) -> Color {
    Color::Indexed(DEPTHS[i * (DEPTHS.len() - 1) / n.saturating_sub(1).max(1)])
}

/// Shares as bars of eighths of a line, the largest a whole one; sixteen at the most.
fn bars(shares: &[f64]) -> String {
    let each = shares.len().div_ceil(16).max(1);
    let parts: Vec<f64> = shares.chunks(each).map(|part| part.iter().sum()).collect();
    let most = parts.iter().copied().fold(1e-12, f64::max);
    let bar = |&part: &f64| match (part, (8.0 * part / most).ceil() as usize) {
        (0.0, _) => ' ',
        (_, eighths) => ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][eighths.clamp(1, 8) - 1],
    };
    parts.iter().map(bar).collect()
}

/// A number of an axis.
fn number(value: f64) -> String {
    match value.abs() {
        size if value.fract() == 0.0 && size < 1e5 => format!("{value:.0}"),
        size if !(0.01..1e5).contains(&size) => format!("{value:.0e}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The metric that counts.
fn shown(record: &EpochRecord) -> String {
    record.metrics().first().map_or_else(|| format!("{:.2} %", 100.0 * record.top1()), Metric::to_string)
}

fn score(record: &EpochRecord) -> f64 {
    record.metrics().first().map_or(record.top1(), Metric::score)
}
