//! Line plots as SVG. Colours and fonts come from the page's style sheet by class, so one plot serves light and dark.

use maud::{Markup, html};
use std::fmt::Write;

/// Size of a plot in its own units; the page scales it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
/// Room for labels around the lines.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// About how many lines a grid has in each direction.
const TICKS: f64 = 6.0;

/// Where a logarithmic axis may begin, end and have lines: milliseconds from a microsecond to over a quarter of an hour.
const MARKS: [f64; 28] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0,
    500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6,
];
/// A logarithmic axis over more than this has a third of the lines.
const MARKED_FACTOR_MAX: f64 = 1000.0;

/// How an axis is divided.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    /// From 0 to the largest value.
    Linear,
    /// From the smallest value to the largest, each factor of ten as wide as the one before.
    Log,
    /// Shares from 0 to 1, each further nine as wide as the first.
    Percentile,
}

/// One line of a plot, drawn and named in the colour of its place in the list.
pub struct Line {
    pub label: String,
    pub points: Vec<(f64, f64)>,
    /// How far the value of a point reaches back, for values of times rather than moments.
    pub step: Option<f64>,
}

/// Lines over two axes.
pub struct Plot {
    pub title: &'static str,
    /// The same in a sentence, for those who cannot see it.
    pub description: String,
    pub x: (Scale, &'static str),
    pub y: (Scale, &'static str),
    pub lines: Vec<Line>,
}

/// An axis that knows its range.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Plot {
    pub fn svg(&self) -> Markup {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Axis::around(self.x.0, points().map(|point| point.0));
        let y = Axis::around(self.y.0, points().map(|point| point.1));
        html! {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(format!("{}. {}", self.title, self.description)) {
                title { (self.title) }
                desc { (self.description) }
                (self.grid(&x, &y))
                @for (number, line) in self.lines.iter().enumerate() {
                    path class=(format!("line l{number}")) d=(path(line, &x, &y)) {}
                }
                (self.legend())
            }
        }
    }

    fn grid(&self, x: &Axis, y: &Axis) -> Markup {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        html! {
            g class="grid" {
                @for tick in y.ticks() {
                    @let at = place_y(y, tick);
                    line x1=(LEFT) x2=(right) y1=(at) y2=(at) {}
                    text class="y" x=(LEFT - 8.0) y=(at + 4.0) { (y.label(tick)) }
                }
                @for tick in x.ticks() {
                    @let at = place_x(x, tick);
                    line x1=(at) x2=(at) y1=(TOP) y2=(bottom) {}
                    text class="x" x=(at) y=(bottom + 18.0) { (x.label(tick)) }
                }
                text class="axis" x=(LEFT - 8.0) y=(TOP - 16.0) { (self.y.1) }
                text class="axis end" x=(right) y=(HEIGHT - 6.0) { (self.x.1) }
            }
        }
    }

    /// The lines' names in a row above them, the last one at the right edge.
    fn legend(&self) -> Markup {
        const CHARACTER: f64 = 6.6;
        const SAMPLE: f64 = 34.0;
        let mut right = WIDTH - RIGHT;
        let mut entries = Vec::new();
        for (number, line) in self.lines.iter().enumerate().rev() {
            let width = line.label.chars().count() as f64 * CHARACTER;
            entries.push((number, &line.label, right - width));
            right -= width + SAMPLE + 12.0;
        }
        html! {
            g class="legend" {
                @for (number, label, at) in entries.into_iter().rev() {
                    path class=(format!("line l{number}")) d=(format!("M{:.1} {}h24", at - 30.0, TOP - 20.0)) {}
                    text x=(format!("{at:.1}")) y=(TOP - 16.0) { (label) }
                }
            }
        }
    }
}

fn place_x(x: &Axis, value: f64) -> f64 {
    round(LEFT + x.share(value) * (WIDTH - LEFT - RIGHT))
}

fn place_y(y: &Axis, value: f64) -> f64 {
    round(HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM))
}

/// To a tenth: finer steps cannot be seen and only make pages longer.
fn round(place: f64) -> f64 {
    (place * 10.0).round() / 10.0
}

fn path(line: &Line, x: &Axis, y: &Axis) -> String {
    let mut path = String::new();
    let mut last_x = 0.0;
    for (index, (at, value)) in line.points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let place = place_y(y, *value);
        match line.step {
            None => write!(path, "{command}{} {place}", place_x(x, *at)),
            Some(step) => {
                let from = f64::max(last_x, at - step);
                write!(path, "{command}{} {place}H{}", place_x(x, from), place_x(x, *at))
            }
        }
        .expect("writing to memory");
        last_x = *at;
    }
    path
}

