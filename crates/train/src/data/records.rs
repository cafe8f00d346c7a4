//! Files of records: read, checked, encoded and shuffled.
//!
//! All records are encoded when the file is opened, so a bad one is reported before the run, by file and line.

use k2_chat::{Message, Tool};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::document::Encoder;
use super::{DataError, Document, messages};
use crate::dialogues::draw::hash;
use crate::rng::Rng;

/// Longest record that is read.
const RECORD_LIMIT: usize = 16 << 20;

/// The documents of a file in a shuffled order, again and again.
pub struct Records {
    documents: Vec<Document>,
    held_out: Vec<Document>,
    skipped: Skipped,
    seed: u64,
    /// The order of one epoch.
    order: Vec<u32>,
    epoch: Option<u64>,
}

/// Bad records that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub records: usize,
    /// The first of them, with its file and line.
    pub first: Option<String>,
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
    tools: Option<Vec<Tool>>,
    #[serde(default)]
    text: Option<String>,
}

impl Records {
    /// Reads a JSONL file.
    pub(super) fn jsonl(path: &Path, reading: Reading<'_>) -> Result<Records, DataError> {
        let encode = |line: &str| -> Result<Vec<Document>, String> {
            let record: Record = parse(line)?;
            match (record.messages, record.text) {
                (Some(messages), None) if messages.is_empty() => Err("`messages` is empty".to_owned()),
                (Some(messages), None) => {
                    messages::check_keys(&parse(line)?)?;
                    let (weights, tools) = (messages::weights(&messages)?, record.tools.unwrap_or_default());
                    whole(reading.encoder.conversation(messages, &weights, &tools)?, reading.length)
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
        next: impl Fn(&mut Lines) -> std::io::Result<Option<Result<String, String>>>,
        encode: impl Fn(&str) -> Result<Vec<Document>, String>,
    ) -> Result<Records, DataError> {
        let io = |error| DataError::Io { path: path.to_owned(), error };
        let (documents, held_out, order) = (Vec::new(), Vec::new(), Vec::new());
        let mut records = Records {
            documents,
            held_out,
            skipped: Skipped::default(),
            seed: reading.seed,
            order,
            epoch: None,
        };
        let mut file = Lines::open(path, RECORD_LIMIT).map_err(io)?;
        while let Some(record) = next(&mut file).map_err(io)? {
            records.add(path, file.number, record, reading, &encode)?;
        }
        if records.documents.is_empty() {
            let (held_out, skipped) = (records.held_out.len(), records.skipped.records);
            return Err(DataError::Empty { path: path.to_owned(), held_out, skipped });
        }
        Ok(records)
    }

    fn add(
        &mut self,
        path: &Path,
        line: usize,
        record: Result<String, String>,
        reading: Reading<'_>,
        encode: impl Fn(&str) -> Result<Vec<Document>, String>,
    ) -> Result<(), DataError> {
        let held_out = record.as_ref().is_ok_and(|record| is_held_out(record, reading.held_out));
        match record.and_then(|record| encode(&record)).and_then(trainable) {
            Ok(documents) if held_out => self.held_out.extend(documents),
            Ok(documents) => self.documents.extend(documents),
            Err(problem) if reading.skip_bad => {
                self.skipped.records += 1;
                self.skipped.first.get_or_insert_with(|| format!("{}:{line}: {problem}", path.display()));
            }
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

    /// The bad records that were left out.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
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
    /// Most bytes of a line that are read at once.
    limit: usize,
    /// The number of the last line, from 1.
    number: usize,
    /// Whether more of that line is to be read.
    inside: bool,
    /// The beginning of a character that was cut at the limit.
    cut: Vec<u8>,
    /// The rest of a line that was too long for one document.
    rest: String,
    /// What is wrong with the line that ended the last block.
    problem: Option<String>,
}

/// Longest piece of a text file that is encoded at once, in bytes.
const BLOCK: usize = 1 << 16;

impl Lines {
    fn open(path: &Path, limit: usize) -> std::io::Result<Lines> {
        let file = BufReader::new(std::fs::File::open(path)?);
        Ok(Lines {
            file,
            limit,
            number: 0,
            inside: false,
            cut: Vec::new(),
            rest: String::new(),
            problem: None,
        })
    }

    /// The next line that is not blank, or what is wrong with it.
    fn next_line(&mut self) -> std::io::Result<Option<Result<String, String>>> {
        loop {
            let bytes = self.read()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            if bytes.len() > self.limit && self.inside {
                self.file.skip_until(b'\n')?;
                self.inside = false;
                return Ok(Some(Err(format!("the record has more than {} bytes", self.limit))));
            }
            match String::from_utf8(bytes) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => return Ok(Some(Ok(line.trim_end_matches(['\n', '\r']).to_owned()))),
                Err(_) => return Ok(Some(Err("it is not UTF-8".to_owned()))),
            }
        }
    }

    /// The lines up to a blank one, as far as they are short enough, or what is wrong with a line: it ends a block, and is
    /// a bad record of its own.
    fn next_block(&mut self) -> std::io::Result<Option<Result<String, String>>> {
        if let Some(problem) = self.problem.take() {
            return Ok(Some(Err(problem)));
        }
        let mut block = std::mem::take(&mut self.rest);
        while block.len() < BLOCK {
            let goes_on = self.inside;
            match self.text()? {
                Some(Ok(text)) if goes_on => block += &text,
                Some(Ok(line)) if !line.trim().is_empty() => {
                    let between = if block.is_empty() { "" } else { "\n" };
                    block = block + between + &line;
                }
                Some(Ok(_)) if block.is_empty() => {}
                Some(Err(problem)) if block.is_empty() => return Ok(Some(Err(problem))),
                Some(Err(problem)) => {
                    self.problem = Some(problem);
                    break;
                }
                _ => break,
            }
        }
        if block.len() > BLOCK {
            let end = (0..=BLOCK).rev().find(|at| block.is_char_boundary(*at)).unwrap_or(0);
            let cut = block[..end].rfind(char::is_whitespace).filter(|cut| *cut > 0).unwrap_or(end);
            self.rest = block.split_off(cut).trim_start().to_owned();
        }
        Ok((!block.is_empty()).then_some(Ok(block)))
    }

    /// The next line of a text, or whole characters of one over the limit.
    fn text(&mut self) -> std::io::Result<Option<Result<String, String>>> {
        let mut bytes = std::mem::take(&mut self.cut);
        let read = self.read()?;
        let is_cut = read.len() > self.limit && self.inside;
        bytes.extend(read);
        if let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
            && is_cut
        {
            self.cut = bytes.split_off(error.valid_up_to());
        }
        match String::from_utf8(bytes) {
            Err(_) => {
                if self.inside {
                    self.file.skip_until(b'\n')?;
                    self.inside = false;
                }
                Ok(Some(Err("it is not UTF-8".to_owned())))
            }
            Ok(text) if is_cut => Ok(Some(Ok(text))),
            Ok(text) => Ok((!text.is_empty()).then(|| Ok(text.trim_end().to_owned()))),
        }
    }

    /// The next line with its end, or one byte over the limit of it; nothing at the end. Lines are counted.
    fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.file).take(self.limit as u64 + 1).read_until(b'\n', &mut bytes)?;
        self.number += usize::from(!self.inside && !bytes.is_empty());
        self.inside = bytes.last().is_some_and(|last| *last != b'\n');
        Ok(bytes)
    }
}

fn parse<T: for<'de> Deserialize<'de>>(line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

fn trainable(documents: Vec<Document>) -> Result<Vec<Document>, String> {
    match documents.iter().flat_map(|document| document.weights.iter().skip(1)).any(|weight| *weight > 0.0) {
        true => Ok(documents),
        false => {
            Err("nothing in it is to be learned: no message of the assistant that counts, and no text"
                .to_owned())
        }
    }
}

/// A conversation is not cut: what it is about stands at its beginning, what is learned at its end.
fn whole(documents: Vec<Document>, length: usize) -> Result<Vec<Document>, String> {
    let positions = |document: &Document| document.tokens.len().saturating_sub(1);
    match documents.iter().map(positions).find(|positions| *positions > length) {
        Some(positions) => {
            Err(format!("the conversation has {positions} positions, batch.length is {length}"))
        }
        None => Ok(documents),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of its own for a test, of which at most so many bytes of a line are read at once.
    fn lines(name: &str, bytes: &[u8], limit: usize) -> Lines {
        let path = std::env::temp_dir().join(format!("k2-train-{}-lines-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Lines::open(&path, limit).unwrap()
    }

    #[test]
    fn a_long_line_of_a_text_is_cut_between_characters_only() {
        let text = "北京的天气 很好，\nshort\n上海的天气也很好。";
        for limit in [3, 4, 5, 7, 11, 100] {
            let mut lines = lines(&format!("text-{limit}"), text.as_bytes(), limit);
            assert_eq!(lines.next_block().unwrap(), Some(Ok(text.to_owned())), "{limit}");
            assert_eq!((lines.next_block().unwrap(), lines.number), (None, 3), "{limit}");
        }
    }

    #[test]
    fn a_bad_line_of_a_text_ends_a_block_and_is_a_record() {
        let (ok, bad) = (|text: &str| Some(Ok(text.to_owned())), || Some(Err("it is not UTF-8".to_owned())));
        let mut lines = lines("broken", b"one\ntwo\nM\xfcnchen, so long that it is cut\nthree\n\nfour", 7);
        let mut next = || (lines.next_block().unwrap(), lines.number);
        assert_eq!(next(), (ok("one\ntwo"), 3));
        assert_eq!(next(), (bad(), 3));
        assert_eq!(next(), (ok("three"), 5));
        assert_eq!((next(), next()), ((ok("four"), 6), (None, 6)));
        let half = "ok 北".as_bytes().strip_suffix(b"\x97").unwrap_or(b"\xff");
        let mut lines = self::lines("half", half, 3);
        let mut next = || lines.next_block().unwrap();
        assert_eq!((next(), next(), next()), (ok("ok "), bad(), None));
    }

    #[test]
    fn a_bad_line_is_one_record() {
        let mut lines = lines("jsonl", b"1234567\n12345678901234567890\n\n\xff\xff\nlast", 7);
        let mut next = || lines.next_line().unwrap();
        assert_eq!(next(), Some(Ok("1234567".to_owned())));
        assert_eq!(next(), Some(Err("the record has more than 7 bytes".to_owned())));
        assert_eq!(next(), Some(Err("it is not UTF-8".to_owned())));
        assert_eq!((next(), next()), (Some(Ok("last".to_owned())), None));
        assert_eq!(lines.number, 5);
    }
}
