//! The figure as SVG text and as the bytes of a PNG.

use plotters::prelude::*;
use plotters::style::register_font;
use std::sync::OnceLock;

use super::curves::Curves;
use super::figure::draw;
use super::{PlotError, SIZE};

/// The family that is drawn with: what an SVG viewer takes from its own fonts, and what is compiled in here.
pub(super) const FONT: &str = "sans-serif";

/// DejaVu Sans, its ASCII letters.
const LETTERS: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");

/// The figure as SVG.
pub(super) fn svg(runs: &[Curves]) -> Result<String, PlotError> {
    font()?;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    draw(&area, runs).map_err(|error| PlotError::Draw(error.to_string()))?;
    drop(area);
    Ok(text)
}

/// The figure as PNG.
pub(super) fn png(runs: &[Curves]) -> Result<Vec<u8>, PlotError> {
    font()?;
    let mut pixels = vec![0; 3 * (SIZE.0 * SIZE.1) as usize];
    let area = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
    draw(&area, runs).map_err(|error| PlotError::Draw(error.to_string()))?;
    drop(area);
    encode(&pixels).map_err(|error| PlotError::Draw(error.to_string()))
}

fn encode(pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// Makes the font known, once.
fn font() -> Result<(), PlotError> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    match REGISTERED.get_or_init(|| register_font(FONT, FontStyle::Normal, LETTERS).is_ok()) {
        true => Ok(()),
        false => Err(PlotError::Draw("the font does not load".to_owned())),
    }
}