impl Axis {
    /// An axis that all `values` fit on.
    fn around(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = Some(values.clone().fold(0.0, f64::max)).filter(|most| *most > 0.0).unwrap_or(1.0);
        let (from, to) = match scale {
            Scale::Linear => (0.0, (most / step(most)).ceil() * step(most)),
            Scale::Log => {
                let least = values.filter(|value| *value > 0.0).fold(most, f64::min);
                let from = MARKS.iter().copied().rfind(|mark| *mark <= least).unwrap_or(MARKS[0]);
                let to = MARKS.iter().copied().find(|mark| *mark >= most && *mark >= from * 5.0);
                (from, to.unwrap_or(most))
            }
            Scale::Percentile => (0.0, most),
        };
        Self { scale, from, to }
    }

    /// Where a value lies between the ends, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let place = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(self.from).log10(),
            Scale::Percentile => -(1.0 - value).max(1e-9).log10(),
        };
        let (from, to) = (place(self.from), place(self.to));
        if to > from { (place(value) - from) / (to - from) } else { 0.0 }
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.to);
                (0..=(self.to / step).round() as u32).map(|n| f64::from(n) * step).collect()
            }
            Scale::Log => {
                let marks = MARKS.iter().copied().filter(|mark| (self.from..=self.to).contains(mark));
                let every = if self.to / self.from > MARKED_FACTOR_MAX { 3 } else { 1 };
                marks.rev().step_by(every).collect()
            }
            Scale::Percentile => [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999]
                .into_iter()
                .filter(|share| *share <= self.to)
                .collect(),
        }
    }

    fn label(&self, tick: f64) -> String {
        match self.scale {
            Scale::Percentile => format!("{}", (tick * 1e8).round() / 1e6) + " %",
            _ if tick >= 1e6 => format!("{} M", tick / 1e6),
            _ if tick >= 1e4 => format!("{} k", tick / 1e3),
            _ => format!("{}", (tick * 1e6).round() / 1e6),
        }
    }
}

/// The distance of grid lines from 0 to `most`: 1, 2 or 5 times a power of ten.
fn step(most: f64) -> f64 {
    let raw = most / TICKS;
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| raw <= factor * power).unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nine_is_as_wide_as_the_one_before() {
        let axis = Axis::around(Scale::Percentile, [0.0, 0.9999].into_iter());
        let shares = [0.0, 0.9, 0.99, 0.999, 0.9999].map(|share| axis.share(share));
        for (share, expected) in shares.into_iter().zip([0.0, 0.25, 0.5, 0.75, 1.0]) {
            assert!((share - expected).abs() < 1e-9, "{shares:?}");
        }
    }

    #[test]
    fn a_linear_axis_starts_at_zero_and_ends_on_a_round_number_above_the_values() {
        let axis = Axis::around(Scale::Linear, [12.0, 93_400.0].into_iter());
        assert_eq!((axis.from, axis.to), (0.0, 100_000.0));
        assert_eq!(axis.ticks(), [0.0, 20_000.0, 40_000.0, 60_000.0, 80_000.0, 100_000.0]);
        assert_eq!(axis.label(20_000.0), "20 k");
    }

    #[test]
    fn a_log_axis_goes_from_mark_to_mark_and_never_collapses() {
        let axis = |values: [f64; 2]| Axis::around(Scale::Log, values.into_iter());
        assert_eq!((axis([1.0, 1.0]).from, axis([1.0, 1.0]).to), (1.0, 5.0));
        assert_eq!(axis([2.1, 41.0]).ticks(), [50.0, 20.0, 10.0, 5.0, 2.0]);
        assert_eq!(axis([0.03, 240.0]).ticks(), [500.0, 50.0, 5.0, 0.5, 0.05]);
    }

    #[test]
    fn a_value_of_a_time_is_drawn_over_all_of_it() {
        let line =
            Line { label: String::new(), points: vec![(1.0, 1.0), (2.0, 2.0), (4.0, 2.0)], step: Some(1.0) };
        let (x, y) = (
            Axis { scale: Scale::Linear, from: 0.0, to: 4.0 },
            Axis { scale: Scale::Linear, from: 0.0, to: 2.0 },
        );
        // Nothing was measured between 2 and 3.
        let places: Vec<f64> = [0.0, 1.0, 1.0, 2.0, 3.0, 4.0].iter().map(|at| place_x(&x, *at)).collect();
        let path = path(&line, &x, &y);
        for (drawn, place) in path.split(['M', 'L', 'H']).skip(1).zip(places) {
            assert_eq!(drawn.split(' ').next().unwrap().parse::<f64>().unwrap(), place, "{path}");
        }
    }

    #[test]
    fn a_plot_of_nothing_is_still_a_picture() {
        let plot = Plot {
            title: "Nothing",
            description: String::new(),
            x: (Scale::Linear, "s"),
            y: (Scale::Log, "ms"),
            lines: vec![Line { label: "none".to_owned(), points: Vec::new(), step: None }],
        };
        let svg = plot.svg().into_string();
        assert!(svg.contains("<title>Nothing</title>") && !svg.contains("NaN"), "{svg}");
    }
}
