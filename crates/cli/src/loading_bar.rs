//! How far a model has been opened, drawn on standard error if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use k2_weights::Progress;

/// A bar that is gone when it is dropped.
pub(crate) struct LoadingBar(ProgressBar);

impl LoadingBar {
    pub(crate) fn new() -> LoadingBar {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{msg:>12} [{bar:40}] {pos}/{len}");
        LoadingBar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// The headers of so many files have been read.
    pub(crate) fn files(&self, progress: Progress) {
        self.show("opening", progress.files, progress.of);
    }

    /// So many layers have all their tensors.
    pub(crate) fn layers(&self, done: usize, of: usize) {
        self.show("loading", done, of);
    }

    /// So many layers have been rearranged.
    pub(crate) fn repacked(&self, done: usize, of: usize) {
        self.show("repacking", done, of);
    }

    fn show(&self, what: &'static str, done: usize, of: usize) {
        self.0.set_message(what);
        self.0.set_length(of as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for LoadingBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
