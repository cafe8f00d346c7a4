//! Rearranges a loaded model's weights for the fast path, layer by layer.
//!
//! Integer codes lie eight rows side by side then ([`k2_kernels::interleaved`]), BF16 in twelve bits
//! ([`k2_kernels::coded_bf16`]). The embedding stays as it is, since its rows are read one by one, and so does
//! `kv_b_proj`, whose heads are cut into keys and values.

use k2_kernels::Matrix;
use k2_kernels::coded_bf16::{can_code, code, most_bytes};
use k2_kernels::interleaved::{can_interleave, interleave};
use k2_weights::release_mapped_pages;

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

/// Bytes that are rearranged together.
const TOGETHER: u64 = 64 << 20;

/// Bytes after which the pages of the mapped originals are given back, so that not both forms are in memory.
const KEPT: u64 = 512 << 20;

/// How far the rearranging of a model has come: it may go on between steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repacking {
    layer: usize,
    matrix: usize,
    kept: u64,
}

impl KimiK2 {
    /// Puts weights into the forms above, in memory of their own of at most so many bytes. No number changes, nor does any
    /// result. `progress` hears, layer by layer, how many of how many are done. Returns how many bytes they take at most.
    pub fn repack(&mut self, most: u64, progress: &mut dyn FnMut(usize, usize)) -> Result<u64, TooLarge> {
        let needed = self.repacked_bytes();
        if needed > most {
            return Err(TooLarge { needed, most });
        }
        let (mut at, mut done, count) = (Repacking::default(), 0, self.layers.len());
        progress(0, count);
        while self.repack_some(&mut at).is_some() {
            if done < at.layer.min(count) {
                done = at.layer;
                progress(done, count);
            }
        }
        Ok(needed)
    }

    /// What [`KimiK2::repack`] would take now at most.
    pub fn repacked_bytes(&mut self) -> u64 {
        let KimiK2 { layers, lm_head, .. } = self;
        let of_layer = |layer| matrices(layer).iter().map(|w| bytes(w)).sum::<u64>();
        layers.iter_mut().map(of_layer).sum::<u64>() + bytes(lm_head)
    }

    /// The next 64 MB or so, whatever memory there is: how many bytes that takes at most; none when all is done.
    pub fn repack_some(&mut self, at: &mut Repacking) -> Option<u64> {
        let KimiK2 { layers, lm_head, pool, .. } = self;
        let count = layers.len();
        let mut matrices = match layers.get_mut(at.layer) {
            Some(layer) => matrices(layer),
            None if at.layer == count => vec![lm_head],
            None => return None,
        };
        let (first, mut together) = (at.matrix, 0);
        while at.matrix < matrices.len() && together < TOGETHER {
            together += bytes(matrices[at.matrix]);
            at.matrix += 1;
        }
        interleave(pool, &mut matrices[first..at.matrix]);
        code(pool, &mut matrices[first..at.matrix]);
        if at.matrix == matrices.len() {
            (at.layer, at.matrix) = (at.layer + 1, 0);
        }
        at.kept += together;
        if at.kept >= KEPT || at.layer > count {
            at.kept = 0;
            release_mapped_pages();
        }
        Some(together)
    }
}

/// The most that a matrix takes once it is rearranged; nothing if it stays as it is.
fn bytes(w: &Matrix) -> u64 {
    let bytes = match can_interleave(w) {
        true => w.stored_bytes(),
        false if can_code(w) => most_bytes(w),
        false => 0,
    };
    bytes as u64
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
