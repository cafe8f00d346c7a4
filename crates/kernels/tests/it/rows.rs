//! The operations on rows of activations against their formulas in f64.

use k2_kernels::dtype::{bf16_to_f32, f32_to_bf16};
use k2_kernels::exp::{exp, sigmoid, silu_mul};
use k2_kernels::rmsnorm::rmsnorm;
use k2_kernels::rope::rotate;
use k2_kernels::topk::top_k;
use proptest::{collection::vec, prelude::*, sample::select};

use crate::random::Random;

/// Within a share of what is expected, or a normal number's distance from zero.
fn check(what: &str, found: f32, want: f64, share: f64) {
    let bound = want.abs() * share + f64::from(f32::MIN_POSITIVE);
    let off = (f64::from(found) - want).abs();
    assert!(off <= bound, "{what} is {found:e}, expected {want:e} +- {bound:e}");
}

fn naive_top_k(scores: &[f32], k: usize) -> Vec<u32> {
    let rank = |i: &u32| if scores[*i as usize].is_nan() { f32::NEG_INFINITY } else { scores[*i as usize] };
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|a, b| rank(b).partial_cmp(&rank(a)).unwrap()); // stable: the lower index stays first
    order.truncate(k);
    order.sort();
    order
}

proptest! {
    #[test]
    fn rmsnorm_is_that_of_f64(
        (rows, len) in (1..5usize, 1..900usize),
        size in select(vec![1e-8f32, 1e-3, 1.0, 1e4, 1e15]),
        eps in select(vec![1e-5f32, 1e-6]),
        seed: u64,
    ) {
        let mut random = Random(seed);
        let x: Vec<f32> = random.floats(rows * len).iter().map(|x| x * size).collect();
        let weight = random.floats(len);
        let mut y = vec![f32::NAN; x.len()];
        rmsnorm(&x, &weight, eps, &mut y);
        for (x, y) in x.chunks_exact(len).zip(y.chunks_exact(len)) {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / len as f64;
            let scale = 1.0 / (mean + f64::from(eps)).sqrt();
            for ((x, y), w) in x.iter().zip(y).zip(&weight) {
                let share = (len / 16 + 16) as f64 * f64::from(f32::EPSILON) / 2.0;
                check("a number", *y, f64::from(*x) * scale * f64::from(*w), share);
            }
        }
    }

    #[test]
    fn rope_turns_each_pair_by_its_angle(angles in vec(-1e4f64..1e4, 1..40), seed: u64) {
        let mut channels = Random(seed).floats(2 * angles.len());
        let before = channels.clone();
        let (cos, sin): (Vec<f32>, Vec<f32>) =
            angles.iter().map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        rotate(&mut channels, &cos, &sin);
        for (i, angle) in angles.iter().enumerate() {
            let (a, b) = (f64::from(before[2 * i]), f64::from(before[2 * i + 1]));
            let want = [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()];
            for (found, want) in channels[2 * i..].iter().zip(want) {
                assert!((f64::from(*found) - want).abs() < 4e-7, "{found}, expected {want}");
            }
        }
    }

    #[test]
    fn the_exponential_and_what_is_built_from_it(x in vec(-86f32..86.0, 1..100), seed: u64) {
        let up = Random(seed).floats(x.len());
        let mut gate = x.clone();
        silu_mul(&mut gate, &up);
        for ((x, up), gate) in x.iter().zip(up).zip(gate) {
            let (wide, up) = (f64::from(*x), f64::from(up));
            let share = 4.0 * f64::from(f32::EPSILON);
            check("exp", exp(*x), wide.exp(), share);
            check("sigmoid", sigmoid(*x), 1.0 / (1.0 + (-wide).exp()), share);
            check("silu", gate, wide / (1.0 + (-wide).exp()) * up, share);
        }
    }

    #[test]
    fn the_largest_are_those_of_a_sort(
        scores in vec(prop_oneof![select(vec![0.0f32, -0.0, 1.0, -1.0, f32::NAN]), any::<f32>()], 0..400),
        k in 0..20usize,
    ) {
        let mut chosen = vec![9; 9];
        top_k(&scores, k, &mut chosen);
        assert_eq!(chosen, naive_top_k(&scores, k));
    }

    #[test]
    fn rounding_to_bfloat16_goes_to_the_nearest_and_to_the_even_of_two(
        bits in prop_oneof![any::<u32>(), any::<u32>().prop_map(|bits| bits & 0xffff_0000 | 0x8000)],
    ) {
        let number = f32::from_bits(bits);
        prop_assume!(!number.is_nan());
        // Beyond the largest lies what would be the next, not infinity.
        let wide = |x: f32| if x.is_infinite() { 2f64.powi(128).copysign(f64::from(x)) } else { f64::from(x) };
        let down = (bits >> 16) as u16;
        let distance = |code: u16| (wide(bf16_to_f32(code)) - wide(number)).abs();
        let up = if number.is_infinite() { down } else { down + 1 };
        let nearest = match distance(down).total_cmp(&distance(up)) {
            std::cmp::Ordering::Less => down,
            std::cmp::Ordering::Greater => up,
            std::cmp::Ordering::Equal => if down.is_multiple_of(2) { down } else { up },
        };
        assert_eq!(f32_to_bf16(number), nearest, "{number:e}");
    }
}
