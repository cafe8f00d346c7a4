//! What one step of training is fed: packed sequences with their targets.
//!
//! Several documents lie one after the other in a sequence. `document_ids` says which position belongs to
//! which; positions restart with each document and attention does not cross from one to the next.

use std::ops::Range;

/// `sequences` rows of `length` positions; every vector is `[sequences * length]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The token that should follow each position.
    pub targets: Vec<u32>,
    /// How much each position counts in the loss; 0 leaves it out.
    pub loss_mask: Vec<f32>,
    /// Neighbouring positions with equal numbers are one document.
    pub document_ids: Vec<u32>,
    /// How many sequences.
    pub sequences: usize,
    /// Positions of each sequence.
    pub length: usize,
}

/// Why a batch cannot be trained on.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)] // fields are what the messages show
pub enum BatchError {
    /// A vector is not `[sequences * length]`.
    #[error("batch: {field} has {found} entries, {sequences} sequences of {length} need {expected}")]
    Length { field: &'static str, found: usize, sequences: usize, length: usize, expected: usize },
    /// An id that the model has no row for.
    #[error("batch: {field}[{position}] is {id}, the vocabulary has {vocab_size} tokens")]
    TokenId { field: &'static str, position: usize, id: u32, vocab_size: usize },
    /// A weight of the loss that is no weight.
    #[error("batch: loss_mask[{position}] is {found}, expected a finite number of at least 0")]
    Mask { position: usize, found: f32 },
    /// No position counts.
    #[error("batch: all of loss_mask is 0, so there is nothing to learn from")]
    Nothing,
}

impl Batch {
    /// Checks lengths, ids and weights against a vocabulary.
    pub fn check(&self, vocab_size: usize) -> Result<(), BatchError> {
        self.check_lengths()?;
        for (field, ids) in [("tokens", &self.tokens), ("targets", &self.targets)] {
            if let Some(position) = ids.iter().position(|id| *id as usize >= vocab_size) {
                return Err(BatchError::TokenId { field, position, id: ids[position], vocab_size });
            }
        }
        match self.loss_mask.iter().position(|weight| !weight.is_finite() || *weight < 0.0) {
            Some(position) => Err(BatchError::Mask { position, found: self.loss_mask[position] }),
            None => Ok(()),
        }
    }

    /// The sum of the loss weights.
    pub fn weight(&self) -> f64 {
        self.loss_mask.iter().map(|weight| f64::from(*weight)).sum()
    }

    /// A view of some of the sequences.
    pub fn micro(&self, sequences: Range<usize>) -> MicroBatch<'_> {
        let rows = sequences.start * self.length..sequences.end * self.length;
        MicroBatch {
            tokens: &self.tokens[rows.clone()],
            targets: &self.targets[rows.clone()],
            loss_mask: &self.loss_mask[rows.clone()],
            document_ids: &self.document_ids[rows],
            length: self.length,
        }
    }

    fn check_lengths(&self) -> Result<(), BatchError> {
        let (sequences, length) = (self.sequences, self.length);
        let expected = sequences.saturating_mul(length);
        for (field, found) in [
            ("tokens", self.tokens.len()),
            ("targets", self.targets.len()),
            ("loss_mask", self.loss_mask.len()),
            ("document_ids", self.document_ids.len()),
        ] {
            if found != expected {
                return Err(BatchError::Length { field, found, sequences, length, expected });
            }
        }
        Ok(())
    }
}

/// The sequences that one thread takes through the model at a time.
#[derive(Clone, Copy)]
pub struct MicroBatch<'a> {
    /// Token ids, `[T]`.
    pub tokens: &'a [u32],
    /// Wanted next tokens, `[T]`.
    pub targets: &'a [u32],
    /// Weights of the loss, `[T]`.
    pub loss_mask: &'a [f32],
    /// Document of each position, `[T]`.
    pub document_ids: &'a [u32],
    /// Positions of a sequence; divides T.
    pub length: usize,
}

impl MicroBatch<'_> {
    /// Fills `documents` with the rows of each document; none reaches over a sequence's end.
    pub(crate) fn documents(&self, documents: &mut Vec<Range<usize>>) {
        documents.clear();
        let mut first = 0;
        for row in 1..=self.tokens.len() {
            let ends = row == self.tokens.len()
                || row.is_multiple_of(self.length)
                || self.document_ids[row] != self.document_ids[row - 1];
            if ends {
                documents.push(first..row);
                first = row;
            }
        }
    }

    /// True if anything is learned from these rows; padding is what nothing is learned from.
    pub(crate) fn counts(&self, rows: &Range<usize>) -> bool {
        self.loss_mask[rows.clone()].iter().any(|weight| *weight > 0.0)
    }
}
