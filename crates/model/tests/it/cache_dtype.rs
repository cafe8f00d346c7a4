//! Latents in every format of the cache: bits that depend on nothing but the sequence, blocks that come back as
//! they went out, and how far the narrow formats are from the wide one.

use k2_model::{CacheDtype, KimiK2};

use crate::divergence::divergence;
use crate::fixtures::{Expected, folders, load};
use crate::sequences::Sequences;

const ALL: [CacheDtype; 4] = [CacheDtype::F32, CacheDtype::I16, CacheDtype::Bf16, CacheDtype::Q8];

/// Logits of a prompt in chunks.
fn logits(model: &KimiK2, prompt: &[u32], size: usize, dtype: CacheDtype) -> Vec<f32> {
    let mut sequences = Sequences::with(model, 1, prompt.len(), dtype);
    prompt.chunks(size).flat_map(|chunk| sequences.step(&[(0, chunk)], None)).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn chunks_do_not_matter_in_any_format() {
    for folder in folders() {
        let model = load(&folder, 2);
        let prompt: Vec<u32> = Expected::of(&folder).ids("input_ids").into_iter().take(75).collect();
        for dtype in ALL {
            let whole = bits(&logits(&model, &prompt, prompt.len(), dtype));
            for size in [1, 7, 32] {
                let found = bits(&logits(&model, &prompt, size, dtype));
                assert!(found == whole, "{}: {dtype}, chunks of {size}", folder.display());
            }
        }
    }
}

/// Blocks go to other places of another cache, and the sequence goes on there.
#[test]
fn exported_blocks_continue_where_they_are_imported() {
    for folder in folders() {
        let model = load(&folder, 1);
        let prompt: Vec<u32> = Expected::of(&folder).ids("input_ids").into_iter().cycle().take(70).collect();
        for dtype in ALL {
            let mut first = Sequences::with(&model, 1, 70, dtype);
            first.step(&[(0, &prompt[..69])], None);
            let mut second = Sequences::with(&model, 2, 70, dtype);
            for (from, to) in first.block_tables[0].clone().into_iter().zip(second.block_tables[1].clone()) {
                let mut bytes = Vec::new();
                first.cache.export(from, &mut bytes);
                assert_eq!(bytes.len(), first.cache.block_bytes());
                assert!(!second.cache.import(to, &bytes[1..]), "another length is refused");
                assert!(second.cache.import(to, &bytes));
            }
            second.begin_at(1, 69);
            let wanted = bits(&first.step(&[(0, &prompt[69..])], None));
            let found = bits(&second.step(&[(1, &prompt[69..])], None));
            assert!(found == wanted, "{}: {dtype}", folder.display());
        }
    }
}

/// KL(wide || narrow) over the positions of the prompts, in nats. The bounds are about twice the most that was
/// measured (LOG.md). The mean is that of the few positions where a router of these random weights was undecided
/// and a rounding chooses another expert; the median is that of rounding alone.
#[test]
fn narrow_latents_are_near_the_wide_ones() {
    for (narrow, wide, most_median, most_mean) in [
        (CacheDtype::I16, CacheDtype::F32, 2.5e-7, 5e-7),
        (CacheDtype::Bf16, CacheDtype::F32, 1.5e-4, 1.5e-2),
        (CacheDtype::Q8, CacheDtype::Bf16, 1.5e-3, 5e-2),
    ] {
        for folder in folders() {
            let model = load(&folder, 2);
            let prompt: Vec<u32> = Expected::of(&folder).ids("input_ids").into_iter().take(200).collect();
            let vocab = model.config.vocab_size;
            let [from, to] = [wide, narrow].map(|dtype| logits(&model, &prompt, 64, dtype));
            let rows = from.chunks(vocab).zip(to.chunks(vocab));
            let mut kls: Vec<f64> = rows.map(|(from, to)| divergence(from, to)).collect();
            kls.sort_unstable_by(f64::total_cmp);
            let (mean, median) = (kls.iter().sum::<f64>() / kls.len() as f64, kls[kls.len() / 2]);
            println!("KL({wide} || {narrow}): mean {mean:.2e}, median {median:.2e} on {}", folder.display());
            assert!(median < most_median, "{}: {wide} to {narrow}: {median:e}", folder.display());
            assert!(mean < most_mean, "{}: {wide} to {narrow}: {mean:e}", folder.display());
            assert!(median > 0.0, "{narrow} is not what was computed with");
        }
    }
}
