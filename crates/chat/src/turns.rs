//! The model's own turns, token by token.
//!
//! A text has many tokenisations, and a model samples others than the encoder would choose, above all inside the
//! arguments of calls. When the text of a turn comes back in a conversation's history, encoding it anew would give
//! other ids than those that were computed: the cache would be left, and the model would read something that it
//! did not write. So turns whose ids are not the encoder's are remembered by what they look like, text and
//! markers, and history that looks the same gets the ids back. A text that only spells markers looks different.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cache::Cache;
use crate::render::Rendered;
use crate::tokenizer::Tokenizer;

/// Bytes beside text and ids, estimated.
const ENTRY_BYTES: usize = 256;

/// The remembered turns; the longest unused go first.
pub struct Turns {
    cache: Mutex<Cache<Arc<[u32]>>>,
}

impl Turns {
    /// An empty memory for so many bytes.
    pub fn new(bytes: usize) -> Turns {
        Turns { cache: Mutex::new(Cache::new(bytes)) }
    }

    /// Remembers the ids of a turn, without its end, if encoding its text would not give them anyway.
    pub fn remember(&self, tokenizer: &Tokenizer, ids: &[u32]) {
        let Some((text, markers)) = spelled(tokenizer, ids) else { return };
        if tokenizer.encode_marked(&text, &markers) == ids {
            return;
        }
        let bytes = ENTRY_BYTES + 2 * text.len() + size_of_val(ids);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(look(&text, &markers), ids.into(), bytes);
    }

    /// The ids of a prompt, with those of the remembered turns in it.
    pub fn ids(&self, tokenizer: &Tokenizer, rendered: &Rendered) -> Vec<u32> {
        let found: Vec<(Range<usize>, Arc<[u32]>)> = rendered
            .turns
            .iter()
            .filter_map(|turn| Some((turn.clone(), self.find(rendered, turn)?)))
            .collect();
        let (mut ids, mut at) = (Vec::new(), 0);
        for (turn, own) in found {
            ids.extend(rendered.part(at..turn.start).ids(tokenizer));
            ids.extend_from_slice(&own);
            at = turn.end;
        }
        ids.extend(rendered.part(at..rendered.text.len()).ids(tokenizer));
        ids
    }

    fn find(&self, rendered: &Rendered, turn: &Range<usize>) -> Option<Arc<[u32]>> {
        let part = rendered.part(turn.clone());
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&look(&part.text, &part.markers))
    }
}

/// The text of ids and which parts of it are markers; none if it is no text.
fn spelled(tokenizer: &Tokenizer, ids: &[u32]) -> Option<(String, Vec<Range<usize>>)> {
    let (mut bytes, mut markers) = (Vec::new(), Vec::new());
    for &id in ids {
        let start = bytes.len();
        bytes.extend_from_slice(tokenizer.token_bytes(id).ok()?);
        if tokenizer.specials().get(id).is_some() {
            markers.push(start..bytes.len());
        }
    }
    Some((String::from_utf8(bytes).ok()?, markers))
}

/// What a turn looks like.
fn look(text: &str, markers: &[Range<usize>]) -> String {
    let mut look = String::with_capacity(text.len() + 8 * markers.len());
    for marker in markers {
        look += &format!("{},", marker.start);
    }
    look + ":" + text
}
