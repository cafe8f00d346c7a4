//! Files of records: read, checked, encoded and shuffled.
//!
//! All records are encoded when the file is opened, so a bad one is reported before the run, by file and line.

use k2_chat::{Message, Tool};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::document::Encoder;
use super::{DataError, Document};
use crate::dialogues::draw::hash;
use crate::rng::Rng;

/// Longest record that is read.
const RECORD_LIMIT: usize = 16 << 20;

/// The documents of a file in a shuffled order, again and again.
pub struct Records {
    documents: Vec<Document>,
    held_out: Vec<Document>,
    skipped: usize,
    seed: u64,
    /// The order of one epoch.
    order: Vec<u32>,
    epoch: Option<u64>,
}

/// How records are read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'e> {
    pub(super) encoder: &'e Encoder,
    /// Positions of a sequence.
    pub(super) length: usize,
    /// Share of records that is held out.
    pub(super) held_out: f64,
    pub(super) skip_bad: bool,
    pub(super) seed: u64,
}

/// One line of a JSONL file: a conversation, or plain text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default)]
    text: Option<String>,
}

impl Records {
    /// Reads a JSONL file.
    pub(super) fn jsonl(path: &Path, reading: Reading<'_>) -> Result<Records, DataError> {
        let encode = |line: &str| -> Result<Vec<Document>, String> {
            let record: Record = serde_json::from_str(line).map_err(|error| error.to_string())?;
            match (record.messages, record.text) {
                (Some(messages), None) if messages.is_empty() => Err("`messages` is empty".to_owned()),
                (Some(messages), None) => {
                    whole(reading.encoder.conversation(messages, &record.tools)?, reading.length)
                }
                (None, Some(text)) => Ok(parts(reading.encoder.text(&text), reading.length)),
                _ => Err("expected either `messages` or `text`".to_owned()),
            }
        };
        Records::read(path, reading, |file| file.next_line(), encode)
    }

    /// Reads a text file; its documents are parted by blank lines, and long ones between words.
    pub(super) fn text(path: &Path, reading: Reading<'_>) -> Result<Records, DataError> {
        Records::read(
            path,
            reading,
            |file| file.next_block(),
            |block| Ok(parts(reading.encoder.text(block), reading.length)),
        )
    }

    fn read(
        path: &Path,
        reading: Reading<'_>,
        next: impl Fn(&mut Lines) -> std::io::Result<Option<String>>,
        encode: impl Fn(&str) -> Result<Vec<Document>, String>,
    ) -> Result<Records, DataError> {
        let io = |error| DataError::Io { path: path.to_owned(), error };
        let (documents, held_out, order) = (Vec::new(), Vec::new(), Vec::new());
        let mut records = Records { documents, held_out, skipped: 0, seed: reading.seed, order, epoch: None };
        let mut file = Lines::open(path).map_err(io)?;
        while let Some(record) = next(&mut file).map_err(io)? {
            records.add(path, file.number, &record, reading, &encode)?;
        }
        if records.documents.is_empty() {
            let (held_out, skipped) = (records.held_out.len(), records.skipped);
            return Err(DataError::Empty { path: path.to_owned(), held_out, skipped });
        }
        Ok(records)
    }

    fn add(
        &mut self,
        path: &Path,
        line: usize,
        record: &str,
        reading: Reading<'_>,
        encode: impl Fn(&str) -> Result<Vec<Document>, String>,
    ) -> Result<(), DataError> {
        let encoded = match record.len() {
            bytes if bytes > RECORD_LIMIT => {
                Err(format!("the record has {bytes} bytes, at most {RECORD_LIMIT} are read"))
            }
            _ => encode(record).and_then(trainable),
        };
        match encoded {
            Ok(documents) if is_held_out(record, reading.held_out) => self.held_out.extend(documents),
            Ok(documents) => self.documents.extend(documents),
            Err(_) if reading.skip_bad => self.skipped += 1,
            Err(problem) => return Err(DataError::Record { path: path.to_owned(), line, problem }),
        }
        Ok(())
    }

