//! The same answer, bit for bit, however a sequence is cut into chunks, whoever shares the batch,
//! wherever its blocks lie, on any number of threads.

use k2_kernels::Pool;
use k2_kernels::nodes::Nodes;
use k2_model::synthetic::{Shape, SyntheticFormat};
use k2_model::{AttentionForm, KimiK2, LogitRows, Precision, Synthetic};
use std::path::Path;

use crate::fixtures::{Expected, folders, load};
use crate::sequences::Sequences;

#[test]
fn absorbed_bits_depend_on_nothing_else() {
    folders().iter().for_each(|folder| check(folder, AttentionForm::Absorbed, Precision::Exact));
}

#[test]
fn decompressed_bits_depend_on_nothing_else() {
    folders().iter().for_each(|folder| check(folder, AttentionForm::Decompressed, Precision::Exact));
}

#[test]
fn naive_bits_depend_on_nothing_else() {
    folders().iter().for_each(|folder| check(folder, AttentionForm::Naive, Precision::Exact));
}

#[test]
fn fast_bits_depend_on_nothing_else() {
    folders().iter().for_each(|folder| check(folder, AttentionForm::Absorbed, Precision::Fast));
}

/// Rows side by side or as they are published, on the fast path and on the exact one, on one node and on two.
#[test]
fn rearranged_weights_give_the_same_bits() {
    for format in [SyntheticFormat::Q4K, SyntheticFormat::Int4, SyntheticFormat::Bf16] {
        let synthetic = Synthetic { shape: Shape::Small, format, n_routed_experts: Some(8) };
        let mut model = KimiK2::synthetic(&synthetic, Pool::new(2), &mut |_, _| ()).unwrap();
        let ids = [3, 1415, 9265, 3589, 7932, 3846, 2643, 3832];
        let logits = |model: &mut KimiK2| {
            [Precision::Fast, Precision::Exact].map(|precision| {
                model.precision = precision;
                bits(&chunked(model, AttentionForm::Absorbed, &ids[..5], 3))
            })
        };
        let wanted = logits(&mut model);
        let refused = model.repack(0, &mut |_, _| panic!("nothing is done")).unwrap_err();
        assert!(refused.needed > 20 << 20 && refused.most == 0, "{format:?}: {refused}");
        let mut seen = Vec::new();
        let done = model.repack(refused.needed, &mut |done, of| seen.push((done, of)));
        assert_eq!(done, Ok(refused.needed));
        assert_eq!(seen, (0..=8).map(|done| (done, 8)).collect::<Vec<_>>());
        assert_eq!(model.repack(0, &mut |_, _| ()), Ok(0), "{format:?}: all that can be is");
        assert!(logits(&mut model) == wanted, "{format:?}");
        // Threads that keep to their node's rows.
        let pool = Pool::on(&Nodes::pretended(2), 4);
        let mut model = KimiK2::synthetic(&synthetic, pool, &mut |_, _| ()).unwrap();
        assert!(logits(&mut model) == wanted, "{format:?}, two nodes");
        model.repack(refused.needed, &mut |_, _| ()).unwrap();
        assert!(logits(&mut model) == wanted, "{format:?}, two nodes, rows side by side");
    }
}

fn check(folder: &Path, form: AttentionForm, precision: Precision) {
    let expected = Expected::of(folder);
    // Long prompts are for angles; bits are compared on what one quick pass reaches.
    let shortened = |name| expected.ids(name).into_iter().take(75).collect::<Vec<u32>>();
    let prompts = [shortened("input_ids"), shortened("input_ids_2")];
    let mut model = KimiK2 { precision, ..load(folder, 1) };
    let wanted = prompts.each_ref().map(|prompt| bits(&chunked(&model, form, prompt, prompt.len())));
    for threads in [1, 2, 3] {
        model = KimiK2 { precision, ..load(folder, threads) };
        let named = |what: String| format!("{}: {threads} threads: {what}", folder.display());
        for size in [1, 3, 32, 64] {
            let found = bits(&chunked(&model, form, &prompts[0], size));
            assert!(found == wanted[0], "{}", named(format!("chunks of {size}")));
            let (rows, found) = in_part(&model, form, &prompts[0], size);
            let vocab_size = model.config.vocab_size;
            let asked = rows.iter().flat_map(|row| &wanted[0][row * vocab_size..][..vocab_size]);
            assert!(bits(&found).iter().eq(asked), "{}", named(format!("some rows of chunks of {size}")));
        }
        for sizes in [[1, 5], [17, 2], [40, 33]] {
            let found = batched(&model, form, &prompts, sizes).map(|logits| bits(&logits));
            assert!(found == wanted, "{}", named(format!("together in chunks of {sizes:?}")));
        }
    }
}

/// Logits of a prompt alone in its batch.
fn chunked(model: &KimiK2, form: AttentionForm, prompt: &[u32], size: usize) -> Vec<f32> {
    let mut sequences = Sequences::new(model, 1, prompt.len());
    sequences.form = form;
    prompt.chunks(size).flat_map(|chunk| sequences.step(&[(0, chunk)], None)).collect()
}

/// Logits of a prompt whose chunks ask in turns for none, for those of their last row, and for all; and of which rows.
fn in_part(model: &KimiK2, form: AttentionForm, prompt: &[u32], size: usize) -> (Vec<usize>, Vec<f32>) {
    let mut sequences = Sequences::new(model, 1, prompt.len());
    sequences.form = form;
    let (mut rows, mut logits, mut end) = (Vec::new(), Vec::new(), 0);
    let turns = [LogitRows::None, LogitRows::Last, LogitRows::All].into_iter().cycle();
    for (chunk, asked) in prompt.chunks(size).zip(turns) {
        sequences.logits = asked;
        logits.extend(sequences.step(&[(0, chunk)], None));
        let begin = end;
        end += chunk.len();
        rows.extend(match asked {
            LogitRows::None => end..end,
            LogitRows::Last => end - 1..end,
            LogitRows::All => begin..end,
        });
    }
    (rows, logits)
}

/// Logits of two prompts that share batches until one ends, each in chunks of its own size.
fn batched(model: &KimiK2, form: AttentionForm, prompts: &[Vec<u32>; 2], sizes: [usize; 2]) -> [Vec<f32>; 2] {
    let longest = prompts.iter().map(Vec::len).max().unwrap();
    let mut sequences = Sequences::new(model, 2, longest);
    sequences.form = form;
    let mut chunks = [prompts[0].chunks(sizes[0]), prompts[1].chunks(sizes[1])];
    let mut logits = [Vec::new(), Vec::new()];
    loop {
        let next = chunks.each_mut().map(Iterator::next);
        let pieces: Vec<(usize, &[u32])> =
            next.iter().enumerate().filter_map(|(sequence, chunk)| Some((sequence, (*chunk)?))).collect();
        if pieces.is_empty() {
            return logits;
        }
        let step = sequences.step(&pieces, None);
        let mut rows = step.chunks(model.config.vocab_size);
        for (sequence, tokens) in pieces {
            logits[sequence].extend(rows.by_ref().take(tokens.len()).flatten());
        }
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}
