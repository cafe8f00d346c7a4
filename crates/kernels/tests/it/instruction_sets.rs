//! Every instruction set gives the same bits: the test starts itself once for each, by `K2_ISA`.

use k2_kernels::attention::{
    AttentionScratch, DecompressedShape, Decompression, HeadRows, Pages, Row, Run, Shape, attend,
    attend_decompressed,
};
use k2_kernels::exp::{exp, sigmoid, silu_mul};
use k2_kernels::isa::{Isa, isa};
use k2_kernels::matmul::{matmul_heads, matmul_heads_transposed};
use k2_kernels::rmsnorm::rmsnorm;
use k2_kernels::rope::rotate;
use k2_kernels::{Matrix, Pool, Precision};
use std::hash::{DefaultHasher, Hasher};
use std::process::Command;

use crate::coded_bf16::hostile as hostile_bf16;
use crate::fast::product as fast;
use crate::fp8::hostile;
use crate::interleaved::{FORMATS, rearranged};
use crate::matrices::{Format, coded};
use crate::random::Random;
use crate::stored::CacheFormat;

/// Marks the lines to be compared.
const MARK: &str = "bits: ";

/// How many matrices of broken FP8, and of BF16.
const HOSTILE: u64 = 20;

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let of = |isa: Isa| -> Vec<String> {
        let output = itself()
            .args([
                "--exact",
                "instruction_sets::bits_of_every_operation",
                "--include-ignored",
                "--nocapture",
            ])
            .env("K2_ISA", isa.name())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("on {}", isa.name())), "K2_ISA was not followed:\n{text}");
        text.lines().filter_map(|line| line.split_once(MARK)).map(|(_, line)| line.to_owned()).collect()
    };
    let want = of(Isa::Scalar);
    assert_eq!(want.len(), 8 * Format::all().len() + 5 * FORMATS.len() + 9 * HOSTILE as usize + 17);
    for isa in Isa::available() {
        for (found, want) in of(isa).iter().zip(&want) {
            assert_eq!(found, want, "{} differs from scalar", isa.name());
        }
    }
}

/// This program; with `K2_EMULATOR="qemu-aarch64 -cpu max …"` under that, as a program that an emulator runs cannot know of it.
fn itself() -> Command {
    let program = std::env::current_exe().unwrap();
    let Ok(emulator) = std::env::var("K2_EMULATOR") else { return Command::new(program) };
    let mut words = emulator.split_whitespace();
    let mut command = Command::new(words.next().expect("K2_EMULATOR names a program"));
    command.args(words).arg(program);
    command
}

/// Prints what `every_instruction_set_gives_the_same_bits` compares.
#[test]
fn bits_of_every_operation() {
    println!("\non {}", isa().name());
    for format in Format::all() {
        let w = format.matrix(&mut Random(1), 2 * 37, format.whole_columns(331));
        report(format!("{format:?} product"), &product(&w, 7));
        for tokens in [1, 7] {
            report(format!("{format:?} transposed product of {tokens} tokens"), &transposed(&w, tokens));
        }
        for tokens in [1, 3, 7, 27, 45] {
            let x = Random(11).floats(tokens * 2 * w.cols());
            let y = fast(&Pool::new(2), Precision::Fast, &w, 2, 4..37, &x);
            report(format!("{format:?} fast product of {tokens} tokens"), &y);
        }
    }
    for format in FORMATS {
        let w = rearranged(&format.matrix(&mut Random(1), 40, 512));
        for tokens in [1, 3, 7, 27, 45] {
            let y = fast(&Pool::new(2), Precision::Fast, &w, 1, 0..40, &Random(12).floats(tokens * 512));
            report(format!("{format:?} in panels, fast product of {tokens} tokens"), &y);
        }
    }
    for seed in 0..HOSTILE {
        let w = coded(&hostile_bf16(&mut Random(seed), 40, 4));
        for tokens in [1, 2, 3, 7] {
            let y = fast(&Pool::new(2), Precision::Fast, &w, 1, 0..40, &Random(15).floats(tokens * 512));
            report(format!("broken BF16 in twelve bits {seed}, product of {tokens} tokens"), &y);
        }
    }
    for seed in 0..HOSTILE {
        let w = hostile(&mut Random(seed), 2 * 37, 331);
        for tokens in [1, 3, 7] {
            report(format!("broken FP8 {seed}, product of {tokens} tokens"), &product(&w, tokens));
        }
        for tokens in [1, 7] {
            report(
                format!("broken FP8 {seed}, transposed product of {tokens} tokens"),
                &transposed(&w, tokens),
            );
        }
    }
    let integers = [96, 91, 75].map(|latent| CacheFormat::I16 { width: 96, latent });
    for format in [CacheFormat::F32, CacheFormat::Bf16, CacheFormat::Q8].into_iter().chain(integers) {
        for value_len in [90, 75] {
            if !matches!(format, CacheFormat::I16 { latent, .. } if latent < value_len) {
                report(
                    format!("attention over {format:?}, {value_len} values"),
                    &attention(format, value_len),
                );
            }
        }
    }
    report("decompressed attention", &decompressed_attention());
    report("rmsnorm", &{
        let (x, mut y) = (Random(2).floats(3 * 331), vec![0.0; 3 * 331]);
        rmsnorm(&x, &Random(3).floats(331), 1e-5, &mut y);
        y
    });
    let steps: Vec<f32> = (-1000..1000).map(|i| i as f32 * 0.1).collect();
    report("exp", &steps.iter().map(|x| exp(*x)).collect::<Vec<_>>());
    report("sigmoid", &steps.iter().map(|x| sigmoid(*x)).collect::<Vec<_>>());
    report("silu_mul", &{
        let mut gate = steps.clone();
        silu_mul(&mut gate, &Random(4).floats(steps.len()));
        gate
    });
    report("rotate", &{
        let mut channels = steps.clone();
        rotate(&mut channels, &Random(5).floats(1000), &Random(6).floats(1000));
        channels
    });
}

