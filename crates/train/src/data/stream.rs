//! The endless stream of batches, and where in it one is.
//!
//! The next document comes from the source that is furthest behind its share of the tokens. So the cursor is how
//! much each source has given, and which documents were waiting to be packed; those are made again.

use k2_chat::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

use super::document::{Encoder, TokenWeights};
use super::records::{Reading, Skipped};
use super::{DataError, DataSettings, Document, Packer, Records, SourceKind, SourceSettings};
use crate::batch::Batch;
use crate::dialogues::{Dialogue, Generator, Scope};
use crate::error::TrainError;

/// Where a stream is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Documents that each source has given.
    pub documents: Vec<u64>,
    /// Tokens in them.
    pub tokens: Vec<u64>,
    /// Source and place of each document that waits.
    pub waiting: Vec<(usize, u64)>,
}

/// Batches without end.
pub struct Stream {
    encoder: Encoder,
    sources: Vec<(SourceSettings, Open)>,
    packer: Packer<(usize, u64)>,
    documents: Vec<u64>,
    tokens: Vec<u64>,
    sequences: usize,
    length: usize,
    padding: u32,
}

/// An opened source.
enum Open {
    Dialogues(Generator),
    Lines(Generator),
    Pieces { seed: u64 },
    Schemas(Generator),
    Records(Records),
}

/// Dialogues from here on are for held-out batches.
const HELD_OUT_DIALOGUES: u64 = 1 << 40;

impl Stream {
    /// Opens the sources of a recipe's `[data]`; batches have so many sequences of this length.
    pub fn open(settings: &DataSettings, sequences: usize, length: usize) -> Result<Stream, DataError> {
        let tokenizer = Arc::new(Tokenizer::from_dir(&settings.tokenizer)?);
        let token_weights = TokenWeights {
            prompt: settings.prompt_weight,
            prompt_sample: settings.prompt_sample,
            first: settings.first_token_weight,
        };
        let padding = tokenizer.specials().id("[PAD]").ok_or(DataError::NoSpecial { name: "[PAD]" })?;
        let encoder = Encoder::new(tokenizer, settings.template()?, token_weights)?;
        let reading = Reading {
            encoder: &encoder,
            length,
            held_out: settings.held_out,
            skip_bad: settings.skip_bad_records,
            seed: settings.seed,
        };
        let open = |source: &SourceSettings| -> Result<(SourceSettings, Open), DataError> {
            let path = source.path.as_deref().unwrap_or(Path::new(""));
            let opened = match source.kind {
                SourceKind::Dialogues => Open::Dialogues(Generator::new(settings.seed)?),
                SourceKind::Lines => Open::Lines(Generator::new(settings.seed)?),
                SourceKind::Pieces => Open::Pieces { seed: settings.seed },
                SourceKind::Schemas => Open::Schemas(Generator::new(settings.seed)?),
                SourceKind::Jsonl => Open::Records(Records::jsonl(path, reading)?),
                SourceKind::Text => Open::Records(Records::text(path, reading)?),
            };
            Ok((source.clone(), opened))
        };
        let sources = settings.sources.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let none = vec![0; sources.len()];
        let packer = Packer::new(padding);
        Ok(Stream {
            encoder,
            sources,
            packer,
            documents: none.clone(),
            tokens: none,
            sequences,
            length,
            padding,
        })
    }

    /// The bad records that were left out, of all sources.
    pub fn skipped(&self) -> Skipped {
        let mut all = Skipped::default();
        for (_, source) in &self.sources {
            if let Open::Records(records) = source {
                all.records += records.skipped().records;
                all.first = all.first.or_else(|| records.skipped().first.clone());
            }
        }
        all
    }

    /// Batches of documents that training never sees; fewer if there are not so many.
    pub fn held_out(&self, batches: usize) -> Result<Vec<Batch>, DataError> {
        let (mut packer, mut given) = (Packer::new(self.padding), vec![0u64; self.sources.len()]);
        let mut tokens = vec![0u64; self.sources.len()];
        let mut all = Vec::new();
        for _ in 0..batches {
            let batch = packer.batch(self.sequences, self.length, || -> Result<_, DataError> {
                let has_more = |source: &usize| self.has_held_out(*source, given[*source]);
                let Some(source) = self.furthest_behind(&tokens, has_more) else { return Ok(None) };
                let document = self.held_out_document(source, given[source])?;
                given[source] += 1;
                tokens[source] += document.as_ref().map_or(0, |document| document.tokens.len() as u64);
                Ok(document.map(|document| ((), document)))
            })?;
            if batch.weight() > 0.0 {
                all.push(batch);
            }
        }
        Ok(all)
    }

