//! The figure: four panels and a legend, on any backend.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::curves::{Curves, Points, smoothed};

/// Colours that colour-blind readers can tell apart (Okabe and Ito, 2008); the yellow one is left out.
const COLORS: [RGBColor; super::MOST_RUNS] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(130, 130, 130),
];

const GREY: RGBColor = RGBColor(90, 90, 90);
const FONT: &str = super::picture::FONT;

/// One panel.
struct Panel {
    title: &'static str,
    /// The curve of a run.
    points: fn(&Curves) -> &Points,
    /// Marks on top of it.
    marks: Option<fn(&Curves) -> &Points>,
    /// Steps jump about; a running mean is drawn over them.
    noisy: bool,
    /// The axis begins at zero.
    from_zero: bool,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "Loss (line: training, dots: held-out)",
        points: |run| &run.loss,
        marks: Some(|run| &run.validation_loss),
        noisy: true,
        from_zero: false,
    },
    Panel { title: "Learning rate", points: |run| &run.lr, marks: None, noisy: false, from_zero: true },
    Panel {
        title: "Largest attention logit",
        points: |run| &run.max_logit,
        marks: None,
        noisy: true,
        from_zero: true,
    },
    Panel {
        title: "Expert balance (busiest over mean, minus 1)",
        points: |run| &run.max_violation,
        marks: None,
        noisy: true,
        from_zero: true,
    },
];

type Result<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Draws everything.
pub(super) fn draw<B: DrawingBackend>(area: &DrawingArea<B, Shift>, runs: &[Curves]) -> Result<B> {
    area.fill(&WHITE)?;
    let rows = runs.len().div_ceil(LEGEND_COLUMNS);
    let (top, panels) = area.split_vertically(30 + 36 * rows as u32);
    legend(&top, runs)?;
    for (panel, area) in PANELS.iter().zip(panels.split_evenly((2, 2))) {
        draw_panel(panel, &area, runs)?;
    }
    area.present()
}

const LEGEND_COLUMNS: usize = 4;

fn legend<B: DrawingBackend>(area: &DrawingArea<B, Shift>, runs: &[Curves]) -> Result<B> {
    let width = area.dim_in_pixel().0 as i32 / LEGEND_COLUMNS.min(runs.len().max(1)) as i32;
    for (i, run) in runs.iter().enumerate() {
        let (x, y) = (width * (i % LEGEND_COLUMNS) as i32 + 60, 36 * (i / LEGEND_COLUMNS) as i32 + 34);
        area.draw(&PathElement::new(vec![(x, y), (x + 44, y)], COLORS[i].stroke_width(5)))?;
        // Names that are too long for their column keep their end, which is where runs differ.
        let room = (width - 130).max(60) as usize / 12;
        let name: Vec<char> = run.name.chars().collect();
        let name: String = match name.len() > room {
            true => std::iter::once('…').chain(name[name.len() - room..].iter().copied()).collect(),
            false => name.into_iter().collect(),
        };
        area.draw(&Text::new(name, (x + 56, y - 13), (FONT, 24).into_font().color(&BLACK)))?;
    }
    Ok(())
}

fn draw_panel<B: DrawingBackend>(panel: &Panel, area: &DrawingArea<B, Shift>, runs: &[Curves]) -> Result<B> {
    let ((left, right), (low, high)) = ranges(panel, runs);
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 26).into_font().color(&BLACK))
        .margin(18)
        .margin_right(34)
        .x_label_area_size(58)
        .y_label_area_size(88)
        .build_cartesian_2d(left..right, low..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .axis_style(GREY)
        .x_labels(8)
        .y_labels(7)
        .x_desc("tokens, millions")
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .label_style((FONT, 21).into_font().color(&GREY))
        .axis_desc_style((FONT, 21).into_font().color(&GREY))
        .draw()?;
    let inside = |(x, y): (f64, f64)| (x, y.min(high));
    for (run, color) in runs.iter().zip(COLORS) {
        let points = (panel.points)(run);
        if panel.noisy {
            chart.draw_series(LineSeries::new(
                points.iter().copied().map(inside),
                color.mix(0.22).stroke_width(1),
            ))?;
            chart.draw_series(LineSeries::new(
                smoothed(points).into_iter().map(inside),
                color.stroke_width(3),
            ))?;
        } else {
            chart.draw_series(LineSeries::new(points.iter().copied().map(inside), color.stroke_width(3)))?;
        }
        if let Some(marks) = panel.marks {
            chart.draw_series(marks(run).iter().map(|mark| Circle::new(inside(*mark), 6, WHITE.filled())))?;
            chart.draw_series(marks(run).iter().map(|mark| Circle::new(inside(*mark), 5, color.filled())))?;
        }
    }
    Ok(())
}

/// The axes' ends; never empty.
fn ranges(panel: &Panel, runs: &[Curves]) -> ((f64, f64), (f64, f64)) {
    let curves =
        || runs.iter().flat_map(|run| [Some((panel.points)(run)), panel.marks.map(|marks| marks(run))]);
    let points = || curves().flatten().flatten();
    let right = points().map(|(x, _)| *x).fold(0.0, f64::max);
    let low = points().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
    // A loss falls so far in its first steps that nothing else would be seen.
    let begun = if panel.from_zero { 0.0 } else { 0.03 * right };
    let high = points().filter(|(x, _)| *x >= begun).map(|(_, y)| *y).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let low = if panel.from_zero { low.min(0.0) } else { low };
    let room = if high > low { 0.05 * (high - low) } else { high.abs().max(1.0) * 0.5 };
    let bottom = if panel.from_zero && low == 0.0 { 0.0 } else { low - room };
    ((0.0, if right > 0.0 { right } else { 1.0 }), (bottom, high + room))
}

/// A number as short as an axis needs it.
fn number(value: f64) -> String {
    let text = match value.abs() {
        size if size < 1e-12 => return "0".to_owned(),
        size if !(1e-5..1e6).contains(&size) => return format!("{value:.1e}").replace(".0e", "e"),
        size if size < 0.1 => format!("{value:.6}"),
        size if size < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
