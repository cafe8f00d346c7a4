//! The plainest generation there is: the likeliest token, again and again.

use k2_model::attention_form::decompressed_rows;
use k2_model::{AttentionForm, BatchError, CacheDtype, Chunk, KimiK2, KvCache, LogitRows, Scratch};

/// A generator for [`super::of_model`]: answers of at most `limit` tokens, one of `stop` being the last if the
/// model has come to an end. It has a cache of its own for one sequence of the model's whole context.
pub fn greedy<'a>(
    model: &'a KimiK2,
    stop: &'a [u32],
    limit: usize,
) -> impl FnMut(&[u32]) -> Result<Vec<u32>, BatchError> + 'a {
    let blocks = KvCache::blocks_for(model.config.max_position_embeddings);
    let mut cache = KvCache::new(&model.config, blocks, CacheDtype::I16);
    let block_table: Vec<u32> = (0..blocks as u32).collect();
    let mut scratch = Scratch::default();
    move |prompt| {
        let room = model.config.max_position_embeddings.saturating_sub(prompt.len());
        let mut read = |tokens: &[u32], start, form, logits| -> Result<u32, BatchError> {
            let chunk = Chunk { tokens, start, block_table: &block_table, logits, form };
            Ok(likeliest(model.forward(&mut cache, &[chunk], &mut scratch, None)?))
        };
        let mut start = decompressed_rows(&model.config, 0..prompt.len()).end;
        if start > 0 {
            read(&prompt[..start], 0, AttentionForm::Decompressed, LogitRows::None)?;
        }
        let (mut answer, mut next) = (Vec::new(), prompt[start..].to_vec());
        while answer.len() < limit.min(room) {
            let token = read(&next, start, AttentionForm::Absorbed, LogitRows::Last)?;
            answer.push(token);
            if stop.contains(&token) {
                break;
            }
            start += next.len();
            next = vec![token];
        }
        Ok(answer)
    }
}

/// Of equally likely ones the first.
fn likeliest(logits: &[f32]) -> u32 {
    let best = (0u32..).zip(logits).reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(0, |(token, _)| token)
}