    fn has_held_out(&self, source: usize, index: u64) -> bool {
        match &self.sources[source].1 {
            Open::Dialogues(_) => true,
            Open::Lines(_) | Open::Pieces { .. } | Open::Schemas(_) => false,
            Open::Records(records) => index < records.held_out().len() as u64,
        }
    }

    fn held_out_document(&self, source: usize, index: u64) -> Result<Option<Document>, DataError> {
        match &self.sources[source].1 {
            Open::Dialogues(generator) => {
                let index = HELD_OUT_DIALOGUES + index;
                let held_out = generator.dialogue(Scope::HELD_OUT, index);
                dialogue(&self.encoder, held_out, index, self.length).map(Some)
            }
            Open::Lines(_) | Open::Pieces { .. } | Open::Schemas(_) => Ok(None),
            Open::Records(records) => Ok(records.held_out().get(index as usize).cloned()),
        }
    }

    /// The source that has given least for its weight, among those that can give.
    fn furthest_behind(&self, tokens: &[u64], can: impl Fn(&usize) -> bool) -> Option<usize> {
        let share = |source: &usize| tokens[*source] as f64 / self.sources[*source].0.weight;
        (0..self.sources.len()).filter(can).min_by(|a, b| share(a).total_cmp(&share(b)))
    }

    /// The next document, with where it is from.
    fn draw(&mut self) -> Result<((usize, u64), Document), DataError> {
        // There is at least one source, and none ends.
        let source = self.furthest_behind(&self.tokens, |_| true).unwrap_or_default();
        let index = self.documents[source];
        let document = self.document(source, index)?;
        self.documents[source] += 1;
        self.tokens[source] += document.tokens.len() as u64;
        Ok(((source, index), document))
    }

    fn document(&mut self, source: usize, index: u64) -> Result<Document, DataError> {
        match &mut self.sources[source].1 {
            Open::Dialogues(generator) => {
                dialogue(&self.encoder, generator.dialogue(Scope::TRAINING, index), index, self.length)
            }
            Open::Schemas(generator) => dialogue(&self.encoder, generator.schema(index), index, self.length),
            Open::Lines(generator) => Ok(self.encoder.twice(&generator.line(index))),
            Open::Pieces { seed } => Ok(self.encoder.pieces_twice(*seed, index)),
            Open::Records(records) => Ok(records.document(index).clone()),
        }
    }

    fn go_to(&mut self, cursor: Cursor) -> Result<(), DataError> {
        let count = self.sources.len();
        let wrong = |problem: String| Err(DataError::Cursor { problem });
        if cursor.documents.len() != count || cursor.tokens.len() != count {
            return wrong(format!("it is of {} sources, there are {count}", cursor.documents.len()));
        }
        if let Some((source, _)) = cursor.waiting.iter().find(|(source, _)| *source >= count) {
            return wrong(format!("a document of source {source} waits, there are {count} sources"));
        }
        self.packer = Packer::new(self.padding);
        for (source, index) in cursor.waiting {
            let document = self.document(source, index)?;
            self.packer.wait((source, index), document);
        }
        (self.documents, self.tokens) = (cursor.documents, cursor.tokens);
        Ok(())
    }
}

/// A dialogue, without its last exchanges if the whole is longer than a sequence.
fn dialogue(
    encoder: &Encoder,
    mut dialogue: Dialogue,
    index: u64,
    length: usize,
) -> Result<Document, DataError> {
    loop {
        let document = encoder.dialogue(&dialogue);
        let document = document.map_err(|problem| DataError::Dialogue { index, problem })?;
        if document.tokens.len() <= length + 1 || dialogue.exchanges.len() == 1 {
            return Ok(document);
        }
        dialogue.exchanges.pop();
    }
}

impl crate::Source for Stream {
    fn next_batch(&mut self) -> Result<Batch, TrainError> {
        let mut packer = std::mem::replace(&mut self.packer, Packer::new(self.padding));
        let (sequences, length) = (self.sequences, self.length);
        let batch = packer.batch(sequences, length, || self.draw().map(Some));
        self.packer = packer;
        Ok(batch?)
    }

    fn cursor(&self) -> Value {
        let waiting = self.packer.waiting().copied().collect();
        let cursor = Cursor { documents: self.documents.clone(), tokens: self.tokens.clone(), waiting };
        serde_json::to_value(cursor).unwrap_or_default()
    }

    fn seek(&mut self, cursor: &Value) -> Result<(), TrainError> {
        let cursor = serde_json::from_value(cursor.clone());
        let cursor = cursor.map_err(|error| DataError::Cursor { problem: error.to_string() })?;
        Ok(self.go_to(cursor)?)
    }
}
