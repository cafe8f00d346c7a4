//! How far the fast path's distribution over the next token is from the exact path's.

use k2_model::{KimiK2, Precision};
use std::path::Path;

use crate::fixtures::{Expected, folders, load};
use crate::sequences::Sequences;

/// Mean Kullback-Leibler divergence, KL(fast ‖ exact), in nats.
const BOUND: f64 = 1e-3;

#[test]
fn the_fast_path_is_close_to_the_exact_one() {
    let mut differ = 0;
    for folder in folders() {
        differ += usize::from(check(&folder, &Expected::of(&folder).ids("input_ids")));
    }
    assert!(differ >= 2, "two folders have INT4 experts, which are multiplied with quantised activations");
}

/// Whether the two differ at all.
fn check(path: &Path, ids: &[u32]) -> bool {
    let mut model = load(path, 2);
    let exact = logits(&model, ids);
    model.precision = Precision::Fast;
    let fast = logits(&model, ids);
    let vocab = model.config.vocab_size;
    let rows = fast.chunks(vocab).zip(exact.chunks(vocab));
    let divergence = rows.map(|(fast, exact)| divergence(fast, exact)).sum::<f64>() / ids.len() as f64;
    println!("{}: KL(fast ‖ exact) = {divergence:.2e}", path.display());
    assert!(divergence <= BOUND, "{}: KL(fast ‖ exact) = {divergence}", path.display());
    fast != exact
}

fn logits(model: &KimiK2, ids: &[u32]) -> Vec<f32> {
    Sequences::new(model, 1, ids.len()).step(&[(0, ids)], None)
}

/// KL(p ‖ q) of two rows of logits.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let log_sum = |logits: &[f32]| logits.iter().map(|l| f64::from(*l).exp()).sum::<f64>().ln();
    let (p_sum, q_sum) = (log_sum(p), log_sum(q));
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - p_sum, f64::from(*q) - q_sum);
        p.exp() * (p - q)
    };
    p.iter().zip(q).map(term).sum()
}