    /// Documents to train on.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Never true: a file without documents is an error.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// How many bad records were left out.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Held-out documents.
    pub fn held_out(&self) -> &[Document] {
        &self.held_out
    }

    /// The document at a place of the endless shuffled sequence.
    pub fn document(&mut self, index: u64) -> &Document {
        let count = self.documents.len() as u64;
        let (epoch, place) = (index / count, (index % count) as usize);
        if self.epoch != Some(epoch) {
            self.order = shuffled(self.documents.len(), self.seed, epoch);
            self.epoch = Some(epoch);
        }
        &self.documents[self.order[place] as usize]
    }
}

/// A file read piece by piece.
struct Lines {
    file: BufReader<std::fs::File>,
    /// The number of the last line, from 1.
    number: usize,
    /// The rest of a line that was too long for one document.
    rest: String,
}

/// Longest piece of a text file that is encoded at once, in bytes.
const BLOCK: usize = 1 << 16;

impl Lines {
    fn open(path: &Path) -> std::io::Result<Lines> {
        Ok(Lines { file: BufReader::new(std::fs::File::open(path)?), number: 0, rest: String::new() })
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> std::io::Result<Option<String>> {
        while let Some(line) = self.line()? {
            if !line.trim().is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// The lines up to a blank one, as far as they are short enough.
    fn next_block(&mut self) -> std::io::Result<Option<String>> {
        let mut block = std::mem::take(&mut self.rest);
        while block.len() < BLOCK {
            match self.line()? {
                Some(line) if !line.trim().is_empty() => {
                    let between = if block.is_empty() { "" } else { "\n" };
                    block = block + between + line.trim_end();
                }
                Some(_) if block.is_empty() => {}
                _ => break,
            }
        }
        if block.len() > BLOCK {
            let end = (0..=BLOCK).rev().find(|at| block.is_char_boundary(*at)).unwrap_or(0);
            let cut = block[..end].rfind(char::is_whitespace).filter(|cut| *cut > 0).unwrap_or(end);
            self.rest = block.split_off(cut).trim_start().to_owned();
        }
        Ok((!block.is_empty()).then_some(block))
    }

    /// The next line; its number is counted. A line over the limit is cut there, so that it is refused.
    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = (&mut self.file).take(RECORD_LIMIT as u64 + 1).read_until(b'\n', &mut bytes)?;
        self.number += 1;
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| std::io::Error::other(format!("line {} is not UTF-8", self.number)))?;
        Ok((read > 0).then(|| text.trim_end_matches(['\n', '\r']).to_owned()))
    }
}

fn trainable(documents: Vec<Document>) -> Result<Vec<Document>, String> {
    match documents.iter().flat_map(|document| document.weights.iter().skip(1)).any(|weight| *weight > 0.0) {
        true => Ok(documents),
        false => Err("nothing in it is to be learned: no message of the assistant and no text".to_owned()),
    }
}

/// A conversation is not cut: what it is about stands at its beginning, what is learned at its end.
fn whole(document: Document, length: usize) -> Result<Vec<Document>, String> {
    match document.tokens.len().saturating_sub(1) {
        positions if positions > length => {
            Err(format!("the conversation has {positions} positions, batch.length is {length}"))
        }
        _ => Ok(vec![document]),
    }
}

/// A text is cut into parts that fit; the last token of one is the first of the next.
fn parts(document: Document, length: usize) -> Vec<Document> {
    let last = document.tokens.len().saturating_sub(1);
    let part = |start: usize| {
        let part = start..(start + length).min(last) + 1;
        Document { tokens: document.tokens[part.clone()].to_vec(), weights: document.weights[part].to_vec() }
    };
    (0..last.max(1)).step_by(length).map(part).collect()
}

fn is_held_out(record: &str, share: f64) -> bool {
    (hash(record.as_bytes()) % 1_000_000) < (share * 1e6) as u64
}

/// The numbers below `count` in the order of an epoch (Fisher and Yates).
fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed ^ hash(&epoch.to_le_bytes()));
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        order.swap(last, rng.below(last + 1));
    }
    order
}
