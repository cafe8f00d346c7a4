//! The plainest generation there is: the likeliest token, again and again; under a grammar the likeliest of those that may come.

use k2_chat::grammar::{Progress, may_come};
use k2_model::attention_form::decompressed_rows;
use k2_model::{AttentionForm, BatchError, CacheDtype, Chunk, KimiK2, KvCache, LogitRows, Scratch};

/// A generator for [`super::of_model`]: answers of at most `limit` tokens, one of `stop` being the last if the
/// model has come to an end. It has a cache of its own for one sequence of the model's whole context.
///
/// # Errors
/// The model refuses the prompt, or the grammar cannot be followed.
pub fn greedy<'a>(
    model: &'a KimiK2,
    stop: &'a [u32],
    limit: usize,
) -> impl FnMut(&[u32], Option<Progress>) -> Result<Vec<u32>, GreedyError> + 'a {
    let blocks = KvCache::blocks_for(model.config.max_position_embeddings);
    let mut cache = KvCache::new(&model.config, blocks, CacheDtype::I16);
    let block_table: Vec<u32> = (0..blocks as u32).collect();
    let mut scratch = Scratch::default();
    move |prompt, mut progress| {
        let room = model.config.max_position_embeddings.saturating_sub(prompt.len());
        let mut read = |tokens: &[u32], start, form, logits, allowed: Option<&[u32]>| {
            let chunk = Chunk { tokens, start, block_table: &block_table, logits, form };
            Ok::<u32, GreedyError>(likeliest(
                model.forward(&mut cache, &[chunk], &mut scratch, None)?,
                allowed,
            ))
        };
        let mut start = decompressed_rows(&model.config, 0..prompt.len()).end;
        if start > 0 {
            read(&prompt[..start], 0, AttentionForm::Decompressed, LogitRows::None, None)?;
        }
        let (mut answer, mut next) = (Vec::new(), prompt[start..].to_vec());
        while answer.len() < limit.min(room) {
            let allowed =
                progress.as_mut().map(Progress::allowed).transpose().map_err(GreedyError::Grammar)?;
            let token = read(&next, start, AttentionForm::Absorbed, LogitRows::Last, allowed)?;
            answer.push(token);
            if stop.contains(&token) {
                break;
            }
            if let Some(progress) = &mut progress {
                progress.accept(token).map_err(GreedyError::Grammar)?;
            }
            start += next.len();
            next = vec![token];
        }
        Ok(answer)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GreedyError {
    /// The model refuses the prompt.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The grammar cannot be followed.
    #[error("{0}")]
    Grammar(String),
}

/// Of equally likely ones the first. `allowed` has a bit for each id that may come.
fn likeliest(logits: &[f32], allowed: Option<&[u32]>) -> u32 {
    let candidates =
        (0u32..).zip(logits).filter(|(id, _)| allowed.is_none_or(|allowed| may_come(allowed, *id)));
    let best = candidates.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(0, |(token, _)| token)
}
