//! Rearranges a loaded model's weights for the fast path, layer by layer.
//!
//! See [`k2_kernels::interleaved`]. The embedding stays as it is, since its rows are read one by one, and so does
//! `kv_b_proj`, whose heads are cut into keys and values.

use k2_kernels::Matrix;
use k2_kernels::interleaved::{can_interleave, interleave};

use crate::kimi_k2::KimiK2;
use crate::layer::{FeedForward, Layer};
use crate::mla::QueryProjection;
use crate::mlp::Mlp;

/// More memory than there is for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rearranged weights take {needed} bytes, at most {most} are free for them")]
pub struct TooLarge {
    /// Bytes of the weights that can be rearranged.
    pub needed: u64,
    /// Bytes that they may take.
    pub most: u64,
}

impl KimiK2 {
    /// Puts rows side by side, in memory of their own of at most so many bytes. No number changes, nor does any
    /// result. `progress` hears, layer by layer, how many of how many are done. Returns how many bytes were rearranged.
    pub fn interleave(&mut self, most: u64, progress: &mut dyn FnMut(usize, usize)) -> Result<u64, TooLarge> {
        let needed = self.layers.iter_mut().map(|layer| bytes(&matrices(layer))).sum::<u64>();
        let needed = needed + bytes(&[&mut self.lm_head]);
        if needed > most {
            return Err(TooLarge { needed, most });
        }
        let count = self.layers.len();
        for (number, layer) in self.layers.iter_mut().enumerate() {
            progress(number, count);
            interleave(&self.pool, &mut matrices(layer));
        }
        interleave(&self.pool, &mut [&mut self.lm_head]);
        progress(count, count);
        Ok(needed)
    }
}

/// What the rearranged ones of these take.
fn bytes(matrices: &[&mut Matrix]) -> u64 {
    let bytes = |w: &&mut Matrix| if can_interleave(w) { w.stored_bytes() as u64 } else { 0 };
    matrices.iter().map(bytes).sum()
}

/// The matrices of a layer that are multiplied as a whole, those of an expert as neighbours.
fn matrices(layer: &mut Layer) -> Vec<&mut Matrix> {
    let attention = &mut layer.self_attn;
    let mut all = vec![&mut attention.kv_a_proj_with_mqa, &mut attention.o_proj];
    match &mut attention.q {
        QueryProjection::Direct { q_proj } => all.push(q_proj),
        QueryProjection::LowRank { q_a_proj, q_b_proj, .. } => all.extend([q_a_proj, q_b_proj]),
    }
    match &mut layer.mlp {
        FeedForward::Dense(mlp) => all.extend(of_mlp(mlp)),
        FeedForward::Moe(moe) => {
            let experts = moe.experts.iter_mut().chain(&mut moe.shared_experts);
            all.extend(experts.flat_map(of_mlp));
        }
    }
    all
}

fn of_mlp(mlp: &mut Mlp) -> [&mut Matrix; 3] {
    [&mut mlp.gate_proj, &mut mlp.up_proj, &mut mlp.down_proj]
}