fn report(what: impl std::fmt::Display, numbers: &[f32]) {
    assert!(numbers.iter().any(|number| *number != 0.0), "{what} is nothing");
    let mut hasher = DefaultHasher::new();
    // A NaN may be any NaN: which one comes out of two is the processor's affair.
    let bits = |number: &f32| if number.is_nan() { f32::NAN.to_bits() } else { number.to_bits() };
    numbers.iter().for_each(|number| hasher.write_u32(bits(number)));
    println!("{MARK}{what} {:016x}", hasher.finish());
}

fn product(w: &Matrix, tokens: usize) -> Vec<f32> {
    let (x, mut y) = (Random(7).floats(tokens * 2 * w.cols()), vec![0.0; tokens * 2 * 33]);
    matmul_heads(&Pool::new(2), w, 2, 4..37, &x, &mut y);
    y
}

fn transposed(w: &Matrix, tokens: usize) -> Vec<f32> {
    let (x, mut y) = (Random(8).floats(tokens * 2 * 33), vec![0.0; tokens * 2 * w.cols()]);
    matmul_heads_transposed(&Pool::new(2), w, 2, 4..37, &x, &mut y);
    y
}

/// Thirteen heads are more than go together in any way of multiplying them.
fn attention(format: CacheFormat, value_len: usize) -> Vec<f32> {
    const HEADS: usize = 13;
    let (cache, query) = (format.store(&Random(9).floats(21 * 16 * 96)), Random(10).floats(2 * HEADS * 96));
    let pages = (0..21).map(|page| cache.page(page * 16 * 96, 16 * 96)).collect();
    let pages = Pages { pages, page_len: 16, width: 96, keys: 331 };
    let rows = [331, 75].map(|keys| Row { pages: &pages, keys });
    let shape = Shape { heads: HEADS, width: 96, value_len, scale: 0.7 };
    let mut out = vec![0.0; 2 * HEADS * value_len];
    attend(&Pool::new(2), &shape, &rows, &query, &mut AttentionScratch::default(), &mut out);
    out
}

fn decompressed_attention() -> Vec<f32> {
    let cache = CacheFormat::Bf16.store(&Random(12).floats(331 * 96));
    let query = Random(13).floats(40 * 3 * 33);
    let pages = Pages { pages: vec![cache.page(0, 331 * 96)], page_len: 331, width: 96, keys: 331 };
    let (heads, latent, key_len, shared_len, value_len) = (3, 64, 21, 12, 35);
    let shape = DecompressedShape { heads, latent, key_len, shared_len, value_len, scale: 0.7 };
    let w = &Format::Bf16.matrix(&mut Random(14), heads * (key_len + value_len), latent);
    let rows = |first| HeadRows { w, first, is_transposed: false };
    let weights = Decompression { keys: rows(0), values: rows(key_len) };
    let run = Run { pages: &pages, start: 291, count: 40, first_row: 0 };
    let mut out = vec![0.0; 40 * heads * value_len];
    attend_decompressed(&Pool::new(2), &shape, &weights, &[run], &query, &mut out);
    out
}
