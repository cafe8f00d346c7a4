//! Packing: documents side by side in sequences of one length.
//!
//! Each sequence begins with the document that has waited longest; then the longest waiting one that still
//! fits, again and again. A document longer than a sequence is cut. What stays free is padding without loss,
//! in a document of its own, so that attention does not see it.

use std::collections::VecDeque;

use super::Document;
use crate::batch::Batch;

/// How many documents wait to be packed; with more, less is left free.
const WAITING: usize = 64;

/// Packs documents; `Id` finds one again.
pub struct Packer<Id> {
    waiting: VecDeque<(Id, Document)>,
    padding: u32,
}

impl<Id> Packer<Id> {
    /// An empty packer; `padding` is the token that fills up.
    pub fn new(padding: u32) -> Packer<Id> {
        Packer { waiting: VecDeque::with_capacity(WAITING), padding }
    }

    /// The documents that wait, longest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Id> {
        self.waiting.iter().map(|(id, _)| id)
    }

    /// Puts a document behind the waiting ones.
    pub fn wait(&mut self, id: Id, document: Document) {
        self.waiting.push_back((id, document));
    }

    /// The next batch. `next` gives documents; with none left, sequences may end early or be empty.
    pub fn batch<E>(
        &mut self,
        sequences: usize,
        length: usize,
        mut next: impl FnMut() -> Result<Option<(Id, Document)>, E>,
    ) -> Result<Batch, E> {
        let mut batch = Batch { sequences, length, ..Batch::default() };
        for _ in 0..sequences {
            self.sequence(length, &mut batch, &mut next)?;
        }
        Ok(batch)
    }

    fn sequence<E>(
        &mut self,
        length: usize,
        batch: &mut Batch,
        next: &mut impl FnMut() -> Result<Option<(Id, Document)>, E>,
    ) -> Result<(), E> {
        let end = batch.tokens.len() + length;
        let mut number = 0;
        loop {
            while self.waiting.len() < WAITING
                && let Some((id, document)) = next()?
            {
                self.waiting.push_back((id, document));
            }
            let Some(document) = self.take(end - batch.tokens.len(), number == 0) else { break };
            append(batch, &document, end, number);
            number += 1;
        }
        batch.tokens.resize(end, self.padding);
        batch.targets.resize(end, self.padding);
        batch.loss_mask.resize(end, 0.0);
        batch.document_ids.resize(end, number);
        Ok(())
    }

    /// The oldest document, or the longest one that fits into the room.
    fn take(&mut self, room: usize, oldest: bool) -> Option<Document> {
        if oldest {
            return self.waiting.pop_front().map(|(_, document)| document);
        }
        let fits = self.waiting.iter().enumerate().filter(|(_, (_, document))| positions(document) <= room);
        // Of equally long ones the oldest.
        let (best, _) = fits.rev().max_by_key(|(_, (_, document))| positions(document))?;
        self.waiting.remove(best).map(|(_, document)| document)
    }
}

/// The last token is only a target.
fn positions(document: &Document) -> usize {
    document.tokens.len().saturating_sub(1).max(1)
}

fn append(batch: &mut Batch, document: &Document, end: usize, number: u32) {
    let take = document.tokens.len().saturating_sub(1).min(end - batch.tokens.len());
    batch.tokens.extend_from_slice(&document.tokens[..take]);
    batch.targets.extend_from_slice(&document.tokens[1..take + 1]);
    batch.loss_mask.extend_from_slice(&document.weights[1..take + 1]);
    batch.document_ids.resize(batch.tokens.len(), number);
}
