//! The k largest of a few hundred scores.

/// Indices of the `k` largest scores in ascending order of index; of equal scores the lower index wins.
/// NaN counts as the smallest, and the two zeros are equal.
pub fn top_k(scores: &[f32], k: usize, chosen: &mut Vec<u32>) {
    let rank = |i: &u32| {
        let score = scores[*i as usize];
        if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 } // -0.0 + 0.0 = 0.0
    };
    let larger_first = |a: &u32, b: &u32| rank(b).total_cmp(&rank(a)).then(a.cmp(b));
    chosen.clear();
    chosen.extend(0..scores.len() as u32);
    if k < chosen.len() {
        chosen.select_nth_unstable_by(k, larger_first);
        chosen.truncate(k);
    }
    chosen.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_largest_and_breaks_ties_by_index() {
        let cases: [(&[f32], usize, &[u32]); 6] = [
            (&[1.0, 3.0, 2.0], 2, &[1, 2]),
            (&[1.0, 1.0, 1.0, 1.0], 2, &[0, 1]),
            (&[f32::NAN, -1.0, f32::NEG_INFINITY], 1, &[1]),
            (&[-0.0, 0.0], 1, &[0]),
            (&[5.0], 1, &[0]),
            (&[1.0, 2.0], 5, &[0, 1]),
        ];
        for (scores, k, want) in cases {
            let mut chosen = Vec::new();
            top_k(scores, k, &mut chosen);
            assert_eq!(chosen, want, "{scores:?} {k}");
        }
    }
}
