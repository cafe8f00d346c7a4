//! How far the fast path's distribution over the next token is from the exact path's.

use k2_kernels::Pool;
use k2_model::synthetic::{Shape, SyntheticFormat};
use k2_model::{KimiK2, Precision, Synthetic};

use crate::fixtures::{Expected, folders, load};
use crate::sequences::Sequences;

/// Mean Kullback-Leibler divergence, KL(fast ‖ exact), in nats.
const BOUND: f64 = 1e-3;
/// The same for random weights, in which nothing is certain: every layer adds as much noise as signal to the stream.
const RANDOM_BOUND: f64 = 5e-3;

#[test]
fn the_fast_path_is_close_to_the_exact_one() {
    let mut differ = 0;
    for folder in folders() {
        differ += usize::from(check(
            &folder.display().to_string(),
            load(&folder, 2),
            &Expected::of(&folder).ids("input_ids"),
            BOUND,
        ));
    }
    assert!(differ >= 2, "two folders have INT4 experts, which are multiplied with quantised activations");
}

/// A GGUF file's layout at the widths of a small K2, with random weights.
#[test]
fn the_fast_path_is_close_with_every_matrix_quantised() {
    let synthetic =
        Synthetic { shape: Shape::Small, format: SyntheticFormat::Q8_0, n_routed_experts: Some(8) };
    let model = KimiK2::synthetic(&synthetic, Pool::new(2), &mut |_, _| ()).unwrap();
    let ids = [3, 1415, 9265, 3589, 7932, 3846, 2643, 3832];
    assert!(check("random Q8_0", model, &ids, RANDOM_BOUND));
}

/// Whether the two differ at all.
fn check(name: &str, model: KimiK2, ids: &[u32], bound: f64) -> bool {
    let mut model = KimiK2 { precision: Precision::Exact, ..model };
    let exact = logits(&model, ids);
    model.precision = Precision::Fast;
    let fast = logits(&model, ids);
    let vocab = model.config.vocab_size;
    let rows = fast.chunks(vocab).zip(exact.chunks(vocab));
    let divergence = rows.map(|(fast, exact)| divergence(fast, exact)).sum::<f64>() / ids.len() as f64;
    println!("{name}: KL(fast ‖ exact) = {divergence:.2e}");
    assert!(divergence <= bound, "{name}: KL(fast ‖ exact) = {divergence}");
    fast != exact
}

fn logits(model: &KimiK2, ids: &[u32]) -> Vec<f32> {
    Sequences::new(model, 1, ids.len()).step(&[(0, ids)], None)
}

/// KL(p ‖ q) of two rows of logits.
pub(crate) fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let log_sum = |logits: &[f32]| logits.iter().map(|l| f64::from(*l).exp()).sum::<f64>().ln();
    let (p_sum, q_sum) = (log_sum(p), log_sum(q));
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - p_sum, f64::from(*q) - q_sum);
        p.exp() * (p - q)
    };
    p.iter().zip(q).map(term).sum()
}
